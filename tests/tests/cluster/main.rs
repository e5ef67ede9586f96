//! Several machines as one: joined by one line, seen from their clients' side.

mod alerts;
mod discovery;
mod etcd;
mod forced;
mod jobs;
mod members;
mod replicas;
mod rollouts;
mod seats;
mod singletons;
mod upgrades;
mod zones;

use black_box::ports::free;
use black_box::{Answer, Load, TestNode, exchange, kill, project, says, signal, tls, until};
use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A line that lets one machine in.
fn token(node: &TestNode, more: &[&str]) -> String {
    token_for(node, "/eu/1", more)
}

fn token_for(node: &TestNode, zone: &str, more: &[&str]) -> String {
    let words = ["token", "create", "--ttl", "5m", "--zone", zone];
    let words: Vec<&str> = words.into_iter().chain(more.iter().copied()).collect();
    node.ok(&words).trim().to_owned()
}

/// A second node of the first one's cluster, up.
fn join(first: &TestNode, name: &str, more: &[&str]) -> TestNode {
    let node = TestNode::new().named(name);
    node.ok(&["up", "--join", &token(first, more)]);
    node
}

fn nodes(node: &TestNode) -> Vec<Value> {
    let all = node.ok(&["node", "ls", "-o", "json"]);
    serde_json::from_str(&all).expect("JSON")
}

/// How `node` sees the one called `name`.
fn state(node: &TestNode, name: &str) -> Option<String> {
    let all = node.run(&["node", "ls", "-o", "json"]);
    let all: Vec<Value> = serde_json::from_slice(&all.stdout).ok()?;
    let mut all = all.iter();
    let found = all.find(|one| one["name"] == name)?;
    Some(found["state"].as_str()?.to_owned())
}

/// Where `node` finds the one called `name`.
fn addresses(node: &TestNode, name: &str) -> Option<Value> {
    let all = node.run(&["node", "ls", "-o", "json"]);
    let all: Vec<Value> = serde_json::from_slice(&all.stdout).ok()?;
    let found = all.into_iter().find(|one| one["name"] == name)?;
    Some(found["addresses"].clone())
}

/// Whether a request is answered well within a second: what is held is not.
fn answers_at_once(node: &TestNode, path: &str) -> bool {
    let asked = TcpStream::connect(node.http).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        exchange(&mut stream, "GET", "localhost", path, b"")
    });
    asked.is_ok_and(|answer| answer.status == 200)
}

fn until_seen(by: &TestNode, name: &str, wanted: &str) {
    until(&format!("{name} is {wanted}"), || {
        (state(by, name).as_deref() == Some(wanted)).then_some(())
    });
}

fn good(node: &TestNode, path: &str) -> Answer {
    until("a good answer", || {
        node.get(path).ok().filter(|answer| answer.status == 200)
    })
}

#[test]
fn one_pasted_line_makes_a_second_machine_serve_what_the_first_does() {
    let first = TestNode::new();
    let directory = project(&first, "one page", 1, "");
    first.ok(&["up", text(&directory)]);
    let second = join(&first, "two", &[]);
    assert_eq!(good(&second, "/").body, b"one page");
    // Its one replica is on the first node: the request is forwarded.
    let there = good(&second, "/echo");
    assert_eq!(there.status, 200);
    for node in [&first, &second] {
        until("both alive", || {
            let states = ["one", "two"].map(|name| state(node, name));
            (states == [Some("alive".to_owned()), Some("alive".to_owned())]).then_some(())
        });
    }
    let zones: Vec<Value> = nodes(&second)
        .iter()
        .map(|one| one["zone"].clone())
        .collect();
    assert_eq!(zones, ["/", "/eu/1"]);
    // A change reaches both.
    std::fs::write(directory.join("site/index.html"), "another").expect("a page");
    first.ok(&["apply", text(&directory)]);
    until("the new page everywhere", || {
        (good(&second, "/").body == b"another").then_some(())
    });
}

#[test]
fn replicas_are_dealt_out_and_a_named_node_gets_its_own() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = join(&first, "two", &[]);
    until_seen(&first, "two", "alive");
    let directory = project(&first, "page", 2, "");
    first.ok(&["apply", text(&directory)]);
    let replicas = first.ok(&["get", "replicas"]);
    assert!(
        replicas.contains("on one") && replicas.contains("on two"),
        "{replicas}"
    );
    // Each serves from its own, and from the other's when its own is gone.
    assert_eq!(good(&second, "/echo").status, 200);

    let named = project(&first, "page", 2, "node = \"two\"");
    first.ok(&["apply", text(&named)]);
    until("both on the second", || {
        let replicas = first.ok(&["get", "replicas"]);
        (replicas.matches("on two").count() == 2 && !replicas.contains("on one")).then_some(())
    });
    assert_eq!(good(&first, "/echo").status, 200);
    let nowhere = project(&first, "page", 2, "node = \"three\"");
    let refused = first.run(&["plan", text(&nowhere)]);
    assert!(!refused.status.success());
    assert!(says(&refused).contains("three"), "{}", says(&refused));
}

#[test]
fn a_token_is_good_once_and_damage_is_told_from_a_wrong_one() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let line = token(&first, &[]);
    let second = TestNode::new().named("two");
    second.ok(&["up", "--join", &line]);
    let third = TestNode::new().named("three");
    let refused = third.run(&["up", "--join", &line]);
    assert_eq!(refused.status.code(), Some(4), "{}", says(&refused));
    assert!(
        says(&refused).contains("token create"),
        "{}",
        says(&refused)
    );
    let mut slip = line.clone();
    slip.replace_range(20..21, if &line[20..21] == "A" { "B" } else { "A" });
    let refused = third.run(&["up", "--join", &slip]);
    assert_eq!(refused.status.code(), Some(2), "{}", says(&refused));
    // Another cluster's line: its members are not here.
    let other = TestNode::new();
    other.ok(&["up"]);
    let again = second.run(&["up", "--join", &token(&other, &[])]);
    assert_eq!(again.status.code(), Some(5), "{}", says(&again));
    assert_eq!(nodes(&first).len(), 2);
}

#[test]
fn a_node_without_power_is_found_dead_and_its_replicas_left() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = join(&first, "two", &[]);
    until_seen(&first, "two", "alive");
    let directory = project(&first, "page", 2, "");
    first.ok(&["apply", text(&directory)]);
    good(&first, "/echo");
    let load = Load::of(first.http, "/echo");
    second.power_off();
    until_seen(&first, "two", "dead");
    let outcome = load.stop();
    assert!(outcome.bad.is_empty(), "{:?}", outcome.bad);
    assert_eq!(nodes(&first).len(), 2, "silence removes nobody");
    second.ok(&["up"]);
    until_seen(&first, "two", "alive");
}

/// What `node` knows of the one called `name`.
fn attributes(node: &TestNode, name: &str) -> Value {
    let all = nodes(node);
    let found = all.iter().find(|one| one["name"] == name);
    found.map_or(Value::Null, |one| one["attributes"].clone())
}

#[test]
fn what_is_published_on_one_node_is_seen_on_another_and_outlives_a_killed_agent() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = join(&first, "two", &[]);
    let own = first.ok(&["publish", "rack=7", "disk=ssd", "-o", "json"]);
    let own: Value = serde_json::from_str(&own).expect("JSON");
    assert_eq!(own["attributes"], json!({ "rack": 7, "disk": "ssd" }));
    second.ok(&["publish", "gpus=[\"l4\"]"]);
    let wanted = |by: &TestNode, name: &str, key: &str, value: Value| {
        until(&format!("{key} of {name}"), || {
            (attributes(by, name)[key] == value).then_some(())
        });
    };
    wanted(&second, "one", "rack", json!(7));
    wanted(&first, "two", "gpus", json!(["l4"]));
    let facts = attributes(&second, "one");
    assert!(facts["cores"].as_u64() >= Some(1), "{facts}");
    assert_eq!(facts["version"], env!("CARGO_PKG_VERSION"));

    // Neither what is refused nor a death changes it.
    let long = format!("note={}", "x".repeat(400));
    for wrong in ["ready=9", "Rack=1", long.as_str()] {
        let refused = first.run(&["publish", "disk=hdd", wrong]);
        assert_eq!(refused.status.code(), Some(1), "{}", says(&refused));
    }
    let refused = says(&first.run(&["publish", &long]));
    assert!(
        refused.contains("384") && refused.contains("now they take"),
        "{refused}"
    );
    let (_, agent, _) = first.pids();
    kill(agent);
    until("another agent", || {
        let (_, now, _) = first.find_pids()?;
        (now != agent && first.run(&["node", "ls"]).status.success()).then_some(())
    });
    first.ok(&["publish", "disk=nvme"]);
    wanted(&second, "one", "disk", json!("nvme"));
    wanted(&second, "one", "rack", json!(7));
    first.ok(&["publish", "--remove", "rack"]);
    wanted(&second, "one", "rack", Value::Null);
    let shown = second.ok(&["node", "show", "one"]);
    assert!(shown.contains("nvme") && !shown.contains("rack"), "{shown}");
    let nobody = second.run(&["node", "show", "nobody"]);
    assert_eq!(nobody.status.code(), Some(3), "{}", says(&nobody));
}

#[test]
fn a_revoked_node_is_refused_and_cannot_come_back() {
    let first = TestNode::new();
    let directory = project(&first, "page", 1, "");
    first.ok(&["up", text(&directory)]);
    let second = join(&first, "two", &[]);
    good(&second, "/echo");
    first.ok(&["node", "revoke", "two"]);
    // Its edge is spoken to no more: what has its replica elsewhere is not found.
    until("it is refused", || {
        let answer = second.get("/echo").ok()?;
        (answer.status >= 500).then_some(())
    });
    let refused = second.run(&["secret", "ls"]);
    assert!(!refused.status.success(), "{}", says(&refused));
    assert_eq!(state(&first, "two").as_deref(), Some("revoked"));
    let refused = first.run(&["node", "revoke", "one"]);
    assert_eq!(refused.status.code(), Some(5), "{}", says(&refused));
}

#[test]
fn a_revocation_reaches_every_node_and_one_that_was_away_when_it_is_back() {
    let first = TestNode::new();
    let directory = project(&first, "page", 1, "");
    first.ok(&["up", text(&directory)]);
    let second = join(&first, "two", &[]);
    let third = join(&first, "three", &[]);
    for node in [&first, &second, &third] {
        until_seen(node, "two", "alive");
        until_seen(node, "three", "alive");
    }
    good(&second, "/echo");
    // The third hears nothing for a while, and misses it.
    let (_, agent, _) = third.pids();
    signal(agent, "STOP");
    until_seen(&first, "three", "dead");
    let began = Instant::now();
    first.ok(&["node", "revoke", "two"]);
    until("its agent is refused", || {
        let refused = second.run(&["secret", "ls"]);
        (!refused.status.success()).then_some(())
    });
    let of_agent = began.elapsed();
    let of_edge = until("its edge is refused", || {
        let asked = Instant::now();
        (!answers_at_once(&second, "/echo")).then(|| asked - began)
    });
    signal(agent, "CONT");
    let back = Instant::now();
    until_seen(&third, "two", "revoked");
    let told = back.elapsed();
    let _ = writeln!(
        std::io::stderr(),
        "measured: a revoked node's agent was refused {of_agent:.1?} after the command, its \
         edge within {of_edge:.1?}; one that was away was told {told:.1?} after it was back"
    );
    good(&third, "/echo");
}

#[test]
fn a_node_that_moves_is_found_where_it_went_also_by_those_who_start_anew() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = join(&first, "two", &[]);
    let third = join(&first, "three", &[]);
    let directory = project(&first, "page", 1, "node = \"two\"");
    first.ok(&["apply", text(&directory)]);
    good(&third, "/echo");
    let before = addresses(&third, "two").expect("known");
    second.ok(&["down"]);
    let (agent, edge) = (free().to_string(), free().to_string());
    second.ok(&["up", "--agent-listen", &agent, "--edge-listen", &edge]);
    let after = Value::from(vec![agent.as_str()]);
    assert_ne!(before, after);
    let there = |node: &TestNode| {
        until("its new address", || {
            (addresses(node, "two")? == after).then_some(())
        });
        until_seen(node, "two", "alive");
        good(node, "/echo");
    };
    for node in [&first, &third] {
        there(node);
    }
    third.ok(&["down"]);
    third.ok(&["up"]);
    there(&third);
    // The node that holds the store moves too: who follows finds it again.
    first.ok(&["down"]);
    let agent = free().to_string();
    first.ok(&["up", "--agent-listen", &agent]);
    let after = Value::from(vec![agent.as_str()]);
    for node in [&second, &third] {
        until("the holder's new address", || {
            (addresses(node, "one")? == after).then_some(())
        });
    }
    third.ok(&["down"]);
    third.ok(&["up"]);
    until("it follows", || {
        third
            .run(&["get", "services"])
            .status
            .success()
            .then_some(())
    });
}

#[test]
fn whoever_trusts_one_node_trusts_all_and_goes_on_without_the_first() {
    let first = TestNode::new();
    let directory = project(&first, "page", 1, "");
    first.ok(&["up", text(&directory)]);
    let second = join(&first, "two", &["--no-vote"]);
    let trusting = tls::trusting_node(&first);
    let served = |node: &TestNode| {
        until("https by the one authority", || {
            let (_, answer) = tls::get(node, &trusting, "localhost", "/").ok()?;
            (answer.status == 200).then_some(())
        });
    };
    served(&first);
    served(&second);
    let file = |node: &TestNode| {
        let to = node.scratch().join("authority.pem");
        node.ok(&["trust", "--to", text(&to)]);
        std::fs::read(to).expect("written")
    };
    assert_eq!(file(&first), file(&second));
    let keys = second.layout.tls().join("authority.key");
    assert!(!keys.exists(), "one that never votes has an authority");
    // Without the first it shows what it has, also after a start of its own.
    first.power_off();
    second.power_off();
    let _ = second.run(&["up"]);
    served(&second);
    assert_eq!(
        file(&second),
        std::fs::read(first.layout.authority()).expect("there")
    );
    first.ok(&["up"]);
    // A new host is certified too.
    let manifest = std::fs::read_to_string(directory.join("homeostat.toml")).expect("reads");
    let more = manifest.replace(
        "hosts = [\"localhost\"]",
        "hosts = [\"localhost\", \"b.test\"]",
    );
    std::fs::write(directory.join("homeostat.toml"), more).expect("writes");
    first.ok(&["apply", text(&directory)]);
    for node in [&first, &second] {
        until("the new host by the one authority", || {
            let (_, answer) = tls::get(node, &trusting, "b.test", "/").ok()?;
            (answer.status == 200).then_some(())
        });
    }
}

#[test]
fn a_followers_admin_port_is_certified_by_the_one_authority() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let line = token(&first, &[]);
    let second = TestNode::new().named("two");
    second.ok(&["up", "--join", &line, "--admin-listen", "127.0.0.1:0"]);
    let findings = second.run(&["doctor", "-o", "json"]).stdout;
    let findings: Vec<Value> = serde_json::from_slice(&findings).expect("JSON");
    let port = findings.iter().find(|one| one["check"] == "admin port");
    let url = port
        .and_then(|port| port["found"].as_str())
        .expect("a port");
    let secret = first.ok(&["token", "create", "--role", "viewer"]);
    until("it answers by the first node's authority", || {
        let authority = first.layout.authority();
        let words = [
            "--node",
            url,
            "--authority",
            text(&authority),
            "get",
            "services",
        ];
        let mut command = first.command(&words);
        let output = command
            .env("HOMEOSTAT_TOKEN", secret.trim())
            .output()
            .ok()?;
        output.status.success().then_some(())
    });
}

#[test]
fn a_follower_asks_the_holder_within_what_its_owner_may() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let viewer = join(&first, "two", &[]);
    let operator = join(&first, "three", &["--owner", "operator"]);
    let directory = project(&viewer, "from two", 1, "");
    let denied = viewer.run(&["apply", text(&directory)]);
    assert_eq!(denied.status.code(), Some(4), "{}", says(&denied));
    assert!(viewer.ok(&["get", "nodes"]).contains("three"));
    // What it applies comes from its own disk, and is served everywhere.
    let directory = project(&operator, "from three", 1, "");
    operator.ok(&["apply", text(&directory)]);
    for node in [&first, &viewer, &operator] {
        assert_eq!(good(node, "/").body, b"from three");
        good(node, "/echo");
    }
    let lines = operator.ok(&["logs", "echo"]);
    assert!(lines.contains("listening"), "{lines}");
}

#[test]
fn a_follower_goes_on_and_starts_again_without_the_holder() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = join(&first, "two", &[]);
    until_seen(&first, "two", "alive");
    let directory = project(
        &first,
        "page",
        1,
        "node = \"two\"\nsecrets = { VERSION = \"v\" }",
    );
    let secret = directory.join("secret");
    std::fs::write(&secret, "kept").expect("a file");
    let mut set = first.command(&["secret", "set", "v", "--project", "test"]);
    let set = set
        .stdin(std::fs::File::open(&secret).expect("opens"))
        .output();
    assert!(set.expect("runs").status.success());
    first.ok(&["apply", text(&directory)]);
    assert!(String::from_utf8_lossy(&good(&second, "/echo").body).contains("kept"));
    first.power_off();
    good(&second, "/");
    second.power_off();
    let _ = second.run(&["up"]);
    assert_eq!(good(&second, "/").body, b"page");
    // Its secret too: the node kept what it was given, sealed.
    kill_replicas(&second);
    until("its replica is back", || {
        let answer = second.get("/echo").ok()?;
        String::from_utf8_lossy(&answer.body)
            .contains("kept")
            .then_some(())
    });
    first.ok(&["up"]);
}

/// Those of this node, which its agent starts again.
fn kill_replicas(node: &TestNode) {
    let found = black_box::processes::of(&node.layout.root);
    let is_service = |word: &String| word.ends_with("black-box-service");
    for one in found
        .iter()
        .filter(|one| one.command.first().is_some_and(is_service))
    {
        kill(one.pid);
    }
}
