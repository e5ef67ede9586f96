//! The admin API from another machine's point of view: its port, and the same
//! commands with `--node`.

use black_box::tls::{self, Authority, trusting_node};
use black_box::{TestNode, kill, program, project, says, until};
use serde_json::Value;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A node with an admin port, and the words that reach it.
struct Served {
    node: TestNode,
    address: SocketAddr,
    authority: PathBuf,
}

/// Where the node says its port is.
fn port_of(node: &TestNode) -> Option<SocketAddr> {
    let findings = node.run(&["doctor", "-o", "json"]).stdout;
    let findings: Vec<Value> = serde_json::from_slice(&findings).ok()?;
    let mut findings = findings.iter();
    let finding = findings.find(|finding| finding["check"] == "admin port")?;
    finding["found"]
        .as_str()?
        .strip_prefix("https://")?
        .parse()
        .ok()
}

impl Served {
    fn new() -> Self {
        let node = TestNode::new();
        let told = node.run(&["up", "--admin-listen", "127.0.0.1:0"]);
        assert!(told.status.success(), "{}\n{}", says(&told), node.logs());
        let address = port_of(&node).expect("a port");
        assert!(
            says(&told).contains(&format!("https://{address}")),
            "{}",
            says(&told)
        );
        let authority = node.scratch().join("authority.pem");
        node.ok(&["trust", "--to", authority.to_str().expect("UTF-8")]);
        Self {
            node,
            address,
            authority,
        }
    }

    fn token(&self, more: &[&str]) -> String {
        let words = [&["token", "create"], more].concat();
        self.node.ok(&words).trim().to_owned()
    }

    /// A command that knows nothing of this machine's node.
    fn afar(&self, node: &str, authority: &Path, token: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program("homeostat"));
        command
            .args(words)
            .env("HOMEOSTAT_DATA_DIR", self.node.scratch().join("none"))
            .env("HOMEOSTAT_NODE", node)
            .env("HOMEOSTAT_AUTHORITY", authority)
            .env("HOMEOSTAT_TOKEN", token);
        command
    }

    fn ask(&self, token: &str, words: &[&str]) -> Output {
        let node = format!("https://{}", self.address);
        let mut command = self.afar(&node, &self.authority, token, words);
        command.output().expect("the program runs")
    }
}

#[test]
fn the_same_commands_work_from_afar_with_a_tokens_rights() {
    let served = Served::new();
    let directory = project(&served.node, "one", 1, "");
    served
        .node
        .ok(&["apply", directory.to_str().expect("UTF-8")]);
    let (viewer, admin) = (
        served.token(&["--role", "viewer"]),
        served.token(&["--role", "admin"]),
    );
    for (words, codes) in [
        (&["get", "service/echo"][..], [0, 0]),
        (&["why", "service/echo"], [0, 0]),
        (&["logs", "echo"], [0, 0]),
        (&["restart", "echo"], [4, 0]),
        (&["audit", "verify"], [4, 0]),
        (&["doctor"], [0, 0]),
    ] {
        for (token, wanted) in [&viewer, &admin].into_iter().zip(codes) {
            let output = served.ask(token, words);
            assert_eq!(
                output.status.code(),
                Some(wanted),
                "{words:?}: {}",
                says(&output)
            );
        }
    }
    let here = served.node.ok(&["get", "service/echo", "-o", "json"]);
    let afar = served.ask(&viewer, &["get", "service/echo", "-o", "json"]);
    let parsed = |text: &[u8]| -> Value { serde_json::from_slice(text).expect("JSON") };
    assert_eq!(
        parsed(&afar.stdout)["name"],
        parsed(here.as_bytes())["name"]
    );
    // The one who asked is in the log.
    let audit = served.node.ok(&["audit", "ls"]);
    assert!(audit.contains("token/"), "{audit}");
    // What concerns this machine is not done to that one.
    for words in [&["up"][..], &["down"], &["trust"]] {
        assert_eq!(
            served.ask(&admin, words).status.code(),
            Some(2),
            "{words:?}"
        );
    }
    assert_eq!(served.node.get("/").expect("still up").status, 200);
}

#[test]
fn nobody_gets_in_without_a_token_and_health_says_nothing_more() {
    let served = Served::new();
    let config = trusting_node(&served.node);
    let get = |path: &str| {
        let (_, answer) = tls::get_at(served.address, &config, "localhost", path).expect("answers");
        answer
    };
    let health = get("/health");
    assert_eq!(
        (health.status, health.body.as_slice()),
        (200, b"well\n".as_slice())
    );
    for path in [
        "/v1/status",
        "/v1/objects/service",
        "/openapi.json",
        "/v1/audit",
    ] {
        assert_eq!(get(path).status, 401, "{path}");
    }
    let refused = served.ask("hs_00000000_guessed", &["get", "services"]);
    assert_eq!(refused.status.code(), Some(4), "{}", says(&refused));
    // In the clear there is nothing at all.
    assert!(black_box::get(served.address, "localhost", "/health").is_err());
}

#[test]
fn only_the_nodes_own_authority_is_believed() {
    let served = Served::new();
    let admin = served.token(&["--role", "admin"]);
    let other = served.node.scratch().join("other.pem");
    std::fs::write(&other, Authority::default().pem()).expect("writes");
    let node = format!("https://{}", served.address);
    for (node, authority, wanted) in [
        (&*node, other.as_path(), 1),
        (&node, Path::new("/nowhere"), 2),
        ("http://localhost:1", served.authority.as_path(), 2),
    ] {
        let mut command = served.afar(node, authority, &admin, &["get", "nodes"]);
        let output = command.output().expect("runs");
        assert_eq!(output.status.code(), Some(wanted), "{}", says(&output));
        assert!(says(&output).contains("help"), "{}", says(&output));
    }
}

#[test]
fn files_of_the_node_are_not_for_those_who_come_from_afar() {
    let served = Served::new();
    let directory = project(&served.node, "one", 1, "");
    let path = directory.to_str().expect("UTF-8");
    served.node.ok(&["apply", path]);
    let operator = served.token(&["--role", "operator", "--project", "test"]);
    for words in [["plan", path], ["apply", path]] {
        let refused = served.ask(&operator, &words);
        assert_eq!(refused.status.code(), Some(1), "{words:?}");
        assert!(
            says(&refused).contains("made of files"),
            "{}",
            says(&refused)
        );
    }
    let bare = served.node.scratch().join("bare");
    std::fs::create_dir_all(&bare).expect("makes");
    std::fs::write(bare.join("homeostat.toml"), "[project]\nname = \"test\"\n").expect("writes");
    let emptied = served.ask(&operator, &["apply", bare.to_str().expect("UTF-8")]);
    assert!(emptied.status.success(), "{}", says(&emptied));
    let left = served.node.ok(&["get", "services", "-o", "name"]);
    assert_eq!(left, "");
}

#[test]
fn the_port_comes_back_with_a_killed_agent_and_harms_no_node_that_cannot_have_it() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let node = TestNode::new();
    let refused = node.run(&["up", "--admin-listen", &address.to_string()]);
    assert_eq!(refused.status.code(), Some(5), "{}", says(&refused));
    assert!(says(&refused).contains("in use"), "{}", says(&refused));
    let directory = project(&node, "one", 1, "");
    node.ok(&["apply", directory.to_str().expect("UTF-8")]);
    assert_eq!(node.get("/").expect("serves").body, b"one");
    assert_eq!(node.run(&["doctor"]).status.code(), Some(1));
    drop(taken);
    let found = until("the port", || port_of(&node));
    assert_eq!(found, address);

    let (_, agent, _) = node.pids();
    kill(agent);
    let config = trusting_node(&node);
    until("the port of another agent", || {
        let found = tls::get_at(address, &config, "127.0.0.1", "/health").ok()?;
        let another = node.find_pids().is_some_and(|pids| pids.1 != agent);
        (another && found.1.status == 200).then_some(())
    });
    node.ok(&["up", "--admin-listen", &address.to_string()]);
    let elsewhere = node.run(&["up", "--admin-listen", "127.0.0.1:1"]);
    assert_eq!(elsewhere.status.code(), Some(5), "{}", says(&elsewhere));
}

#[test]
fn those_who_say_nothing_keep_nobody_out() {
    let served = Served::new();
    let silent: Vec<_> = (0..64)
        .map(|_| std::net::TcpStream::connect(served.address).expect("connects"))
        .collect();
    let mut odd = std::net::TcpStream::connect(served.address).expect("connects");
    odd.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    let viewer = served.token(&["--role", "viewer"]);
    let answer = served.ask(&viewer, &["get", "nodes"]);
    assert!(answer.status.success(), "{}", says(&answer));
    drop(silent);
}
