//! What loss costs, how soon killed representatives are replaced, and how soon
//! halves that were cut are one again.

use crate::{Bench, Report, goals, ways};
use bench_common::figure::{Figure, quantile};
use bench_common::{Failure, conditions, note};
use kernel::{NodeId, ZonePath};
use sim::tree::{Shape, TreeRun, TreeWorld, WorldStart, settle};
use std::time::Duration;

const BRANCHING: [usize; 2] = [6, 6];
const LEAF: usize = 28;
const STEP: Duration = Duration::from_millis(20);

pub fn measure(bench: &Bench, report: Report) -> Result<(), Failure> {
    let shape = Shape::new(&BRANCHING, LEAF);
    let (_, said) = ways(&shape, 1)?;
    conditions::tell([
        ("distances", said),
        (
            "tree under faults",
            format!("{} nodes as {BRANCHING:?} zones of {LEAF}", shape.nodes()),
        ),
    ])?;
    let (without, with) = (spread(bench, 0.0)?, spread(bench, 0.15)?);
    report(Figure {
        goal: goals::LOSS,
        ours: with,
        peer: Some(without),
    });
    report(Figure::alone(goals::REPAIRED, repaired(bench)?));
    report(Figure::alone(goals::HEALED, healed(bench)?));
    Ok(())
}

fn start(seed: u64) -> Result<WorldStart, Failure> {
    let shape = Shape::new(&BRANCHING, LEAF);
    let (ways, _) = ways(&shape, seed)?;
    Ok(WorldStart::new(shape, ways, seed))
}

/// The 99th percentile of the time until the last node knows.
fn spread(bench: &Bench, loss: f64) -> Result<f64, Failure> {
    let run = TreeRun {
        start: start(1)?,
        loss,
        span: bench.span(),
        watch_every: Duration::from_millis(500),
    };
    let found = run.run()?;
    note(
        &format!("median, p99 and missed at {loss} loss"),
        &[quantile(&found.last_s, 0.5), quantile(&found.last_s, 0.99)],
    );
    if found.missed > 0 {
        return Err(format!("{} changes were not known by all in 30 s", found.missed).into());
    }
    Ok(quantile(&found.last_s, 0.99))
}

fn at(node: NodeId) -> usize {
    usize::try_from(node.0).unwrap_or(1) - 1
}

/// From the kill of all of a leaf zone's representatives until all nodes that
/// run hold a row of it by one that runs; the longest.
fn repaired(bench: &Bench) -> Result<f64, Failure> {
    let kills = if bench.is_quick { 3 } else { 20 };
    let mut world = TreeWorld::new(start(2)?);
    settle(&mut world)?;
    let mut all = Vec::new();
    for kill in 0..kills {
        let leaf = kill * 5 % world.shape.leaves();
        let zone = world.shape.zone(leaf);
        for node in world.nodes[leaf * LEAF].tree.representatives(&zone) {
            world.kill(at(node));
        }
        let parent = zone.parent().unwrap_or_default();
        let is_led = |world: &TreeWorld| is_led(world, &zone, &parent);
        let took = world.until_by(Duration::from_mins(1), STEP, is_led);
        all.push(took.ok_or("nobody took over in 60 s")?.as_secs_f64());
        world.pass(Duration::from_secs(10));
    }
    note("killed to repaired", &all);
    Ok(all.iter().copied().fold(0.0, f64::max))
}

fn is_led(world: &TreeWorld, zone: &ZonePath, parent: &ZonePath) -> bool {
    world.nodes.iter().enumerate().all(|(node, one)| {
        let leaf = world.shape.zone(world.shape.leaf_of(node));
        if !one.alive || !parent.contains(&leaf) {
            return true;
        }
        let view = one.tree.view(zone);
        view.is_some_and(|view| {
            let row = &view.row.row;
            let lives = |node: NodeId| world.nodes[at(node)].alive;
            lives(row.stamp.issuer) && row.contacts.iter().all(|one| lives(one.node))
        })
    })
}

/// From the link's return until all hold the same rows again.
fn healed(bench: &Bench) -> Result<f64, Failure> {
    let runs = if bench.is_quick { 1 } else { 5 };
    let mut all = Vec::new();
    for seed in 0..runs {
        let mut world = TreeWorld::new(start(10 + seed)?);
        settle(&mut world)?;
        let nodes = world.nodes.len();
        let half = |node: usize| u8::from(node * 2 >= nodes);
        world.sides = Some((0..nodes).map(half).collect());
        world.pass(Duration::from_mins(10));
        world.sides = None;
        let whole = |world: &TreeWorld| world.all_count(nodes) && world.all_agree();
        let took = world.until_by(Duration::from_mins(1), STEP * 5, whole);
        all.push(took.ok_or("the halves did not heal in 60 s")?.as_secs_f64());
    }
    note("cut to healed", &all);
    Ok(all.iter().copied().fold(0.0, f64::max))
}
