//! What must hold, by name, and what may be expected of a view.

mod once;
mod wished;

use crate::machine::Machine;
use crate::world::{BEGAN, World};
use aggregation::membership::{Reach, WHOLE_MAX, in_view};
use kernel::{Name, NodeId, ReplicaId, Time};
use node::desired::Applied;
use node::script::{Expected, Invariant};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::gossip::Life;

const BROKEN_MAX: usize = 20;
/// Of [`Invariant::NobodyAliveIsDeadForLong`].
const LONG: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct Checker {
    pub always: BTreeSet<Invariant>,
    pub broken: Vec<String>,
    /// Deaths of those who ran and were reached.
    pub false_deaths: u64,
    pub cloned: BTreeSet<NodeId>,
    pub superseded: BTreeSet<NodeId>,
    pub wanted_replicas: BTreeMap<Name, u32>,
    /// All projects as they were written last.
    pub heads: BTreeMap<Name, Applied>,
    /// And as they were, by number, but for what was taken back.
    pub history: BTreeMap<Name, BTreeMap<u64, Applied>>,
    /// By who decided, an agent's run: when, and how many replicas were moved.
    pub moves: BTreeMap<(usize, u32), Vec<(Time, u32)>>,
    /// Since when what can move has been on a node that is being emptied, and in
    /// which term that was seen.
    pub emptying: BTreeMap<NodeId, (Time, u32)>,
    /// By observing machine, its start and the node: the last life found dead.
    dead_lives: BTreeMap<(usize, u32, NodeId), Life>,
    /// The same: since when somebody alive has been dead to it.
    wrongly_dead: BTreeMap<(usize, u32, NodeId), Time>,
}

impl Checker {
    pub fn broken(&mut self, now: Time, what: &str) {
        // Once is enough of what goes on.
        let is_known = self.broken.iter().any(|known| known.ends_with(what));
        if !is_known && self.broken.len() < BROKEN_MAX {
            let at = now.since(BEGAN);
            self.broken.push(format!("at {at:.3?}: {what}"));
        }
    }
}

impl World {
    pub fn broke(&mut self, invariant: Invariant, what: &str) {
        if self.check.always.contains(&invariant) {
            let what = format!("{}: {what}", invariant.name());
            self.check.broken(self.now, &what);
        }
    }

    /// An observer's view of a node has changed.
    pub fn check_turn(&mut self, at: usize, node: NodeId, is: Reach, life: Life) {
        let key = (at, self.machines[at].boot, node);
        let observer = self.machines[at].name.clone();
        if is == Reach::Dead {
            self.check.dead_lives.insert(key, life);
            if self.is_well(at, node, life) {
                self.check.false_deaths += 1;
                self.broke(
                    Invariant::NobodyWellIsDead,
                    &format!("{observer} calls {node} dead"),
                );
            }
        } else if is.is_up() {
            let dead = self.check.dead_lives.get(&key).copied();
            if dead.is_some_and(|dead| life <= dead) {
                self.broke(
                    Invariant::DeadLivesStayDead,
                    &format!("{observer} sees {node} alive in the life that was over"),
                );
            }
        }
    }

    /// Whether this very run of it has power, and most can reach it, the
    /// observer too.
    fn is_well(&self, at: usize, node: NodeId, life: Life) -> bool {
        let Some(target) = usize::try_from(node.0 - 1).ok() else {
            return false;
        };
        let Some(running) = self
            .machines
            .get(target)
            .and_then(|one| one.running.as_ref())
        else {
            return false;
        };
        let this_run = running.core.life().is_same_run(&life);
        let cuts = self.network.cuts.iter();
        let cuts_of = |of: usize| {
            cuts.clone()
                .filter(|(from, to)| *from == of || *to == of)
                .count()
        };
        let few = |of: usize| cuts_of(of) * 2 < self.nodes;
        this_run && !self.machines[target].silent && few(target) && few(at)
    }

    pub fn check_send(&mut self, at: usize, to: NodeId) {
        if !self
            .check
            .always
            .contains(&Invariant::StrangersAreNotSpokenTo)
        {
            return;
        }
        let running = self.machines[at].running.as_ref();
        let row = running.and_then(|running| running.table.get(&to));
        if row.is_none_or(|row| row.revoked) {
            let name = self.machines[at].name.clone();
            let what = format!("{name} speaks to {to}, who does not belong");
            self.broke(Invariant::StrangersAreNotSpokenTo, &what);
        }
    }

    /// What is looked at from time to time.
    pub fn check_all(&mut self) {
        if self.check.always.contains(&Invariant::SilenceRemovesNobody) {
            self.check_silence();
        }
        if self
            .check
            .always
            .contains(&Invariant::NobodyAliveIsDeadForLong)
        {
            self.check_long();
        }
        if self
            .check
            .always
            .contains(&Invariant::EachReplicaRunsOnOneNode)
        {
            self.check_replicas();
        }
        if self.check.always.contains(&Invariant::EmptiedNodesAreLeft) {
            self.check_emptied();
        }
    }

    fn check_silence(&mut self) {
        let mut missing = Vec::new();
        for machine in &self.machines {
            let Some(running) = machine.running.as_ref().filter(|_| machine.speaks()) else {
                continue;
            };
            let table = in_view(&running.table, machine.node, WHOLE_MAX);
            let others = table.iter();
            let others = others.filter(|(node, row)| !row.revoked && **node != machine.node);
            let (wanted, found) = (others.count(), running.core.views().count());
            if wanted != found {
                missing.push(format!("{} sees {found} of {wanted}", machine.name));
            }
        }
        for what in missing {
            self.broke(Invariant::SilenceRemovesNobody, &what);
        }
    }

    fn check_long(&mut self) {
        let mut wrong = BTreeSet::new();
        for (at, machine) in self.machines.iter().enumerate() {
            let Some(running) = machine.running.as_ref().filter(|_| machine.speaks()) else {
                continue;
            };
            for (node, view) in running.core.views() {
                if view.reach == Reach::Dead && self.is_within_reach(at, node) {
                    wrong.insert((at, machine.boot, node));
                }
            }
        }
        let (now, before) = (self.now, std::mem::take(&mut self.check.wrongly_dead));
        for key in wrong {
            let since = before.get(&key).copied().unwrap_or(now);
            self.check.wrongly_dead.insert(key, since);
            if now.since(since) > LONG {
                let name = self.machines[key.0].name.clone();
                let what = format!("{name} sees {} dead, which is alive", key.2);
                self.broke(Invariant::NobodyAliveIsDeadForLong, &what);
            }
        }
    }

    fn is_within_reach(&self, at: usize, node: NodeId) -> bool {
        let Ok(target) = usize::try_from(node.0 - 1) else {
            return false;
        };
        let cuts = &self.network.cuts;
        self.machines.get(target).is_some_and(Machine::speaks)
            && !cuts.contains(&(at, target))
            && !cuts.contains(&(target, at))
    }

    fn check_replicas(&mut self) {
        let mut runs_on: BTreeMap<String, Name> = BTreeMap::new();
        let mut twice = Vec::new();
        for machine in &self.machines {
            let running = machine.running.iter();
            for replica in running.flat_map(|running| running.plane.running()) {
                // Old and new copies of a rollout are two.
                let name = machine.name.clone();
                if let Some(other) = runs_on.insert(replica.to_string(), name.clone()) {
                    twice.push(format!("{replica} runs on {other} and on {name}"));
                }
            }
        }
        for what in twice {
            self.broke(Invariant::EachReplicaRunsOnOneNode, &what);
        }
    }

    pub fn is_so(&self, expected: &Expected) -> bool {
        match expected {
            Expected::Alive(nodes) => self.all_see(nodes, Reach::Alive),
            Expected::Dead(nodes) => self.all_see(nodes, Reach::Dead),
            Expected::Left(nodes) => self.all_see(nodes, Reach::Left),
            Expected::Apart(some, others) => {
                self.sees_dead(some, others) && self.sees_dead(others, some)
            }
            Expected::Revoked(node) => self.is_revoked(NodeId(*node as u64 + 1)),
            Expected::Agree => self.views_agree(),
            Expected::Cloned(node) => {
                let node = NodeId(*node as u64 + 1);
                self.check.cloned.contains(&node) && self.check.superseded.contains(&node)
            }
            Expected::Ready(service) => self.is_ready(service),
            Expected::AsWished => self.unlike_wished().is_none(),
        }
    }

    pub fn cores(&self) -> impl Iterator<Item = (usize, &crate::machine::Running)> {
        let all = self.machines.iter().enumerate();
        all.filter(|(_, machine)| machine.speaks() && !machine.revoked)
            .filter_map(|(at, machine)| Some((at, machine.running.as_ref()?)))
    }

    fn all_see(&self, nodes: &[usize], reach: Reach) -> bool {
        let must_run = reach == Reach::Alive;
        let run: BTreeSet<NodeId> = self.cores().map(|(at, _)| self.machines[at].node).collect();
        let ids = || nodes.iter().map(|node| NodeId(*node as u64 + 1));
        if ids().any(|id| run.contains(&id) != must_run) {
            return false;
        }
        // Of a large cluster, those of the same zone.
        let mut near: BTreeMap<Option<usize>, Vec<NodeId>> = BTreeMap::new();
        for (node, id) in nodes.iter().zip(ids()) {
            let zone = self.zone_in_view(*node);
            near.entry(zone).or_default().push(id);
        }
        self.cores().all(|(at, running)| {
            let zone = self.zone_in_view(at);
            let mut near = near.get(&zone).into_iter().flatten();
            near.all(|id| {
                let seen = running.core.view(*id).map(|view| view.reach);
                self.machines[at].node == *id || seen == Some(reach)
            })
        })
    }

    /// None where all know all.
    fn zone_in_view(&self, at: usize) -> Option<usize> {
        let is_large = self.nodes > WHOLE_MAX;
        is_large.then(|| self.machines[at].zone_at)
    }

    fn sees_dead(&self, observers: &[usize], nodes: &[usize]) -> bool {
        observers.iter().all(|observer| {
            let running = self.machines[*observer].running.as_ref();
            running.is_none_or(|running| {
                let near = nodes
                    .iter()
                    .filter(|node| self.zone_in_view(**node) == self.zone_in_view(*observer));
                near.into_iter().all(|node| {
                    let seen = running.core.view(NodeId(*node as u64 + 1));
                    seen.is_some_and(|view| view.reach == Reach::Dead)
                })
            })
        })
    }

    /// All others know it, and have forgotten what gossip said of it.
    fn is_revoked(&self, node: NodeId) -> bool {
        self.cores().all(|(at, running)| {
            let row = running.table.get(&node);
            self.machines[at].node == node
                || (row.is_some_and(|row| row.revoked) && running.core.view(node).is_none())
        })
    }

    /// Each sees of all others what every other sees: reach, life, attributes.
    fn views_agree(&self) -> bool {
        let mut agreed = BTreeMap::new();
        for (_, running) in self.cores() {
            for (node, view) in running.core.views() {
                let seen = (view.reach, view.life, view.version, view.attributes);
                if *agreed.entry(node).or_insert(seen) != seen {
                    return false;
                }
            }
        }
        // What each says of itself is what the others have.
        self.cores().all(|(at, running)| {
            let others = agreed.get(&self.machines[at].node);
            others.is_none_or(|(_, life, ..)| *life == running.core.life())
        })
    }

    fn is_ready(&self, service: &Name) -> bool {
        let ready = self
            .cores()
            .flat_map(|(_, running)| &running.plane.endpoints);
        let found: BTreeSet<&ReplicaId> =
            ready.filter(|one| one.service.name == *service).collect();
        let wanted = self.check.wanted_replicas.get(service);
        wanted.is_some_and(|wanted| found.len() == *wanted as usize)
    }
}
