//! Any machine may die: the cluster's state is kept by several, and whoever is
//! left goes on.

use super::{good, join, nodes, state, text, token_for, until_seen};
use black_box::{Load, TestNode, project, says, until};
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;

pub fn status(node: &TestNode) -> Value {
    let shown = node.ok(&["store", "status", "-o", "json"]);
    serde_json::from_str(&shown).expect("JSON")
}

/// Once all groups have these voters, as `node` sees it.
pub fn until_voters(node: &TestNode, names: &[&str]) {
    until("the voters are in", || {
        let status = status(node);
        let groups = status["groups"].as_array()?.clone();
        let wanted: Value = names.into();
        let led = |group: &Value| group["voters"] == wanted && group["leader"].is_string();
        groups.iter().all(led).then_some(())
    });
}

/// Three nodes, all of which vote.
pub fn three() -> [TestNode; 3] {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = join(&first, "two", &["--owner", "admin"]);
    let third = join(&first, "three", &["--owner", "admin"]);
    until_voters(&first, &["one", "two", "three"]);
    [first, second, third]
}

fn set_secret(node: &TestNode, value: &str) -> bool {
    let mut setting = node.command(&["secret", "set", "v", "--project", "test"]);
    let mut setting = setting
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    let mut input = setting.stdin.take().expect("piped");
    std::io::Write::write_all(&mut input, value.as_bytes()).expect("written");
    drop(input);
    setting.wait().expect("ends").success()
}

pub fn change_page(directory: &Path, page: &str) {
    std::fs::write(directory.join("site/index.html"), page).expect("a page");
}

pub fn serves(node: &TestNode, page: &str) {
    until("the page", || {
        (good(node, "/").body == page.as_bytes()).then_some(())
    });
}

#[test]
fn without_the_node_it_began_with_a_cluster_is_changed_and_grows() {
    let [first, second, third] = three();
    assert!(set_secret(&first, "before"));
    let secret = "node = \"two\"\nsecrets = { VERSION = \"v\" }";
    let directory = project(&second, "page", 1, secret);
    first.ok(&["apply", text(&directory)]);
    let answers = |node: &TestNode, words: &str| {
        until("the service's answer", || {
            let answer = node.get("/echo").ok()?;
            String::from_utf8_lossy(&answer.body)
                .contains(words)
                .then_some(())
        });
    };
    answers(&third, "before");
    first.power_off();
    // Another one leads: what is asked waits for that.
    until("a change without the first", || {
        change_page(&directory, "without the first");
        second
            .run(&["apply", text(&directory)])
            .status
            .success()
            .then_some(())
    });
    serves(&second, "without the first");
    serves(&third, "without the first");
    // Secrets that the first one sealed open elsewhere, and others are set.
    answers(&second, "before");
    assert!(set_secret(&third, "after"));
    answers(&third, "after");
    // It lets others in, and a machine that is gone is replaced as a voter.
    let line = token_for(&third, "/eu/1", &[]);
    let fourth = TestNode::new().named("four");
    fourth.ok(&["up", "--join", &line]);
    serves(&fourth, "without the first");
    until_voters(&second, &["two", "three", "four"]);
    // The first comes back to what the others did meanwhile.
    let _ = first.run(&["up"]);
    serves(&first, "without the first");
    until_seen(&fourth, "one", "alive");
    assert_eq!(nodes(&first).len(), 4);
}

#[test]
fn the_smaller_side_serves_on_says_so_and_comes_back() {
    let [first, second, third] = three();
    let directory = project(&first, "page", 1, "");
    first.ok(&["apply", text(&directory)]);
    serves(&third, "page");
    first.power_off();
    second.power_off();
    let refused = until("it is noticed", || {
        let refused = third.run(&["apply", text(&directory)]);
        says(&refused).contains("no majority").then_some(refused)
    });
    assert!(!refused.status.success());
    let told = says(&refused);
    assert!(told.contains("homeostat store status"), "{told}");
    serves(&third, "page");
    let status = status(&third);
    assert_eq!(status["groups"][0]["leader"], Value::Null, "{status}");
    // All start anew at once.
    third.power_off();
    for node in [&first, &second, &third] {
        let _ = node.run(&["up"]);
    }
    change_page(&directory, "again");
    until("a change", || {
        first
            .run(&["apply", text(&directory)])
            .status
            .success()
            .then_some(())
    });
    for node in [&first, &second, &third] {
        serves(node, "again");
        assert_eq!(state(node, "one").as_deref(), Some("alive"));
    }
}

#[test]
fn an_old_backup_is_not_restored_into_a_cluster_that_goes_on() {
    let [first, second, _third] = three();
    let file = first.scratch().join("old.backup");
    first.ok(&["store", "backup", text(&file)]);
    first.ok(&["down"]);
    let words = ["store", "restore", text(&file), "--replace"];
    let refused = until("it is noticed", || {
        let refused = first.run(&words);
        (!refused.status.success()).then_some(refused)
    });
    let told = says(&refused);
    assert!(
        told.contains("2 other nodes") && told.contains("--alone"),
        "{told}"
    );
    let directory = project(&second, "after the backup", 1, "");
    until("a change without the first", || {
        second
            .run(&["apply", text(&directory)])
            .status
            .success()
            .then_some(())
    });
    first.ok(&["up"]);
    serves(&first, "after the backup");
}

#[test]
fn a_machine_of_somebody_elses_is_entrusted_with_nothing() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = join(&first, "two", &["--no-vote"]);
    let third = join(&first, "three", &[]);
    until("one learns", || {
        let status = status(&first);
        let learners: Value = ["three"].as_slice().into();
        (status["groups"][0]["learners"] == learners).then_some(())
    });
    let has = |node: &TestNode| node.layout.tls().join("authority.key").exists();
    assert!(has(&third) && !has(&second));
    assert!(!second.layout.cluster().join("authority.sealed").exists());
    assert!(!second.layout.keys().join("cluster.key").exists());
}

#[test]
fn what_a_loss_would_do_is_told_before_and_a_drained_node_is_left_in_order() {
    let [first, second, third] = three();
    let directory = project(&first, "page", 2, "");
    first.ok(&["apply", text(&directory)]);
    let on = |name: &str| {
        let replicas = first.ok(&["get", "replicas"]);
        replicas.matches(&format!("on {name},")).count()
    };
    let all = ["one", "two", "three"];
    until("both run", || {
        (all.iter().map(|name| on(name)).sum::<usize>() == 2).then_some(())
    });
    let loaded = *all.iter().find(|name| on(name) > 0).expect("somewhere");
    let told = first.ok(&["plan", "--without", loaded, "-o", "json"]);
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["moves"].as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!(told["voters_left"], 2, "{told}");
    let most = first.run(&["plan", "--without", "/eu"]);
    assert_eq!(most.status.code(), Some(8), "{}", says(&most));
    assert!(
        says(&most).contains("nothing could be changed"),
        "{}",
        says(&most)
    );
    // Whoever reads meanwhile does not notice.
    let readers = [&first, &second, &third].map(|node| Load::of(node.http, "/echo"));
    first.ok(&["node", "drain", loaded]);
    until("it is empty", || (on(loaded) == 0).then_some(()));
    until("both run elsewhere", || {
        let others = all.iter().filter(|name| **name != loaded);
        (others.map(|name| on(name)).sum::<usize>() == 2).then_some(())
    });
    for reader in readers {
        let outcome = reader.stop();
        assert!(outcome.good > 0 && outcome.bad.is_empty(), "{outcome:?}");
    }
    assert!(first.ok(&["node", "ls"]).contains("draining"));
    first.ok(&["node", "drain", loaded, "--end"]);
    assert!(!first.ok(&["node", "ls"]).contains("draining"));
}

#[test]
fn how_often_nodes_are_down_is_known_to_whoever_leads() {
    let [first, second, third] = three();
    // Whoever leads tells it.
    let times = |name: &str| {
        [&first, &second, &third].into_iter().find_map(|by| {
            let all = by.run(&["node", "ls", "-o", "json"]);
            let all: Vec<Value> = serde_json::from_slice(&all.stdout).ok()?;
            all.iter()
                .find(|one| one["this"] == true && one["leader"] == true)?;
            let found = all.into_iter().find(|one| one["name"] == name)?;
            found["failures"]["times"].as_u64()
        })
    };
    let until_times = |name: &str, count: u64| {
        until(&format!("{name} was down {count} times"), || {
            (times(name) == Some(count)).then_some(())
        });
    };
    until_times("three", 0);
    third.power_off();
    until_times("three", 1);
    third.ok(&["up"]);
    until_seen(&first, "three", "alive");
    first.power_off();
    until_times("one", 1);
    assert_eq!(times("three"), Some(1));
    // One that is brought down is not down.
    first.ok(&["up"]);
    until_seen(&second, "one", "alive");
    third.ok(&["down"]);
    until_seen(&second, "three", "left");
    until_times("three", 1);
}
