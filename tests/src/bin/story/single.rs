//! What must never run twice: its node stands still, it runs elsewhere, and the
//! two are never there at once.

use crate::Told;
use crate::neighbours::Neighbours;
use crate::stage::{Stage, expect};
use black_box::processes::Stopped;
use black_box::{TestNode, program, until};
use std::path::Path;
use std::time::Instant;

/// Of each moment that one was there, its epoch.
fn epochs(written: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(written).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Where it runs, once it writes a later epoch than `after`.
fn runs_on(by: &TestNode, written: &Path, after: u64) -> (String, u64) {
    until("the singleton runs", || {
        let shown = by.run(&["get", "replicas"]);
        let replicas = String::from_utf8_lossy(&shown.stdout).into_owned();
        let mut lines = replicas.lines();
        let line = lines.find(|line| line.starts_with("single") && line.contains("ready"))?;
        let (_, on) = line.split_once("on ")?;
        let epoch = *epochs(written).last()?;
        (epoch > after).then(|| (on.split(',').next().unwrap_or(on).to_owned(), epoch))
    })
}

pub fn frozen(stage: &Stage, neighbours: &Neighbours) -> Told<String> {
    let written = neighbours.second.scratch().join("epochs");
    let directory = neighbours.second.scratch().join("single");
    let wrong = |error: std::io::Error| error.to_string();
    std::fs::create_dir_all(&directory).map_err(wrong)?;
    let script = format!(
        "while :; do echo $HOMEOSTAT_EPOCH >> {}; sleep 0.02; done & exec {}",
        written.display(),
        program("black-box-service").display()
    );
    let manifest = format!(
        "[project]\nname = \"single\"\n\n[service.one]\nrun = {{ process = [\"sh\", \"-c\", \"{script}\"] }}\nsingleton = true\nstop_grace = \"1s\"\n"
    );
    std::fs::write(directory.join("homeostat.toml"), manifest).map_err(wrong)?;
    stage.node.apply(&directory);
    let nodes = [
        ("one", &stage.node),
        ("two", &neighbours.second),
        ("three", &neighbours.third),
    ];
    let (on, epoch) = runs_on(&stage.node, &written, 0);
    let here = nodes.iter().find(|(name, _)| *name == on);
    let (_, here) = here.ok_or_else(|| format!("it runs on `{on}`"))?;
    let (_, other) = nodes
        .iter()
        .find(|(name, _)| *name != on)
        .ok_or("one node")?;
    let still = Stopped::new(here.pids().1);
    let began = Instant::now();
    let (next, later) = runs_on(other, &written, epoch);
    let took = began.elapsed().as_secs_f64();
    drop(still);
    expect(next != on, || format!("still on `{on}`"))?;
    let all = epochs(&written);
    expect(all.is_sorted(), || format!("two ran at once: {all:?}"))?;
    Ok(format!(
        "its node's agent stood still on `{on}`; on `{next}` after {took:.1} s, epoch {epoch} and then only {later}"
    ))
}
