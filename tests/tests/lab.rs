//! A whole lab by its commands: started, asked, harmed, ended without a trace.

use black_box::{Answer, TestNode, exchange, program, project, says, until};
use serde_json::Value;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Output;
use std::time::Duration;

/// Commands of labs that are this test's alone.
struct Labs {
    node: TestNode,
    directory: tempfile::TempDir,
}

impl Labs {
    /// None, with a line that says so, where networks cannot be made.
    fn new() -> Option<Self> {
        if !is_root() || !Path::new("/dev/net/tun").exists() {
            let line = "SKIPPED: network namespaces cannot be made here; this test needs root";
            let _ = writeln!(std::io::stderr(), "{line}");
            return None;
        }
        Some(Self::anywhere())
    }

    fn anywhere() -> Self {
        let directory = tempfile::Builder::new().prefix("hl").tempdir();
        Self {
            node: TestNode::new(),
            directory: directory.expect("a directory"),
        }
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = self.node.command(words);
        command.env("HOMEOSTAT_LABS", self.directory.path());
        command.output().expect("the program runs")
    }

    fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", says(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.ok(words)).expect("json")
    }
}

impl Drop for Labs {
    fn drop(&mut self) {
        let _ = self.run(&["down", "--lab"]);
    }
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:\t0\t0"))
}

fn get(address: SocketAddr) -> Option<Answer> {
    let short = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&address, short).ok()?;
    stream.set_read_timeout(Some(short)).ok()?;
    exchange(&mut stream, "GET", "localhost", "/", b"").ok()
}

fn serves(address: SocketAddr) -> Option<()> {
    get(address).filter(|answer| answer.status == 200).map(drop)
}

#[test]
fn a_lab_serves_is_harmed_heals_and_leaves_nothing() {
    let Some(labs) = Labs::new() else { return };
    let options = labs.node.scratch().join("lab.toml");
    let text = "nodes = 1\nzones = ['/eu/1', '/us/1']\ndisk = '256 MiB'\n";
    std::fs::write(&options, text).expect("a file");
    let manifest = project(&labs.node, "from the lab", 1, "");
    let words = [
        "up",
        manifest.to_str().expect("a path"),
        "--lab",
        options.to_str().expect("a path"),
        "-o",
        "json",
    ];
    let view = &labs.json(&words)[0];
    let node = &view["nodes"][0];
    assert_eq!(node["zone"], "/eu/1");
    let host = node["http"].as_str().expect("an address");
    let host = host.trim_start_matches("http://");
    let address: SocketAddr = format!("{host}:80").parse().expect("an address");
    assert_eq!(get(address).expect("an answer").body, b"from the lab");

    // `homeostat` in a node speaks to it; its replicas are in its group.
    let own = program("homeostat");
    let own = own.to_str().expect("a path");
    let services = labs.ok(&[
        "lab", "exec", "n1", "--", own, "get", "services", "-o", "name",
    ]);
    assert_eq!(services.trim(), "service/echo");

    labs.ok(&["chaos", "kill", "n1", "agent"]);
    labs.ok(&["chaos", "cut", "n1", "--for", "10m"]);
    assert!(get(address).is_none());
    labs.ok(&["chaos", "undo"]);
    until("the node after the cut", || serves(address));

    let begun = labs.json(&["chaos", "poweroff", "n1", "--for", "10m", "-o", "json"]);
    assert!(begun["id"].is_u64(), "{begun}");
    assert!(get(address).is_none());
    assert_eq!(
        labs.json(&["lab", "ls", "-o", "json"])[0]["nodes"][0]["state"],
        "off"
    );
    labs.ok(&["chaos", "undo", &begun["id"].to_string()]);
    until("the node after its power-off", || serves(address));
    assert_eq!(
        labs.json(&["chaos", "ls", "-o", "json"]),
        Value::Array(Vec::new())
    );

    let directory = view["directory"].as_str().expect("a path").to_owned();
    labs.ok(&["down", "--lab"]);
    assert!(!Path::new(&directory).exists());
    let left = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!left.contains(&directory));
    assert_eq!(
        labs.json(&["lab", "ls", "-o", "json"]),
        Value::Array(Vec::new())
    );
}

#[test]
fn outside_labs_a_fault_wants_the_nodes_name() {
    let labs = Labs::anywhere();
    labs.node.ok(&["up"]);
    let status: Value =
        serde_json::from_str(&labs.node.ok(&["get", "nodes", "-o", "json"])).expect("json");
    let name = status[0]["name"].as_str().expect("a name").to_owned();

    let cut = labs.run(&["chaos", "cut", "/eu/1"]);
    assert_eq!(cut.status.code(), Some(3), "{}", says(&cut));
    let unsure = labs.run(&["chaos", "kill", &name, "edge"]);
    assert_eq!(unsure.status.code(), Some(4), "{}", says(&unsure));
    let other = labs.run(&["chaos", "kill", &name, "edge", "--confirm", "other"]);
    assert_eq!(other.status.code(), Some(4), "{}", says(&other));

    let (_, _, edge) = labs.node.pids();
    labs.ok(&["chaos", "kill", &name, "edge", "--confirm", &name]);
    until("another edge", || {
        labs.node.find_pids().filter(|(_, _, now)| *now != edge)
    });
}
