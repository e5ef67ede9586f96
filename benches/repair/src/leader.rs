//! How soon something can be written again when the leader's power is cut.

use crate::cluster::{Cluster, other};
use crate::{Report, goals};
use bench_common::figure::{Figure, quantile};
use bench_common::{Failure, note, say};
use std::time::Instant;

pub fn measure(cluster: &Cluster, cuts: usize, report: Report) -> Result<(), Failure> {
    let mut spans = Vec::new();
    for _ in 0..cuts {
        cluster.whole()?;
        let leader = cluster.leader()?;
        let other = other(leader);
        let moment = Instant::now();
        let cut = cluster.cut(leader)?;
        // A token is a write; what is asked while nobody leads waits for it.
        let mut refused = Vec::new();
        while let Err(why) = cluster.try_write(other) {
            refused.push(format!("{:.2} s: {why}", moment.elapsed().as_secs_f64()));
        }
        let span = moment.elapsed().as_secs_f64();
        if span > goals::LEADER.closes {
            say(&format!("    {span:.2} s; {}", refused.join("; ")));
        }
        spans.push(span);
        cluster.undo(cut)?;
    }
    note("leader's power cut to the next write, s", &spans);
    report(Figure::alone(goals::LEADER, quantile(&spans, 1.0)));
    Ok(())
}
