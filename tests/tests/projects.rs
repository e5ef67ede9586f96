//! Projects' policies at the command line.

use black_box::{TestNode, project, says};

#[test]
fn what_is_over_a_quota_is_refused_with_number_and_limit_and_changes_nothing() {
    let node = TestNode::new();
    let directory = project(&node, "one", 1, "limits = { memory = \"64 MiB\" }");
    let path = directory.to_str().expect("UTF-8");
    node.ok(&["up"]);
    node.ok(&[
        "project",
        "set",
        "test",
        "--replicas",
        "2",
        "--memory",
        "128 MiB",
    ]);
    node.ok(&["apply", path]);
    let _ = project(&node, "two", 3, "limits = { memory = \"64 MiB\" }");
    for verb in ["plan", "apply"] {
        let refused = node.run(&[verb, path]);
        assert_eq!(refused.status.code(), Some(1), "{}", says(&refused));
        for told in [
            "3 replicas, 2 at most",
            "192 MiB of memory, 128 MiB at most",
        ] {
            assert!(says(&refused).contains(told), "{}", says(&refused));
        }
    }
    assert_eq!(node.get("/").expect("answers").body, b"one");
    let listed = node.ok(&["project", "ls"]);
    assert!(listed.contains("1 of 2"), "{listed}");

    node.ok(&[
        "project",
        "set",
        "test",
        "--replicas",
        "none",
        "--memory",
        "none",
    ]);
    node.ok(&["apply", path]);
    assert_eq!(node.get("/").expect("answers").body, b"two");

    let told = node.run(&["project", "set", "test", "--trusted", "false"]);
    assert!(
        says(&told).contains("service/echo is a process"),
        "{}",
        says(&told)
    );
    let _ = project(&node, "three", 3, "");
    let refused = node.run(&["apply", path]);
    assert!(says(&refused).contains("untrusted"), "{}", says(&refused));
    let back = node.run(&["rollback", "test"]);
    assert!(says(&back).contains("untrusted"), "{}", says(&back));
    for odd in [
        ["--memory", "much"],
        ["--replicas", "-1"],
        ["--services", "x"],
    ] {
        let words = [&["project", "set", "test"][..], &odd].concat();
        assert_eq!(node.run(&words).status.code(), Some(2), "{words:?}");
    }
}
