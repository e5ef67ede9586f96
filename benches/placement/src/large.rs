//! A cluster that runs half of its services gets the other half.
//!
//! Holds: what is timed is a whole plan, from rows to reasons, by the seconds of
//! the one core that it had, since others use the machine too; each round is of
//! another cluster.

use crate::goals;
use crate::worlds::{NODES, world};
use bench_common::figure::{Figure, median};
use bench_common::machine::{Cores, cpu_model, cpu_seconds, first_line, pin_thread};
use bench_common::{Failure, conditions, note};
use placement::{Fit, Plan, Without, World, cluster, what_if};
use std::collections::BTreeSet;
use std::hint::black_box;

/// Of 32 nodes.
const ZONES: u64 = 157;

pub fn measure(rounds: u32, report: &mut dyn FnMut(Figure)) -> Result<(), Failure> {
    let cores = Cores::split()?;
    pin_thread(&cores.load[..1])?;
    let mut placed = 0;
    let mut refused = 0;
    let mut speeds = Vec::new();
    let mut calm = Vec::new();
    let mut losses = Vec::new();
    for round in 0..rounds {
        let world = half_run(ZONES, u64::from(round));
        let (plan, speed) = timed(&world);
        speeds.push(speed);
        placed = plan.choices.len();
        refused = plan.refused.iter().map(|refusal| refusal.missing).sum();
        let mut full = world;
        full.running = plan.assigned;
        calm.push(milliseconds(|| drop(black_box(cluster(&full)))));
        if let Some(lost) = full.nodes.keys().next().copied() {
            losses.push(milliseconds(|| {
                drop(black_box(what_if(&full, &Without::Node(lost))));
            }));
        }
    }
    let mut flat = Vec::new();
    let mut packed = Vec::new();
    for round in 0..rounds.div_ceil(3) {
        flat.push(timed(&half_run(1, u64::from(round))).1);
        let mut world = half_run(ZONES, u64::from(round));
        world.policy.fit = Fit::Pack;
        packed.push(timed(&world).1);
    }
    conditions::tell([
        ("cores", format!("one of {}", cpu_model())),
        ("load average at start", first_line("/proc/loadavg")),
        (
            "placement",
            format!(
                "{NODES} nodes in {ZONES} zones run half of 10000 services; of the other half \
                 {placed} replicas are placed in one plan, {refused} are refused"
            ),
        ),
        (
            "placement in one zone of all nodes, per second",
            format!("{:.0}", median(&flat)),
        ),
        (
            "placement that packs, per second",
            format!("{:.0}", median(&packed)),
        ),
        ("plan when all runs, ms", format!("{:.1}", median(&calm))),
        (
            "what if a node were gone, ms",
            format!("{:.1}", median(&losses)),
        ),
    ])?;
    note("placements per second", &speeds);
    note("in one zone", &flat);
    note("packing", &packed);
    report(Figure::alone(goals::PLACEMENTS, median(&speeds)));
    Ok(())
}

/// Every second service runs.
fn half_run(zones: u64, seed: u64) -> World {
    let mut world = world(zones, seed);
    let all = world.services.clone();
    let is_first = |number: usize| number.is_multiple_of(2);
    let first = all
        .clone()
        .into_iter()
        .enumerate()
        .filter(|(number, _)| is_first(*number));
    world.services = first.map(|(_, named)| named).collect();
    world.running = cluster(&world).assigned;
    world.services = all;
    world
}

fn timed(world: &World) -> (Plan<kernel::NodeId>, f64) {
    let own = BTreeSet::from([std::process::id()]);
    let start = cpu_seconds(&own);
    let plan = black_box(cluster(world));
    let seconds = cpu_seconds(&own) - start;
    #[expect(clippy::cast_precision_loss, reason = "some ten thousands")]
    let placed = plan.choices.len() as f64;
    (plan, placed / seconds)
}

/// Of the core's time.
fn milliseconds(work: impl FnOnce()) -> f64 {
    let own = BTreeSet::from([std::process::id()]);
    let start = cpu_seconds(&own);
    work();
    (cpu_seconds(&own) - start) * 1_000.0
}
