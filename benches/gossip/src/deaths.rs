//! How often a node that lives is called dead: in simulated node-hours, with
//! loss and slow nodes.
//!
//! Holds: the cores are those that agents run; runs differ by their seeds only,
//! and share the processors' cores.

use crate::{Bench, Report, goals};
use bench_common::figure::Figure;
use bench_common::{Failure, conditions, say};
use sim::{DeathRun, Deaths};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The 95 % upper bound of a rate of which nothing was seen (rule of three).
const THREE: f64 = 3.0;

pub fn measure(bench: &Bench, report: Report) -> Result<(), Failure> {
    let run = DeathRun {
        hours: bench.lengths.hours,
        ..DeathRun::default()
    };
    let began = Instant::now();
    let all = side_by_side(&run, bench.lengths.runs);
    let mut sum = Deaths::default();
    for one in &all {
        sum.node_hours += one.node_hours;
        sum.false_deaths += one.false_deaths;
        sum.refuted += one.refuted;
        sum.packets += one.packets;
        sum.packet_bytes += one.packet_bytes;
    }
    let took = began.elapsed().as_secs_f64();
    say(&format!(
        "    {:.0} node-hours in {took:.0} s",
        sum.node_hours
    ));
    conditions::tell(lines(&run, &sum))?;
    #[expect(clippy::cast_precision_loss, reason = "there are few, if any")]
    let found = sum.false_deaths as f64;
    report(Figure::alone(goals::FALSE_DEATHS, found));
    Ok(())
}

fn side_by_side(run: &DeathRun, runs: u64) -> Vec<Deaths> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= runs {
                return done;
            }
            let one = run.run(seed + 1);
            say(&format!(
                "    seed {}: {:.0} node-hours, {} false deaths, {} suspicions refuted, hash {:016x}",
                seed + 1,
                one.node_hours,
                one.false_deaths,
                one.refuted,
                one.hash
            ));
            done.push((seed, one));
        }
    };
    let mut all: Vec<(u64, Deaths)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let ended = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        // A run that panicked has said so; its figure must not look whole.
        ended
            .flat_map(|done| done.unwrap_or_else(|why| std::panic::resume_unwind(why)))
            .collect()
    });
    all.sort_by_key(|(seed, _)| *seed);
    all.into_iter().map(|(_, deaths)| deaths).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts of packets")]
fn lines(run: &DeathRun, sum: &Deaths) -> Vec<conditions::Line> {
    let seconds = sum.node_hours * 3_600.0;
    let bound = if sum.false_deaths == 0 {
        format!("under {:.1e} a node-hour", THREE / sum.node_hours)
    } else {
        "not stated: some were seen".to_owned()
    };
    vec![
        (
            "simulated",
            format!(
                "{:.0} node-hours: {} nodes in {} zones, {} % loss, {} % of nodes slow (up to {} ms more a packet, still for up to {} ms each {} s or so)",
                sum.node_hours,
                run.nodes,
                run.zones,
                run.loss * 100.0,
                run.slow_share * 100.0,
                run.slow_by.as_millis(),
                run.pause.as_millis(),
                run.pause_every.as_secs(),
            ),
        ),
        ("false deaths, 95 % bound", bound),
        (
            "gossip in it",
            format!(
                "{:.1} packets and {:.0} bytes of payload sent a node and second; {:.2} suspicions refuted a node and hour",
                sum.packets as f64 / seconds,
                sum.packet_bytes as f64 / seconds,
                sum.refuted as f64 / sum.node_hours,
            ),
        ),
    ]
}
