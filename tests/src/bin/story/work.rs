//! Work that runs to its end, in parts over all machines, while who leads and
//! another one's agent are killed.

use crate::Told;
use crate::neighbours::Neighbours;
use crate::stage::{Stage, expect};
use black_box::{kill, until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Instant;

const PARTS: usize = 6;

fn newest(stage: &Stage) -> Option<Value> {
    let shown = stage.node.run(&["job", "runs", "count", "-o", "json"]);
    let runs: Vec<Value> = serde_json::from_slice(&shown.stdout).ok()?;
    runs.into_iter().next()
}

/// The nodes with an attempt that runs.
fn running(run: &Value) -> Vec<String> {
    let attempts = run["attempts"].as_array().into_iter().flatten();
    let running = attempts.filter(|one| one["state"] == "running");
    running
        .filter_map(|one| one["node"].as_str().map(str::to_owned))
        .collect()
}

pub fn counted(stage: &Stage, neighbours: &Neighbours) -> Told<String> {
    let scratch = neighbours.third.scratch();
    let (directory, written, open) = (
        scratch.join("work"),
        scratch.join("parts"),
        scratch.join("open"),
    );
    let wrong = |error: std::io::Error| error.to_string();
    std::fs::create_dir_all(&directory).map_err(wrong)?;
    std::fs::create_dir_all(&written).map_err(wrong)?;
    // Each part waits for the door, then writes to a file of its own.
    let script = format!(
        "while [ ! -e {open} ]; do sleep 0.05; done; echo $HOMEOSTAT_JOB_ATTEMPT >> {written}/$HOMEOSTAT_JOB_INDEX",
        open = open.display(),
        written = written.display()
    );
    let manifest = format!(
        "[project]\nname = \"work\"\n\n[job.count]\nrun = {{ process = [\"sh\", \"-c\", '''{script}'''] }}\nindices = {PARTS}\n"
    );
    std::fs::write(directory.join("homeostat.toml"), manifest).map_err(wrong)?;
    stage.node.apply(&directory);
    let on = until("all parts run", || {
        let on = running(&newest(stage)?);
        (on.len() == PARTS).then_some(on)
    });
    let nodes = on.iter().collect::<BTreeSet<_>>().len();
    expect(nodes == 3, || format!("not on all machines: {on:?}"))?;
    for node in [&stage.node, &neighbours.second] {
        kill(node.pids().1);
    }
    let began = Instant::now();
    std::fs::write(&open, "").map_err(wrong)?;
    let run = until("the work is done", || {
        newest(stage).filter(|run| !run["ended_unix_ms"].is_null())
    });
    let took = began.elapsed().as_secs_f64();
    expect(run["state"] == "succeeded", || run.to_string())?;
    for part in 0..PARTS {
        let text = std::fs::read_to_string(written.join(part.to_string()));
        let times = text.map_err(wrong)?.lines().count();
        // Was an agent away for so long that its node was lost, then again.
        let attempts = run["attempts"].as_array().into_iter().flatten();
        let tried = attempts.filter(|one| one["index"] == part).count();
        expect((1..=tried).contains(&times), || {
            format!("part {part} ran {times} times: {run}")
        })?;
    }
    Ok(format!(
        "{PARTS} parts on {nodes} machines, two of their agents killed; all of it done, and told after {took:.1} s"
    ))
}
