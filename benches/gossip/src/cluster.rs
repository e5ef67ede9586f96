//! Our nodes in a lab: started, killed, changed, counted.
//!
//! In: how many nodes in which zones. Out: a cluster of `homeostat up` nodes,
//! each in a network namespace of its own, without services.
//! Holds: the lab goes with this process, however that ends.

use crate::heard::{Ear, What, ours};
use bench_common::Failure;
use bench_common::labs;
pub use bench_common::labs::{AGENT_PORT, finish, possible};
use bench_common::machine::{is_alive, mentioning};
use bench_common::node::{kill, until};
use lab::Lab;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use wire::api::NodeView;
use wire::lab::LabNode;
use wire::layout::Layout;

pub const HEARD_MAX: Duration = Duration::from_secs(90);
/// News of attributes are told at `debug` in the agents' logs.
const LOG: &str = "info,agent::cluster::rows=debug";

pub struct Cluster {
    pub lab: Lab,
    program: PathBuf,
    /// By place in the lab.
    ids: Vec<String>,
    pub ear: Ear,
}

impl Cluster {
    pub fn start(program: &Path, nodes: usize, zones: &[&str]) -> Result<Self, Failure> {
        let lab = labs::start(program, nodes, zones, LOG)?;
        let nodes = lab.nodes().iter();
        let logs = nodes.map(|node| Layout::new(&node.data).logs().join("agent.log"));
        let ear = Ear::on_files(ours, &logs.collect::<Vec<_>>())?;
        let mut cluster = Self {
            ids: Vec::new(),
            program: program.to_owned(),
            lab,
            ear,
        };
        cluster.settle()?;
        Ok(cluster)
    }

    /// Until every node sees all others alive.
    pub fn settle(&mut self) -> Result<(), Failure> {
        let count = self.lab.nodes().len();
        for at in 0..count {
            let views = until("all nodes alive at each", || {
                let views = self.views(at).ok()?;
                let alive = views.iter().filter(|one| one.state == "alive").count();
                let known = views.iter().all(|one| !one.attributes.is_empty());
                (alive == count && known).then_some(views)
            })?;
            if self.ids.is_empty() {
                let of = |node: &LabNode| {
                    let name = node.name.as_str();
                    let view = views.iter().find(|one| one.name == name);
                    view.map(|view| view.id.clone()).ok_or("a node is missing")
                };
                self.ids = self.lab.nodes().iter().map(of).collect::<Result<_, _>>()?;
            }
        }
        Ok(())
    }

    fn views(&self, at: usize) -> Result<Vec<NodeView>, Failure> {
        let mut command = self.command(at);
        command.args(["node", "ls", "-o", "json"]);
        Ok(serde_json::from_str(&finish(command)?)?)
    }

    /// Our program inside a node.
    fn command(&self, at: usize) -> Command {
        self.lab.command(self.lab.name(at), &self.program)
    }

    pub fn id(&self, at: usize) -> &str {
        &self.ids[at]
    }

    pub fn others(&self, but: usize) -> BTreeSet<usize> {
        (0..self.ids.len()).filter(|at| *at != but).collect()
    }

    /// Supervisor, agent and edge of a node die by one blow; the moment before.
    pub fn kill(&self, at: usize) -> Result<Instant, Failure> {
        let data = &self.lab.nodes()[at].data;
        let mut all = mentioning(data);
        // Nobody is left who would start the others again.
        let order = ["supervisor", "agent"];
        let rank = |words: &[String]| {
            let role = words.get(1).map_or("", String::as_str);
            order.iter().position(|one| *one == role).unwrap_or(2)
        };
        all.sort_by_key(|(_, words)| rank(words));
        if rank(all.first().map_or(&[], |(_, words)| words)) != 0 {
            return Err(format!("node {at} has no supervisor").into());
        }
        let moment = Instant::now();
        for (pid, _) in &all {
            let _ = kill(*pid);
        }
        for (pid, _) in &all {
            until("its end", || (!is_alive(*pid)).then_some(()))?;
        }
        Ok(moment)
    }

    /// Starts a killed node again; does not wait for the others to notice.
    pub fn start_again(&self, at: usize) -> Result<(), Failure> {
        let node = &self.lab.nodes()[at];
        finish(labs::up(&self.lab, node, &self.program, LOG)).map(drop)
    }

    pub fn publish(&self, at: usize, note: &str) -> Result<Instant, Failure> {
        let mut command = self.command(at);
        command.arg("publish").arg(format!("note={note}"));
        let moment = Instant::now();
        finish(command)?;
        Ok(moment)
    }

    /// Until all others have heard it; from `moment`, in seconds.
    pub fn heard(&self, what: What, of: usize, moment: Instant) -> Result<f64, Failure> {
        self.heard_by(what, of, &self.others(of), moment)
    }

    pub fn heard_by(
        &self,
        what: What,
        of: usize,
        by: &BTreeSet<usize>,
        moment: Instant,
    ) -> Result<f64, Failure> {
        let found = self.ear.all((what, self.id(of)), by, HEARD_MAX)?;
        Ok(last(found.into_values(), moment))
    }
}

/// Seconds from `moment` to the last of these.
pub fn last(moments: impl Iterator<Item = Instant>, moment: Instant) -> f64 {
    let last = moments.max().unwrap_or(moment);
    last.saturating_duration_since(moment).as_secs_f64()
}
