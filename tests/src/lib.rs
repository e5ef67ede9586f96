//! A real node for black-box tests: the built program, its own data directory,
//! free ports; ended with the test.

pub mod callers;
pub mod disk;
pub mod etcd;
pub mod firewall;
pub mod ports;
pub mod processes;
pub mod scripts;
pub mod tls;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use wire::layout::Layout;

/// How long a condition may take before a test gives up: machines are shared.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The program under test, built beside the tests.
pub fn program(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().expect("a test has a path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.join(name)
}

/// A copy of the program under test, down on the disk: what were still to be written of
/// it would hold up each sync of the nodes' stores, for seconds.
pub fn copy_of_program(to: &Path) -> std::io::Result<()> {
    std::fs::copy(program("homeostat"), to)?;
    std::fs::File::open(to)?.sync_all()
}

/// Waits for a condition.
///
/// # Panics
/// When it does not come within [`PATIENCE`].
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub struct TestNode {
    pub layout: Layout,
    pub http: SocketAddr,
    pub https: SocketAddr,
    name: String,
    /// Where it listens for other nodes.
    address: IpAddr,
    /// Of the network, where it is not this process's.
    namespace: Option<String>,
    /// More of its environment.
    settings: Vec<(&'static str, &'static str)>,
    directory: tempfile::TempDir,
}

impl TestNode {
    /// A data directory and ports; nothing runs yet.
    pub fn new() -> Self {
        let directory = scratch();
        let root = directory.path().join("d");
        Self::with(directory, root)
    }

    /// A node whose data lie in a directory of the test's; manifests and all
    /// else do not.
    pub fn with_data_in(directory: &Path) -> Self {
        Self::with(scratch(), directory.join("d"))
    }

    fn with(directory: tempfile::TempDir, root: PathBuf) -> Self {
        Self {
            layout: Layout::new(root),
            http: ports::free(),
            https: ports::free(),
            name: "one".to_owned(),
            address: Ipv4Addr::LOCALHOST.into(),
            namespace: None,
            settings: Vec::new(),
            directory,
        }
    }

    /// A scratch directory beside the data.
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// Runs a command of the program to its end.
    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("the program runs")
    }

    /// A command of the program, for this node.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = match &self.namespace {
            None => Command::new(program("homeostat")),
            Some(namespace) => firewall::inside(namespace, &program("homeostat")),
        };
        let listen = SocketAddr::new(self.address, 0).to_string();
        command
            .args(words)
            .env("HOMEOSTAT_DATA_DIR", &self.layout.root)
            .env("HOMEOSTAT_HTTP", self.http.to_string())
            .env("HOMEOSTAT_HTTPS", self.https.to_string())
            // Any free ports: other tests' nodes have theirs.
            .env("HOMEOSTAT_AGENT_LISTEN", &listen)
            .env("HOMEOSTAT_EDGE_LISTEN", &listen)
            .env("HOMEOSTAT_NAME", &self.name)
            .envs(self.settings.iter().copied());
        command
    }

    /// With a variable in its environment; before its first start.
    #[must_use]
    pub fn set(mut self, variable: &'static str, value: &'static str) -> Self {
        self.settings.push((variable, value));
        self
    }

    /// The same node under another name; before its first start.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The same node, listening for others on this address of the machine.
    #[must_use]
    pub fn at(mut self, address: IpAddr) -> Self {
        self.address = address;
        self
    }

    /// The same node behind a firewall, all ports its own; before its start.
    #[must_use]
    pub fn behind(mut self, wall: &firewall::Firewall) -> Self {
        self.namespace = Some(wall.namespace.clone());
        self.http = SocketAddr::new(wall.inside, 8_080);
        self.https = SocketAddr::new(wall.inside, 8_443);
        self.at(wall.inside)
    }

    /// Runs a command that must succeed; returns its standard output.
    ///
    /// # Panics
    /// When it does not, with what it and the node said.
    pub fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(
            output.status.success(),
            "{words:?} ended with {}\n{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            self.logs()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Applies a project until it is taken: nobody may lead just now.
    ///
    /// # Panics
    /// When it is not, within the time of [`until`].
    pub fn apply(&self, directory: &Path) {
        until("it is applied", || {
            let applied = self.run(&["apply", directory.to_str()?]);
            applied.status.success().then_some(())
        });
    }

    /// How a service's rollout by stages stands, while there is one.
    pub fn rollout(&self, service: &str) -> Option<serde_json::Value> {
        let shown = self.run(&["rollout", "status", service, "-o", "json"]);
        serde_json::from_slice(&shown.stdout).ok()
    }

    /// Whether it is said that there is none.
    pub fn rolls_nothing_out(&self, service: &str) -> bool {
        let shown = self.run(&["rollout", "status", service]);
        says(&shown).contains("nothing is being rolled out")
    }

    /// The node's own logs, for a failed assertion.
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for role in ["supervisor", "agent", "edge"] {
            let path = self.layout.logs().join(format!("{role}.log"));
            let text = std::fs::read_to_string(path).unwrap_or_default();
            all.extend(["== ", role, "\n", &text, "\n"]);
        }
        all
    }

    /// How many replicas of a service are ready on each of the named nodes, as this one
    /// sees them.
    pub fn ready_on(&self, service: &str, names: &[&str]) -> Vec<usize> {
        let shown = self.run(&["get", "replicas"]);
        let replicas = String::from_utf8_lossy(&shown.stdout).into_owned();
        let is_its = |line: &&str| {
            line.contains(&format!(".{service}-"))
                && line.split_whitespace().any(|word| word == "ready")
        };
        let on = |name: &&str| {
            let word = format!("on {name},");
            let ready = replicas.lines().filter(is_its);
            ready.filter(|line| line.contains(&word)).count()
        };
        names.iter().map(on).collect()
    }

    /// One GET over the clear; the whole answer.
    pub fn get(&self, path: &str) -> std::io::Result<Answer> {
        get(self.http, "localhost", path)
    }

    /// The process ids the supervisor reports, through `doctor`.
    ///
    /// # Panics
    /// When one of them does not answer now.
    pub fn pids(&self) -> (u32, u32, u32) {
        self.find_pids().expect("process ids")
    }

    /// The same, none while one of them is away.
    pub fn find_pids(&self) -> Option<(u32, u32, u32)> {
        // It fails when it finds something bad, and tells the rest all the same.
        let output = self.run(&["doctor", "-o", "json"]);
        let findings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).ok()?;
        let pid = |check: &str| {
            let mut findings = findings.iter();
            let finding = findings.find(|finding| finding["check"] == check)?;
            let found = finding["found"].as_str()?;
            found.strip_prefix("pid ")?.split(',').next()?.parse().ok()
        };
        Some((pid("supervisor")?, pid("agent")?, pid("edge")?))
    }

    /// All of the node dies by one blow, as when its power is cut.
    ///
    /// # Panics
    /// When one of its processes is away.
    pub fn power_off(&self) {
        let (supervisor, agent, edge) = self.pids();
        for pid in [supervisor, agent, edge] {
            kill(pid);
        }
    }
}

impl Default for TestNode {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = format!("node {} of the failed test\n{}", self.name, self.logs());
            let _ = std::io::stderr().write_all(said.as_bytes());
        }
        // A node without a supervisor is brought back to be ended in order.
        let _ = self.run(&["up"]);
        let _ = self.run(&["down"]);
    }
}

fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("hs")
        .tempdir()
        .expect("a directory")
}

/// What a command said to the person: its standard error.
pub fn says(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn kill(pid: u32) {
    signal(pid, "KILL");
}

/// # Panics
/// When there is no such process.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status()
        .expect("kill runs");
    assert!(status.success(), "no process {pid}");
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

/// One GET on a connection of its own.
pub fn get(address: SocketAddr, host: &str, path: &str) -> std::io::Result<Answer> {
    ask(address, "GET", host, path, b"")
}

/// One request on a connection of its own; an answer that breaks off is an error.
pub fn ask(
    address: SocketAddr,
    method: &str,
    host: &str,
    path: &str,
    body: &[u8],
) -> std::io::Result<Answer> {
    ask_with(address, method, host, path, &[], body)
}

/// The same with more fields.
pub fn ask_with(
    address: SocketAddr,
    method: &str,
    host: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    exchange_with(&mut stream, method, host, path, fields, body)
}

/// The same on a connection that is there; the other side closes it.
pub fn exchange(
    stream: &mut (impl Read + Write),
    method: &str,
    host: &str,
    path: &str,
    body: &[u8],
) -> std::io::Result<Answer> {
    exchange_with(stream, method, host, path, &[], body)
}

fn exchange_with(
    stream: &mut (impl Read + Write),
    method: &str,
    host: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Answer> {
    let fields: String = fields
        .iter()
        .flat_map(|(name, value)| [name, ": ", value, "\r\n"])
        .collect();
    let length = match (method, body.len()) {
        ("GET" | "HEAD", 0) => String::new(),
        (_, length) => format!("content-length: {length}\r\n"),
    };
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\n{fields}{length}connection: close\r\n\r\n"
    )?;
    stream.write_all(body)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let wrong = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "no whole answer");
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or_else(wrong)?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(wrong)?;
    let body = bytes[end + 4..].to_vec();
    let mut answer = Answer { status, head, body };
    if answer.header("transfer-encoding") == Some("chunked") && method != "HEAD" {
        answer.body = dechunked(&answer.body).ok_or_else(wrong)?;
    }
    let announced = answer.header("content-length");
    let whole = announced.is_none_or(|length| length.parse() == Ok(answer.body.len()));
    (whole || method == "HEAD")
        .then_some(answer)
        .ok_or_else(wrong)
}

/// The next answer of several on a connection; of a length that is told before.
fn one_answer(stream: &mut impl Read) -> std::io::Result<Answer> {
    let wrong = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "no whole answer");
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        bytes.extend(byte);
    }
    let head = String::from_utf8_lossy(&bytes).trim_end().to_owned();
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
    let mut answer = Answer {
        status: status.ok_or_else(wrong)?,
        head,
        body: Vec::new(),
    };
    let length = answer
        .header("content-length")
        .and_then(|it| it.parse().ok());
    answer.body = vec![0; length.ok_or_else(wrong)?];
    stream.read_exact(&mut answer.body)?;
    Ok(answer)
}

/// The pieces of a body put together; none if its end is missing.
fn dechunked(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = bytes.windows(2).position(|window| window == b"\r\n")?;
        let length = str::from_utf8(&bytes[..line]).ok()?;
        let length = usize::from_str_radix(length.trim(), 16).ok()?;
        bytes = bytes.get(line + 2..)?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(..length)?);
        bytes = bytes.get(length + 2..)?;
    }
}

impl Answer {
    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            (found.to_ascii_lowercase() == name).then(|| value.trim())
        })
    }
}

/// A project in `scratch`: a site of one page, and a service of `replicas`.
///
/// `more` goes into the service's table.
pub fn project(node: &TestNode, page: &str, replicas: u32, more: &str) -> PathBuf {
    let directory = node.scratch().join("project");
    std::fs::create_dir_all(directory.join("site")).expect("a directory");
    std::fs::write(directory.join("site/index.html"), page).expect("a page");
    std::fs::write(directory.join("site/404.html"), "nothing here").expect("a page");
    let program = program("black-box-service");
    let text = format!(
        r#"[project]
name = "test"

[site.web]
root = "site"
hosts = ["localhost"]
not_found = "404.html"

[service.echo]
run = {{ process = ["{program}"] }}
replicas = {replicas}
routes = [{{ host = "localhost", path = "/echo" }}]
deadline = "10s"
stop_grace = "1s"
{more}

[service.echo.probes]
startup = {{ http = "/", every = "50ms", timeout = "1s", failures = 100 }}
readiness = {{ http = "/", every = "200ms", timeout = "1s", failures = 2 }}
"#,
        program = program.display()
    );
    std::fs::write(directory.join("homeostat.toml"), text).expect("a manifest");
    directory
}

/// Asks again and again on a thread, until stopped.
pub struct Load {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: std::thread::JoinHandle<Outcome>,
}

#[derive(Debug, Default)]
pub struct Outcome {
    pub good: u64,
    /// What went wrong, the first hundred times.
    pub bad: Vec<String>,
}

impl Load {
    /// GETs of `path`, each on a connection of its own.
    pub fn of(address: SocketAddr, path: &str) -> Self {
        Self::by(path, move |path| get(address, "localhost", path))
    }

    /// GETs of `path` on a connection that is kept until the other side says that
    /// it closes it.
    pub fn kept(address: SocketAddr, path: &str) -> Self {
        let mut stream = None;
        Self::by(path, move |path| {
            let mut open = match stream.take() {
                Some(open) => open,
                None => TcpStream::connect_timeout(&address, Duration::from_secs(5))?,
            };
            open.set_read_timeout(Some(Duration::from_secs(15)))?;
            write!(open, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
            let answer = one_answer(&mut open)?;
            if answer.header("connection") != Some("close") {
                stream = Some(open);
            }
            Ok(answer)
        })
    }

    fn by(
        path: &str,
        mut ask: impl FnMut(&str) -> std::io::Result<Answer> + Send + 'static,
    ) -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (stopped, path) = (stop.clone(), path.to_owned());
        let thread = std::thread::spawn(move || {
            let mut outcome = Outcome::default();
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                match ask(&path) {
                    Ok(answer) if answer.status == 200 => outcome.good += 1,
                    Ok(answer) => outcome.note(format!("status {}", answer.status)),
                    Err(error) => outcome.note(error.to_string()),
                }
            }
            outcome
        });
        Self { stop, thread }
    }

    /// # Panics
    /// When the thread did.
    pub fn stop(self) -> Outcome {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.join().expect("the load ends")
    }
}

impl Outcome {
    fn note(&mut self, what: String) {
        if self.bad.len() < 100 {
            self.bad.push(what);
        }
    }
}
