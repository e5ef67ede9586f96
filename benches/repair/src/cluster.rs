//! Nodes in a lab, one service on some of them, power cut and given back.

use crate::load::Target;
use bench_common::labs::{self, finish};
use bench_common::node::until;
use bench_common::{Failure, beside};
use lab::Lab;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use wire::lab::Fault;

pub const ZONES: [&str; 3] = ["/eu/1", "/eu/2", "/us/1"];
pub const NODES: usize = 5;
pub const REPLICAS: usize = 2;
pub const HOST: &str = "bench.test";
/// Power is given back sooner.
const OFF_MAX: Duration = Duration::from_mins(3);

pub struct Cluster {
    lab: Lab,
    program: PathBuf,
    project: tempfile::TempDir,
}

/// Somebody else to ask.
pub fn other(than: usize) -> usize {
    (than + 1) % NODES
}

impl Cluster {
    pub fn start() -> Result<Self, Failure> {
        let program = beside("homeostat")?;
        let lab = labs::start(&program, NODES, &ZONES, "info")?;
        let project = tempfile::tempdir()?;
        Ok(Self {
            lab,
            program,
            project,
        })
    }

    fn command(&self, at: usize) -> Command {
        self.lab.command(self.lab.name(at), &self.program)
    }

    fn asked(&self, at: usize, words: &[&str]) -> Result<Value, Failure> {
        let mut command = self.command(at);
        command.args(words).args(["-o", "json"]);
        Ok(serde_json::from_str(&finish(command)?)?)
    }

    fn place(&self, name: &str) -> Option<usize> {
        (0..NODES).find(|at| self.lab.name(*at).as_str() == name)
    }

    /// Until all nodes see one another and all voters are up to date.
    pub fn whole(&self) -> Result<(), Failure> {
        for at in 0..NODES {
            until("all nodes alive at each", || {
                let views = self.asked(at, &["node", "ls"]).ok()?;
                let views = views.as_array()?.iter();
                let alive = views.filter(|one| one["state"] == "alive").count();
                (alive == NODES).then_some(())
            })?;
        }
        until("three voters that lack nothing", || {
            let leader = self.leader().ok()?;
            let status = self.asked(leader, &["store", "status"]).ok()?;
            let group = &status["groups"][0];
            let behind = group["behind"].as_object()?.values();
            let lacks = behind.filter(|entries| **entries != 0).count();
            let voters = group["voters"].as_array()?.len();
            (voters == 3 && lacks == 0).then_some(())
        })
    }

    /// Of the control group, as the nodes that can be asked agree.
    pub fn leader(&self) -> Result<usize, Failure> {
        until("a leader", || {
            let views = (0..NODES).find_map(|at| self.asked(at, &["node", "ls"]).ok())?;
            let mut views = views.as_array()?.iter();
            let leader = views.find(|one| one["leader"] == true)?;
            self.place(leader["name"].as_str()?)
        })
    }

    pub fn try_write(&self, at: usize) -> Result<(), Failure> {
        let mut command = self.command(at);
        command.args(["token", "create", "--ttl", "1m", "--zone", "/eu/1"]);
        finish(command).map(drop)
    }

    /// One project with these services.
    pub fn apply(&self, services: &str) -> Result<(), Failure> {
        let manifest = format!("[project]\nname = \"bench\"\n\n{services}");
        std::fs::write(self.project.path().join("homeostat.toml"), manifest)?;
        let mut command = self.command(0);
        command.arg("apply").arg(self.project.path());
        finish(command).map(drop)
    }

    /// One service at [`HOST`], [`REPLICAS`] of it.
    pub fn apply_echo(&self) -> Result<(), Failure> {
        self.apply(&format!(
            r#"[service.echo]
run = {{ process = ["{}"] }}
replicas = {REPLICAS}
routes = [{{ host = "{HOST}", path = "/" }}]

[service.echo.probes]
readiness = {{ http = "/", every = "200ms", timeout = "1s", failures = 2 }}
"#,
            beside("black-box-service")?.display()
        ))
    }

    pub fn name(&self, at: usize) -> kernel::Name {
        self.lab.name(at).to_owned()
    }

    /// A node's edge, for clients in its zone.
    pub fn target(&self, at: usize) -> Target {
        let plan = self.lab.plan();
        let node = &plan.nodes[at];
        let near = plan.clients.iter().find(|client| client.zone == node.zone);
        Target {
            from: near.map_or(node.address, |client| client.address),
            to: node.http,
        }
    }

    /// The nodes with a replica that is ready, as `by` sees them.
    pub fn ready_on(&self, by: usize) -> Result<Vec<usize>, Failure> {
        let replicas = self.asked(by, &["get", "replicas"])?;
        let replicas = replicas.as_array().ok_or("no list of replicas")?.iter();
        let ready = replicas.filter(|one| one["state"] == "ready");
        let on = ready.filter_map(|one| {
            let said = one["summary"].as_str()?.strip_prefix("on ")?;
            self.place(said.split(',').next()?)
        });
        Ok(on.collect())
    }

    pub fn cut(&self, at: usize) -> Result<Option<u64>, Failure> {
        self.begin(Fault::PowerOff {
            node: self.name(at),
        })
    }

    pub fn begin(&self, fault: Fault) -> Result<Option<u64>, Failure> {
        Ok(self.lab.begin(fault, Some(OFF_MAX))?)
    }

    pub fn undo(&self, cut: Option<u64>) -> Result<(), Failure> {
        self.lab.undo(cut)?;
        Ok(())
    }
}
