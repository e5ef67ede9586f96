//! How soon all of a leaf zone know a node's changed row.

use crate::{Bench, Report, goals};
use bench_common::figure::{Figure, quantile};
use bench_common::{Failure, conditions};
use sim::tree::{Shape, TreeWorld, Ways, WorldStart, id, settle};
use std::time::Duration;

const NODES: usize = 32;
const WAY: Duration = Duration::from_millis(20);

pub fn measure(bench: &Bench, report: Report) -> Result<(), Failure> {
    let mut world = TreeWorld::new(WorldStart::new(Shape::new(&[], NODES), Ways::Alike(WAY), 1));
    settle(&mut world)?;
    let changes = if bench.is_quick { 100 } else { 2_000 };
    let mut all = Vec::new();
    for change in 0..changes {
        let node = change * 7 % NODES;
        world.change(node, 1);
        let version = world.nodes[node].version;
        let step = Duration::from_millis(1);
        let knows = |world: &TreeWorld| {
            world.nodes.iter().enumerate().all(|(at, one)| {
                let membership = one.membership.as_ref();
                let view = membership.and_then(|core| core.view(id(node)));
                at == node || view.is_some_and(|view| view.version >= version)
            })
        };
        let took = world.until_by(Duration::from_secs(10), step, knows);
        let took = took.ok_or("a row was not known within 10 s")?;
        all.push(took.as_secs_f64() * 1_000.0);
        world.pass(Duration::from_millis(150));
    }
    conditions::tell([(
        "leaf zone",
        format!("{NODES} nodes, 20 to 22 ms one way, {changes} changes; until the last knows"),
    )])?;
    report(Figure::alone(goals::LEAF_P99, quantile(&all, 0.99)));
    Ok(())
}
