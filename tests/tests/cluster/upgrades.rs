//! A node, and all of them, go over to another program, and whoever asks does not
//! notice.

use super::members::until_voters;
use super::{good, text};
use black_box::{Load, TestNode, kill, program, project, says, until};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The program as another file, as a package manager puts it there.
fn copied(node: &TestNode, name: &str) -> PathBuf {
    let path = node.scratch().join(name);
    black_box::copy_of_program(&path).expect("copies");
    path
}

/// A program in the node's scratch directory that does something else first.
fn script(node: &TestNode, name: &str, lines: &str) -> PathBuf {
    let path = node.scratch().join(name);
    let text = format!(
        "#!/bin/sh\n{lines}\nexec {} \"$@\"\n",
        program("homeostat").display()
    );
    std::fs::write(&path, text).expect("writes");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("may be run");
    path
}

/// The processes of its replicas that take requests.
fn replicas(node: &TestNode) -> Vec<u64> {
    let shown = node.ok(&["get", "replicas", "-o", "json"]);
    let found: Vec<Value> = serde_json::from_str(&shown).expect("JSON");
    let ready = found.iter().filter(|one| one["state"] == "ready");
    let mut pids: Vec<u64> = ready
        .filter_map(|one| one["observed"]["pid"].as_u64())
        .collect();
    pids.sort_unstable();
    pids
}

/// The file that a process is of.
fn file_of(pid: u32) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/exe")).expect("a process")
}

fn run_all(node: &TestNode, file: &Path) {
    let (supervisor, agent, edge) = node.pids();
    for pid in [supervisor, agent, edge] {
        assert_eq!(file_of(pid), file, "{pid}");
    }
}

#[test]
fn a_node_goes_over_to_another_program_and_loses_no_request() {
    let node = TestNode::new();
    node.ok(&["up", text(&project(&node, "page", 2, ""))]);
    good(&node, "/echo");
    let (before, pids) = (node.pids(), replicas(&node));
    let loads = ["/", "/echo"].map(|path| Load::of(node.http, path));
    let new = copied(&node, "homeostat-next");
    let plan = node.ok(&["upgrade", "--program", text(&new), "--plan"]);
    assert!(plan.contains("goes over"), "{plan}");
    assert_eq!(node.pids(), before, "a plan changes nothing");

    node.ok(&["upgrade", "--program", text(&new)]);
    run_all(&node, &new);
    let after = node.pids();
    assert_eq!(after.0, before.0, "the supervisor is the same process");
    assert!(after.1 != before.1 && after.2 != before.2, "{after:?}");
    assert_eq!(replicas(&node), pids, "replicas run on");
    // What is put at its path is what it goes over to next.
    std::fs::remove_file(&new).expect("removes");
    let again = copied(&node, "homeostat-next");
    node.ok(&["upgrade"]);
    run_all(&node, &again);
    let said = says(&node.run(&["upgrade"]));
    assert!(said.contains("runs that file already"), "{said}");
    for load in loads {
        let outcome = load.stop();
        assert!(outcome.bad.is_empty() && outcome.good > 0, "{outcome:?}");
    }
    assert_eq!(replicas(&node), pids, "replicas run on");
    let why = until("why tells how it went", || {
        let why = node.ok(&["why", "node/one"]);
        (why.matches("edge, agent and supervisor are").count() >= 2).then_some(why)
    });
    assert!(why.contains("go over to"), "{why}");
    let audit = node.ok(&["audit", "ls"]);
    assert!(audit.contains("upgrade"), "{audit}");
    node.ok(&["down"]);
}

#[test]
fn what_is_no_program_for_this_node_is_refused_and_nothing_touched() {
    let node = TestNode::new();
    node.ok(&["up"]);
    let before = node.pids();
    let nothing = node.scratch().join("nothing");
    let later = script(
        &node,
        "later",
        r#"[ "$1" = version ] && { echo '{"version":"9.0.0","speaks":{"agents":{"oldest":8,"newest":9}},"keeps":{}}'; exit; }"#,
    );
    let silent = script(&node, "silent", "[ \"$1\" = version ] && exec sleep 60");
    for (file, words) in [
        (nothing.as_path(), "No such file"),
        (Path::new("/bin/true"), "as a homeostat does"),
        (later.as_path(), "does not know"),
        (silent.as_path(), "did not say within"),
    ] {
        let refused = node.run(&["upgrade", "--program", text(file)]);
        let said = says(&refused);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains(words) && said.contains("help"), "{said}");
    }
    assert_eq!(node.pids(), before);
}

#[test]
fn a_program_that_does_not_come_up_is_left_again_for_the_old_one() {
    let node = TestNode::new();
    node.ok(&["up", text(&project(&node, "page", 2, ""))]);
    good(&node, "/echo");
    let pids = replicas(&node);
    let loads = ["/", "/echo"].map(|path| Load::of(node.http, path));
    let own = std::fs::canonicalize(program("homeostat")).expect("built");
    let marked = node.scratch().join("agent-was-there");
    for (role, lines) in [
        ("edge", "[ \"$1\" = edge ] && exit 1".to_owned()),
        (
            "agent",
            format!(
                "[ \"$1\" = agent ] && {{ touch {}; exit 1; }}",
                text(&marked)
            ),
        ),
    ] {
        let broken = script(&node, &format!("broken-{role}"), &lines);
        let failed = node.run(&["upgrade", "--program", text(&broken)]);
        let said = says(&failed);
        assert_eq!(failed.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("the new {role} ended")), "{said}");
        run_all(&node, &own);
    }
    assert!(marked.exists(), "the agent of the new program was tried");
    for load in loads {
        let outcome = load.stop();
        assert!(outcome.bad.is_empty() && outcome.good > 0, "{outcome:?}");
    }
    assert_eq!(replicas(&node), pids, "replicas run on");
    until("why tells that it failed", || {
        let why = node.ok(&["why", "node/one"]);
        why.contains("the new agent ended at once").then_some(())
    });
    // A good one does all the same.
    let new = copied(&node, "homeostat-next");
    node.ok(&["upgrade", "--program", text(&new)]);
    run_all(&node, &new);
}

#[test]
fn a_second_upgrade_waits_its_turn_and_a_supervisor_killed_in_one_is_mended() {
    let node = TestNode::new();
    node.ok(&["up", text(&project(&node, "page", 1, ""))]);
    good(&node, "/echo");
    let load = Load::of(node.http, "/");
    let own = std::fs::canonicalize(program("homeostat")).expect("built");
    let reached = node.scratch().join("reached");
    let lines = format!(
        "[ \"$1\" = agent ] && {{ touch {}; exec sleep 60; }}",
        text(&reached)
    );
    let slow = script(&node, "slow", &lines);
    let mut first = node
        .command(&["upgrade", "--program", text(&slow)])
        .spawn()
        .expect("runs");
    until("its new agent is tried", || reached.exists().then_some(()));
    let second = node.run(&["upgrade", "--program", text(&copied(&node, "next"))]);
    assert!(!second.status.success());
    let said = says(&second);
    assert!(said.contains("under way already"), "{said}");
    let status = std::fs::read_to_string(node.layout.run().join("upgrade.json"));
    assert!(status.expect("there").contains("agent"), "in the middle");
    // The edge is of one program, the agent of none.
    let supervisor = supervisor_of(&node);
    kill(supervisor);
    first.kill().expect("ends");
    let _ = first.wait();
    until("the node is whole, of one program", || {
        let _ = node.run(&["up"]);
        let (supervisor, agent, edge) = node.find_pids()?;
        let all = [supervisor, agent, edge].map(file_of);
        (all == [own.clone(), own.clone(), own.clone()]).then_some(())
    });
    good(&node, "/echo");
    let outcome = load.stop();
    assert!(outcome.bad.is_empty() && outcome.good > 0, "{outcome:?}");
    let new = copied(&node, "homeostat-next");
    node.ok(&["upgrade", "--program", text(&new)]);
    run_all(&node, &new);
}

/// Also while its agent does not answer.
fn supervisor_of(node: &TestNode) -> u32 {
    let all = black_box::processes::of(&node.layout.root);
    let mut all = all.iter();
    let found = all.find(|one| one.is_part("supervisor"));
    found.expect("a supervisor").pid
}

/// A node of an older program: it agrees on the first version of the agents'
/// protocol alone.
fn older(name: &str) -> TestNode {
    TestNode::new().named(name).set("HOMEOSTAT_WIRE_MAX", "1")
}

/// The program that is told of no such thing.
fn newer(node: &TestNode) -> PathBuf {
    let path = node.scratch().join("newer");
    let text = format!(
        "#!/bin/sh\nexec env -u HOMEOSTAT_WIRE_MAX {} \"$@\"\n",
        program("homeostat").display()
    );
    std::fs::write(&path, text).expect("writes");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("may be run");
    path
}

/// Three older nodes, all of which vote.
fn three_older() -> [TestNode; 3] {
    let first = older("one");
    first.ok(&["up"]);
    let others = ["two", "three"].map(|name| {
        let node = older(name);
        let line = super::token(&first, &["--owner", "admin"]);
        node.ok(&["up", "--join", &line]);
        node
    });
    until_voters(&first, &["one", "two", "three"]);
    let [second, third] = others;
    [first, second, third]
}

/// The versions that `node` speaks with the others.
fn spoken(node: &TestNode) -> Option<Vec<u64>> {
    let shown = node.run(&["node", "ls", "-o", "json"]);
    let all: Vec<Value> = serde_json::from_slice(&shown.stdout).ok()?;
    let others = all.iter().filter(|one| one["this"] == false);
    others.map(|one| one["wire"].as_u64()).collect()
}

fn until_spoken(nodes: &[TestNode], wanted: [u64; 2]) {
    for node in nodes {
        until(&format!("{wanted:?} are spoken"), || {
            let mut spoken = spoken(node)?;
            spoken.sort_unstable();
            (spoken == wanted).then_some(())
        });
    }
}

#[test]
fn a_cluster_goes_over_node_by_node_and_loses_no_request() {
    let nodes = three_older();
    let [first, second, third] = &nodes;
    let directory = project(first, "page", 3, "");
    first.ok(&["apply", text(&directory)]);
    for node in &nodes {
        good(node, "/echo");
    }
    until_spoken(&nodes, [1, 1]);
    let pids = replicas(first);
    assert_eq!(pids.len(), 3, "{pids:?}");
    let loads = nodes.each_ref().map(|node| {
        [
            Load::of(node.http, "/"),
            Load::of(node.http, "/echo"),
            Load::kept(node.http, "/echo"),
        ]
    });
    let new = newer(first);
    let plan = second.ok(&["upgrade", "--all", "--plan", "--program", text(&new)]);
    assert_eq!(plan.matches("goes over").count(), 3, "{plan}");

    // One alone at first, and the cluster is changed while it is of two versions.
    third.ok(&["upgrade", "--program", text(&new)]);
    until("two versions are spoken", || {
        let (mixed, old) = (spoken(third)?, spoken(second)?);
        (mixed == [1, 1] && old == [1, 1]).then_some(())
    });
    std::fs::write(directory.join("site/index.html"), "another").expect("a page");
    first.ok(&["apply", text(&directory)]);
    for node in &nodes {
        until("the new page everywhere", || {
            (good(node, "/").body == b"another").then_some(())
        });
    }
    let done = second.run(&["upgrade", "--all", "--program", text(&new)]);
    assert!(done.status.success(), "{}", says(&done));
    let last = says(&done);
    let last = last.lines().rfind(|line| line.starts_with("node "));
    assert!(last.is_some_and(|line| line.contains("one")), "{last:?}");
    until_spoken(&nodes, [2, 2]);
    for load in loads.into_iter().flatten() {
        let outcome = load.stop();
        assert!(outcome.bad.is_empty() && outcome.good > 0, "{outcome:?}");
    }
    assert_eq!(replicas(first), pids, "replicas run on");
}

#[test]
fn an_upgrade_of_all_stops_at_the_first_node_that_fails() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = super::join(&first, "two", &["--owner", "admin"]);
    let third = super::join(&first, "three", &["--owner", "admin"]);
    until_voters(&first, &["one", "two", "three"]);
    // It is no good for the second node's agent.
    let broken = script(
        &first,
        "broken",
        &format!(
            "[ \"$1\" = agent ] && [ \"$3\" = {} ] && exit 1",
            text(&second.layout.root)
        ),
    );
    let failed = first.run(&["upgrade", "--all", "--program", text(&broken), "-o", "json"]);
    let said = says(&failed);
    assert_eq!(failed.status.code(), Some(1), "{said}");
    let outcomes: Vec<Value> = serde_json::from_slice(&failed.stdout).expect("JSON");
    let outcomes: Vec<(&str, &str)> = outcomes
        .iter()
        .filter_map(|one| Some((one["node"].as_str()?, one["outcome"].as_str()?)))
        .collect();
    let wanted = [("three", "done"), ("two", "failed"), ("one", "untouched")];
    assert_eq!(outcomes, wanted);
    assert!(said.contains("two did not go over"), "{said}");
    // A viewer's node is not the one to ask.
    let fourth = super::join(&first, "four", &[]);
    let denied = fourth.run(&["upgrade", "--all", "--program", text(&broken)]);
    assert_eq!(denied.status.code(), Some(4), "{}", says(&denied));
    for node in [&first, &second, &third] {
        good_state(node);
    }
}

/// All are there to it.
fn good_state(node: &TestNode) {
    for name in ["one", "two", "three"] {
        super::until_seen(node, name, "alive");
    }
}
