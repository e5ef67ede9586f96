//! How soon a singleton runs elsewhere when its node is lost, and whether it ever
//! runs twice.
//!
//! Holds: every second time the node has power and is cut off: then its replica
//! has to end by itself before another begins. Two at once are seen by a lock
//! that each of them holds for its life, on the machine that all nodes of a lab
//! share.

use crate::cluster::{Cluster, NODES};
use crate::{Report, goals};
use bench_common::figure::{Figure, quantile};
use bench_common::node::until;
use bench_common::{Failure, beside, note, say};
use std::fs;
use std::time::Instant;
use wire::lab::{Between, Fault, Place};

pub fn measure(cluster: &Cluster, cuts: usize, report: Report) -> Result<(), Failure> {
    cluster.whole()?;
    let scratch = tempfile::tempdir()?;
    let (starts, doubles) = (
        scratch.path().join("starts"),
        scratch.path().join("doubles"),
    );
    let script = format!(
        "exec 9>{lock}; flock -n 9 || echo twice >> {doubles}; echo $HOMEOSTAT_EPOCH >> {starts}; exec {service}",
        service = beside("black-box-service")?.display(),
        lock = scratch.path().join("lock").display(),
        doubles = doubles.display(),
        starts = starts.display(),
    );
    cluster.apply(&format!(
        "[service.one]\nrun = {{ process = [\"sh\", \"-c\", \"{script}\"] }}\nsingleton = true\n"
    ))?;
    let begun = || fs::read_to_string(&starts).map_or(0, |text| text.lines().count());
    let mut spans = Vec::new();
    for cut in 0..cuts {
        cluster.whole()?;
        let (on, before, leads) = until("the singleton", || {
            let leader = cluster.leader().ok()?;
            let on = cluster.ready_on(leader).ok()?;
            (on.len() == 1).then(|| (on[0], begun(), on[0] == leader))
        })?;
        let moment = Instant::now();
        let fault = if cut % 2 == 0 {
            cluster.cut(on)?
        } else {
            cluster.begin(Fault::Cut(Between {
                from: Place::Node(cluster.name(on)),
                to: None,
                one_way: false,
            }))?
        };
        until("its start elsewhere", || (begun() > before).then_some(()))?;
        let span = moment.elapsed().as_secs_f64();
        let how = if cut % 2 == 0 {
            "without power"
        } else {
            "cut off"
        };
        let leads = if leads { ", the leader" } else { "" };
        say(&format!("    {how}{leads}: {span:.1} s"));
        spans.push(span);
        // The others say where it is, and that it is ready there.
        let by = (on + 1) % NODES;
        until("ready elsewhere", || {
            let now = cluster.ready_on(by).ok()?;
            (now.len() == 1 && now[0] != on).then_some(())
        })?;
        cluster.undo(fault)?;
    }
    let twice = fs::read_to_string(&doubles).map_or(0, |text| text.lines().count());
    note("a singleton's node lost to its start elsewhere, s", &spans);
    report(Figure::alone(goals::SINGLETON, quantile(&spans, 1.0)));
    #[expect(clippy::cast_precision_loss, reason = "a few")]
    report(Figure::alone(goals::TWICE, twice as f64));
    Ok(())
}
