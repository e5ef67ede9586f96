//! How soon a replica that was lost with its node serves elsewhere.

use crate::cluster::{Cluster, NODES, REPLICAS};
use crate::{Report, goals};
use bench_common::figure::{Figure, quantile};
use bench_common::node::until;
use bench_common::{Failure, note};
use std::time::Instant;

pub fn measure(cluster: &Cluster, cuts: usize, report: Report) -> Result<(), Failure> {
    cluster.whole()?;
    cluster.apply_echo()?;
    let mut spans = Vec::new();
    for _ in 0..cuts {
        cluster.whole()?;
        let leader = cluster.leader()?;
        let loaded = until("a replica on another than the leader", || {
            let on = cluster.ready_on(leader).ok()?;
            (on.len() == REPLICAS).then_some(())?;
            on.into_iter().find(|at| *at != leader)
        })?;
        let by = (0..NODES).find(|at| *at != leader && *at != loaded);
        let by = by.ok_or("too few nodes")?;
        let moment = Instant::now();
        let cut = cluster.cut(loaded)?;
        until("all replicas ready on others", || {
            let on = cluster.ready_on(by).ok()?;
            let others = on.iter().filter(|at| **at != loaded).count();
            (others == REPLICAS).then_some(())
        })?;
        spans.push(moment.elapsed().as_secs_f64());
        cluster.undo(cut)?;
    }
    note(
        "a node's power cut to its replicas ready elsewhere, s",
        &spans,
    );
    report(Figure::alone(goals::REPLICA, quantile(&spans, 1.0)));
    Ok(())
}
