//! `homeostat worker` as its node meets it: a process that listens, answers,
//! prints, and stops when told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

struct Home {
    directory: tempfile::TempDir,
}

struct Worker {
    child: Child,
    address: SocketAddr,
    lines: Receiver<String>,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, kind: &str, module: &[u8], more: &[&str]) -> (Command, SocketAddr) {
        let file = self.path("module.wasm");
        std::fs::write(&file, module).expect("a module");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut command = Command::new(env!("CARGO_BIN_EXE_homeostat"));
        command
            .env_clear()
            .env("HOST", "127.0.0.1")
            .env("PORT", address.port().to_string())
            .env("GREETING", "good day")
            .env("HOMEOSTAT_CAPABILITY", "not for guests")
            .args(["worker", "--kind", kind, "--service", "test"])
            .arg("--module")
            .arg(file)
            .arg("--cache")
            .arg(self.path("compiled"))
            .arg("--state")
            .arg(self.path("state"))
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        (command, address)
    }

    /// Listening.
    fn worker(&self, kind: &str, module: &[u8], more: &[&str]) -> Worker {
        let (mut command, address) = self.command(kind, module, more);
        let mut child = command.spawn().expect("starts");
        let (give, lines) = channel();
        let out = child.stdout.take().expect("an output");
        let error = child.stderr.take().expect("an output");
        let gives = give.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = gives.send(line);
            }
        });
        std::thread::spawn(move || {
            for line in BufReader::new(error).lines().map_while(Result::ok) {
                let _ = give.send(line);
            }
        });
        until("the worker", || TcpStream::connect(address).ok());
        Worker {
            child,
            address,
            lines,
        }
    }
}

impl Worker {
    fn begin(&self, path: &str, agent: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nuser-agent: {agent}\r\nconnection: close\r\n\r\n"
        )
        .expect("sent");
        stream
    }

    /// Status and body.
    fn get(&self, path: &str) -> (u16, String) {
        finish(self.begin(path, "test"))
    }

    fn says(&self, part: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("a line");
            if line.contains(part) {
                return line;
            }
        }
    }

    fn terminate(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.expect("kill runs").success());
    }

    fn end(&mut self) -> ExitStatus {
        until("the worker's end", || self.child.try_wait().expect("waits"))
    }

    fn stop(mut self) {
        self.terminate();
        assert_eq!(self.end().code(), Some(0));
    }

    fn kill(mut self) {
        self.child.kill().expect("killed");
        self.end();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn finish(mut stream: TcpStream) -> (u16, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status");
    let body = if head.contains("transfer-encoding: chunked") {
        unchunked(body)
    } else {
        body.to_owned()
    };
    (status.parse().expect("a number"), body)
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((length, chunk)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("a length");
        body.push_str(&chunk[..length]);
        rest = &chunk[length + 2..];
    }
    body
}

/// Counts its requests: a digit. At `/wait` it says so and takes 300 ms, at
/// `/events` it subscribes, at `/trap` it ends.
fn counter() -> Vec<u8> {
    let path = |letter: char| {
        format!(
            "(i32.eq (i32.load8_u (i32.add (local.get $at) (i32.const 14))) (i32.const {}))",
            u32::from(letter)
        )
    };
    let text = format!(
        r#"(module
        (import "homeostat" "log" (func $log (param i32 i32 i32)))
        (import "homeostat" "clock_monotonic" (func $now (result i64)))
        (memory (export "memory") 2)
        (data (i32.const 16) "\01\00\c8\00\00\00\00\00\01\00\00\000")
        (data (i32.const 512) "\01\01\01\00\00\00c\00\00\00\00")
        (data (i32.const 600) "begun")
        (func (export "alloc") (param i32) (result i32) (i32.const 65536))
        (func (export "handle") (param $at i32) (param $length i32) (result i64)
            (local $end i64)
            (if (i32.load8_u (i32.add (local.get $at) (i32.const 1)))
                (then (return (i64.const 0))))
            (if {trap} (then unreachable))
            (i32.store8 (i32.const 28) (i32.add (i32.const 1) (i32.load8_u (i32.const 28))))
            (if {wait} (then
                (call $log (i32.const 2) (i32.const 600) (i32.const 5))
                (local.set $end (i64.add (call $now) (i64.const 300000000)))
                (loop $again (br_if $again (i64.lt_u (call $now) (local.get $end))))))
            (if {events} (then (return (i64.const {subscribe}))))
            (i64.const {answer})))"#,
        trap = path('t'),
        wait = path('w'),
        events = path('e'),
        subscribe = (512_u64 << 32) + 11,
        answer = (16_u64 << 32) + 13,
    );
    wat::parse_str(text).expect("a module")
}

fn file(home: &Home) -> PathBuf {
    home.path("state").join("actor.checkpoint")
}

#[test]
fn an_actor_answers_is_put_away_at_a_stop_and_goes_on_after_it() {
    let home = Home::new();
    for round in 0..3 {
        let worker = home.worker("actor", &counter(), &[]);
        for count in 1..=2 {
            let expected = (round * 2 + count).to_string();
            assert_eq!(worker.get("/"), (200, expected));
        }
        worker.stop();
        let mode = std::fs::metadata(file(&home))
            .expect("a file")
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }
}

#[test]
fn what_was_put_away_survives_a_killed_worker() {
    let home = Home::new();
    let idle = ["--idle", "1ms"];
    let worker = home.worker("actor", &counter(), &idle);
    assert_eq!(worker.get("/"), (200, "1".to_owned()));
    until("the file", || file(&home).exists().then_some(()));
    worker.kill();
    let worker = home.worker("actor", &counter(), &idle);
    assert_eq!(worker.get("/"), (200, "2".to_owned()));
    // What runs is in memory alone: it goes with the worker.
    drop(worker);
}

#[test]
fn what_is_in_flight_at_a_stop_is_answered_and_streams_end() {
    let home = Home::new();
    let mut worker = home.worker("actor", &counter(), &[]);
    let mut events = BufReader::new(worker.begin("/events", "test"));
    let mut line = String::new();
    while !line.starts_with("retry") {
        line.clear();
        events.read_line(&mut line).expect("a stream");
    }
    let waiting = worker.begin("/wait", "test");
    assert!(worker.says("begun").contains("info: begun"));
    worker.terminate();
    assert_eq!(finish(waiting), (200, "2".to_owned()));
    let mut rest = String::new();
    events.read_to_string(&mut rest).expect("the stream's end");
    assert!(rest.ends_with("0\r\n\r\n"), "cut off: {rest:?}");
    assert_eq!(worker.end().code(), Some(0));
}

#[test]
fn the_next_worker_waits_until_the_one_before_has_put_its_actor_away() {
    let home = Home::new();
    let before = home.worker("actor", &counter(), &[]);
    assert_eq!(before.get("/"), (200, "1".to_owned()));
    let next = home.worker("actor", &counter(), &[]);
    next.says("waits until");
    // Its node may take it for ready meanwhile.
    let probed = finish(next.begin("/", "homeostat-probe"));
    assert_eq!(probed, (200, "OK\n".to_owned()));
    let waiting = next.begin("/", "test");
    assert_eq!(before.get("/"), (200, "2".to_owned()));
    before.stop();
    assert_eq!(finish(waiting), (200, "3".to_owned()));
}

#[test]
fn a_worker_that_waits_stops_when_told_to() {
    let home = Home::new();
    let before = home.worker("actor", &counter(), &[]);
    assert_eq!(before.get("/"), (200, "1".to_owned()));
    let next = home.worker("actor", &counter(), &[]);
    let waiting = next.begin("/", "test");
    next.says("waits until");
    next.stop();
    drop(waiting);
    assert_eq!(before.get("/"), (200, "2".to_owned()));
}

#[test]
fn what_an_actor_does_wrong_is_in_the_log_and_not_in_the_answer() {
    let home = Home::new();
    let worker = home.worker("actor", &counter(), &["--time", "100ms"]);
    let (status, body) = worker.get("/trap");
    assert_eq!((status, &*body), (502, "Bad Gateway\n"));
    assert!(worker.says("an actor was ended").contains("unreachable"));
    assert_eq!(worker.get("/wait").0, 504);
    let line = worker.says("an actor was ended");
    assert!(line.contains("longer than 100ms"), "{line}");
    assert_eq!(worker.get("/"), (200, "1".to_owned()));
}

#[test]
fn bodies_beyond_the_limit_are_refused() {
    let home = Home::new();
    let worker = home.worker("actor", &counter(), &[]);
    let mut stream = TcpStream::connect(worker.address).expect("connects");
    let head = "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 1048577\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("sent");
    let _ = stream.write_all(&vec![b'x'; 1_048_577]);
    let mut status = [0; 12];
    stream.read_exact(&mut status).expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 413");
    assert_eq!(worker.get("/"), (200, "1".to_owned()));
}

#[test]
fn a_component_runs_in_a_worker_with_its_limits_and_its_environment() {
    let home = Home::new();
    let worker = home.worker("component", guests::PROBE, &["--time", "500ms"]);
    let greeting = worker.get("/environment?GREETING");
    assert_eq!(greeting, (200, "good day".to_owned()));
    for hidden in ["HOMEOSTAT_CAPABILITY", "PORT", "HOST"] {
        let found = worker.get(&format!("/environment?{hidden}"));
        assert_eq!(found, (200, String::new()), "{hidden}");
    }
    assert_eq!(worker.get("/loop").0, 504);
    assert_eq!(worker.get("/trap").0, 502);
    worker.get("/print?words");
    assert_eq!(worker.says("words"), "words");
    assert_eq!(worker.get("/hello"), (200, "hello".to_owned()));
    worker.stop();
}

#[test]
fn what_is_put_away_of_secrets_is_sealed_with_the_nodes_key() {
    let home = Home::new();
    let keys = home.path("keys");
    vault::Vault::open(&keys).expect("a key");
    let keys = keys.to_str().expect("text");
    let begun = |sealed: bool| {
        let more = ["--keys", keys];
        let worker = home.worker(
            "actor",
            guests::PROBE_ACTOR,
            if sealed { &more } else { &[] },
        );
        (worker.get("/keep?hidden-words"), worker)
    };
    let holds = |words: &[u8]| {
        let bytes = std::fs::read(file(&home)).expect("a file");
        bytes.windows(words.len()).any(|found| found == words)
    };
    let ((_, said), worker) = begun(false);
    assert_eq!(said, "hidden-words");
    worker.stop();
    assert!(holds(b"hidden-words"));
    // What was in the clear is taken, and sealed from now on.
    for expected in [
        "hidden-words,hidden-words",
        "hidden-words,hidden-words,hidden-words",
    ] {
        let ((_, said), worker) = begun(true);
        assert_eq!(said, expected);
        worker.stop();
        assert!(!holds(b"hidden-words"));
    }
    // Without the key it is foreign.
    let ((_, said), worker) = begun(false);
    assert_eq!(said, "hidden-words");
    worker.says("starts afresh");
}

#[test]
fn no_core_is_dumped_of_what_guests_hold() {
    let home = Home::new();
    let worker = home.worker("actor", &counter(), &[]);
    let limits = Path::new("/proc").join(worker.child.id().to_string());
    let limits = std::fs::read_to_string(limits.join("limits")).expect("limits");
    let line = limits.lines().find(|line| line.starts_with("Max core"));
    let words: Vec<&str> = line.expect("a limit").split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"]);
}

#[test]
fn a_capability_that_cannot_be_read_is_named() {
    let home = Home::new();
    let (mut command, _) = home.command("actor", &counter(), &[]);
    command.env("HOMEOSTAT_BUCKETS", home.path("buckets.sock"));
    let output = command.output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("capability cannot be used"), "{text}");
}

#[test]
fn what_cannot_be_run_is_named_with_the_next_step() {
    let home = Home::new();
    for (kind, module, said, help) in [
        (
            "actor",
            guests::PROBE.to_vec(),
            "this is a component, not a core module",
            "run it as a component",
        ),
        (
            "component",
            counter(),
            "this is a core module, not a component",
            "wasm-tools component new",
        ),
        ("actor", b"text".to_vec(), "not a core module", ""),
    ] {
        let (mut command, _) = home.command(kind, &module, &[]);
        let output = command.output().expect("runs");
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(said), "{text}");
        assert!(text.contains(help), "{text}");
    }
}
