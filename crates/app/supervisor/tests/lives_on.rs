//! Children are restarted, a killed supervisor's successor takes over, and
//! clients' connections are accepted throughout.
//!
//! This program also plays the supervisor and its children: see [`role`].

use ipc::{Connection, Listener, connect};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child as Started, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use supervisor::Options;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use wire::edge::{FromEdge, ToEdge};
use wire::layout::Layout;
use wire::supervise::release::Release;
use wire::supervise::{Child, ChildStatus, FromSupervisor, SupervisorStatus, ToSupervisor};

const BOUND: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(5);
const ANY: &str = "127.0.0.1:0";

#[tokio::test]
async fn a_killed_child_is_replaced_and_no_connection_is_refused() {
    let node = Node::new();
    let _supervisor = node.supervise(ANY);
    let first = node.status().await;
    let client = Client::of(first.http.expect("address"));
    for child in [Child::Edge, Child::Agent] {
        kill(of(&first, child).pid);
    }
    let next = node
        .status_where(|status| {
            [Child::Edge, Child::Agent].into_iter().all(|child| {
                let found = of(status, child);
                found.pid != of(&first, child).pid && found.restarts == 1
            })
        })
        .await;
    client.served_by(of(&next, Child::Edge).pid);
    let (served, failed) = client.stop();
    // Only what the killed edge had in its hands may be lost.
    assert!(
        served > 0 && failed <= 1,
        "{served} served, {failed} failed"
    );
}

#[tokio::test]
async fn a_killed_supervisor_leaves_all_running_and_its_successor_takes_over() {
    let node = Node::new();
    let mut supervisor = node.supervise(ANY);
    let before = node.status().await;
    let client = Client::of(before.http.expect("address"));
    client.served_by(of(&before, Child::Edge).pid);
    supervisor.kill();
    let _successor = node.supervise(ANY);
    let after = node.status().await;
    assert_ne!(after.pid, before.pid);
    assert_eq!((after.http, after.https), (before.http, before.https));
    for child in [Child::Agent, Child::Edge] {
        assert_eq!(of(&after, child).pid, of(&before, child).pid);
        assert!(of(&after, child).adopted);
    }
    let (served, failed) = client.stop();
    assert!(
        served > 0 && failed == 0,
        "{served} served, {failed} failed"
    );
    // What is not its own child is still replaced when it dies.
    kill(of(&after, Child::Edge).pid);
    let last = node
        .status_where(|status| of(status, Child::Edge).pid != of(&after, Child::Edge).pid)
        .await;
    Client::of(before.http.expect("address")).served_by(of(&last, Child::Edge).pid);
}

#[tokio::test]
async fn an_adopted_edge_is_replaced_when_another_address_is_wanted() {
    let node = Node::new();
    let mut supervisor = node.supervise(ANY);
    let before = node.status().await;
    supervisor.kill();
    let _successor = node.supervise("127.0.0.2:0");
    let after = node
        .status_where(|status| of(status, Child::Edge).pid != of(&before, Child::Edge).pid)
        .await;
    assert_ne!(after.http, before.http);
    Client::of(after.http.expect("address")).served_by(of(&after, Child::Edge).pid);
}

#[tokio::test]
async fn a_restarted_edge_takes_over_without_losing_a_connection() {
    let node = Node::new();
    let _supervisor = node.supervise(ANY);
    let before = node.status().await;
    let client = Client::of(before.http.expect("address"));
    client.served_by(of(&before, Child::Edge).pid);
    let answer = node.ask(ToSupervisor::Restart(Child::Edge)).await;
    assert_eq!(answer, FromSupervisor::Done);
    let after = node.status().await;
    assert_ne!(of(&after, Child::Edge).pid, of(&before, Child::Edge).pid);
    client.served_by(of(&after, Child::Edge).pid);
    let (served, failed) = client.stop();
    assert!(
        served > 0 && failed == 0,
        "{served} served, {failed} failed"
    );
}

#[tokio::test]
async fn a_restarted_agent_is_another_process() {
    let node = Node::new();
    let _supervisor = node.supervise(ANY);
    let before = node.status().await;
    let answer = node.ask(ToSupervisor::Restart(Child::Agent)).await;
    assert_eq!(answer, FromSupervisor::Done);
    let after = node.status().await;
    assert_ne!(of(&after, Child::Agent).pid, of(&before, Child::Agent).pid);
}

#[tokio::test]
async fn a_second_supervisor_on_the_same_directory_is_refused() {
    let node = Node::new();
    let _supervisor = node.supervise(ANY);
    let before = node.status().await;
    let mut second = node.supervise(ANY);
    assert!(!second.0.wait().expect("ends").success());
    let mut said = String::new();
    let mut pipe = second.0.stderr.take().expect("piped");
    pipe.read_to_string(&mut said).expect("reads");
    assert!(said.contains("runs already"), "{said}");
    assert_eq!(node.status().await, before);
}

#[tokio::test]
async fn going_down_ends_both_children_and_removes_the_sockets() {
    let node = Node::new();
    let mut supervisor = node.supervise(ANY);
    let before = node.status().await;
    assert_eq!(node.ask(ToSupervisor::Shutdown).await, FromSupervisor::Done);
    assert!(supervisor.0.wait().expect("ends").success());
    for child in [Child::Agent, Child::Edge] {
        let pid = of(&before, child).pid;
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
    assert!(!node.layout.supervisor_socket().exists());
    assert!(!node.layout.edge_socket().exists());
}

fn of(status: &SupervisorStatus, child: Child) -> ChildStatus {
    let found = match child {
        Child::Agent => &status.agent,
        Child::Edge => &status.edge,
    };
    found.clone().unwrap_or(ChildStatus {
        pid: 0,
        adopted: false,
        restarts: 0,
    })
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.try_into().expect("number")).expect("pid");
    kill_process(pid, Signal::KILL).expect("kills");
}

struct Node {
    layout: Layout,
    folder: TempDir,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let text = format!(
            "#!/bin/sh\nHOMEOSTAT_ROLE=$1 HOMEOSTAT_ROOT=$3 exec '{}' role --exact --nocapture\n",
            std::env::current_exe().expect("program").display()
        );
        // Another test that forks must not hold the script open for writing.
        let written = Command::new("sh")
            .args(["-c", "printf %s \"$1\" >\"$2\" && chmod +x \"$2\"", "sh"])
            .args([&text, &*folder.path().join("program").to_string_lossy()])
            .status();
        assert!(written.expect("runs").success());
        let layout = Layout::new(folder.path().join("data"));
        Self { layout, folder }
    }

    fn supervise(&self, http: &str) -> Supervisor {
        let started = Command::new(std::env::current_exe().expect("program"))
            .args(["role", "--exact", "--nocapture"])
            .env("HOMEOSTAT_ROLE", "supervisor")
            .env("HOMEOSTAT_ROOT", &self.layout.root)
            .env("HOMEOSTAT_HTTP", http)
            .env("HOMEOSTAT_PROGRAM", self.folder.path().join("program"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        Supervisor(started.expect("starts"))
    }

    async fn ask(&self, request: ToSupervisor) -> FromSupervisor {
        let path = self.layout.supervisor_socket();
        let mut connection = connect(&path).await.expect("connects");
        connection.send(&request).await.expect("sends");
        let answer = connection.receive().await.expect("reads");
        answer.expect("an answer").0
    }

    /// Once both children are in place and ready.
    async fn status(&self) -> SupervisorStatus {
        self.status_where(|_| true).await
    }

    async fn status_where(&self, holds: impl Fn(&SupervisorStatus) -> bool) -> SupervisorStatus {
        let deadline = Instant::now() + BOUND;
        loop {
            assert!(Instant::now() < deadline, "not in time");
            if connect(&self.layout.supervisor_socket()).await.is_ok()
                && let FromSupervisor::Status(status) = self.ask(ToSupervisor::Status).await
                && status.agent.is_some()
                && status.edge.is_some()
                && holds(&status)
                && self.is_ready(&status).await
            {
                return status;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn is_ready(&self, status: &SupervisorStatus) -> bool {
        let agent = format!("\"pid\":{},", of(status, Child::Agent).pid);
        let ready = std::fs::read_to_string(self.layout.agent_pid())
            .is_ok_and(|text| text.contains(&agent));
        let hello = FromEdge::Hello {
            pid: of(status, Child::Edge).pid,
        };
        match connect(&self.layout.edge_socket()).await {
            Ok(mut edge) if ready => {
                matches!(edge.receive::<FromEdge>().await, Ok(Some((found, _))) if found == hello)
            }
            _ => false,
        }
    }
}

struct Supervisor(Started);

impl Supervisor {
    fn kill(&mut self) {
        self.0.kill().expect("kills");
        self.0.wait().expect("reaped");
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Connects again and again, and counts.
struct Client {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, u64)>,
}

impl Client {
    fn of(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut served, mut failed) = (0, 0);
            while !stopped.load(Ordering::Relaxed) {
                match request(address) {
                    Some(_) => served += 1,
                    None => failed += 1,
                }
            }
            (served, failed)
        });
        Self {
            address,
            stop,
            thread,
        }
    }

    fn served_by(&self, pid: u32) {
        let deadline = Instant::now() + BOUND;
        while request(self.address) != Some(pid) {
            assert!(Instant::now() < deadline, "not in time");
        }
    }

    fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("ends")
    }
}

/// Who answered.
fn request(address: SocketAddr) -> Option<u32> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(BOUND)).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.parse().ok()
}

/// Not a test: what this program does when it is started as a part of a node.
#[test]
fn role() {
    let Ok(role) = std::env::var("HOMEOSTAT_ROLE") else {
        return;
    };
    let layout = Layout::new(std::env::var_os("HOMEOSTAT_ROOT").expect("root"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let code = runtime.block_on(async {
        match role.as_str() {
            "supervisor" => play_supervisor(&layout).await,
            "agent" => play_agent(&layout).await,
            _ => play_edge(&layout).await,
        }
    });
    std::process::exit(code);
}

async fn play_supervisor(layout: &Layout) -> i32 {
    let outcome = supervisor::run(Options {
        data_directory: layout.root.clone(),
        http: std::env::var("HOMEOSTAT_HTTP")
            .expect("address")
            .parse()
            .expect("address"),
        https: ANY.parse().expect("address"),
        program: std::env::var_os("HOMEOSTAT_PROGRAM")
            .expect("program")
            .into(),
        agent_arguments: Vec::new(),
        edge_arguments: Vec::new(),
        release: Release::of("1", &(1..=2)),
        succession: None,
    })
    .await;
    match outcome {
        Ok(_) => 0,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            1
        }
    }
}

/// Ends with its test's directory, so that nothing outlives the tests.
async fn gone(layout: &Layout) {
    while layout.version().exists() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn play_agent(layout: &Layout) -> i32 {
    let _lock = ipc::lock_file(&layout.agent_lock()).expect("one agent");
    ipc::write_pid_file(&layout.agent_pid()).expect("writes");
    gone(layout).await;
    0
}

/// Answers each connection with its process number.
async fn play_edge(layout: &Layout) -> i32 {
    let mut terminate = signal(SignalKind::terminate()).expect("signals");
    let mut supervisor = connect(&layout.supervisor_socket())
        .await
        .expect("connects");
    let take = ToSupervisor::TakeListeners;
    supervisor.send(&take).await.expect("sends");
    let answer = supervisor.receive::<FromSupervisor>().await;
    let (answer, descriptors) = answer.expect("reads").expect("answers");
    let FromSupervisor::Listeners(names) = answer else {
        return 1;
    };
    let descriptors = Arc::new(descriptors);
    let http = descriptors[0].try_clone().expect("clones");
    let http = std::net::TcpListener::from(http);
    let http = tokio::net::TcpListener::from_std(http).expect("listener");
    let socket = Listener::replace(&layout.edge_socket()).expect("binds");
    loop {
        tokio::select! {
            _ = terminate.recv() => return 0,
            () = gone(layout) => return 0,
            accepted = http.accept() => {
                if let Ok((stream, _)) = accepted
                    && let Ok(mut stream) = stream.into_std()
                {
                    let _ = stream.write_all(std::process::id().to_string().as_bytes());
                }
            }
            accepted = socket.accept() => {
                if let Ok(connection) = accepted {
                    let (names, descriptors) = (names.clone(), Arc::clone(&descriptors));
                    tokio::spawn(answer_as_edge(connection, names, descriptors));
                }
            }
        }
    }
}

async fn answer_as_edge(
    mut connection: Connection,
    names: Vec<wire::supervise::ListenerName>,
    descriptors: Arc<Vec<OwnedFd>>,
) {
    use std::os::fd::AsFd;
    let pid = std::process::id();
    let _ = connection.send(&FromEdge::Hello { pid }).await;
    while let Ok(Some((message, _))) = connection.receive::<ToEdge>().await {
        if message == ToEdge::TakeListeners {
            let beside: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            let answer = FromEdge::Listeners(names.clone());
            let _ = connection.send_with_descriptors(&answer, &beside).await;
        }
    }
}
