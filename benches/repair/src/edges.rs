//! How soon the surviving edges answer well again when a node's power is cut,
//! under a steady load.

use crate::cluster::{Cluster, HOST, NODES, REPLICAS};
use crate::load::{Load, Target, answers};
use crate::{Report, goals};
use bench_common::figure::{Figure, quantile};
use bench_common::node::until;
use bench_common::{Failure, note, say};
use std::time::Duration;

const PER_SECOND: u32 = 500;
const BEFORE: Duration = Duration::from_secs(2);
/// Longer than it may take by a second and more, which must be good too.
const AFTER: Duration = Duration::from_secs(8);

pub fn measure(cluster: &Cluster, cuts: usize, report: Report) -> Result<(), Failure> {
    cluster.whole()?;
    cluster.apply_echo()?;
    let (mut spans, mut bad, mut all) = (Vec::new(), 0, 0);
    // At most so many are asked of: the figure is about thirty.
    for cut in 0..cuts.min(30) {
        cluster.whole()?;
        let loaded = until("all replicas ready", || {
            let on = cluster.ready_on(cluster.leader().ok()?).ok()?;
            (on.len() == REPLICAS).then(|| on[cut % REPLICAS])
        })?;
        let survivors = (0..NODES).filter(|at| *at != loaded);
        let targets: Vec<Target> = survivors.map(|at| cluster.target(at)).collect();
        for target in &targets {
            until("each edge knows the route", || {
                answers(*target, HOST).then_some(())
            })?;
        }
        let load = Load::begin(PER_SECOND, HOST, targets)?;
        std::thread::sleep(BEFORE);
        let moment = std::time::Instant::now();
        let fault = cluster.cut(loaded)?;
        std::thread::sleep(AFTER);
        let seen = load.end()?;
        let before = seen.good_before(moment);
        if before < 0.99 {
            let wrong = &seen.wrong;
            return Err(
                format!("before the cut only {before:.3} was answered well: {wrong:?}").into(),
            );
        }
        spans.push(seen.well_again_after(moment)?.as_secs_f64());
        bad += seen.bad();
        say(&format!("    answered otherwise: {:?}", seen.wrong));
        all += seen.count();
        cluster.undo(fault)?;
    }
    note(
        "a node's power cut to 99 % answered within a second, s",
        &spans,
    );
    say(&format!(
        "    of {all} requests to surviving edges {bad} were not answered well within a second"
    ));
    report(Figure::alone(goals::EDGES, quantile(&spans, 1.0)));
    Ok(())
}
