//! Requests to a component over kept connections: CPU per request and requests
//! per second.
//!
//! Holds: all servers are up together, on the same cores, the load on the
//! others; runs are interleaved. With an instance for each request, as the peer
//! does by itself, and, for people to see, with instances reused.

use crate::{Bench, Report, goals, peer, server};
use bench_common::ask::Ask;
use bench_common::child::Child;
use bench_common::closed;
use bench_common::figure::{Figure, median};
use bench_common::machine::cpu_seconds;
use bench_common::{Failure, note};
use std::collections::BTreeSet;

/// Requests of one instance, in the runs where it is used again.
const REUSE: u32 = 1_000;

struct Runs {
    name: &'static str,
    is_peer: bool,
    server: Child,
    /// Microseconds of CPU per request.
    cpu: Vec<f64>,
    rate: Vec<f64>,
}

pub fn measure(bench: &Bench, report: Report) -> Result<(), Failure> {
    let mut all = start(bench)?;
    for runs in &mut all {
        closed_run(bench, runs, 1)?;
        runs.cpu.clear();
        runs.rate.clear();
    }
    for _ in 0..bench.lengths.rounds {
        for runs in &mut all {
            closed_run(bench, runs, bench.lengths.seconds)?;
        }
    }
    for runs in &all {
        note(&format!("{}, CPU us per request", runs.name), &runs.cpu);
        note(&format!("{}, requests/s at most", runs.name), &runs.rate);
    }
    let of = |name: &str| all.iter().find(|runs| runs.name == name);
    let ours = of(OURS).ok_or("our server is missing")?;
    let peer = of(PEER);
    report(Figure {
        goal: goals::CPU,
        ours: median(&ours.cpu),
        peer: peer.map(|runs| median(&runs.cpu)),
    });
    report(Figure {
        goal: goals::RATE,
        ours: median(&ours.rate),
        peer: peer.map(|runs| median(&runs.rate)),
    });
    Ok(())
}

const OURS: &str = "homeostat";
const PEER: &str = "wasmtime serve";

fn start(bench: &Bench) -> Result<Vec<Runs>, Failure> {
    let runs = |name, is_peer, server| Runs {
        name,
        is_peer,
        server,
        cpu: Vec::new(),
        rate: Vec::new(),
    };
    let mut all = vec![
        runs(OURS, false, server::start(bench, "s", 1)?),
        runs(
            "homeostat, reused",
            false,
            server::start(bench, "sr", REUSE)?,
        ),
    ];
    let Some(program) = peer::find() else {
        return Ok(all);
    };
    for (name, home, reuse) in [(PEER, "p", 1), ("wasmtime serve, reused", "pr", REUSE)] {
        let home = bench.directory(home)?;
        let peer = peer::start(
            &program,
            &bench.component,
            &home,
            &bench.cores.server,
            reuse,
        )?;
        all.push(runs(name, true, peer));
    }
    Ok(all)
}

fn closed_run(bench: &Bench, runs: &mut Runs, seconds: u64) -> Result<(), Failure> {
    let before: BTreeSet<u32> = runs.server.processes().into_iter().collect();
    let used = cpu_seconds(&before);
    let came = closed::run(
        runs.server.address,
        seconds,
        &bench.cores,
        &[Ask::new("/hello", 5)],
        &bench.scratch,
        runs.is_peer,
    )
    .map_err(|why| format!("{}: {why}", runs.name))?;
    let after: BTreeSet<u32> = runs.server.processes().into_iter().collect();
    if !before.is_subset(&after) {
        return Err(format!("a process of {} ended in a run", runs.name).into());
    }
    runs.cpu
        .push((cpu_seconds(&after) - used) * 1e6 / came.requests);
    runs.rate.push(came.per_second());
    Ok(())
}
