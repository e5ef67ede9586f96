//! How soon somebody at any node gets from the root's number down to the rows
//! of the nodes behind it, at ten thousand nodes.

use crate::{Bench, Report, goals, ways};
use aggregation::question::Done;
use bench_common::figure::{Figure, quantile};
use bench_common::{Failure, conditions, note};
use kernel::{Rng, UnixMillis, ZonePath};
use sim::tree::{Shape, TreeWorld, WorldStart, ask, settle};
use std::time::Duration;
use wire::tree::question::{Answer, Question};

/// Of a thousand nodes, some ten.
const TEXT: &str = "SELECT COUNT(*) AS hot, MAX(cpu) AS cpu WHERE cpu > 0.999";
const LEAST: f64 = 0.999;
const ROWS: u32 = 100;

pub fn measure(bench: &Bench, report: Report) -> Result<(), Failure> {
    let shape = Shape::new(&[18, 18], 31);
    let (ways, said) = ways(&shape, 1)?;
    let mut world = TreeWorld::new(WorldStart::new(shape, ways, 1));
    settle(&mut world)?;
    let questions = if bench.is_quick { 100 } else { 1_000 };
    let mut rng = Rng::seeded(7);
    let (mut all, mut shown) = (Vec::new(), 0);
    for asked in 0..questions {
        let node = usize::try_from(rng.below(world.nodes.len() as u64))?;
        let (done, took) = ask(&mut world, node, &question())?;
        let Done::Answered { answer, .. } = done else {
            return Err(format!("{done:?}").into());
        };
        shown += check(&world, &answer)?;
        all.push(took.as_secs_f64() * 1_000.0);
        if asked % 50 == 49 {
            // Others become hot.
            for _ in 0..100 {
                let node = usize::try_from(rng.below(world.nodes.len() as u64))?;
                world.change(node, 0);
            }
            world.pass(Duration::from_secs(2));
        }
    }
    let [median, p99, longest] = [0.5, 0.99, 1.0].map(|share| quantile(&all, share));
    note(
        "median, p99 and longest answer, ms",
        &[median, p99, longest],
    );
    conditions::tell([
        ("distances", said),
        (
            "drill-down",
            format!(
                "{} nodes; {questions} questions to nodes drawn at random, each to all nodes, over connections that stand: `{TEXT}` with the rows behind it, {shown} rows in all; each answer had every node, and the rows were those of the world",
                world.nodes.len()
            ),
        ),
    ])?;
    report(Figure::alone(goals::DRILL, p99));
    Ok(())
}

fn question() -> Question {
    Question {
        zone: ZonePath::root(),
        text: TEXT.to_owned(),
        fresh_ms: None,
        rows: ROWS,
        asked_at: UnixMillis(1),
        within_ms: 5_000,
        hops: 0,
    }
}

/// Returns how many rows were behind the number.
fn check(world: &TreeWorld, answer: &Answer) -> Result<usize, Failure> {
    let hot = world.nodes.iter().filter(|one| one.facts.cpu > LEAST);
    let (hot, nodes) = (hot.count(), world.nodes.len() as u64);
    let shown = answer.rows.shown.len();
    if answer.coverage.reporting != nodes || shown != hot || answer.rows.more > 0 {
        let found = (answer.coverage, shown, answer.rows.more);
        return Err(format!("{found:?} of {nodes} nodes with {hot} rows").into());
    }
    Ok(shown)
}
