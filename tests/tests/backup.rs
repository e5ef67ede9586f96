//! A node's stores, backed up while it works and restored elsewhere.

use black_box::{TestNode, ask_with, says};
use std::path::{Path, PathBuf};

const PAGE: &str = "/comments?page=/a.html";

fn project(node: &TestNode) -> PathBuf {
    let directory = node.scratch().join("project");
    std::fs::create_dir_all(&directory).expect("makes");
    std::fs::write(directory.join("comments.wasm"), guests::COMMENTS).expect("writes");
    let manifest = "[project]\nname = \"test\"\n[service.comments]\n\
        run = { wasm = \"comments.wasm\" }\nroutes = [{ path = \"/comments\" }]\n\
        bindings = { comments = { to = \"bucket/comments\" } }\n\
        [bucket.comments]\nquota = \"1 MiB\"\n";
    std::fs::write(directory.join("homeostat.toml"), manifest).expect("writes");
    directory
}

fn comment(node: &TestNode, id: &str) {
    let key = [("idempotency-key", id)];
    let answer = ask_with(node.http, "POST", "localhost", PAGE, &key, b"text").expect("answers");
    assert_eq!(answer.status, 201, "{}", node.logs());
}

fn comments(node: &TestNode) -> Vec<String> {
    let answer = node.get(PAGE).expect("answers");
    let all: Vec<serde_json::Value> = serde_json::from_slice(&answer.body).expect("JSON");
    let id = |one: &serde_json::Value| one["id"].as_str().expect("an id").to_owned();
    all.iter().map(id).collect()
}

fn refused(node: &TestNode, words: &[&str], code: i32) -> String {
    let output = node.run(words);
    assert_eq!(output.status.code(), Some(code), "{}", says(&output));
    says(&output)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn what_was_acknowledged_before_a_backup_is_back_and_nothing_after_it() {
    let node = TestNode::new();
    let directory = project(&node);
    node.ok(&["up", text(&directory)]);
    comment(&node, "one");
    comment(&node, "two");
    let file = node.scratch().join("node.backup");
    let file = text(&file);
    node.ok(&["store", "backup", file]);
    assert!(refused(&node, &["store", "backup", file], 5).contains("nothing was written over"));
    comment(&node, "three");
    let running = refused(&node, &["store", "restore", file, "--replace"], 5);
    assert!(running.contains("homeostat down"), "{running}");
    node.ok(&["down"]);
    let there = refused(&node, &["store", "restore", file], 5);
    assert!(there.contains("--replace"), "{there}");

    let bytes = std::fs::read(file).expect("reads");
    let damaged = node.scratch().join("damaged.backup");
    std::fs::write(&damaged, &bytes[..bytes.len() - 1]).expect("writes");
    let told = refused(&node, &["store", "restore", text(&damaged), "--replace"], 1);
    assert!(told.contains("cut off"), "{told}");

    node.ok(&["store", "restore", file, "--replace"]);
    node.ok(&["up"]);
    assert_eq!(comments(&node), ["one", "two"]);
    comment(&node, "four");
    assert_eq!(comments(&node), ["one", "two", "four"]);
    let audited = node.ok(&["audit", "ls"]);
    assert!(audited.contains("store-backup"), "{audited}");
}
