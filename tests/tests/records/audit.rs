//! The audit log at the command line: changes in it, and what was done to it.

use black_box::{TestNode, kill, project, says, until};
use serde_json::Value;
use std::path::PathBuf;

fn lines(node: &TestNode) -> Vec<Value> {
    serde_json::from_str(&node.ok(&["audit", "ls", "-o", "json"])).expect("JSON")
}

fn file(node: &TestNode) -> PathBuf {
    node.layout.audit().join("log-00000000000000000001.jsonl")
}

#[test]
fn changes_are_told_with_who_asked_and_how_they_ended() {
    let node = TestNode::new();
    let directory = project(&node, "one", 1, "");
    let path = directory.to_str().expect("UTF-8");
    node.ok(&["up", path]);
    node.ok(&["restart", "echo"]);
    let _ = project(&node, "one", 1, "secrets = { VERSION = \"none\" }");
    assert_eq!(node.run(&["apply", path]).status.code(), Some(1));
    let told: Vec<String> = lines(&node)
        .iter()
        .filter(|line| line["outcome"] != "asked")
        .map(|line| format!("{} {} {}", line["act"], line["object"], line["outcome"]))
        .collect();
    let wanted = [
        "\"apply\" \"project/test\" \"done\"",
        "\"restart\" \"service/test/echo\" \"done\"",
        "\"apply\" \"project/test\" \"failed\"",
    ];
    assert_eq!(told, wanted);
    let table = node.ok(&["audit", "ls"]);
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(
        table.contains("owner") && table.contains("missing_secret"),
        "{table}"
    );
    let whole = node.run(&["audit", "verify"]);
    assert!(
        whole.status.success() && says(&whole).contains("6 lines"),
        "{}",
        says(&whole)
    );
}

#[test]
fn a_changed_log_is_found_also_without_a_node() {
    let node = TestNode::new();
    node.ok(&["up"]);
    for _ in 0..2 {
        node.ok(&["token", "create", "--role", "viewer"]);
    }
    node.ok(&["down"]);
    let whole = std::fs::read_to_string(file(&node)).expect("reads");
    // Two tokens and the end of the node, two lines each.
    assert_eq!(whole.lines().count(), 6, "{whole}");
    std::fs::write(file(&node), whole.replacen("viewer", "admin!", 1)).expect("writes");
    let found = node.run(&["audit", "verify"]);
    assert_eq!(found.status.code(), Some(1), "{}", says(&found));
    assert!(says(&found).contains(".jsonl:1:"), "{}", says(&found));
    std::fs::write(file(&node), &whole).expect("writes");
    let copy = node.scratch().join("copy.jsonl");
    std::fs::copy(file(&node), &copy).expect("copies");
    node.ok(&["audit", "verify", "--file", copy.to_str().expect("UTF-8")]);

    let cut: String = whole.split_inclusive('\n').take(3).collect();
    std::fs::write(file(&node), cut).expect("writes");
    node.ok(&["up"]);
    let found = node.run(&["audit", "verify"]);
    assert_eq!(found.status.code(), Some(1), "{}", says(&found));
    assert!(
        says(&found).contains("lines 4 to 6 are missing"),
        "{}",
        says(&found)
    );
}

#[test]
fn kills_while_changes_go_on_leave_a_log_that_is_whole() {
    let node = TestNode::new();
    node.ok(&["up"]);
    let mut acknowledged = 0;
    for round in 0..5 {
        let changing = std::thread::scope(|scope| {
            let changes = scope.spawn(|| {
                let mut good = 0;
                for _ in 0..10 {
                    let made = node.run(&["token", "create", "--role", "viewer"]);
                    good += usize::from(made.status.success());
                }
                good
            });
            let (_, agent, _) = node.pids();
            kill(agent);
            changes.join().expect("ends")
        });
        acknowledged += changing;
        until("the agent", || {
            node.run(&["get", "nodes"]).status.success().then_some(())
        });
        let found = node.run(&["audit", "verify"]);
        assert!(found.status.success(), "round {round}: {}", says(&found));
    }
    let listed = node.ok(&["audit", "ls", "-o", "json", "--limit", "10000"]);
    let listed: Vec<Value> = serde_json::from_str(&listed).expect("JSON");
    let done = listed
        .iter()
        .filter(|line| line["outcome"] == "done" && line["change"] != 0);
    assert!(done.count() >= acknowledged);
    assert!(acknowledged > 0);
}

#[test]
fn a_line_torn_by_a_kill_is_mended_and_said() {
    let node = TestNode::new();
    node.ok(&["up"]);
    node.ok(&["token", "create", "--role", "viewer"]);
    node.ok(&["down"]);
    let mut torn = std::fs::read(file(&node)).expect("reads");
    torn.extend_from_slice(b"{\"entry\":{\"number\":3,");
    std::fs::write(file(&node), torn).expect("tears");
    node.ok(&["up"]);
    let told = until("the line", || {
        let output = node.run(&["audit", "ls"]);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        told.contains("cut short").then_some(told)
    });
    assert!(told.contains("21 bytes"), "{told}");
    node.ok(&["audit", "verify"]);
}

#[test]
fn doctor_names_a_log_that_was_changed() {
    let node = TestNode::new();
    node.ok(&["up"]);
    node.ok(&["token", "create", "--role", "viewer"]);
    let told = node.ok(&["doctor"]);
    assert!(told.contains("2 lines, whole"), "{told}");
    let whole = std::fs::read_to_string(file(&node)).expect("reads");
    std::fs::write(file(&node), whole.replacen("viewer", "admin!", 1)).expect("writes");
    let found = node.run(&["doctor"]);
    let told = String::from_utf8_lossy(&found.stdout).into_owned();
    assert_eq!(found.status.code(), Some(1), "{told}");
    assert!(told.contains("bad   audit log"), "{told}");
}
