//! The process driver with real processes: `sh` and `sleep`.

#![expect(
    clippy::print_stderr,
    reason = "skipped limits and latencies are for people"
)]

use drivers::{LogCursor, ProcessDriver, ProcessOptions, control_groups, read_log};
use kernel::{Bytes, ReplicaId};
use manifest::{Check, Limits};
use node::driver::{Driver, DriverEvent, Found, ReplicaSpec, Work};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use wire::shim::{Exit, Secrets};

const WAIT: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_secs(10);

struct Bench {
    home: tempfile::TempDir,
    driver: ProcessDriver,
    events: mpsc::UnboundedReceiver<DriverEvent>,
    cgroup_name: String,
}

impl Bench {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let name = home.path().file_name().expect("a name").to_string_lossy();
        let cgroup_name = format!("test{name}");
        let (driver, events) = driver(home.path(), &cgroup_name);
        Self {
            home,
            driver,
            events,
            cgroup_name,
        }
    }

    /// What a restarted agent does.
    fn reopen(&mut self) {
        (self.driver, self.events) = driver(self.home.path(), &self.cgroup_name);
    }

    fn directory(&self) -> PathBuf {
        self.home.path().join("replicas").join(id().to_string())
    }

    fn spec(&self, command: &[&str], limits: Limits) -> ReplicaSpec {
        ReplicaSpec {
            id: id(),
            work: Work::Process {
                command: command.iter().map(|word| (*word).to_owned()).collect(),
                directory: self.home.path().to_owned(),
            },
            environment: BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]),
            secrets: BTreeMap::new(),
            buckets: BTreeMap::new(),
            singleton: false,
            leased: false,
            limits,
        }
    }

    async fn prepare(&self, script: &str, limits: Limits) {
        let spec = self.spec(&["sh", "-c", script], limits);
        self.driver.prepare(&spec).await.expect("prepares");
    }

    async fn event(&mut self) -> DriverEvent {
        let event = tokio::time::timeout(WAIT, self.events.recv()).await;
        event.expect("an event in time").expect("a driver")
    }

    async fn started(&mut self) -> u32 {
        self.driver
            .start(&id(), Secrets::default())
            .await
            .expect("starts");
        match self.event().await {
            DriverEvent::Started { pid, .. } => pid,
            other => panic!("not started: {other:?}"),
        }
    }

    async fn exited(&mut self) -> Exit {
        match self.event().await {
            DriverEvent::Exited { exit, .. } => exit,
            other => panic!("not exited: {other:?}"),
        }
    }

    async fn run(&mut self, script: &str) -> Exit {
        self.prepare(script, Limits::default()).await;
        self.started().await;
        self.exited().await
    }

    fn texts(&self) -> Vec<String> {
        let (lines, _) = read_log(&self.directory(), usize::MAX).expect("reads");
        lines.into_iter().map(|line| line.text).collect()
    }

    /// Stops and removes the replica, its shim and its groups.
    async fn clear(mut self) {
        let state = self.driver.adopt().await.expect("adopts");
        if let Some(Found::Running(_)) = state.first().map(|found| &found.state) {
            self.driver
                .stop(&id(), Duration::ZERO)
                .await
                .expect("stops");
            self.exited().await;
        }
        self.driver.remove(&id()).await.expect("removes");
        for hierarchy in control_groups().hierarchies {
            let ours = hierarchy.mount.join("homeostat").join(&self.cgroup_name);
            assert!(
                !ours.join(id().to_string()).exists(),
                "{} is left",
                ours.display()
            );
            let _ = std::fs::remove_dir(ours);
        }
    }
}

fn driver(home: &Path, name: &str) -> (ProcessDriver, mpsc::UnboundedReceiver<DriverEvent>) {
    let (sender, events) = mpsc::unbounded_channel();
    let options = ProcessOptions {
        directory: home.join("replicas"),
        run_directory: home.join("run"),
        shim_command: vec![env!("CARGO_BIN_EXE_drivers-shim").into()],
        cgroup_name: name.to_owned(),
    };
    let tell = Arc::new(move |event| drop(sender.send(event)));
    (ProcessDriver::new(options, tell).expect("a driver"), events)
}

fn id() -> ReplicaId {
    "test.web-g1-0".parse().expect("an id")
}

fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < WAIT, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether the limit can be kept here; says so when not.
fn limits(controller: &str) -> bool {
    let groups = control_groups();
    if !groups.limits(controller) {
        eprintln!("SKIPPED: no writable `{controller}` control group here ({groups})");
    }
    groups.limits(controller)
}

#[tokio::test]
async fn exit_codes_and_signals_are_told() {
    let mut bench = Bench::new();
    assert_eq!(bench.run("exit 7").await, Exit::Code(7));
    assert_eq!(bench.run("exit 0").await, Exit::Code(0));
    assert_eq!(bench.run("kill -9 $$").await, Exit::Signal(9));
    bench.clear().await;
}

/// Whether any file below holds the text.
fn holds(directory: &Path, text: &str) -> bool {
    let entries = std::fs::read_dir(directory).expect("lists");
    entries.map(|entry| entry.expect("an entry")).any(|entry| {
        match entry.file_type().expect("a type") {
            kind if kind.is_dir() => holds(&entry.path(), text),
            kind if kind.is_file() => {
                let bytes = std::fs::read(entry.path()).expect("reads");
                String::from_utf8_lossy(&bytes).contains(text)
            }
            _ => false,
        }
    })
}

#[tokio::test]
async fn secrets_are_in_the_replicas_environment_for_one_start_and_in_no_file() {
    let mut bench = Bench::new();
    // Whether it is there, and the limits of what a crash would leave.
    let script =
        "[ \"$TOKEN\" = very'-hidden' ] && echo told $(ulimit -Sc) $(ulimit -Hc) || echo bare";
    bench.prepare(script, Limits::default()).await;
    let secrets = Secrets([("TOKEN".to_owned(), "very-hidden".to_owned())].into());
    bench.driver.start(&id(), secrets).await.expect("starts");
    let DriverEvent::Started { .. } = bench.event().await else {
        panic!("not started");
    };
    assert_eq!(bench.exited().await, Exit::Code(0));
    bench.started().await;
    bench.exited().await;
    assert_eq!(bench.texts(), ["told 0 0", "bare"]);
    assert!(holds(bench.home.path(), "told 0 0"), "it looks into files");
    assert!(!holds(bench.home.path(), "very-hidden"));
    bench.clear().await;
}

#[tokio::test]
async fn a_command_that_cannot_run_is_a_failed_start() {
    let mut bench = Bench::new();
    let spec = bench.spec(&["/nonexistent/program"], Limits::default());
    bench.driver.prepare(&spec).await.expect("prepares");
    bench
        .driver
        .start(&id(), Secrets::default())
        .await
        .expect("asks");
    let DriverEvent::StartFailed { why, .. } = bench.event().await else {
        panic!("it started");
    };
    assert!(why.contains("/nonexistent/program"), "{why}");
    let spec = bench.spec(&["true"], Limits::default());
    bench.driver.prepare(&spec).await.expect("prepares");
    bench.started().await;
    assert_eq!(bench.exited().await, Exit::Code(0));
    bench.clear().await;
}

#[tokio::test]
async fn output_and_environment_arrive_in_the_log() {
    let mut bench = Bench::new();
    bench
        .run("echo $GREETING $HOST:$PORT; echo oops >&2; printf end")
        .await;
    let (lines, _) = read_log(&bench.directory(), 10).expect("reads");
    let out: Vec<_> = lines.iter().filter(|line| line.stream == "out").collect();
    assert!(out[0].text.starts_with("hello 127.0.0.1:"), "{out:?}");
    assert_eq!(out[1].text, "end");
    let err = lines
        .iter()
        .find(|line| line.stream == "err")
        .expect("a line");
    assert_eq!(
        (err.text.as_str(), err.replica.as_str()),
        ("oops", "test.web-g1-0")
    );
    bench.clear().await;
}

#[tokio::test]
async fn much_output_is_all_there_and_can_be_followed() {
    let mut bench = Bench::new();
    bench.prepare("seq 1 200000", Limits::default()).await;
    let mut cursor = LogCursor::oldest(&bench.directory());
    bench.started().await;
    assert_eq!(bench.exited().await, Exit::Code(0));
    let mut followed = 0;
    loop {
        let lines = cursor.next_lines().expect("reads");
        if lines.is_empty() {
            break;
        }
        followed += lines.len();
    }
    assert_eq!(followed, 200_000);
    assert_eq!(bench.texts().last().expect("a line"), "200000");
    bench.clear().await;
}

#[tokio::test]
async fn restarts_are_quick_and_reuse_the_shim() {
    let mut bench = Bench::new();
    bench.prepare("exec sleep 1000", Limits::default()).await;
    let mut took = Vec::new();
    for round in 0..20 {
        let pid = bench.started().await;
        let pid = i32::try_from(pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::KILL)
            .expect("kills");
        let DriverEvent::Exited { exit, at, .. } = bench.event().await else {
            panic!("round {round}: not exited");
        };
        assert_eq!(exit, Exit::Signal(9));
        bench
            .driver
            .start(&id(), Secrets::default())
            .await
            .expect("starts");
        let DriverEvent::Started { at: again, .. } = bench.event().await else {
            panic!("round {round}: not started");
        };
        took.push(again.since(at));
        bench.driver.stop(&id(), GRACE).await.expect("stops");
        assert_eq!(bench.exited().await, Exit::Signal(15));
    }
    took.sort();
    eprintln!(
        "exit to started: median {:?}, worst {:?}",
        took[10], took[19]
    );
    assert!(took[10] < Duration::from_millis(100), "{took:?}");
    bench.clear().await;
}

#[tokio::test]
async fn a_stubborn_replica_is_killed_after_the_grace() {
    let mut bench = Bench::new();
    let script = "trap '' TERM; sleep 1000 & echo $!; while :; do sleep 1; done";
    bench.prepare(script, Limits::default()).await;
    let pid = bench.started().await;
    let directory = bench.directory();
    eventually("the child is known", || {
        read_log(&directory, 1).is_ok_and(|(lines, _)| !lines.is_empty())
    })
    .await;
    let child: u32 = bench.texts()[0].parse().expect("a pid");
    let begun = Instant::now();
    let grace = Duration::from_millis(300);
    bench.driver.stop(&id(), grace).await.expect("stops");
    assert_eq!(bench.exited().await, Exit::Signal(9));
    assert!(begun.elapsed() >= grace);
    eventually("all dead", || !alive(pid) && !alive(child)).await;
    bench.clear().await;
}

#[tokio::test]
async fn a_replica_over_its_memory_is_out_of_memory() {
    if !limits("memory") {
        return;
    }
    let mut bench = Bench::new();
    let limits = Limits {
        memory: Some(Bytes::mebibytes(16)),
        ..Limits::default()
    };
    // One line without an end: `tail` must keep all of it.
    bench.prepare("exec tail /dev/zero", limits).await;
    bench.started().await;
    assert_eq!(bench.exited().await, Exit::OutOfMemory);
    bench.clear().await;
}

#[tokio::test]
async fn processes_are_limited_and_counted() {
    if !limits("pids") {
        return;
    }
    let mut bench = Bench::new();
    let limits = Limits {
        processes: Some(3),
        open_files: Some(64),
        ..Limits::default()
    };
    let script = "ulimit -n; sleep 1000 & sleep 1000 & sleep 1000 & wait";
    bench.prepare(script, limits).await;
    bench.started().await;
    let directory = bench.directory();
    eventually("a fork is refused", || {
        let lines = read_log(&directory, 9)
            .map(|(lines, _)| lines)
            .unwrap_or_default();
        lines
            .iter()
            .any(|line| line.stream == "err" && line.text.contains("ork"))
    })
    .await;
    assert_eq!(bench.texts()[0], "64");
    bench.clear().await;
}

#[tokio::test]
async fn a_new_driver_adopts_the_living_and_learns_a_missed_exit() {
    let mut bench = Bench::new();
    let script = "echo here; while ! [ -e go ]; do sleep 0.05; done; exit 3";
    bench.prepare(script, Limits::default()).await;
    let pid = bench.started().await;
    bench.reopen();
    let adopted = bench.driver.adopt().await.expect("adopts");
    assert!(
        matches!(&adopted[0].state, Found::Running(found) if found.pid == pid),
        "{adopted:?}"
    );
    assert!(
        bench
            .driver
            .stats(&id())
            .await
            .expect("stats")
            .memory
            .is_some()
    );
    bench.reopen();
    std::fs::write(bench.home.path().join("go"), "").expect("writes");
    eventually("it ends", || !alive(pid)).await;
    let adopted = bench.driver.adopt().await.expect("adopts");
    if matches!(adopted[0].state, Found::Running(_)) {
        // The shim had not collected it yet; then the event follows.
        assert_eq!(bench.exited().await, Exit::Code(3));
    } else {
        let exit = Exit::Code(3);
        assert!(adopted[0].state == Found::Ended(Some(exit)));
    }
    bench.clear().await;
}

fn kill_shim(directory: &Path) {
    let state = std::fs::read(directory.join("state.json")).expect("a state");
    let state: serde_json::Value = serde_json::from_slice(&state).expect("JSON");
    let pid = state["shim"]["pid"].as_i64().expect("a pid");
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::KILL)
        .expect("kills");
}

#[tokio::test]
async fn a_killed_shim_is_an_unknown_exit_without_orphans() {
    let mut bench = Bench::new();
    bench.prepare("sleep 1000 & wait", Limits::default()).await;
    let pid = bench.started().await;
    kill_shim(&bench.directory());
    assert_eq!(bench.exited().await, Exit::Unknown);
    eventually("no orphan", || !alive(pid)).await;
    // A new shim is made for the next run.
    bench.started().await;
    bench.clear().await;
}

#[tokio::test]
async fn a_shim_killed_while_nobody_looked_is_adopted_as_unknown() {
    let mut bench = Bench::new();
    bench.prepare("exec sleep 1000", Limits::default()).await;
    let pid = bench.started().await;
    bench.reopen();
    kill_shim(&bench.directory());
    eventually("the replica ends with its shim", || !alive(pid)).await;
    let adopted = bench.driver.adopt().await.expect("adopts");
    let unknown = Exit::Unknown;
    assert!(adopted[0].state == Found::Ended(Some(unknown)));
    bench.started().await;
    bench.clear().await;
}

fn boot_time() -> kernel::Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).expect("after the start");
    kernel::Time(seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).expect("small"))
}

#[tokio::test]
async fn a_leased_replica_ends_with_its_lease_though_nobody_is_there() {
    let mut home = Bench::new();
    let leased = ReplicaSpec {
        leased: true,
        // Its children end with it.
        ..home.spec(&["sh", "-c", "sleep 60 & wait"], Limits::default())
    };
    home.driver.prepare(&leased).await.expect("prepares");
    home.driver
        .start(&id(), Secrets::default())
        .await
        .expect("is asked");
    let DriverEvent::StartFailed { why, .. } = home.event().await else {
        panic!("it runs without a lease");
    };
    assert!(why.contains("lease"), "{why}");
    let until = boot_time() + Duration::from_secs(2);
    home.driver.lease(&id().service, until).await;
    home.driver
        .start(&id(), Secrets::default())
        .await
        .expect("is asked");
    let pid = home.started().await;
    // As after a kill of the agent: the shim is alone with it.
    home.reopen();
    eventually("its end", || !alive(pid)).await;
    assert!(boot_time() >= until, "it had a lease");
    let found = home.driver.adopt().await.expect("adopts");
    let exit = match &found[0].state {
        Found::Ended(exit) => exit.expect("it is known"),
        // Its shim is about to say so.
        Found::Running(_) => home.exited().await,
    };
    assert_eq!(exit, Exit::Signal(9));
    home.clear().await;
}

#[tokio::test]
async fn probes_tell_health_refusal_and_silence() {
    let bench = Bench::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("binds");
    let address = listener.local_addr().expect("an address");
    let timeout = Duration::from_millis(200);
    let silent = bench
        .driver
        .probe(address, &Check::Http("/".to_owned()), timeout)
        .await;
    assert_eq!(
        (silent.healthy, silent.detail.as_str()),
        (false, "no answer within 200ms")
    );
    assert!(
        bench
            .driver
            .probe(address, &Check::Tcp, timeout)
            .await
            .healthy
    );
    drop(listener);
    let refused = bench.driver.probe(address, &Check::Tcp, timeout).await;
    assert_eq!(
        (refused.healthy, refused.detail.as_str()),
        (false, "connection refused")
    );
}
