//! How long the simulator takes for ten thousand nodes and ten minutes.

use crate::{Bench, Report, goals, sizes, ways};
use bench_common::figure::Figure;
use bench_common::{Failure, conditions};
use sim::tree::{Shape, TreeRun, WorldStart};
use std::time::{Duration, Instant};

pub fn measure(bench: &Bench, report: Report) -> Result<(), Failure> {
    let shape = Shape::new(&[18, 18], 31);
    let (ways, _) = ways(&shape, 1)?;
    let span = Duration::from_secs(if bench.is_quick { 20 } else { 600 });
    let run = TreeRun {
        start: WorldStart::new(shape, ways, 1),
        loss: 0.0,
        span,
        watch_every: Duration::from_secs(5),
    };
    let began = Instant::now();
    let found = run.run()?;
    let took = began.elapsed().as_secs_f64();
    conditions::tell([(
        "simulated",
        format!(
            "{} nodes, {} s of load, {} events, on one core; hash {:016x}",
            found.nodes,
            span.as_secs(),
            found.events,
            found.hash
        ),
    )])?;
    if !bench.is_quick {
        report(Figure::alone(goals::SPEED, took));
        report(Figure::alone(goals::MEMORY, sizes::memory_kb() / 1e6));
    }
    Ok(())
}
