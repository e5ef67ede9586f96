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

/// A singleton of which it is seen whenever one starts while another one runs.
pub struct Watched {
    scratch: tempfile::TempDir,
}

impl Watched {
    pub fn new() -> Result<Self, Failure> {
        let scratch = tempfile::tempdir()?;
        Ok(Self { scratch })
    }

    /// Of a manifest.
    pub fn service(&self) -> Result<String, Failure> {
        let at = |name: &str| self.scratch.path().join(name).display().to_string();
        let script = format!(
            "exec 9>{lock}; flock -n 9 || echo twice >> {doubles}; echo $HOMEOSTAT_EPOCH >> {starts}; exec {service}",
            service = beside("black-box-service")?.display(),
            lock = at("lock"),
            doubles = at("doubles"),
            starts = at("starts"),
        );
        Ok(format!(
            "[service.one]\nrun = {{ process = [\"sh\", \"-c\", \"{script}\"] }}\nsingleton = true\n"
        ))
    }

    fn lines(&self, name: &str) -> usize {
        let text = fs::read_to_string(self.scratch.path().join(name));
        text.map_or(0, |text| text.lines().count())
    }

    pub fn starts(&self) -> usize {
        self.lines("starts")
    }

    pub fn doubles(&self) -> usize {
        self.lines("doubles")
    }
}

pub fn measure(cluster: &Cluster, cuts: usize, report: Report) -> Result<(), Failure> {
    cluster.whole()?;
    let watched = Watched::new()?;
    cluster.apply(&watched.service()?)?;
    let begun = || watched.starts();
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
    let twice = watched.doubles();
    note("a singleton's node lost to its start elsewhere, s", &spans);
    report(Figure::alone(goals::SINGLETON, quantile(&spans, 1.0)));
    #[expect(clippy::cast_precision_loss, reason = "a few")]
    report(Figure::alone(goals::TWICE, twice as f64));
    Ok(())
}
