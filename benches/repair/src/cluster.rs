//! Nodes in a lab, one service on some of them, power cut and given back.

use crate::load::Target;
use bench_common::labs::{self, finish};
use bench_common::node::until;
use bench_common::{Failure, beside};
use kernel::ZonePath;
use lab::Lab;
use serde_json::Value;
use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use wire::lab::Fault;
use wire::layout::Layout;

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

/// A service that answers at [`HOST`].
pub fn echo(replicas: usize) -> Result<String, Failure> {
    Ok(format!(
        r#"[service.echo]
run = {{ process = ["{}"] }}
replicas = {replicas}
routes = [{{ host = "{HOST}", path = "/" }}]

[service.echo.probes]
readiness = {{ http = "/", every = "200ms", timeout = "1s", failures = 2 }}
"#,
        beside("black-box-service")?.display()
    ))
}

/// Somebody else to ask.
pub fn other(than: usize) -> usize {
    (than + 1) % NODES
}

impl Cluster {
    pub fn start(nodes: usize) -> Result<Self, Failure> {
        let program = beside("homeostat")?;
        let lab = labs::start(&program, nodes, &ZONES, "info")?;
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

    pub fn asked(&self, at: usize, words: &[&str]) -> Result<Value, Failure> {
        let mut command = self.command(at);
        command.args(words).args(["-o", "json"]);
        Ok(serde_json::from_str(&finish(command)?)?)
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.all().find(|at| self.lab.name(*at).as_str() == name)
    }

    /// Until all nodes see one another and all voters are up to date.
    pub fn whole(&self) -> Result<(), Failure> {
        for at in self.all() {
            until("all nodes alive at each", || {
                self.sees_all(at).then_some(())
            })?;
        }
        until("three voters that lack nothing", || {
            self.voters_lack_nothing().then_some(())
        })
    }

    pub fn all(&self) -> Range<usize> {
        0..self.lab.nodes().len()
    }

    /// Whether this node finds all of them alive.
    pub fn sees_all(&self, at: usize) -> bool {
        let views = self.asked(at, &["node", "ls"]).unwrap_or_default();
        let views = views.as_array().map_or(&[][..], Vec::as_slice);
        let alive = views.iter().filter(|one| one["state"] == "alive");
        alive.count() == self.all().len()
    }

    /// Whether there are three, and all have what the leader has.
    pub fn voters_lack_nothing(&self) -> bool {
        let found = || {
            let leader = self.find_leader()?;
            let status = self.asked(leader, &["store", "status"]).ok()?;
            let group = &status["groups"][0];
            let behind = group["behind"].as_object()?.values();
            let lacks = behind.filter(|entries| **entries != 0).count();
            let voters = group["voters"].as_array()?.len();
            Some(voters == 3 && lacks == 0)
        };
        found().unwrap_or_default()
    }

    /// Of the control group, as the nodes that can be asked agree.
    pub fn leader(&self) -> Result<usize, Failure> {
        until("a leader", || self.find_leader())
    }

    pub fn find_leader(&self) -> Option<usize> {
        let mut all = self.all();
        let views = all.find_map(|at| self.asked(at, &["node", "ls"]).ok())?;
        let mut views = views.as_array()?.iter();
        let leader = views.find(|one| one["leader"] == true)?;
        self.place(leader["name"].as_str()?)
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

    /// A command of the program that prints nothing of use.
    pub fn run(&self, at: usize, words: &[&str]) -> Result<(), Failure> {
        let mut command = self.command(at);
        command.args(words);
        finish(command).map(drop)
    }

    /// One service at [`HOST`], [`REPLICAS`] of it.
    pub fn apply_echo(&self) -> Result<(), Failure> {
        self.apply(&echo(REPLICAS)?)
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

    /// The same, which ends by itself, or is over at once.
    pub fn begin_for(&self, fault: Fault, span: Option<Duration>) -> Result<(), Failure> {
        self.lab.begin(fault, span)?;
        Ok(())
    }

    /// Whether anything that was begun is not over.
    pub fn has_faults(&self) -> Result<bool, Failure> {
        Ok(!self.lab.status()?.faults.is_empty())
    }

    /// How many processes run in a node, whoever started them.
    pub fn processes(&self, at: usize) -> usize {
        self.lab.processes(self.lab.name(at))
    }

    pub fn zone(&self, at: usize) -> &ZonePath {
        &self.lab.nodes()[at].zone
    }

    /// Where a node keeps what its parts said.
    pub fn logs(&self, at: usize) -> PathBuf {
        Layout::new(&self.lab.nodes()[at].data).logs()
    }

    pub fn undo(&self, cut: Option<u64>) -> Result<(), Failure> {
        self.lab.undo(cut)?;
        Ok(())
    }
}
