//! Alerts of real nodes: told when it holds, told when it is over, told once.

use super::{join, until_seen};
use black_box::{TestNode, kill, says, until};
use serde_json::Value;
use std::path::Path;

/// The notices that a command wrote down, in order.
fn notices(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.is_empty());
    // The last may be half written.
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn states(file: &Path) -> Vec<String> {
    let notices = notices(file).into_iter();
    let states = notices.map(|it| it["state"].as_str().expect("a state").to_owned());
    states.collect()
}

fn until_states(file: &Path, wanted: &[&str]) {
    until(&format!("{wanted:?} told"), || {
        let states = states(file);
        assert!(states.len() <= wanted.len(), "told too often: {states:?}");
        (states == wanted).then_some(())
    });
}

fn alert(node: &TestNode, name: &str) -> Option<Value> {
    let all = node.run(&["alerts", "ls", "-o", "json"]);
    let all: Vec<Value> = serde_json::from_slice(&all.stdout).ok()?;
    all.into_iter().find(|one| one["name"] == name)
}

#[test]
fn a_missing_node_is_told_once_and_so_is_its_return() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = join(&first, "two", &[]);
    let (told, allowed) = (
        first.scratch().join("told"),
        first.scratch().join("allowed"),
    );
    let script = format!(
        "test -e {0} || {{ echo not yet >&2; exit 1; }}; cat >> {1}; echo >> {1}",
        allowed.display(),
        told.display()
    );
    let when = "SELECT COUNT(*) < 2, COUNT(*) AS nodes";
    let words = [
        "alerts", "add", "few", "--when", when, "--for", "1s", "--every", "1s",
    ];
    let command = ["--command", "/bin/sh", "-c", &script];
    let words: Vec<&str> = words.into_iter().chain(command).collect();
    until("both are in the question", || {
        let asked = first.run(&["ask", when, "-o", "json"]);
        let asked: Value = serde_json::from_slice(&asked.stdout).ok()?;
        (asked["reporting"] == 2).then_some(())
    });
    first.ok(&words);
    let denied = second.run(&words);
    assert_eq!(denied.status.code(), Some(4), "{}", says(&denied));
    until("quiet", || {
        (alert(&first, "few")?["state"] == "quiet").then_some(())
    });

    // Whoever cannot be told is told later, and that is said.
    second.power_off();
    until_seen(&first, "two", "dead");
    until("the delivery failed", || {
        let failed = alert(&first, "few")?["failed"].clone();
        failed.as_str()?.contains("not yet").then_some(())
    });
    assert_eq!(states(&told), [""; 0]);
    std::fs::write(&allowed, "").expect("writes");
    until_states(&told, &["firing"]);
    let notice = &notices(&told)[0];
    assert_eq!(
        (&notice["reporting"], &notice["expected"]),
        (&Value::from(1), &Value::from(2)),
        "{notice}"
    );
    until("kept as told", || {
        (alert(&first, "few")?["state"] == "firing").then_some(())
    });

    // An agent that begins anew tells nothing twice.
    let (_, agent, _) = first.pids();
    kill(agent);
    until("asked by the next agent", || {
        let (_, next, _) = first.find_pids()?;
        let is_firing = alert(&first, "few")?["state"] == "firing";
        (next != agent && is_firing).then_some(())
    });
    second.ok(&["up"]);
    until_states(&told, &["firing", "resolved"]);
    let why = first.ok(&["why", "alert/few"]);
    assert!(
        why.contains("it holds for") && why.contains("not yet") && why.contains("delivered"),
        "{why}"
    );

    can_be_tried_and_ended(&first, &told, &allowed);
}

fn can_be_tried_and_ended(first: &TestNode, told: &Path, allowed: &Path) {
    first.ok(&["alerts", "test", "few"]);
    until_states(told, &["firing", "resolved", "test"]);
    std::fs::remove_file(allowed).expect("removes");
    let untold = first.run(&["alerts", "test", "few"]);
    assert!(
        !untold.status.success() && says(&untold).contains("not yet"),
        "{}",
        says(&untold)
    );
    first.ok(&["alerts", "rm", "few"]);
    assert_eq!(first.ok(&["alerts", "ls", "-o", "name"]), "");
}
