//! A whole lab by its commands: started, asked, harmed, ended without a trace.

use black_box::{Answer, Load, TestNode, exchange, program, project, says, until};
use serde_json::Value;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
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

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.node.command(words);
        command.env("HOMEOSTAT_LABS", self.directory.path());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("the program runs")
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

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const NEAR: &str = "nodes = 3
zones = ['/eu/1', '/us/1', '/ap/1']
disk = '256 MiB'
round_trips = [['/eu/1', '/us/1', '10ms'], ['/eu/1', '/ap/1', '10ms'], ['/us/1', '/ap/1', '10ms']]
";

/// `homeostat` in a node of the lab.
fn inside(labs: &Labs, node: &str, words: &[&str]) -> Command {
    let own = program("homeostat");
    let own = own.to_str().expect("a path");
    let words = ["lab", "exec", node, "--", own]
        .into_iter()
        .chain(words.iter().copied());
    labs.command(&words.collect::<Vec<_>>())
}

/// As each of these sees it, once all three vote.
fn leads(labs: &Labs, nodes: &[&str]) -> Option<String> {
    let seen = nodes.iter().map(|node| {
        let status = inside(labs, node, &["store", "status", "-o", "json"]).output();
        let status = status.expect("the program runs");
        let status: Value = serde_json::from_slice(&status.stdout).ok()?;
        let group = &status["groups"][0];
        let all = group["voters"].as_array()?.len() == 3;
        all.then(|| group["leader"].as_str().map(str::to_owned))?
    });
    let seen = seen.collect::<Option<Vec<String>>>()?;
    let (first, others) = seen.split_first()?;
    others
        .iter()
        .all(|other| other == first)
        .then(|| first.clone())
}

/// A cluster of three that serves a page, and who leads it.
struct Three {
    labs: Labs,
    directory: PathBuf,
    /// Other nodes' owners may only look.
    token_file: PathBuf,
    addresses: [SocketAddr; 3],
    leader: String,
}

impl Three {
    fn new() -> Option<Self> {
        let labs = Labs::new()?;
        let options = labs.node.scratch().join("lab.toml");
        std::fs::write(&options, NEAR).expect("a file");
        let directory = project(&labs.node, "page 0", 3, "");
        let (manifest, options) = (directory.to_str(), options.to_str());
        let (manifest, options) = (manifest.expect("a path"), options.expect("a path"));
        let view = &labs.json(&["up", manifest, "--lab", options, "-o", "json"])[0];
        let addresses = [0, 1, 2].map(|at| {
            let host = view["nodes"][at]["http"].as_str().expect("an address");
            let host = host.trim_start_matches("http://");
            let address: SocketAddr = format!("{host}:80").parse().expect("an address");
            address
        });
        let leader = until("three vote and one leads", || leads(&labs, &NODES));
        let words = ["token", "create", "--role", "admin"];
        let token = inside(&labs, "n1", &words).output();
        let token = token.expect("the program runs");
        let token_file = labs.node.scratch().join("token");
        std::fs::write(&token_file, &token.stdout).expect("a file");
        Some(Self {
            labs,
            directory,
            token_file,
            addresses,
            leader,
        })
    }

    fn others(&self) -> Vec<&'static str> {
        let others = NODES.into_iter().filter(|name| *name != self.leader);
        others.collect()
    }

    /// A disk that nobody writes to is not known to be slow; what its node is asked takes
    /// long, and is not waited for.
    fn ask_until_another_leads(&self) {
        let others = self.others();
        let token_file = self.token_file.to_str().expect("a path");
        let words = ["token", "create", "--token-file", token_file];
        let mut asked: Option<Child> = None;
        until("another one leads", || {
            let ended = asked.as_mut().map(|asked| asked.try_wait().expect("ours"));
            if ended.is_none_or(|ended| ended.is_some()) {
                let mut ask = inside(&self.labs, others[0], &words);
                let ask = ask.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
                asked = Some(ask.expect("the program runs"));
            }
            let now = leads(&self.labs, &others)?;
            (now != self.leader).then_some(())
        });
        if let Some(mut asked) = asked {
            let _ = asked.kill();
            let _ = asked.wait();
        }
    }

    fn address(&self, node: &str) -> SocketAddr {
        let at = NODES.iter().position(|name| *name == node);
        self.addresses[at.expect("of the lab")]
    }

    /// By another node than the leader. Who was asked while the leader lets another one
    /// lead may not know whether it was done, and asks again.
    fn change(&self, page: &str) {
        std::fs::write(self.directory.join("site/index.html"), page).expect("a page");
        let manifest = self.directory.to_str().expect("a path");
        let token_file = self.token_file.to_str().expect("a path");
        let words = ["apply", manifest, "--token-file", token_file];
        let mut said = String::new();
        for _ in 0..6 {
            let applied = inside(&self.labs, self.others()[0], &words).output();
            let applied = applied.expect("the program runs");
            if applied.status.success() {
                return;
            }
            said.push_str(&says(&applied));
        }
        panic!("never acknowledged: {said}");
    }

    fn until_served(&self, node: &str, page: &str) {
        until(page, || {
            (get(self.address(node))?.body == page.as_bytes()).then_some(())
        });
    }
}

#[test]
fn under_a_leaders_slow_disk_nothing_is_lost_and_nobody_who_reads_notices() {
    let Some(three) = Three::new() else { return };
    let (labs, leader) = (&three.labs, three.leader.as_str());
    let words = ["chaos", "slow", leader, "--disk-writes", "4"];
    let slowed = labs.run(&[&words[..], &["--for", "10m"]].concat());
    if says(&slowed).contains("version 1") {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {}", says(&slowed));
        return;
    }
    assert!(slowed.status.success(), "{}", says(&slowed));
    let loads = three.addresses.map(|address| Load::of(address, "/"));
    three.ask_until_another_leads();
    three.change("page 1");
    three.change("page 2");
    for outcome in loads.map(Load::stop) {
        assert!(outcome.good > 0 && outcome.bad.is_empty(), "{outcome:?}");
    }
    // Whoever else is left has what was acknowledged.
    labs.ok(&["chaos", "poweroff", leader, "--for", "10m"]);
    for node in three.others() {
        three.until_served(node, "page 2");
    }
}

#[test]
fn under_a_leaders_full_disk_changes_go_on_and_it_has_them_once_there_is_room() {
    let Some(three) = Three::new() else { return };
    let (labs, leader) = (&three.labs, three.leader.as_str());
    let words = ["chaos", "fill", leader, "--leave", "1 MiB", "--for", "10m"];
    labs.ok(&words);
    until("another one leads", || {
        let now = leads(labs, &NODES)?;
        (now != leader).then_some(())
    });
    three.change("page 1");
    for node in three.others() {
        three.until_served(node, "page 1");
    }
    labs.ok(&["chaos", "undo"]);
    three.until_served(leader, "page 1");
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
