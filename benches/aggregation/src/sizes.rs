//! How soon a change is in every node's root aggregate, and what all that is
//! said costs, at a thousand, ten thousand and a hundred thousand nodes.

use crate::{Bench, Report, chart, goals, ways};
use bench_common::figure::{Figure, quantile};
use bench_common::{Failure, conditions, say};
use sim::tree::{Shape, TreeFound, TreeRun, WorldStart};
use std::time::{Duration, Instant};

/// Children of the root, of these, …, and nodes of a leaf zone.
const SHAPES: [(&[usize], usize); 3] = [(&[31], 32), (&[18, 18], 31), (&[15, 15, 14], 32)];

/// One size.
pub struct Size {
    pub nodes: usize,
    pub p99_s: f64,
    pub traffic_kb: f64,
    pub memory_kb: f64,
}

pub fn measure(bench: &Bench, report: Report) -> Result<(), Failure> {
    let mut sizes = Vec::new();
    let shapes = if bench.is_quick {
        &SHAPES[..2]
    } else {
        &SHAPES[..]
    };
    for (branching, leaf) in shapes {
        let shape = Shape::new(branching, *leaf);
        let (ways, said) = ways(&shape, 1)?;
        let run = TreeRun {
            start: WorldStart::new(shape, ways, 1),
            loss: 0.0,
            span: bench.span(),
            watch_every: Duration::from_secs(1),
        };
        let before = memory_kb();
        let began = Instant::now();
        let found = run.run()?;
        let took = began.elapsed().as_secs_f64();
        let size = size(&found, memory_kb() - before);
        tell(&found, &size, branching, *leaf, took, &said)?;
        sizes.push(size);
    }
    for (goal, nodes) in [
        (goals::ROOT_10K_P99, 10_000),
        (goals::ROOT_100K_P99, 100_000),
    ] {
        let size = sizes.iter().find(|one| one.nodes / nodes == 1);
        if let Some(size) = size {
            report(Figure::alone(goal, size.p99_s));
        }
    }
    let traffic = sizes.iter().map(|one| one.traffic_kb);
    let most = traffic.clone().fold(0.0, f64::max);
    let least = traffic.fold(f64::INFINITY, f64::min);
    report(Figure::alone(goals::TRAFFIC, most));
    report(Figure::alone(goals::TRAFFIC_FLAT, most / least));
    if !bench.is_quick {
        chart::draw(&sizes)?;
    }
    Ok(())
}

fn size(found: &TreeFound, memory_kb: f64) -> Size {
    let shares = [found.traffic.membership, found.traffic.tree];
    let bytes = shares.map(|share| share.per_node(found.nodes, found.span));
    // A change that some never knew counts as never.
    let missed = std::iter::repeat_n(f64::INFINITY, found.missed);
    let last: Vec<f64> = found.last_s.iter().copied().chain(missed).collect();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let nodes = found.nodes as f64;
    Size {
        nodes: found.nodes,
        p99_s: quantile(&last, 0.99),
        traffic_kb: bytes.iter().sum::<f64>() / 1_000.0,
        memory_kb: memory_kb.max(0.0) / nodes,
    }
}

fn tell(
    found: &TreeFound,
    size: &Size,
    branching: &[usize],
    leaf: usize,
    took: f64,
    ways: &str,
) -> Result<(), Failure> {
    let (tree, membership) = (found.traffic.tree, found.traffic.membership);
    say(&format!(
        "    {} nodes: settled in {:.1} s, {} changes seen by all (median {:.2} s), {} missed, {} events in {took:.0} s, hash {:016x}\n    {:?}",
        found.nodes,
        found.settled.as_secs_f64(),
        found.last_s.len(),
        quantile(&found.last_s, 0.5),
        found.missed,
        found.events,
        found.hash,
        found.counts,
    ));
    conditions::tell([
        ("distances", ways.to_owned()),
        (
            "tree",
            format!(
                "{} nodes as {branching:?} zones of {leaf}; each node's and zone's row beyond its threshold every 50 s in the mean; {} s",
                found.nodes,
                found.span.as_secs()
            ),
        ),
        (
            "traffic",
            format!(
                "{:.0} B/s a node of the tree and {:.0} of membership, sent and received, with IP, UDP and QUIC; {:.0} B/s of payload at the busiest; {:.1} KB of memory a node",
                tree.per_node(found.nodes, found.span),
                membership.per_node(found.nodes, found.span),
                found.busiest,
                size.memory_kb,
            ),
        ),
        (
            "zones found unknown, rows named lies",
            format!("{}, {}", found.unknown, found.lies),
        ),
    ])
}

/// Of this process now.
pub fn memory_kb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|text| text.parse().ok()).unwrap_or(0.0)
}
