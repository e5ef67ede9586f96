//! Labs that end with their test.

use kernel::Name;
use lab::{Lab, Options};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use wire::lab::LabKind;

/// Machines are shared.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn helper() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_lab-helper"))
}

/// Two nodes in two zones, 80 ms there and back.
pub fn options() -> Options {
    let mut options = Options::new(helper());
    options.bound = true;
    options.nodes = 2;
    options.disk = kernel::Bytes::mebibytes(64);
    options
        .read("zones = ['/a', '/b']\nround_trips = [['/a', '/b', '80ms']]\nwithin = '0ms'")
        .expect("options")
}

/// Why a test did not run.
pub fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// None, with a line that says so, where namespaces cannot be made.
pub fn lab(options: Options) -> Option<Lab> {
    if !lab::may_make_namespaces() {
        skipped("network namespaces cannot be made here; this test needs root");
        return None;
    }
    let kind = Some(LabKind::Namespaces);
    Some(Lab::start(Options { kind, ..options }).expect("a lab"))
}

/// None, with a line that says so, where a program is not installed.
pub fn installed(program: &str) -> Option<()> {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_err() {
        skipped(&format!("{program} is not installed"));
    }
    found.ok().map(drop)
}

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

/// Runs a line of shell in a node, to its end.
pub fn sh(lab: &Lab, node: &Name, line: &str) -> Output {
    let output = lab.command(node, "sh").args(["-c", line]).output();
    output.expect("a shell")
}

/// Its standard output, if it ended well.
pub fn says(lab: &Lab, node: &Name, line: &str) -> Option<String> {
    let output = sh(lab, node, line);
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(said)
}

/// A web server of Python's in a node, once it listens.
pub struct Server(Child);

impl Server {
    pub fn start(lab: &Lab, node: usize) -> Self {
        let node = &lab.nodes()[node];
        let child = lab
            .command(&node.name, "python3")
            .args(["-m", "http.server", "80", "--bind"])
            .arg(node.address.to_string())
            .current_dir(&node.data)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3");
        until("the server", || reaches(node.http).then_some(()));
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether this machine's own programs reach an address.
pub fn reaches(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
}

pub fn curl(url: &str) -> String {
    format!(
        "curl --silent --show-error --output /dev/null --max-time 5 --write-out '%{{time_connect}} %{{http_code}}' {url}"
    )
}
