//! What must never run twice runs once, whatever becomes of its node.

use super::members::until_voters;
use super::{good, join, text};
use black_box::processes::Stopped;
use black_box::{TestNode, program, until};
use std::path::{Path, PathBuf};

/// Of the group of nodes: who runs it, by epoch, in the order of what it wrote.
fn epochs(written: &Path) -> Vec<u64> {
    let lines = std::fs::read_to_string(written).unwrap_or_default();
    // The last line may be half written.
    let whole = lines.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| line.parse().expect("an epoch"))
        .collect()
}

/// Each of it writes its epoch over and over: were there two, they would mix.
fn assert_one_after_the_other(written: &Path) {
    let epochs = epochs(written);
    assert!(epochs.is_sorted(), "two ran at once: {epochs:?}");
}

fn project(node: &TestNode, written: &Path) -> PathBuf {
    let directory = node.scratch().join("single");
    std::fs::create_dir_all(&directory).expect("a directory");
    let script = format!(
        "while :; do echo $HOMEOSTAT_EPOCH >> {}; sleep 0.02; done & exec {}",
        written.display(),
        program("black-box-service").display()
    );
    let manifest = format!(
        r#"[project]
name = "single"

[service.one]
run = {{ process = ["sh", "-c", "{script}"] }}
singleton = true
routes = [{{ host = "localhost", path = "/one" }}]
stop_grace = "1s"

[service.one.probes]
readiness = {{ http = "/", every = "200ms", timeout = "1s", failures = 2 }}
"#
    );
    std::fs::write(directory.join("homeostat.toml"), manifest).expect("a manifest");
    directory
}

/// The node's name and the epoch, once a later one than `after` is ready.
fn runs_on(by: &TestNode, written: &Path, after: u64) -> (String, u64) {
    until("it runs", || {
        // While another node is looked for to lead, nobody may know.
        let shown = by.run(&["get", "replicas"]);
        let replicas = String::from_utf8_lossy(&shown.stdout).into_owned();
        let line = replicas.lines().find(|line| line.contains("ready"))?;
        let (_, on) = line.split_once("on ")?;
        let epoch = *epochs(written).last()?;
        (epoch > after).then(|| (on.split(',').next().unwrap_or(on).to_owned(), epoch))
    })
}

#[test]
fn one_runs_and_never_two_when_its_node_is_lost_stands_still_or_is_drained() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = join(&first, "two", &["--owner", "admin"]);
    let third = join(&first, "three", &["--owner", "admin"]);
    until_voters(&first, &["one", "two", "three"]);
    let nodes = [("one", &first), ("two", &second), ("three", &third)];
    let node = |name: &str| nodes.iter().find(|it| it.0 == name).expect("known").1;
    let other = |name: &str| nodes.iter().find(|it| it.0 != name).expect("known").1;

    let written = first.scratch().join("written");
    let directory = project(&first, &written);
    first.ok(&["apply", text(&directory)]);
    let (on, epoch) = runs_on(&first, &written, 0);
    good(&first, "/one");

    // Its agent and supervisor are killed: nobody is there to stop it but its shim.
    node(&on).power_off();
    let (next, epoch) = runs_on(other(&on), &written, epoch);
    assert_ne!(next, on);
    assert_one_after_the_other(&written);
    node(&on).ok(&["up"]);

    // Its agent stands still for longer than a lease, then goes on.
    let still = Stopped::new(node(&next).pids().1);
    let (last, epoch) = runs_on(other(&next), &written, epoch);
    assert_ne!(last, next);
    drop(still);
    assert_one_after_the_other(&written);

    // In order: it ends there, then it begins elsewhere.
    until("it is drained", || {
        // The one that stood still may have led: who leads now is not known at once.
        let drained = other(&last).run(&["node", "drain", &last]);
        drained.status.success().then_some(())
    });
    let (drained_to, _) = runs_on(other(&last), &written, epoch);
    assert_ne!(drained_to, last);
    assert_one_after_the_other(&written);

    // Another version of it comes after the one before, and a restart too.
    let manifest = directory.join("homeostat.toml");
    let changed = std::fs::read_to_string(&manifest).expect("a manifest");
    let changed = changed.replace("stop_grace", "environment = { V = \"2\" }\nstop_grace");
    std::fs::write(&manifest, changed).expect("a manifest");
    first.apply(&directory);
    first.ok(&["restart", "single/one"]);
    assert_one_after_the_other(&written);
    let why = first.ok(&["why", "service/single/one"]);
    assert!(why.contains("run it on"), "{why}");
}
