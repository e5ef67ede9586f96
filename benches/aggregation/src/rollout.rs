//! How soon a program that is installed at one node runs at all others.

use crate::{Bench, Report, goals, ways};
use bench_common::figure::{Figure, quantile};
use bench_common::{Failure, conditions, note};
use kernel::{Rng, UnixMillis, ZonePath};
use sim::tree::{AUTHORITY, Shape, TreeWorld, WorldStart, settle};
use std::time::Duration;
use wire::tree::{Notice, Run, Says};

const TEXT: &str = "SELECT COUNT(*) AS nodes, AVG(cpu, requests) AS cpu, QUANTILE(cpu, 0.99) AS cpu_p99 FROM children";
const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// Between two.
const PAUSE: Duration = Duration::from_secs(10);

pub fn measure(bench: &Bench, report: Report) -> Result<(), Failure> {
    let branching: &[usize] = if bench.is_quick {
        &[18, 18]
    } else {
        &[15, 15, 14]
    };
    let shape = Shape::new(branching, 32);
    let (ways, said) = ways(&shape, 1)?;
    let mut world = TreeWorld::new(WorldStart {
        gossips: false,
        ..WorldStart::new(shape, ways, 1)
    });
    world.sql = true;
    settle(&mut world)?;
    let nodes = world.nodes.len();
    let mut rng = Rng::seeded(3);
    let (mut most, mut last) = (Vec::new(), Vec::new());
    for version in 1..=5 {
        let node = usize::try_from(rng.below(nodes as u64))?;
        world.programs_at.clear();
        let began = world.now;
        world.install(node, &notice(version)?)?;
        let step = Duration::from_millis(50);
        let all = |world: &TreeWorld| world.programs_at.len() >= nodes;
        world
            .until_by(Duration::from_mins(1), step, all)
            .ok_or("a program was not known everywhere in 60 s")?;
        let times = world.programs_at.iter();
        let times: Vec<f64> = times.map(|at| at.since(began).as_secs_f64()).collect();
        most.push(quantile(&times, 0.99));
        last.push(times.iter().copied().fold(0.0, f64::max));
        world.pass(PAUSE);
    }
    note("a program known at 99 % of nodes, s", &most);
    note("at the last, s", &last);
    conditions::tell([
        ("distances", said),
        (
            "roll-out",
            format!(
                "{nodes} nodes as {branching:?} zones of 32, leaf zones' gossip not simulated; a program of {} bytes installed at a node drawn at random, in five versions",
                TEXT.len()
            ),
        ),
    ])?;
    let longest = most.iter().copied().fold(0.0, f64::max);
    report(Figure::alone(goals::ROLLED_OUT, longest));
    Ok(())
}

fn notice(version: u64) -> Result<Notice, Failure> {
    Ok(Notice {
        program: "load".parse()?,
        zone: ZonePath::root(),
        version,
        issuer: AUTHORITY,
        lifetime_ms: DAY_MS,
        says: Says::Run(Run {
            text: TEXT.to_owned(),
            issued_at: UnixMillis(1),
            threshold: 50,
            priority: 0,
            canary: ZonePath::root(),
            canary_ms: 0,
        }),
    })
}
