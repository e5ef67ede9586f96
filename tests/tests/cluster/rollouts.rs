//! A new version that takes the place of the old one by stages.

use super::members::until_voters;
use super::{good, join, text};
use black_box::{Load, TestNode, kill, project, says, until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

const CANARY: &str = r#"{ strategy = "canary", share = "25%", for = "manual" }"#;
const BATCHES: &str = r#"{ strategy = "rolling", batch = "34%" }"#;
const BLUE_GREEN: &str = r#"{ strategy = "blue-green", keep = "10m" }"#;

fn written(node: &TestNode, replicas: u32, version: &str, rollout: &str) -> PathBuf {
    let more = format!("environment = {{ {version} }}\nrollout = {rollout}");
    project(node, "page", replicas, &more)
}

fn version(number: u32) -> String {
    format!("VERSION = \"{number}\"")
}

/// Which versions answer, how often each of so many times.
fn versions(node: &TestNode, times: u32) -> BTreeMap<String, u32> {
    let mut seen = BTreeMap::new();
    for _ in 0..times {
        let answer = good(node, "/echo");
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let version = body["version"].as_str().expect("a version").to_owned();
        *seen.entry(version).or_default() += 1;
    }
    seen
}

/// Only these answer, from now on.
fn until_only(node: &TestNode, version: &str) {
    until(&format!("version {version} alone"), || {
        let seen = versions(node, 20);
        (seen.len() == 1 && seen.contains_key(version)).then_some(())
    });
}

fn status(node: &TestNode) -> Option<Value> {
    node.rollout("test/echo")
}

fn until_status(node: &TestNode, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    until(what, || status(node).filter(&holds))
}

fn is_up(view: &Value) -> bool {
    let new = &view["new"];
    new["wanted"] != 0 && new["ready"] == new["wanted"]
}

fn is_over(node: &TestNode) -> Option<()> {
    node.rolls_nothing_out("test/echo").then_some(())
}

#[test]
fn canary_takes_its_share_until_it_is_promoted_or_aborted() {
    let node = TestNode::new();
    let first = written(&node, 4, &version(1), CANARY);
    node.ok(&["up", text(&first)]);
    until_only(&node, "1");
    assert!(is_over(&node).is_some());
    let load = Load::of(node.http, "/echo");

    node.ok(&["apply", text(&written(&node, 4, &version(2), CANARY))]);
    let view = until_status(&node, "the canary is up", is_up);
    assert_eq!(
        (&view["new"]["wanted"], &view["old"]["wanted"]),
        (&1.into(), &4.into())
    );
    // One of five replicas.
    let seen = until("both answer", || {
        let seen = versions(&node, 200);
        (seen.len() == 2).then_some(seen)
    });
    assert!((10..=90).contains(&seen["2"]), "{seen:?}");

    node.ok(&["rollout", "abort", "test/echo"]);
    until_only(&node, "1");
    let again = node.run(&["rollout", "promote", "test/echo"]);
    assert!(
        says(&again).contains("nothing is being rolled out"),
        "{}",
        says(&again)
    );

    node.ok(&["apply", text(&written(&node, 4, &version(3), CANARY))]);
    until_status(&node, "the canary is up", is_up);
    // The agent begins anew meanwhile, and knows of both.
    kill(node.pids().1);
    until_status(&node, "the canary is up again", is_up);
    until("it is promoted", || {
        let promoted = node.run(&["rollout", "promote", "test/echo"]);
        promoted.status.success().then_some(())
    });
    until_only(&node, "3");
    is_over(&node).expect("it is over");
    until("as many as before", || {
        let shown = node.ok(&["get", "replicas"]);
        (shown.matches(" ready ").count() == 4).then_some(())
    });
    let outcome = load.stop();
    assert!(outcome.bad.is_empty() && outcome.good > 0, "{outcome:?}");
}

#[test]
fn canary_that_is_worse_is_given_up_by_itself() {
    let node = TestNode::new();
    let rollout = r#"{ strategy = "canary", share = "25%", for = "10m", min_requests = 20 }"#;
    node.ok(&["up", text(&written(&node, 2, &version(1), rollout))]);
    until_only(&node, "1");
    let broken = "VERSION = \"2\", STATUS = \"500 Broken\"";
    node.ok(&["apply", text(&written(&node, 2, broken, rollout))]);
    // A pause holds what would go on by itself, and not this.
    node.ok(&["rollout", "pause", "test/echo"]);
    let load = Load::of(node.http, "/echo");
    until("it is given up", || is_over(&node));
    drop(load.stop());
    until_only(&node, "1");
    let why = node.ok(&["why", "service/test/echo"]);
    assert!(
        why.contains("requests failed at the new generation"),
        "{why}"
    );
    // What is given up is no way back.
    node.ok(&[
        "apply",
        text(&written(
            &node,
            2,
            &version(3),
            "{ strategy = \"rolling\" }",
        )),
    ]);
    until_only(&node, "3");
    node.ok(&["rollback", "test"]);
    until_only(&node, "1");
}

#[test]
fn canary_goes_on_by_itself_unless_it_is_paused() {
    let node = TestNode::new();
    let rollout = r#"{ strategy = "canary", share = "50%", for = "2s" }"#;
    node.ok(&["up", text(&written(&node, 2, &version(1), rollout))]);
    until_only(&node, "1");
    node.ok(&["apply", text(&written(&node, 2, &version(2), rollout))]);
    until_only(&node, "2");
    let blue_green = written(&node, 2, &version(3), BLUE_GREEN);
    node.ok(&["apply", text(&blue_green)]);
    until_status(&node, "it has switched", |view| view["stage"] == "switched");
    let why = node.ok(&["why", "service/test/echo"]);
    assert!(why.contains("promote generation 2"), "{why}");
}

#[test]
fn blue_green_switches_at_once_and_back() {
    let node = TestNode::new();
    node.ok(&["up", text(&written(&node, 2, &version(1), BLUE_GREEN))]);
    until_only(&node, "1");
    let load = Load::of(node.http, "/echo");
    node.ok(&["apply", text(&written(&node, 2, &version(2), BLUE_GREEN))]);
    until_only(&node, "2");
    until_status(&node, "the old one is kept", |view| {
        view["stage"] == "switched" && view["old"]["ready"] == 2
    });
    node.ok(&["rollout", "abort", "test/echo"]);
    until_only(&node, "1");
    let outcome = load.stop();
    assert!(outcome.bad.is_empty() && outcome.good > 0, "{outcome:?}");
}

#[test]
fn batches_take_places_one_after_the_other_and_give_them_back() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = join(&first, "two", &["--owner", "admin"]);
    let third = join(&first, "three", &["--owner", "admin"]);
    until_voters(&first, &["one", "two", "three"]);
    let nodes = [&first, &second, &third];
    first.ok(&["apply", text(&written(&first, 3, &version(1), BATCHES))]);
    for node in nodes {
        until_only(node, "1");
    }
    let load = nodes.map(|node| Load::of(node.http, "/echo"));

    // Each new replica starts when it is let through.
    let gate = first.scratch().join("gate");
    std::fs::create_dir_all(&gate).expect("a directory");
    let let_one_through = |which: &str| std::fs::write(gate.join(which), "").expect("a file");
    let gated = format!("{}, GATE = \"{}\"", version(2), gate.display());
    first.ok(&["apply", text(&written(&first, 3, &gated, BATCHES))]);
    let parts = |view: &Value| {
        let part = |side: &str, what: &str| view[side][what].as_u64().expect("a number");
        let wanted = (part("old", "wanted"), part("new", "wanted"));
        (wanted, (part("old", "ready"), part("new", "ready")))
    };
    until_status(&first, "one comes up", |it| parts(it) == ((3, 1), (3, 0)));
    let_one_through("a");
    until_status(&first, "it has a place", |it| parts(it) == ((2, 2), (2, 1)));
    first.ok(&["rollout", "pause", "test/echo"]);
    let_one_through("b");
    let view = until_status(&first, "two are there", |it| parts(it).1 == (2, 2));
    assert_eq!(parts(&view).0, (2, 2), "{view}");
    assert_eq!(view["waits_for"], "homeostat rollout resume");

    // One node has no old one any more.
    first.ok(&["rollout", "abort", "test/echo"]);
    for node in nodes {
        until_only(node, "1");
    }
    let ready = |count: usize| {
        until("as many as before", || {
            let shown = first.ok(&["get", "replicas"]);
            (shown.matches(" ready ").count() == count).then_some(())
        });
    };
    ready(3);
    first.ok(&["apply", text(&written(&first, 3, &version(3), BATCHES))]);
    until("it is over", || is_over(&first));
    for node in nodes {
        until_only(node, "3");
    }
    ready(3);
    for outcome in load.map(Load::stop) {
        assert!(outcome.bad.is_empty() && outcome.good > 0, "{outcome:?}");
    }
}

#[test]
fn an_apply_meanwhile_takes_the_place_of_the_new_version_alone() {
    let node = TestNode::new();
    node.ok(&["up", text(&written(&node, 2, &version(1), CANARY))]);
    until_only(&node, "1");
    node.ok(&["apply", text(&written(&node, 2, &version(2), CANARY))]);
    until_status(&node, "the canary is up", is_up);
    node.ok(&["apply", text(&written(&node, 2, &version(3), CANARY))]);
    let view = until_status(&node, "the next canary is up", |view| {
        is_up(view) && view["new"]["generation"] == 3
    });
    assert_eq!(view["old"]["generation"], 1, "{view}");
    until("1 and 3 answer", || {
        let seen = versions(&node, 60);
        let all: Vec<&str> = seen.keys().map(String::as_str).collect();
        (all == ["1", "3"]).then_some(())
    });
    // What the old one says is no new one.
    node.ok(&["apply", text(&written(&node, 2, &version(1), CANARY))]);
    is_over(&node).expect("it is over");
    until_only(&node, "1");
}

#[test]
fn a_rollout_goes_on_when_its_leader_is_lost() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = join(&first, "two", &["--owner", "admin"]);
    let _third = join(&first, "three", &["--owner", "admin"]);
    until_voters(&first, &["one", "two", "three"]);
    first.ok(&["apply", text(&written(&first, 3, &version(1), CANARY))]);
    until_only(&second, "1");
    first.ok(&["apply", text(&written(&first, 3, &version(2), CANARY))]);
    until_status(&second, "the canary is up", is_up);
    first.power_off();
    // Its canary comes up elsewhere, and all of the old generation.
    let view = until_status(&second, "both are whole", |view| {
        is_up(view) && view["old"]["ready"] == 3 && view["old"]["wanted"] == 3
    });
    assert_eq!(view["stage"], "canary", "{view}");
    until("it is promoted", || {
        let promoted = second.run(&["rollout", "promote", "test/echo"]);
        promoted.status.success().then_some(())
    });
    until_only(&second, "2");
}
