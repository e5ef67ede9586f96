//! Who keeps the store: its voters, who of them leads, and what the leader's node
//! does for all nodes.
//!
//! In: who has power and who hears whom. Out: a leader whose writes count, as
//! long as a majority of voters hears it and is heard; other voters.
//! Holds: one leader at most has a majority; one that has lost it goes on for a
//! while in the belief that it leads, and writes nothing.
//! Never: loses what was acknowledged: how a log is kept is the store's own tests'.

pub mod lease;

use crate::network::part;
use crate::world::{What, World};
use aggregation::membership::Reach;
use kernel::{NodeId, Revision, ScopedName, Time};
use node::desired::{Applied, Desired, FIRST_NODE, PREFIX};
use node::members::{Members, Standing, choose};
use node::nodes::{NODES_PREFIX, NodeRecord, NodeReport, NodeTable};
use node::placing::{Known, replace};
use node::store::{Compare, Operation, RangeReply, Transaction};
use node::{NodeEvent, mending};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub const LOOK: Duration = Duration::from_millis(200);
/// A leader without a majority believes in itself for so long.
const BELIEF: Duration = Duration::from_secs(2);
/// From the leader's end until another voter leads: at least, and how much more.
const ELECTION: Duration = Duration::from_millis(900);
const ELECTION_MORE: Duration = Duration::from_secs(1);
const CHOOSE_EVERY: Duration = Duration::from_millis(500);
/// The same as the agent's: nothing may have changed.
const LOOKOUT: Duration = Duration::from_secs(1);
/// What changes more often is looked at this often.
pub const GATHER: Duration = Duration::from_millis(50);

pub struct Group {
    pub members: Members,
    /// The machine whose writes count.
    pub leader: Option<usize>,
    pub began: bool,
    /// Counts leaders.
    pub terms: u32,
    /// Since when machines have led without a majority.
    alone: BTreeMap<usize, Time>,
    next_at: Option<Time>,
    chosen_at: Time,
    silent: BTreeMap<NodeId, Time>,
    table: (Revision, Arc<NodeTable>),
}

impl Default for Group {
    fn default() -> Self {
        Self {
            members: Members {
                voters: BTreeSet::from([FIRST_NODE]),
                learners: BTreeSet::new(),
            },
            leader: None,
            began: false,
            terms: 0,
            alone: BTreeMap::new(),
            next_at: None,
            chosen_at: Time(0),
            silent: BTreeMap::new(),
            table: (Revision(0), Arc::default()),
        }
    }
}

fn records(range: &RangeReply) -> NodeTable {
    let records = range.entries.iter().filter_map(|entry| {
        let record: NodeRecord = serde_json::from_slice(&entry.value).ok()?;
        Some((record.id, record))
    });
    records.collect()
}

/// The first machine with that identity.
fn machine(node: NodeId) -> usize {
    usize::try_from(node.0.saturating_sub(1)).unwrap_or(usize::MAX)
}

impl World {
    fn is_on(&self, at: usize) -> bool {
        let machine = self.machines.get(at);
        machine
            .is_some_and(|one| one.running.is_some() && !one.silent && one.paused_until <= self.now)
    }

    pub fn hear_each_other(&self, one: usize, other: usize) -> bool {
        let cuts = &self.network.cuts;
        one == other
            || (self.is_on(other) && !cuts.contains(&(one, other)) && !cuts.contains(&(other, one)))
    }

    fn hears_most_of(&self, at: usize, voters: &BTreeSet<NodeId>) -> bool {
        let heard = voters
            .iter()
            .filter(|voter| self.hear_each_other(at, machine(**voter)));
        self.is_on(at) && heard.count() * 2 > voters.len()
    }

    /// Whether what this machine writes as the leader is done.
    pub fn commits(&self, at: usize) -> bool {
        self.group.leader == Some(at) && self.hears_most_of(at, &self.group.members.voters)
    }

    /// What is due, and again later.
    pub fn on_group(&mut self) {
        self.tend_group();
        self.carry_orders();
        self.put_group();
    }

    pub fn tend_group(&mut self) {
        self.doubt_leaders();
        if self.group.leader.is_none() {
            self.elect();
        }
        let Some(leader) = self.group.leader.filter(|at| self.commits(*at)) else {
            return;
        };
        if self.now >= self.group.chosen_at + CHOOSE_EVERY {
            self.group.chosen_at = self.now;
            self.choose_members(leader);
        }
    }

    fn doubt_leaders(&mut self) {
        let believers: Vec<usize> = (0..self.machines.len())
            .filter(|at| {
                let running = self.machines[*at].running.as_ref();
                running.is_some_and(|running| running.leads)
            })
            .collect();
        for at in believers {
            // While it stands still it cannot doubt.
            if self.machines[at].paused_until > self.now {
                continue;
            }
            if self.commits(at) {
                self.group.alone.remove(&at);
                continue;
            }
            let since = *self.group.alone.entry(at).or_insert(self.now);
            if self.now.since(since) >= BELIEF
                && let Some(running) = &mut self.machines[at].running
            {
                running.leads = false;
                self.group.alone.remove(&at);
            }
        }
        let voters = &self.group.members.voters;
        if self
            .group
            .leader
            .is_some_and(|at| !self.hears_most_of(at, voters))
        {
            self.group.leader = None;
            self.host.forget_watchers();
        }
    }

    fn elect(&mut self) {
        let voters = &self.group.members.voters;
        let can = |at: &usize| self.hears_most_of(*at, voters);
        let candidates: Vec<usize> = voters.iter().map(|it| machine(*it)).filter(can).collect();
        if candidates.is_empty() {
            self.group.next_at = None;
            return;
        }
        let wait = match voters.len() {
            1 => Duration::ZERO,
            _ => ELECTION + part(ELECTION_MORE, &mut self.rng),
        };
        let at = *self.group.next_at.get_or_insert(self.now + wait);
        if self.now < at {
            return;
        }
        self.group.next_at = None;
        let some = self.rng.below(candidates.len() as u64);
        let leader = candidates[usize::try_from(some).unwrap_or_default()];
        self.group.leader = Some(leader);
        self.group.terms += 1;
        self.group.alone.remove(&leader);
        self.trace.event(self.now, leader, 10);
        if let Some(running) = &mut self.machines[leader].running {
            running.leads = true;
        }
        self.begin_granting(leader);
        self.look_out_at(leader, self.now);
    }

    /// As the store's machine has it.
    pub fn node_table(&mut self) -> Arc<NodeTable> {
        let revision = self.host.revision();
        if self.group.table.0 != revision {
            let range = self.host.range(NODES_PREFIX);
            let newest = range.entries.iter().map(|entry| entry.modified).max();
            if newest.unwrap_or_default() > self.group.table.0 {
                self.group.table.1 = Arc::new(records(&range));
            }
            self.group.table.0 = revision;
        }
        Arc::clone(&self.group.table.1)
    }

    pub fn read_node_table(&self) -> NodeTable {
        records(&self.host.range(NODES_PREFIX))
    }

    fn choose_members(&mut self, leader: usize) {
        let (table, now) = (self.node_table(), self.now);
        let own = self.machines[leader].node;
        let mut standing = BTreeMap::new();
        for node in table.keys() {
            if self.reach(leader, *node).is_up() {
                self.group.silent.remove(node);
            } else {
                self.group.silent.entry(*node).or_insert(now);
            }
            let to = self.machines.get(machine(*node));
            let zones = to.map(|to| (self.machines[leader].zone_at, to.zone_at));
            let distance = zones.map(|(from, to)| self.network.distance(from, to));
            let silent = self.group.silent.get(node);
            let found = Standing {
                silent_for: silent.map(|since| now.since(*since)),
                round_trip: distance.map(|one_way| one_way * 2),
            };
            standing.insert(*node, found);
        }
        let chosen = choose(&table, &standing, own, &self.group.members);
        // New ones are let in once they answer, and with them a majority.
        let new = chosen.voters.difference(&self.group.members.voters);
        let all_answer = new
            .into_iter()
            .all(|node| self.hear_each_other(leader, machine(*node)));
        if all_answer && self.hears_most_of(leader, &chosen.voters) {
            self.group.members = chosen;
        }
    }

    /// What a machine's node believes of another. Of those out of view only the
    /// zone tree tells, which is a world of its own here.
    pub fn reach(&self, at: usize, node: NodeId) -> Reach {
        let machine = &self.machines[at];
        let Some(running) = machine.running.as_ref().filter(|_| machine.node != node) else {
            return Reach::Alive;
        };
        running
            .core
            .view(node)
            .map_or(Reach::Alive, |view| view.reach)
    }

    /// What placement is told of a node.
    pub fn known(&self, at: usize, node: NodeId) -> Known {
        let running = self.machines[at].running.as_ref();
        let report = running.and_then(|running| running.reports.get(&node));
        Known {
            machine: report.and_then(|report| report.machine.clone()),
            ..Known::reach(self.reach(at, node).is_up())
        }
    }

    /// All projects as the store has them, and since which revision.
    pub fn heads(&self) -> (Desired, BTreeMap<kernel::Name, Revision>) {
        let range = self.host.range(PREFIX);
        let mut desired = Desired {
            revision: range.revision,
            ..Desired::default()
        };
        let mut modified = BTreeMap::new();
        for entry in &range.entries {
            if let Ok(applied) = serde_json::from_slice::<Applied>(&entry.value) {
                let project = applied.manifest.project.clone();
                modified.insert(project.clone(), entry.modified);
                desired.projects.insert(project, applied);
            }
        }
        (desired, modified)
    }

    pub fn look_out_at(&mut self, at: usize, when: Time) {
        let boot = self.machines[at].boot;
        let Some(running) = self.machines[at].running.as_mut().filter(|one| one.leads) else {
            return;
        };
        if running.lookout.is_none_or(|due| when < due) {
            running.lookout = Some(when);
            self.put(when, at, boot, What::Lookout);
        }
    }

    /// The leader's sensor and actuator, as the agent's.
    pub fn on_lookout(&mut self, at: usize) {
        let now = self.now;
        let Some(running) = self.machines[at].running.as_mut() else {
            return;
        };
        if running.lookout.is_none_or(|due| due > now) {
            return;
        }
        running.lookout = None;
        if !running.leads {
            return;
        }
        let (desired, reports) = (running.client.desired.clone(), running.reports.clone());
        let nodes = self.node_table();
        let reports: BTreeMap<NodeId, NodeReport> = reports
            .into_iter()
            .map(|(node, report)| (node, (*report).clone()))
            .collect();
        let look = mending::look(&desired, &nodes, reports, |node| self.reach(at, node));
        let seen = NodeEvent::ClusterSeen(look);
        self.trace.event(now, at, 11);
        self.with_plane(at, |plane, rng| plane.see(seen, rng, now));
        self.replace_next(at);
        self.look_out_at(at, now + LOOKOUT);
    }

    /// The leader hears what a node runs, and takes back what did not come up there.
    pub fn on_reported(&mut self, at: usize, node: NodeId, report: Arc<NodeReport>) {
        let services = report.status.services.iter();
        let failed =
            services.filter_map(|(name, one)| Some((name.clone(), one.failed.as_ref()?.0)));
        let failed: Vec<(ScopedName, Revision)> = failed.collect();
        if let Some(running) = &mut self.machines[at].running {
            running.reports.insert(node, report);
        }
        for (service, generation) in failed {
            self.take_back(at, &service, generation);
        }
    }

    /// As the agent does with a change that did not come up.
    fn take_back(&mut self, at: usize, service: &ScopedName, generation: Revision) {
        let running = self.machines[at].running.as_ref();
        if !self.commits(at) || running.is_none_or(|running| running.client.writes()) {
            return;
        }
        let (desired, modified) = self.heads();
        let project = &service.project;
        let failed = desired.projects.get(project).filter(|applied| {
            let moved = applied.generations.get(&service.name) == Some(&generation);
            moved && applied.number == generation.0
        });
        let Some(failed) = failed else { return };
        let before = self.check.history.get(project).into_iter().flatten();
        let mut before = before.filter(|(number, _)| **number < failed.number);
        let Some((_, before)) = before.next_back() else {
            return;
        };
        let mut restored = Applied {
            number: failed.number + 1,
            ..before.clone()
        };
        // Singletons may have got their places since.
        restored.keep_singletons(Some(failed), desired.next_epoch());
        if let Some(history) = self.check.history.get_mut(project) {
            history.remove(&failed.number);
        }
        self.write_head(at, &restored, modified.get(project).copied());
    }

    /// Carries a decision out, one after the other.
    pub fn replace_next(&mut self, at: usize) {
        let commits = self.commits(at);
        let Some(running) = &mut self.machines[at].running else {
            return;
        };
        if running.client.writes() || running.plane.replaces.is_empty() {
            return;
        }
        let (decided_at, decided, at_most) = running.plane.replaces.remove(0);
        if !commits {
            // It is told so, and says that nothing was placed elsewhere.
            return;
        }
        let nodes = self.node_table();
        let gone = mending::still_gone(decided, &nodes, |node| self.reach(at, node));
        let (desired, modified) = self.heads();
        let known = |node| self.known(at, node);
        let replaced = replace(&desired, &nodes, &gone, at_most, known);
        let by = (at, self.machines[at].boot);
        self.check_moves((by, decided_at, at_most), &desired, &replaced.placements);
        for (project, placements) in replaced.placements {
            let Some(head) = desired.projects.get(&project).cloned() else {
                continue;
            };
            if let Some(applied) = mending::placed(&desired, head, placements) {
                self.write_head(at, &applied, modified.get(&project).copied());
            }
        }
    }

    pub fn write_head(&mut self, at: usize, applied: &Applied, expected: Option<Revision>) {
        let key = node::desired::head_key(&applied.manifest.project);
        let compare = match expected {
            Some(revision) => Compare::Modified(key.clone(), revision),
            None => Compare::Absent(key.clone()),
        };
        let value = serde_json::to_vec(applied).unwrap_or_default();
        self.write(
            at,
            Transaction {
                compare: vec![compare],
                then: vec![Operation::Put(key, value)],
                otherwise: Vec::new(),
            },
        );
    }
}
