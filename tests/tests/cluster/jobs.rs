//! Jobs run to their end, whoever dies meanwhile; what runs once runs once.

use super::members::until_voters;
use super::{join, text};
use black_box::{TestNode, kill, says, until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A project of jobs, in a directory of its own.
fn project(node: &TestNode, jobs: &str) -> PathBuf {
    let directory = node.scratch().join("work");
    std::fs::create_dir_all(&directory).expect("a directory");
    let manifest = format!("[project]\nname = \"work\"\n\n{jobs}");
    std::fs::write(directory.join("homeostat.toml"), manifest).expect("a manifest");
    directory
}

/// A job whose shell does this.
fn job(name: &str, script: &str, more: &str) -> String {
    format!("[job.{name}]\nrun = {{ process = [\"sh\", \"-c\", '''{script}'''] }}\n{more}\n\n")
}

fn runs(by: &TestNode, job: &str) -> Option<Vec<Value>> {
    // While another node is looked for to lead, nobody may know.
    let shown = by.run(&["job", "runs", job, "-o", "json"]);
    serde_json::from_slice(&shown.stdout).ok()
}

/// The newest run, once it is over.
fn over(by: &TestNode, job: &str) -> Value {
    until(&format!("the run of {job} is over"), || {
        let newest = runs(by, job)?.into_iter().next()?;
        (!newest["ended_unix_ms"].is_null()).then_some(newest)
    })
}

/// The newest run, once an attempt of it runs.
fn running(by: &TestNode, job: &str) -> Value {
    until(&format!("{job} runs"), || {
        let newest = runs(by, job)?.into_iter().next()?;
        let attempts = newest["attempts"].as_array()?;
        let runs = attempts.iter().any(|one| one["state"] == "running");
        runs.then_some(newest)
    })
}

/// Lines that are whole.
fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(str::to_owned).collect()
}

fn epochs(path: &Path) -> Vec<u64> {
    let lines = lines(path).into_iter();
    lines.map(|line| line.parse().expect("an epoch")).collect()
}

fn three() -> [TestNode; 3] {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = join(&first, "two", &["--owner", "admin"]);
    let third = join(&first, "three", &["--owner", "admin"]);
    until_voters(&first, &["one", "two", "three"]);
    [first, second, third]
}

fn called<'a>(nodes: &'a [TestNode; 3], name: &str) -> &'a TestNode {
    let names = ["one", "two", "three"];
    let at = names.iter().position(|it| *it == name).expect("a node");
    &nodes[at]
}

fn leader(by: &TestNode) -> String {
    until("somebody leads", || {
        let shown = by.run(&["store", "status", "-o", "json"]);
        let status: Value = serde_json::from_slice(&shown.stdout).ok()?;
        Some(status["groups"][0]["leader"].as_str()?.to_owned())
    })
}

#[test]
fn a_job_succeeds_at_its_third_attempt_and_tells_why() {
    let node = TestNode::new();
    node.ok(&["up"]);
    let written = node.scratch().join("written");
    let script = format!(
        "echo $HOMEOSTAT_JOB_ATTEMPT $HOMEOSTAT_JOB_RUN $0 >> {}; echo trying; [ $HOMEOSTAT_JOB_ATTEMPT = 3 ]",
        written.display()
    );
    let directory = project(&node, &job("third", &script, "backoff = \"200ms\""));
    node.ok(&["apply", text(&directory)]);
    let run = over(&node, "third");
    assert_eq!(
        (&run["state"], &run["succeeded"]),
        (&"succeeded".into(), &1.into())
    );
    assert_eq!(lines(&written), ["1 1 sh", "2 1 sh", "3 1 sh"]);
    let shown = node.ok(&["job", "ls"]);
    assert!(
        shown.contains("third") && shown.contains("succeeded"),
        "{shown}"
    );
    let why = node.ok(&["why", "job/third"]);
    assert!(
        why.contains("try again in 200ms") && why.contains("run 1 is over"),
        "{why}"
    );
    let logs = node.ok(&["job", "logs", "third"]);
    assert_eq!(logs.matches("trying").count(), 3, "{logs}");

    // Applied as it was, it does not run again; asked, it does.
    node.ok(&["apply", text(&directory)]);
    let asked = [
        "job",
        "run",
        "work/third",
        "--wait",
        "--arg",
        "x",
        "-o",
        "json",
    ];
    let asked: Value = serde_json::from_str(&node.ok(&asked)).expect("JSON");
    assert_eq!(
        (&asked["number"], &asked["state"]),
        (&2.into(), &"succeeded".into())
    );
    assert_eq!(lines(&written).last().map(String::as_str), Some("3 2 x"));

    // In another version it runs again, and fails with its reason.
    let never = job("third", "exit 7", "retries = 1\nbackoff = \"100ms\"");
    let directory = project(&node, &never);
    node.ok(&["apply", text(&directory)]);
    let run = until("the third run is over", || {
        let newest = runs(&node, "third")?.into_iter().next()?;
        (newest["number"] == 3 && !newest["ended_unix_ms"].is_null()).then_some(newest)
    });
    assert_eq!(run["state"], "failed");
    assert_eq!(run["why"], "part 0, attempt 2: exit code 7");
}

#[test]
fn what_takes_too_long_is_stopped_and_what_is_cancelled_ends() {
    let node = TestNode::new();
    node.ok(&["up"]);
    let long = job(
        "long",
        "sleep 1000",
        "deadline = \"1s\"\nstop_grace = \"1s\"",
    );
    let slow = job(
        "slow",
        "[ $HOMEOSTAT_JOB_ATTEMPT = 2 ] || exec sleep 1000",
        "attempt_timeout = \"500ms\"\nbackoff = \"100ms\"",
    );
    let open = job("open", "exec sleep 1000", "overlap = \"skip\"");
    let directory = project(&node, &(long + &slow + &open));
    node.ok(&["apply", text(&directory)]);
    let run = over(&node, "long");
    assert_eq!(
        (&run["state"], &run["why"]),
        (&"failed".into(), &"it is not done after 1s".into())
    );
    let run = over(&node, "slow");
    assert_eq!(run["state"], "succeeded");
    let first = &run["attempts"][1];
    assert!(
        first["why"]
            .as_str()
            .expect("why")
            .starts_with("it took too long"),
        "{run}"
    );
    running(&node, "open");
    let again = node.run(&["job", "run", "open"]);
    assert_eq!(again.status.code(), Some(5), "{}", says(&again));
    assert!(says(&again).contains("run 1 goes on"), "{}", says(&again));
    node.ok(&["job", "cancel", "open"]);
    assert_eq!(over(&node, "open")["state"], "cancelled");
    assert_eq!(node.run(&["job", "cancel", "open"]).status.code(), Some(5));
    // What is in no manifest any more ends, and is not there.
    node.ok(&["job", "run", "open"]);
    running(&node, "open");
    let directory = project(&node, "");
    node.ok(&["apply", text(&directory)]);
    assert_eq!(node.run(&["get", "job/open"]).status.code(), Some(3));
    until("nothing of it is left", || {
        let left = std::fs::read_dir(node.layout.replicas()).ok()?;
        let specs = left
            .flatten()
            .filter(|it| it.path().join("spec.json").exists());
        (specs.count() == 0).then_some(())
    });
}

#[test]
fn a_schedule_begins_a_run_each_time_and_each_time_once() {
    let node = TestNode::new();
    node.ok(&["up"]);
    let written = node.scratch().join("written");
    let script = format!("echo $HOMEOSTAT_JOB_RUN >> {}", written.display());
    let more = "schedule = \"* * * * * *\"\ntime_zone = \"Europe/Vienna\"\noverlap = \"allow\"";
    let directory = project(&node, &job("often", &script, more));
    node.ok(&["apply", text(&directory)]);
    until("it ran four times", || {
        (lines(&written).len() >= 4).then_some(())
    });
    let all: Value =
        serde_json::from_str(&node.ok(&["get", "job/often", "-o", "json"])).expect("JSON");
    assert!(all["observed"]["next_unix_ms"].is_u64(), "{all}");
    // Its agent is killed, and takes the schedule up again.
    kill(node.pids().1);
    let before = lines(&written).len();
    until("it goes on", || {
        (lines(&written).len() >= before + 3).then_some(())
    });
    let mut numbers = lines(&written);
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), lines(&written).len(), "each run once");
    for run in runs(&node, "often").expect("runs") {
        assert_ne!(run["state"], "failed", "{run}");
    }
}

#[test]
fn each_part_runs_once_over_three_nodes_whoever_is_killed() {
    let nodes = three();
    let written = nodes[0].scratch().join("written");
    std::fs::create_dir_all(&written).expect("a directory");
    let open = nodes[0].scratch().join("open");
    // Each waits for the door, and writes a file of its own.
    let script = format!(
        "while [ ! -e {open} ]; do sleep 0.05; done; echo $HOMEOSTAT_JOB_INDEX/$HOMEOSTAT_JOB_INDICES >> {written}/$HOMEOSTAT_JOB_INDEX",
        open = open.display(),
        written = written.display()
    );
    let more = "indices = 8\nparallel = 4\nbackoff = \"100ms\"";
    let directory = project(&nodes[0], &job("parts", &script, more));
    nodes[0].ok(&["apply", text(&directory)]);
    let run = until("four run", || {
        let newest = runs(&nodes[0], "parts")?.into_iter().next()?;
        let attempts = newest["attempts"].as_array()?;
        let runs = attempts.iter().filter(|one| one["state"] == "running");
        (runs.count() == 4).then_some(newest)
    });
    let attempts = run["attempts"].as_array().expect("attempts").clone();
    assert_eq!(attempts.len(), 4, "no more than `parallel`: {run}");
    let mut on: BTreeMap<String, u32> = BTreeMap::new();
    for one in &attempts {
        *on.entry(one["node"].as_str().expect("a node").to_owned())
            .or_default() += 1;
    }
    assert_eq!(on.len(), 3, "all nodes take part: {on:?}");

    // The leader's agent is killed, and another one's; what runs is found again.
    let leads = leader(&nodes[0]);
    kill(called(&nodes, &leads).pids().1);
    let other = on.keys().find(|name| **name != leads).expect("another");
    kill(called(&nodes, other).pids().1);
    std::fs::write(&open, "").expect("a file");
    let by = called(&nodes, other);
    let run = over(by, "parts");
    assert_eq!(
        (&run["state"], &run["succeeded"]),
        (&"succeeded".into(), &8.into()),
        "{run}"
    );
    let attempts = run["attempts"].as_array().expect("attempts");
    for index in 0..8 {
        let wrote = lines(&written.join(index.to_string()));
        let of = attempts.iter().filter(|one| one["index"] == index).count();
        // One agent may have been away for so long that its node was taken for lost.
        assert!(
            (1..=of.max(1)).contains(&wrote.len()),
            "part {index}: {run}"
        );
        assert!(
            wrote.iter().all(|line| *line == format!("{index}/8")),
            "{wrote:?}"
        );
    }
}

#[test]
fn a_lost_nodes_attempt_is_tried_elsewhere_and_what_runs_once_is_told_unknown() {
    let nodes = three();
    let written = nodes[0].scratch().join("written");
    let script = format!(
        "echo $HOMEOSTAT_EPOCH >> {}; exec sleep 1000",
        written.display()
    );
    // It ends where it is tried again.
    let again = format!(
        "echo begun >> {}.again; [ $HOMEOSTAT_JOB_ATTEMPT = 2 ] || exec sleep 1000",
        written.display()
    );
    let again = job("again", &again, "backoff = \"100ms\"");
    let once = job(
        "once",
        &script,
        "once = true\nretries = 5\nbackoff = \"100ms\"",
    );
    // All on one node that does not lead.
    let leads = leader(&nodes[0]);
    let lost = ["one", "two", "three"]
        .into_iter()
        .find(|it| *it != leads)
        .expect("one");
    let by = called(&nodes, &leads);
    for name in ["one", "two", "three"].into_iter().filter(|it| *it != lost) {
        by.ok(&["node", "drain", name]);
    }
    let directory = project(by, &(again + &once));
    by.ok(&["apply", text(&directory)]);
    for job in ["again", "once"] {
        let run = running(by, job);
        assert_eq!(run["attempts"][0]["node"], lost, "{run}");
    }
    for name in ["one", "two", "three"].into_iter().filter(|it| *it != lost) {
        by.ok(&["node", "drain", name, "--end"]);
    }
    called(&nodes, lost).power_off();

    let run = over(by, "again");
    assert_eq!(run["state"], "succeeded", "{run}");
    let first = run["attempts"][1]["why"].as_str().expect("why").to_owned();
    assert!(first.contains(lost), "{first}");
    let run = over(by, "once");
    assert_eq!(run["state"], "unknown", "{run}");
    assert!(
        run["help"].as_str().expect("help").contains("job run"),
        "{run}"
    );
    assert_eq!(epochs(&written).len(), 1, "never again");

    // Its node is back, with what it was told before it was lost.
    called(&nodes, lost).ok(&["up"]);
    super::until_seen(by, lost, "alive");
    let asked = by.run(&["job", "run", "once"]);
    assert!(asked.status.success(), "a person may: {}", says(&asked));
    let run = running(by, "once");
    assert_eq!(run["number"], 2);
    let epochs = epochs(&written);
    assert!(epochs.len() == 2 && epochs[0] < epochs[1], "{epochs:?}");
}

#[test]
fn a_wrong_job_is_pointed_at_and_changes_nothing() {
    let node = TestNode::new();
    node.ok(&["up"]);
    let wrong = job("x", "true", "schedule = \"0 30 2\"\nparallel = 4\nonce = 1");
    let refused = node.run(&["apply", text(&project(&node, &wrong))]);
    let told = says(&refused);
    assert!(!refused.status.success());
    for words in ["schedule", "parallel", "once"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert_eq!(node.run(&["get", "job/x"]).status.code(), Some(3));
}
