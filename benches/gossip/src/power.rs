//! How soon the others of its zone know of a node whose power is cut.
//!
//! Holds: the cut is the lab's own (link down, then everything killed), and
//! times begin before it is asked for.

use crate::cluster::{Cluster, possible};
use crate::heard::What;
use crate::{Bench, Report, goals};
use bench_common::figure::{Figure, quantile};
use bench_common::{Failure, beside, conditions, note, say};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use wire::lab::Fault;

const ZONES: [&str; 3] = ["/eu/1", "/us/1", "/ap/1"];
const CALM: Duration = Duration::from_secs(2);
/// It is given back sooner.
const OFF_MAX: Duration = Duration::from_mins(3);

pub fn measure(bench: &Bench, report: Report) -> Result<(), Failure> {
    if !possible() {
        say("    no network namespaces can be made here: `power` needs root and /dev/net/tun");
        report(Figure::alone(goals::POWER, f64::NAN));
        return Ok(());
    }
    let nodes = ZONES.len() * bench.lengths.zone_nodes;
    let cluster = Cluster::start(&beside("homeostat")?, nodes, &ZONES)?;
    conditions::tell([(
        "power cuts",
        format!(
            "{nodes} nodes of `homeostat up` without services in {} zones of a lab, 90 to 200 ms apart",
            ZONES.len()
        ),
    )])?;
    let mut spans = Vec::new();
    for round in 0..bench.lengths.deaths {
        std::thread::sleep(CALM);
        spans.push(cut(&cluster, (round * 7 + 1) % nodes)?);
    }
    note("power cut to dead to all others of the zone, s", &spans);
    report(Figure::alone(goals::POWER, quantile(&spans, 1.0)));
    Ok(())
}

fn cut(cluster: &Cluster, at: usize) -> Result<f64, Failure> {
    let node = &cluster.lab.nodes()[at];
    let others = cluster.others(at);
    let near = others.iter().copied();
    let near = near.filter(|other| cluster.lab.nodes()[*other].zone == node.zone);
    let near: BTreeSet<usize> = near.collect();
    cluster.ear.forget();
    let moment = Instant::now();
    let fault = Fault::PowerOff {
        node: node.name.clone(),
    };
    let begun = cluster.lab.begin(fault, Some(OFF_MAX))?;
    let span = cluster.heard_by(What::Dead, at, &near, moment)?;
    cluster.ear.forget();
    let back = Instant::now();
    cluster.lab.undo(begun)?;
    cluster.heard_by(What::Alive, at, &others, back)?;
    Ok(span)
}
