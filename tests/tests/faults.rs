//! What the node does when its data directory fails it: full, read-only or
//! damaged. It says so, goes on serving, and loses nothing it acknowledged.

use black_box::disk::Disk;
use black_box::{Load, TestNode, get, kill, project, says, until};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

fn pid_of_service(node: &TestNode) -> Option<u64> {
    let answer = get(node.http, "localhost", "/echo").ok()?;
    serde_json::from_slice::<Value>(&answer.body).ok()?["pid"].as_u64()
}

fn kill_service(node: &TestNode) {
    let pid = pid_of_service(node).expect("a pid");
    kill(u32::try_from(pid).expect("a pid"));
    until("another replica", || {
        (pid_of_service(node)? != pid).then_some(())
    });
}

/// Writes the page and asks for it; what the command said.
fn change(node: &TestNode, directory: &Path, page: &str) -> Output {
    std::fs::write(directory.join("site/index.html"), page).expect("writes");
    node.run(&["apply", directory.to_str().expect("UTF-8")])
}

fn is_served(node: &TestNode, page: &str) {
    until("the page", || {
        let answer = node.get("/").ok()?;
        (answer.body == page.as_bytes()).then_some(())
    });
}

fn doctor(node: &TestNode) -> String {
    String::from_utf8_lossy(&node.run(&["doctor"]).stdout).into_owned()
}

/// It failed, and said each of these.
fn refused(output: &Output, words: &[&str]) {
    let said = says(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
}

#[test]
fn a_full_disk_refuses_changes_and_takes_nothing_away() {
    let Some(disk) = Disk::of(96) else { return };
    let node = TestNode::with_data_in(disk.path());
    let directory = project(&node, "one", 1, "");
    node.ok(&["up", directory.to_str().expect("UTF-8")]);
    assert!(change(&node, &directory, "two").status.success());
    let (site, service) = (Load::of(node.http, "/"), Load::of(node.http, "/echo"));

    // Nearly full: the store refuses while it still could write.
    disk.fill(16 << 20);
    let nearly = change(&node, &directory, "three");
    refused(&nearly, &["free; writing needs", "free space on that disk"]);
    disk.fill(0);
    let full = change(&node, &directory, "four");
    refused(&full, &["0 B free", "free space on that disk"]);
    let found = doctor(&node);
    assert!(found.contains("bad   disk"), "{found}");
    assert!(found.contains("ok    store"), "{found}");
    // What dies meanwhile comes back.
    kill_service(&node);
    for outcome in [site.stop(), service.stop()] {
        assert!(outcome.good > 0 && outcome.bad.is_empty(), "{outcome:?}");
    }
    assert_eq!(node.get("/").expect("answers").body, b"two");

    disk.make_room();
    let done = change(&node, &directory, "five");
    assert!(done.status.success(), "{}", says(&done));
    is_served(&node, "five");
    let revisions = node.ok(&["get", "revisions", "-o", "name"]);
    assert_eq!(revisions.lines().count(), 3, "{revisions}");
}

#[test]
fn agent_and_edge_that_die_on_a_full_disk_come_back_with_all_that_was_acknowledged() {
    let Some(disk) = Disk::of(96) else { return };
    let node = TestNode::with_data_in(disk.path());
    let directory = project(&node, "one", 1, "");
    node.ok(&["up", directory.to_str().expect("UTF-8")]);
    assert!(change(&node, &directory, "two").status.success());
    let (_, agent, edge) = node.pids();
    disk.fill(0);
    kill(edge);
    is_served(&node, "two");
    kill(agent);
    until("another agent, on the full disk", || {
        let output = node.run(&["get", "services"]);
        let another = node.find_pids().is_some_and(|pids| pids.1 != agent);
        (output.status.success() && another).then_some(())
    });
    kill_service(&node);
    refused(
        &change(&node, &directory, "three"),
        &["free; writing needs"],
    );
    disk.make_room();
    let revisions = node.ok(&["get", "revisions", "-o", "name"]);
    assert_eq!(revisions.lines().count(), 2, "{revisions}");
    assert!(change(&node, &directory, "four").status.success());
    is_served(&node, "four");
}

#[test]
fn up_on_a_full_disk_says_so_and_serves_what_it_can() {
    let Some(disk) = Disk::of(96) else { return };
    let node = TestNode::with_data_in(disk.path());
    disk.fill(0);
    refused(&node.run(&["up"]), &["is full", "free space on it"]);
    disk.make_room();
    let directory = project(&node, "one", 1, "");
    node.ok(&["up", directory.to_str().expect("UTF-8")]);
    node.ok(&["down"]);
    disk.fill(0);
    refused(&node.run(&["up"]), &["disk", "free space on"]);
    is_served(&node, "one");
    disk.make_room();
    node.ok(&["up"]);
    until("the service", || pid_of_service(&node));
}

#[test]
fn up_on_a_read_only_directory_says_so_and_changes_nothing() {
    let Some(disk) = Disk::of(64) else { return };
    let node = TestNode::with_data_in(disk.path());
    disk.set_read_only(true);
    let words = ["Read-only", "--data-dir"];
    refused(&node.run(&["up"]), &words);
    disk.set_read_only(false);
    node.ok(&["up"]);
    node.ok(&["down"]);
    disk.set_read_only(true);
    refused(&node.run(&["up"]), &words);
    disk.set_read_only(false);
    node.ok(&["up"]);
}

#[test]
fn a_damaged_store_is_named_with_the_mend_while_the_edge_serves_on() {
    let node = TestNode::new();
    let directory = project(&node, "one", 1, "");
    node.ok(&["up", directory.to_str().expect("UTF-8")]);
    node.ok(&["down"]);
    let store = node.layout.control();
    let good = std::fs::read(&store).expect("reads");
    let mut bad = good.clone();
    bad[..8_192].fill(0xa5);
    std::fs::write(&store, &bad).expect("writes");
    let words = ["control.redb", "damaged", "put a copy back", "move it away"];
    refused(&node.run(&["up"]), &words);
    assert_eq!(node.get("/").expect("answers").body, b"one");
    assert_eq!(std::fs::read(&store).expect("reads"), bad, "left alone");
    let found = doctor(&node);
    assert!(found.contains("bad"), "{found}");

    std::fs::write(&store, good).expect("writes");
    node.ok(&["up"]);
    until("the service", || pid_of_service(&node));
}
