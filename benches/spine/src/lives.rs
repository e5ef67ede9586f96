//! How fast a node comes, comes back, and how little it takes when idle.
//!
//! Holds: nothing is pinned here; each start is in a fresh directory; kills of
//! one process are far enough apart that no backoff is measured.

use crate::{Spine, goals};
use bench_common::figure::{Figure, median, quantile};
use bench_common::http::answers;
use bench_common::machine::{boot_time, is_alive, pss};
use bench_common::node::{Node, kill, recorded, until};
use bench_common::{Failure, note, say};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A run this long ends a row of crashes: the next end is answered at once.
const STABLE: Duration = Duration::from_millis(10_500);
const REPLICAS_KILLED: u32 = 20;
/// A child that lived longer is brought back without a wait.
const LIVED: Duration = Duration::from_millis(1_500);

pub fn measure(spine: &Spine, report: &mut impl FnMut(Figure)) -> Result<(), Failure> {
    report(Figure::alone(goals::UP, up(spine)?));
    let (back, serving, idle) = killed(spine)?;
    report(Figure::alone(goals::AGENT_PSS, idle));
    report(Figure::alone(goals::AGENT_BACK, back));
    report(Figure::alone(goals::EDGE_BACK, serving));
    report(Figure::alone(goals::RESTART, restarts(spine)?));
    Ok(())
}

/// Seconds from the command's start to the first good answer; the median.
fn up(spine: &Spine) -> Result<f64, Failure> {
    let mut spans = Vec::new();
    for round in 0..spine.lengths.rounds {
        let home = spine.directory(&format!("u{round}"))?;
        let node = spine.node(&home, 2, None)?;
        let begun = Instant::now();
        let command = node.begin_up()?;
        until("the first answer", || answers(node.http, "/").then_some(()))?;
        spans.push(begun.elapsed().as_secs_f64());
        let output = command.wait_with_output()?;
        if !output.status.success() {
            return Err(format!("`homeostat up` ended with {}", output.status).into());
        }
        spine.site.verify(node.http)?;
    }
    note("up, s", &spans);
    Ok(median(&spans))
}

/// The longest time until the agent is back (s) and until the edge serves (ms),
/// and the idle agent's memory before (MB).
fn killed(spine: &Spine) -> Result<(f64, f64, f64), Failure> {
    let home = spine.directory("k")?;
    let node = spine.node(&home, 2, None)?;
    node.up()?;
    std::thread::sleep(spine.lengths.idle);
    #[expect(clippy::cast_precision_loss, reason = "bytes of one process")]
    let idle_mb = pss(node.role("agent")?)? as f64 / 1e6;
    let (mut back_s, mut serving_ms) = (Vec::new(), Vec::new());
    for _ in 0..spine.lengths.kills {
        std::thread::sleep(LIVED);
        back_s.push(agent_back(&node)?);
        std::thread::sleep(LIVED);
        serving_ms.push(edge_serving(&node)? * 1e3);
    }
    note("agent killed to back, s", &back_s);
    note("edge killed to serving, ms", &serving_ms);
    Ok((most(&back_s), most(&serving_ms), idle_mb))
}

fn most(values: &[f64]) -> f64 {
    quantile(values, 1.0)
}

/// Until the new agent answers and has adopted the very same replicas.
fn agent_back(node: &Node) -> Result<f64, Failure> {
    let before = until("ready replicas", || node.ready())?;
    let agent = node.role("agent")?;
    let begun = Instant::now();
    kill(agent)?;
    until("the agent", || {
        let status = node.status()?;
        (status.agent_pid != agent && node.ready()? == before).then_some(())
    })?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Until a new connection gets a good answer.
fn edge_serving(node: &Node) -> Result<f64, Failure> {
    let edge = node.role("edge")?;
    let begun = Instant::now();
    kill(edge)?;
    // Its last breath must not answer for its successor.
    until("the edge's end", || (!is_alive(edge)).then_some(()))?;
    until("an answer", || answers(node.http, "/").then_some(()))?;
    let span = begun.elapsed().as_secs_f64();
    until("another edge", || {
        node.role("edge").ok().filter(|pid| *pid != edge)
    })?;
    Ok(span)
}

/// The 99th percentile in ms from a replica's kill to its successor's start,
/// as its shim records it.
fn restarts(spine: &Spine) -> Result<f64, Failure> {
    let home = spine.directory("r")?;
    let node = spine.node(&home, REPLICAS_KILLED, None)?;
    node.up()?;
    until("ready replicas", || node.ready())?;
    let mut spans_ms = Vec::new();
    let mut last: BTreeMap<PathBuf, u64> = BTreeMap::new();
    for _ in 0..spine.lengths.restarts {
        let (path, pid) = until("a replica that ran long enough", || stable(&node, &last))?;
        let at = kill(pid)?;
        let started = until("the replica's start", || {
            recorded(&path).filter(|(next, _)| *next != pid)
        })?;
        last.insert(path, boot_time());
        let span = Duration::from_nanos(started.1.saturating_sub(at));
        spans_ms.push(span.as_secs_f64() * 1e3);
        std::thread::sleep(spine.lengths.between_restarts);
    }
    say(&format!(
        "    replica killed to started, ms: median {:.2}, p99 {:.2}, longest {:.2} of {}",
        median(&spans_ms),
        quantile(&spans_ms, 0.99),
        most(&spans_ms),
        spans_ms.len()
    ));
    Ok(quantile(&spans_ms, 0.99))
}

/// The replica whose last kill was longest ago, once that is long enough.
fn stable(node: &Node, last: &BTreeMap<PathBuf, u64>) -> Option<(PathBuf, u32)> {
    let running = node.running().into_iter();
    let ago = |path: &PathBuf| last.get(path).copied().unwrap_or(0);
    let (path, (pid, _)) = running.min_by_key(|(path, _)| ago(path))?;
    let calm = match last.get(&path) {
        None => true,
        Some(at) => Duration::from_nanos(boot_time().saturating_sub(*at)) >= STABLE,
    };
    calm.then_some((path, pid))
}
