//! Secrets through a whole node: who gets them, and where they never are.

use black_box::{Load, TestNode, kill, processes, project, says, until};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

const FIRST: &str = "planted-5e7b1f-first";
const SECOND: &str = "planted-5e7b1f-second";

fn set(node: &TestNode, name: &str, value: &[u8]) -> Output {
    let mut child = node
        .command(&["secret", "set", name, "--project", "test"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(value).expect("takes it");
    drop(input);
    child.wait_with_output().expect("ends")
}

fn set_ok(node: &TestNode, value: &str) {
    let done = set(node, "token", format!("{value}\n").as_bytes());
    assert!(done.status.success(), "{}\n{}", says(&done), node.logs());
}

/// A node whose service says the secret in each answer.
fn node_with_secret() -> (TestNode, String) {
    let node = TestNode::new();
    let directory = project(&node, "one", 2, "secrets = { VERSION = \"token\" }");
    let path = directory.to_str().expect("UTF-8").to_owned();
    node.ok(&["up"]);
    set_ok(&node, FIRST);
    node.ok(&["apply", &path]);
    (node, path)
}

fn told(node: &TestNode) -> Option<String> {
    let answer = node.get("/echo").ok()?;
    let answer: Value = serde_json::from_slice(&answer.body).ok()?;
    Some(answer["version"].as_str()?.to_owned())
}

fn echo_pid(node: &TestNode) -> u32 {
    let answer = until("an answer", || {
        node.get("/echo").ok().filter(|answer| answer.status == 200)
    });
    let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
    u32::try_from(answer["pid"].as_u64().expect("a number")).expect("a pid")
}

/// Files below that hold the text.
fn holding(directory: &Path, text: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            holding(&path, text, found);
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            let mut windows = bytes.windows(text.len());
            if windows.any(|window| window == text.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
}

#[test]
fn a_planted_secret_is_found_in_the_replicas_environment_and_nowhere_else() {
    let (node, _) = node_with_secret();
    assert_eq!(told(&node).as_deref(), Some(FIRST));
    // Through a crash, a restart of the agent and one of the service too.
    kill(echo_pid(&node));
    kill(node.pids().1);
    until("the replicas", || {
        let services = node.run(&["get", "service/echo"]);
        String::from_utf8_lossy(&services.stdout)
            .contains("2/2 replicas ready")
            .then_some(())
    });
    node.ok(&["restart", "echo"]);
    assert_eq!(told(&node).as_deref(), Some(FIRST));

    let mut files = Vec::new();
    holding(&node.layout.root, FIRST, &mut files);
    holding(node.scratch(), FIRST, &mut files);
    assert_eq!(files, Vec::<String>::new());
    for words in [
        &["get", "services", "-o", "json"][..],
        &["get", "replicas", "-o", "json"],
        &["get", "revisions", "-o", "json"],
        &["get", "nodes", "-o", "json"],
        &["why", "service/echo", "-o", "json"],
        &["logs", "echo"],
        &["secret", "ls", "-o", "json"],
        &["doctor", "-o", "json"],
    ] {
        let output = node.run(words);
        let all = [output.stdout, output.stderr].concat();
        assert!(!String::from_utf8_lossy(&all).contains(FIRST), "{words:?}");
    }
    let mut replicas = 0;
    for process in processes::of(&node.layout.root) {
        let read = |file: &str| std::fs::read(format!("/proc/{}/{file}", process.pid));
        let holds =
            |file: &str| String::from_utf8_lossy(&read(file).unwrap_or_default()).contains(FIRST);
        let limits = String::from_utf8_lossy(&read("limits").unwrap_or_default()).into_owned();
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .expect("a limit");
        let soft = core.split_whitespace().nth(4);
        if process
            .command
            .iter()
            .any(|word| word.ends_with("homeostat"))
        {
            assert!(!holds("environ") && !holds("cmdline"), "{process:?}");
            assert!(
                soft == Some("0") || process.is_part("supervisor"),
                "{process:?} {core}"
            );
        } else {
            assert!(holds("environ") && !holds("cmdline"), "{process:?}");
            assert_eq!(core.split_whitespace().nth(5), Some("0"), "{core}");
            replicas += 1;
        }
    }
    // Those that were replaced may still be ending.
    assert!(replicas >= 2, "{replicas}");
}

#[test]
fn a_changed_secret_reaches_the_replicas_without_a_failed_request() {
    let (node, _) = node_with_secret();
    let load = Load::of(node.http, "/echo");
    let changed = set(&node, "token", SECOND.as_bytes());
    assert!(changed.status.success(), "{}", says(&changed));
    assert!(
        says(&changed).contains("service/echo"),
        "{}",
        says(&changed)
    );
    until("only the new value", || {
        let services = node.ok(&["get", "service/echo", "-o", "json"]);
        let services: Value = serde_json::from_str(&services).expect("JSON");
        let replicas = services["observed"]["replicas"].as_array()?.clone();
        let new = |replica: &Value| replica["replica"].to_string().contains("-g2-");
        (replicas.len() == 2 && replicas.iter().all(new)).then_some(())
    });
    let outcome = load.stop();
    assert!(outcome.good > 0 && outcome.bad.is_empty(), "{outcome:?}");
    assert_eq!(told(&node).as_deref(), Some(SECOND));
    // An unchanged manifest does not take it back.
    node.ok(&[
        "apply",
        &node.scratch().join("project").display().to_string(),
    ]);
    assert_eq!(told(&node).as_deref(), Some(SECOND));
}

#[test]
fn a_secret_that_is_missing_or_in_use_is_told_with_the_next_command() {
    let (node, path) = node_with_secret();
    let used = node.run(&["secret", "rm", "token", "--project", "test"]);
    assert_eq!(used.status.code(), Some(5), "{}", says(&used));
    assert!(says(&used).contains("service/echo"), "{}", says(&used));

    let _ = project(&node, "one", 2, "secrets = { VERSION = \"other\" }");
    for words in [["plan", &path], ["apply", &path]] {
        let refused = node.run(&words);
        assert_eq!(refused.status.code(), Some(1), "{}", says(&refused));
        let help = "homeostat secret set other --project test";
        assert!(says(&refused).contains(help), "{}", says(&refused));
    }
    assert_eq!(told(&node).as_deref(), Some(FIRST));

    let _ = project(&node, "one", 2, "");
    node.ok(&["apply", &path]);
    node.ok(&["secret", "rm", "token"]);
    assert_eq!(node.ok(&["secret", "ls", "-o", "name"]), "");
    let back = node.run(&["rollback", "test"]);
    assert!(says(&back).contains("secret set token"), "{}", says(&back));
    let gone = node.run(&["secret", "rm", "token"]);
    assert_eq!(gone.status.code(), Some(3), "{}", says(&gone));
}

#[test]
fn values_that_no_environment_can_hold_are_refused() {
    let node = TestNode::new();
    node.ok(&["up"]);
    let large = vec![b'x'; (64 << 10) + 1];
    for value in [&b""[..], b"\n", b"a\0b", b"\xff", &large] {
        let refused = set(&node, "token", value);
        assert_eq!(refused.status.code(), Some(1), "{}", says(&refused));
    }
    let odd = set(&node, "no name", b"value");
    assert_eq!(odd.status.code(), Some(3), "{}", says(&odd));
    assert_eq!(node.ok(&["secret", "ls", "-o", "name"]), "");
}

#[test]
fn a_damaged_key_stops_only_those_who_need_it_and_is_named() {
    let (node, _) = node_with_secret();
    let key = node.layout.keys().join("secrets.key");
    let whole = std::fs::read(&key).expect("reads");
    std::fs::write(&key, &whole[..whole.len() / 2]).expect("damages");
    let refused = set(&node, "token", SECOND.as_bytes());
    assert_eq!(refused.status.code(), Some(1), "{}", says(&refused));
    assert!(says(&refused).contains("secrets.key"), "{}", says(&refused));

    let old = echo_pid(&node);
    kill(old);
    until("the cause", || {
        let why = node.ok(&["why", "service/echo", "--limit", "1000"]);
        why.contains("secrets.key").then_some(())
    });
    assert_eq!(node.get("/").expect("answers").body, b"one");
    std::fs::write(&key, &whole).expect("mends");
    until("both replicas", || {
        let services = node.ok(&["get", "service/echo"]);
        services.contains("2/2 replicas ready").then_some(())
    });
    assert_eq!(told(&node).as_deref(), Some(FIRST));
}

#[test]
fn doctor_names_a_damaged_key_and_one_that_is_gone() {
    let node = TestNode::new();
    node.ok(&["up"]);
    assert!(!node.ok(&["doctor"]).contains("secrets"));
    set_ok(&node, FIRST);
    assert!(!node.ok(&["doctor"]).contains("secrets"));
    let key = node.layout.keys().join("secrets.key");
    let good = std::fs::read(&key).expect("a key");
    let bad = |words: &str| {
        let found = node.run(&["doctor"]);
        let told = String::from_utf8_lossy(&found.stdout).into_owned();
        assert_eq!(found.status.code(), Some(1), "{told}");
        assert!(
            told.contains("bad   secrets") && told.contains(words),
            "{told}"
        );
        assert!(told.contains("mend"), "{told}");
    };
    std::fs::write(&key, &good[..good.len() / 2]).expect("writes");
    bad("is damaged");
    std::fs::remove_file(&key).expect("removes");
    bad("cannot use the key");
    std::fs::write(&key, &good).expect("writes");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&key, private).expect("its mode");
    assert!(!node.ok(&["doctor"]).contains("secrets"));
}
