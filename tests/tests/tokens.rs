//! Tokens at the command line: what each may, and what is no good any more.

use black_box::{TestNode, project, says, until};
use serde_json::Value;
use std::io::BufRead;
use std::process::{Output, Stdio};

fn token(node: &TestNode, more: &[&str]) -> String {
    let words = [&["token", "create"], more].concat();
    node.ok(&words).trim().to_owned()
}

fn with(node: &TestNode, token: &str, words: &[&str]) -> Output {
    let mut command = node.command(words);
    command.env("HOMEOSTAT_TOKEN", token);
    command.output().expect("the program runs")
}

fn code(node: &TestNode, token: &str, words: &[&str]) -> i32 {
    let output = with(node, token, words);
    let code = output.status.code().expect("ends by itself");
    assert!(
        code != 4 || says(&output).contains("help"),
        "{}",
        says(&output)
    );
    code
}

#[test]
fn each_role_may_what_it_says_and_no_more() {
    let node = TestNode::new();
    let directory = project(&node, "one", 1, "");
    let path = directory.to_str().expect("UTF-8");
    node.ok(&["up", path]);
    let viewer = token(&node, &["--role", "viewer"]);
    let operator = token(&node, &["--role", "operator", "--project", "test"]);
    let admin = token(&node, &["--role", "admin"]);
    for (words, codes) in [
        (&["get", "services"][..], [0, 0, 0]),
        (&["why", "service/echo"], [0, 0, 0]),
        (&["apply", path], [4, 0, 0]),
        (&["restart", "echo"], [4, 0, 0]),
        (&["token", "ls"], [4, 4, 0]),
        (&["token", "create", "--role", "admin"], [4, 4, 0]),
        (&["down"], [4, 4, -1]),
    ] {
        for (token, wanted) in [&viewer, &operator, &admin].into_iter().zip(codes) {
            if wanted >= 0 {
                assert_eq!(code(&node, token, words), wanted, "{words:?}");
            }
        }
    }
    assert_eq!(node.get("/").expect("still up").status, 200);

    let file = node.scratch().join("token");
    std::fs::write(&file, format!("{viewer}\n")).expect("writes");
    let file = file.to_str().expect("UTF-8");
    let denied = node.run(&["down", "--token-file", file]);
    assert_eq!(denied.status.code(), Some(4), "{}", says(&denied));
    assert!(
        says(&denied).contains("needs the role admin"),
        "{}",
        says(&denied)
    );
}

#[test]
fn a_token_of_one_project_knows_nothing_of_another() {
    let node = TestNode::new();
    let directory = project(&node, "one", 1, "");
    node.ok(&["up", directory.to_str().expect("UTF-8")]);
    let stolen = token(&node, &["--role", "admin", "--project", "elsewhere"]);
    for (words, wanted) in [
        (&["get", "service/echo"][..], 3),
        (&["why", "service/echo"], 3),
        (&["logs", "echo"], 3),
        (&["restart", "echo"], 3),
        (&["rollback", "test"], 4),
        (&["apply", directory.to_str().expect("UTF-8")], 4),
        (&["secret", "rm", "x", "--project", "test"], 4),
    ] {
        assert_eq!(code(&node, &stolen, words), wanted, "{words:?}");
    }
    for kind in ["services", "sites", "replicas", "revisions"] {
        let listed = with(&node, &stolen, &["get", kind, "-o", "name"]);
        assert!(
            listed.status.success() && listed.stdout.is_empty(),
            "{kind}"
        );
    }
}

#[test]
fn what_expired_or_was_revoked_is_no_good_and_no_token_is_kept() {
    let node = TestNode::new();
    node.ok(&["up"]);
    let made = node.ok(&["token", "create", "--role", "viewer", "-o", "json"]);
    let made: Value = serde_json::from_str(&made).expect("JSON");
    let (id, good) = (
        made["id"].as_str().expect("an id"),
        made["token"].as_str().expect("a token"),
    );
    let short = token(&node, &["--role", "viewer", "--ttl", "1s"]);
    assert_eq!(code(&node, good, &["get", "nodes"]), 0);
    until("its end", || {
        (code(&node, &short, &["get", "nodes"]) == 4).then_some(())
    });
    let told = says(&with(&node, &short, &["get", "nodes"]));
    assert!(told.contains("expired at"), "{told}");
    node.ok(&["token", "revoke", id]);
    assert_eq!(code(&node, good, &["get", "nodes"]), 4);
    assert_eq!(code(&node, &format!("{good}x"), &["get", "nodes"]), 4);
    assert_eq!(code(&node, "no\u{7f}token", &["get", "nodes"]), 4);
    assert_eq!(node.run(&["token", "revoke", id]).status.code(), Some(3));

    // The secret itself may hold the letter that parts it from its id.
    let secret = good.splitn(3, '_').nth(2).expect("parts").as_bytes();
    let mut open = vec![node.layout.root.clone()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let bytes = match entry.file_type().expect("a type") {
                kind if kind.is_dir() => {
                    open.push(entry.path());
                    continue;
                }
                kind if kind.is_file() => std::fs::read(entry.path()).unwrap_or_default(),
                _ => continue,
            };
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "{:?}", entry.path());
        }
    }
}

#[test]
fn a_log_that_is_followed_ends_with_its_token() {
    let node = TestNode::new();
    let directory = project(&node, "one", 1, "");
    node.ok(&["up", directory.to_str().expect("UTF-8")]);
    for ends_by_itself in [false, true] {
        let ttl = if ends_by_itself { "2s" } else { "1h" };
        let made = node.ok(&[
            "token", "create", "--role", "viewer", "--ttl", ttl, "-o", "json",
        ]);
        let made: Value = serde_json::from_str(&made).expect("JSON");
        let mut follows = node
            .command(&["logs", "-f", "echo"])
            .env("HOMEOSTAT_TOKEN", made["token"].as_str().expect("a token"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let lines = follows.stdout.take().expect("piped");
        // It is let in, and told what there is.
        let first = std::io::BufReader::new(lines).lines().next();
        first.expect("a line").expect("text");
        if !ends_by_itself {
            assert!(follows.try_wait().expect("waits").is_none());
            node.ok(&["token", "revoke", made["id"].as_str().expect("an id")]);
        }
        let ended = follows.wait_with_output().expect("ends");
        assert_eq!(ended.status.code(), Some(4), "{}", says(&ended));
    }
}
