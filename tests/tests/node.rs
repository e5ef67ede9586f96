//! One node from the outside: its commands, and what is killed comes back.

use black_box::{Load, TestNode, get, kill, project, says, until};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn a_node_comes_up_changes_rolls_back_and_goes_down() {
    let node = TestNode::new();
    let directory = project(&node, "one", 2, "environment = { VERSION = \"1\" }");
    let path = directory.to_str().expect("UTF-8");
    let addresses = node.ok(&["up", path]);
    assert!(addresses.contains(&format!("http://localhost:{}/", node.http.port())));
    assert_eq!(node.get("/").expect("answers").body, b"one");
    let missing = node.get("/nothing").expect("answers");
    assert_eq!(
        (missing.status, &*missing.body),
        (404, &b"nothing here"[..])
    );
    let echo = json(&String::from_utf8_lossy(
        &node.get("/echo").expect("answers").body,
    ));
    assert_eq!(echo["version"], "1");

    let again = node.run(&["up", path]);
    assert!(again.status.success());
    assert!(says(&again).contains("nothing changed"), "{}", says(&again));
    assert_eq!(node.run(&["plan", path]).status.code(), Some(0));

    std::fs::write(directory.join("site/index.html"), "two").expect("writes");
    let _ = project(&node, "two", 2, "environment = { VERSION = \"2\" }");
    let plan = node.run(&["plan", path]);
    assert_eq!(plan.status.code(), Some(8));
    let listed = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(
        listed.contains("site/web") && listed.contains("service/echo"),
        "{listed}"
    );
    let load = Load::of(node.http, "/echo");
    node.ok(&["apply", path]);
    let outcome = load.stop();
    assert!(outcome.good > 0 && outcome.bad.is_empty(), "{outcome:?}");
    assert_eq!(node.get("/").expect("answers").body, b"two");
    let echo = json(&String::from_utf8_lossy(
        &node.get("/echo").expect("answers").body,
    ));
    assert_eq!(echo["version"], "2");

    node.ok(&["rollback", "test"]);
    assert_eq!(node.get("/").expect("answers").body, b"one");
    let echo = json(&String::from_utf8_lossy(
        &node.get("/echo").expect("answers").body,
    ));
    assert_eq!(echo["version"], "1");
    let revisions = node.ok(&["get", "revisions", "-o", "name"]);
    assert_eq!(revisions.lines().count(), 3, "{revisions}");

    node.ok(&["down"]);
    assert!(node.get("/").is_err());
    node.ok(&["up"]);
    until("the site", || {
        node.get("/").ok().filter(|answer| answer.body == b"one")
    });
}

#[test]
fn a_deployment_that_does_not_come_up_is_taken_back_while_the_old_one_serves() {
    let node = TestNode::new();
    let directory = project(&node, "one", 1, "environment = { VERSION = \"1\" }");
    let path = directory.to_str().expect("UTF-8");
    node.ok(&["up", path]);
    let _ = project(
        &node,
        "two",
        1,
        "environment = { VERSION = \"2\", FAIL_START = \"1\" }",
    );
    let load = Load::of(node.http, "/echo");
    let refused = node.run(&["apply", path]);
    assert_eq!(refused.status.code(), Some(1), "{}", says(&refused));
    assert!(says(&refused).contains("taken back"), "{}", says(&refused));
    let outcome = load.stop();
    assert!(outcome.good > 0 && outcome.bad.is_empty(), "{outcome:?}");
    until("the old page", || {
        node.get("/").ok().filter(|answer| answer.body == b"one")
    });
    let echo = json(&String::from_utf8_lossy(
        &node.get("/echo").expect("answers").body,
    ));
    assert_eq!(echo["version"], "1");
    // What failed is not a state to go back to.
    assert_eq!(node.run(&["rollback", "test"]).status.code(), Some(3));
}

#[test]
fn a_manifest_with_mistakes_changes_nothing_and_each_is_pointed_at() {
    let node = TestNode::new();
    let directory = project(&node, "one", 1, "");
    let path = directory.to_str().expect("UTF-8");
    node.ok(&["up", path]);
    let _ = project(
        &node,
        "two",
        1,
        "replica = 3\nlimits = { memory = \"10 XB\" }",
    );
    let refused = node.run(&["apply", path]);
    assert_eq!(refused.status.code(), Some(1));
    let said = says(&refused);
    assert!(
        said.contains("replicas") && said.contains("memory"),
        "{said}"
    );
    assert!(said.contains("homeostat.toml:"), "{said}");
    assert_eq!(node.get("/").expect("answers").body, b"one");
}

#[test]
fn a_killed_agent_comes_back_and_adopts_what_runs() {
    let node = TestNode::new();
    let directory = project(&node, "one", 1, "");
    node.ok(&["up", directory.to_str().expect("UTF-8")]);
    let replica = |node: &TestNode| {
        let found = json(&node.ok(&["get", "replicas", "-o", "json"]));
        found[0]["observed"]["pid"].as_u64()
    };
    let before = replica(&node).expect("a process");
    let (_, agent, _) = node.pids();
    let (site, service) = (Load::of(node.http, "/"), Load::of(node.http, "/echo"));
    kill(agent);
    until("another agent", || {
        let output = node.run(&["get", "replicas", "-o", "json"]);
        let found: Value = serde_json::from_slice(&output.stdout).ok()?;
        (found[0]["observed"]["pid"].as_u64()? == before).then_some(())
    });
    assert_ne!(node.pids().1, agent);
    for outcome in [site.stop(), service.stop()] {
        assert!(outcome.good > 0 && outcome.bad.is_empty(), "{outcome:?}");
    }
}

#[test]
fn a_killed_edge_serves_again_from_its_last_snapshot() {
    let node = TestNode::new();
    let directory = project(&node, "one", 1, "");
    node.ok(&["up", directory.to_str().expect("UTF-8")]);
    let (_, _, edge) = node.pids();
    let load = Load::of(node.http, "/");
    kill(edge);
    until("another edge", || {
        let good = node.get("/").ok()?.status == 200;
        (good && node.pids().2 != edge).then_some(())
    });
    let outcome = load.stop();
    // Only what the killed edge had in its hands may be lost.
    assert!(outcome.good > 0 && outcome.bad.len() <= 2, "{outcome:?}");
}

#[test]
fn a_killed_supervisor_leaves_all_running_and_a_second_up_brings_it_back() {
    let node = TestNode::new();
    let directory = project(&node, "one", 1, "");
    let path = directory.to_str().expect("UTF-8");
    node.ok(&["up", path]);
    let before = node.pids();
    let (site, service) = (Load::of(node.http, "/"), Load::of(node.http, "/echo"));
    kill(before.0);
    node.ok(&["get", "services"]);
    node.ok(&["up", path]);
    let after = node.pids();
    assert_ne!(after.0, before.0);
    assert_eq!((after.1, after.2), (before.1, before.2));
    for outcome in [site.stop(), service.stop()] {
        assert!(outcome.good > 0 && outcome.bad.is_empty(), "{outcome:?}");
    }
}

#[test]
fn a_killed_replica_is_restarted_its_requests_answered_and_why_tells_it() {
    let node = TestNode::new();
    let directory = project(&node, "one", 1, "");
    node.ok(&["up", directory.to_str().expect("UTF-8")]);
    let load = Load::of(node.http, "/echo");
    for _ in 0..3 {
        let answer = node.get("/echo").expect("answers");
        let pid = json(&String::from_utf8_lossy(&answer.body))["pid"]
            .as_u64()
            .expect("a pid");
        kill(u32::try_from(pid).expect("a pid"));
        until("another replica", || {
            let answer = get(node.http, "localhost", "/echo").ok()?;
            let now = serde_json::from_slice::<Value>(&answer.body).ok()?;
            (now["pid"].as_u64()? != pid).then_some(())
        });
    }
    let outcome = load.stop();
    assert!(outcome.good > 0 && outcome.bad.is_empty(), "{outcome:?}");
    let told = until("the observed effect", || {
        let told = node.ok(&["why", "service/echo"]);
        told.contains("worked").then_some(told)
    });
    assert!(
        told.contains("restart") && told.contains("signal"),
        "{told}"
    );
}

#[test]
fn a_restart_replaces_every_replica_and_says_when_it_is_done() {
    let node = TestNode::new();
    let directory = project(&node, "one", 2, "");
    node.ok(&["up", directory.to_str().expect("UTF-8")]);
    let replicas = || node.ok(&["get", "replicas", "-o", "name"]);
    let before = replicas();
    node.ok(&["restart", "echo"]);
    until("other replicas", || {
        let now = replicas();
        let kept = now.lines().any(|name| before.contains(name));
        (now.lines().count() == 2 && !kept).then_some(())
    });
}

#[test]
fn a_service_that_ends_at_once_for_ever_is_backed_off_and_named() {
    let node = TestNode::new();
    let directory = project(&node, "one", 1, "environment = { FAIL_START = \"1\" }");
    let failed = node.run(&["up", directory.to_str().expect("UTF-8")]);
    assert_eq!(failed.status.code(), Some(1), "{}", says(&failed));
    assert!(
        says(&failed).contains("homeostat logs test/echo"),
        "{}",
        says(&failed)
    );
    let logs = node.ok(&["logs", "echo"]);
    assert!(logs.contains("told to fail"), "{logs}");
    until("back-off", || {
        let found = json(&node.ok(&["get", "replicas", "-o", "json"]));
        (found[0]["state"] == "backing-off").then_some(())
    });
    // Its neighbour is served all the same.
    assert_eq!(node.get("/").expect("answers").body, b"one");
}

#[test]
fn a_port_in_use_is_said_with_the_flag_that_changes_it() {
    let node = TestNode::new();
    let _taken = std::net::TcpListener::bind(node.https).expect("binds");
    let refused = node.run(&["up"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = says(&refused);
    assert!(
        said.contains(&node.https.to_string()) && said.contains("--https"),
        "{said}"
    );
}

#[test]
fn a_data_directory_of_another_version_is_refused_and_left_alone() {
    let node = TestNode::new();
    node.ok(&["up"]);
    node.ok(&["down"]);
    std::fs::write(node.layout.version(), "99\n").expect("writes");
    let store = std::fs::read(node.layout.store()).expect("reads");
    let refused = node.run(&["up"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(says(&refused).contains("99"), "{}", says(&refused));
    assert_eq!(std::fs::read(node.layout.store()).expect("reads"), store);
}

#[test]
fn commands_without_a_node_or_an_object_end_with_their_exit_codes() {
    let node = TestNode::new();
    let lonely = node.run(&["get", "services"]);
    assert_eq!(lonely.status.code(), Some(1));
    assert!(says(&lonely).contains("homeostat up"), "{}", says(&lonely));
    node.ok(&["up"]);
    for (words, code) in [
        (&["get", "service/none"][..], 3),
        (&["why", "service/none"], 3),
        (&["logs", "none"], 3),
        (&["restart", "none"], 3),
        (&["rollback", "none"], 3),
        (&["get", "things"], 3),
        (&["why", "none"], 2),
        (&["frobnicate"], 2),
        (&["apply", "/nowhere"], 3),
    ] {
        let output = node.run(words);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{words:?}: {}",
            says(&output)
        );
        assert!(output.stdout.is_empty(), "{words:?}");
    }
}
