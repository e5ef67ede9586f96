//! The peer: Serf's agents in the same namespaces, by `serf.json`.
//!
//! Holds: each is killed by its process id when it is dropped.

use crate::cluster::{Cluster, HEARD_MAX, finish, last};
use crate::heard::{Ear, What, serf};
use bench_common::node::until;
use bench_common::{Failure, say};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

pub const PORT: u16 = 7_946;
const RPC: &str = "127.0.0.1:7373";

pub struct Serf {
    program: PathBuf,
    configuration: PathBuf,
    agents: Vec<Option<Child>>,
    ear: Ear,
}

impl Serf {
    /// An agent beside each node of ours, with these notes.
    pub fn start(
        cluster: &Cluster,
        program: &Path,
        scratch: &Path,
        notes: &[String],
    ) -> Result<Self, Failure> {
        let configuration = scratch.join("serf.json");
        std::fs::write(&configuration, include_str!("../serf.json"))?;
        let mut made = Self {
            program: program.to_owned(),
            configuration,
            agents: notes.iter().map(|_| None).collect(),
            ear: Ear::new(serf),
        };
        say(&format!("    {} agents of Serf join", notes.len()));
        for (at, note) in notes.iter().enumerate() {
            made.start_again(cluster, at, note)?;
        }
        for at in 0..notes.len() {
            until("all agents of Serf alive at each", || {
                (made.alive(cluster, at)? == notes.len()).then_some(())
            })?;
        }
        Ok(made)
    }

    fn command(&self, cluster: &Cluster, at: usize, words: &[&str]) -> Command {
        let mut command = cluster.lab.command(cluster.lab.name(at), &self.program);
        command.args(words);
        command
    }

    fn alive(&self, cluster: &Cluster, at: usize) -> Option<usize> {
        let words = ["members", "-rpc-addr", RPC, "-status", "alive"];
        let said = finish(self.command(cluster, at, &words)).ok()?;
        Some(said.lines().count())
    }

    /// Does not wait for the others to notice.
    pub fn start_again(&mut self, cluster: &Cluster, at: usize, note: &str) -> Result<(), Failure> {
        let nodes = cluster.lab.nodes();
        let bind = format!("{}:{PORT}", nodes[at].address);
        let first = format!("{}:{PORT}", nodes[0].address);
        let (name, tag) = (nodes[at].name.as_str(), format!("note={note}"));
        let configuration = self.configuration.to_string_lossy().into_owned();
        let mut command = self.command(cluster, at, &["agent", "-config-file"]);
        command.args([&configuration, "-node", name, "-bind", &bind]);
        command.args(["-rpc-addr", RPC, "-tag", &tag]);
        if at > 0 {
            command.args(["-retry-join", &first]);
        }
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        if let Some(output) = child.stdout.take() {
            self.ear.listen(at, output);
        }
        self.agents[at] = Some(child);
        Ok(())
    }

    /// The moment before.
    pub fn kill(&mut self, at: usize) -> Result<Instant, Failure> {
        let mut child = self.agents[at].take().ok_or("this agent of Serf is dead")?;
        let moment = Instant::now();
        child.kill()?;
        child.wait()?;
        Ok(moment)
    }

    pub fn publish(&self, cluster: &Cluster, at: usize, note: &str) -> Result<Instant, Failure> {
        let tag = format!("note={note}");
        let command = self.command(cluster, at, &["tags", "-rpc-addr", RPC, "-set", &tag]);
        let moment = Instant::now();
        finish(command)?;
        Ok(moment)
    }

    pub fn forget(&self) {
        self.ear.forget();
    }

    /// Until all others have heard it; from `moment`, in seconds.
    pub fn heard(
        &self,
        cluster: &Cluster,
        (what, of): (What, usize),
        moment: Instant,
    ) -> Result<f64, Failure> {
        let name = cluster.lab.name(of).as_str();
        let found = self.ear.all((what, name), &cluster.others(of), HEARD_MAX)?;
        Ok(last(found.into_values(), moment))
    }
}

impl Drop for Serf {
    fn drop(&mut self) {
        for child in self.agents.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
