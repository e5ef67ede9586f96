//! What a newcomer and a script meet at the command line.

use black_box::{TestNode, project, says, until};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A directory of web content without a manifest.
fn content(node: &TestNode, name: &str) -> PathBuf {
    let directory = node.scratch().join(name);
    std::fs::create_dir_all(&directory).expect("a directory");
    std::fs::write(directory.join("index.html"), name).expect("a page");
    directory
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_second_site_is_initialised_so_that_it_fits_beside_the_first() {
    let node = TestNode::new();
    let first = content(&node, "blog");
    node.ok(&["init", text(&first)]);
    node.ok(&["up", text(&first)]);
    let second = content(&node, "other/blog");
    node.ok(&["init", text(&second)]);
    node.ok(&["apply", text(&second)]);
    let sites = node.ok(&["get", "sites", "-o", "name"]);
    assert_eq!(sites, "site/blog\nsite/blog-2\n");
    let answer = black_box::get(node.http, "blog-2.localhost", "/").expect("answers");
    assert_eq!(answer.body, b"other/blog");
    assert_eq!(node.get("/").expect("answers").body, b"blog");
}

#[test]
fn what_lies_hidden_in_a_site_and_its_manifest_are_not_served() {
    let node = TestNode::new();
    let site = content(&node, "blog");
    std::fs::create_dir_all(site.join(".git")).expect("a directory");
    std::fs::write(site.join(".git/config"), "secret").expect("a file");
    node.ok(&["init", text(&site)]);
    node.ok(&["up", text(&site)]);
    for (path, status) in [("/", 200), ("/.git/config", 404), ("/homeostat.toml", 404)] {
        assert_eq!(node.get(path).expect("answers").status, status, "{path}");
    }
}

#[test]
fn a_script_reads_one_document_or_one_line_for_each_thing() {
    let node = TestNode::new();
    node.ok(&["up"]);
    let directory = project(&node, "one", 1, "");
    let planned = node.run(&["plan", text(&directory), "-o", "name"]);
    let planned = String::from_utf8(planned.stdout).expect("text");
    assert_eq!(planned, "site/web\nservice/echo\n");
    let applied = node.ok(&["apply", text(&directory), "-o", "json"]);
    let applied: Value = serde_json::from_str(&applied).expect("one document");
    assert_eq!(applied["revision"], 1);
    let addresses = applied["addresses"].as_array().expect("a list");
    assert!(!addresses.is_empty(), "{applied}");
    for words in [["doctor", "-o", "jsonl"], ["up", "-o", "jsonl"]] {
        for line in node.ok(&words).lines() {
            let one: Value = serde_json::from_str(line).expect("JSON");
            assert!(one.is_object(), "{words:?}: {line}");
        }
    }
}

#[test]
fn words_that_name_nothing_are_not_found_however_odd() {
    let node = TestNode::new();
    node.ok(&["up"]);
    for (words, code) in [
        (["get", "service/ü?x y"], 3),
        (["get", "service/a/b"], 3),
        (["get", "service/"], 2),
        (["why", "services/none"], 3),
        (["why", "/"], 2),
        (["logs", "../x"], 3),
        (["restart", "x/../../down"], 3),
        (["rollback", "ü x"], 3),
    ] {
        let output = node.run(&words);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{words:?}: {}",
            says(&output)
        );
    }
}

#[test]
fn a_node_that_listens_elsewhere_is_not_what_was_asked_for() {
    let node = TestNode::new();
    node.ok(&["up"]);
    let refused = node.run(&["up", "--http", "127.0.0.1:1"]);
    assert_eq!(refused.status.code(), Some(5), "{}", says(&refused));
    assert!(
        says(&refused).contains("homeostat down"),
        "{}",
        says(&refused)
    );
}

#[test]
fn a_load_goes_to_this_node_unless_told_otherwise() {
    let node = TestNode::new();
    let site = content(&node, "blog");
    node.ok(&["init", text(&site)]);
    node.ok(&["up", text(&site)]);
    let report = node.ok(&["replay", "--limit", "5", "-o", "json"]);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["statuses"]["2xx"], 5, "{report}");
}

#[test]
fn doctor_names_a_service_that_is_down() {
    let node = TestNode::new();
    let directory = project(&node, "one", 1, "environment = { FAIL_START = \"1\" }");
    let failed = node.run(&["up", text(&directory)]);
    assert!(says(&failed).contains("tried on"), "{}", says(&failed));
    until("the finding", || {
        let found = node.run(&["doctor"]);
        let told = String::from_utf8_lossy(&found.stdout).into_owned();
        (found.status.code() == Some(1) && told.contains("why service/echo")).then_some(())
    });
}

#[test]
fn what_a_node_keeps_is_its_owners_alone() {
    let node = TestNode::new();
    node.ok(&["up"]);
    for directory in [&node.layout.root, &node.layout.logs(), &node.layout.run()] {
        let found = std::fs::metadata(directory).expect("is there");
        assert_eq!(found.permissions().mode() & 0o777, 0o700, "{directory:?}");
    }
}

#[test]
fn whoever_stops_waiting_for_a_change_is_told_that_it_goes_on() {
    let node = TestNode::new();
    let directory = project(&node, "one", 1, "environment = { FAIL_START = \"1\" }");
    node.ok(&["up"]);
    let mut waiting = node
        .command(&["apply", text(&directory)])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut said = BufReader::new(waiting.stderr.take().expect("piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("a first step");
    let pid = waiting.id().to_string();
    let told = Command::new("kill").args(["-INT", &pid]).status();
    assert!(told.expect("kill runs").success());
    said.read_to_string(&mut line).expect("the rest");
    let code = waiting.wait().expect("ends").code();
    assert_eq!(code, Some(130), "{line}");
    assert!(line.contains("goes on with the change"), "{line}");
    assert!(node.ok(&["get", "revisions"]).contains("test-1"));
}
