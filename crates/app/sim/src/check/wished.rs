//! What must hold of where replicas are placed and run.
//!
//! In: what was written, what runs. Out: what is broken, or not as it is wished.

use crate::world::World;
use kernel::{Bytes, Name, NodeId, Revision, Time};
use node::desired::{Applied, Desired, PREFIX};
use node::nodes::{NodeRecord, NodeReport};
use node::placing::{Placements, is_movable};
use node::script::Invariant;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Of [`Invariant::EmptiedNodesAreLeft`]: with all that may hold a move up, which
/// is a node that comes and goes, and a store that does not answer.
const LONG: Duration = Duration::from_secs(90);

impl World {
    /// Something was written after `before`.
    pub fn check_places(&mut self, before: Revision) {
        let range = self.host.range(PREFIX);
        let mut is_new = false;
        for entry in range.entries.iter().filter(|one| one.modified > before) {
            if let Ok(applied) = serde_json::from_slice::<Applied>(&entry.value) {
                let project = applied.manifest.project.clone();
                is_new |= self.check.heads.get(&project) != Some(&applied);
                let history = self.check.history.entry(project.clone()).or_default();
                history.insert(applied.number, applied.clone());
                self.check.heads.insert(project, applied);
            }
        }
        if is_new {
            self.check_room();
        }
    }

    fn check_room(&mut self) {
        let mut taken: BTreeMap<NodeId, u64> = BTreeMap::new();
        for applied in self.check.heads.values() {
            for (name, on) in &applied.placements {
                let service = applied.manifest.services.get(name);
                let need = service.and_then(|service| service.limits.memory);
                for (node, count) in on {
                    let all = need.unwrap_or_default().0 * u64::from(*count);
                    *taken.entry(*node).or_default() += all;
                }
            }
        }
        let over = self.machines.iter().filter_map(|machine| {
            let taken = Bytes(taken.get(&machine.node).copied()?);
            let has = machine.memory.filter(|has| *has < taken)?;
            Some(format!(
                "{taken} are placed on {}, which has {has}",
                machine.name
            ))
        });
        let over: Vec<String> = over.collect();
        for what in over {
            self.broke(Invariant::PlacesHaveRoom, &what);
        }
    }

    /// * `decided`: by which run of which agent, when, how many at most.
    pub fn check_moves(
        &mut self,
        decided: ((usize, u32), Time, u32),
        old: &Desired,
        new: &BTreeMap<Name, Placements>,
    ) {
        let (by, at, at_most) = decided;
        let places = |of: &Placements| -> BTreeMap<(Name, NodeId), u32> {
            let all = of.iter().flat_map(|(name, on)| {
                on.iter()
                    .map(|(node, count)| ((name.clone(), *node), *count))
            });
            all.collect()
        };
        let mut moved = 0;
        for (project, placements) in new {
            let before = old.projects.get(project);
            let before = before.map_or_else(BTreeMap::new, |it| places(&it.placements));
            for (place, count) in places(placements) {
                let had = before.get(&place).copied().unwrap_or_default();
                moved += count.saturating_sub(had);
            }
        }
        let window = Duration::from_millis(self.repair.window_ms);
        let all = self.check.moves.entry(by).or_default();
        all.push((at, moved));
        all.retain(|(then, _)| at.since(*then) < window);
        let within: u32 = all.iter().map(|(_, count)| count).sum();
        if moved > at_most || within > self.repair.moves_max {
            let what = format!("{moved} moved where {at_most} may, {within} within {window:?}");
            self.broke(Invariant::MovesAreFew, &what);
        }
    }

    pub fn check_emptied(&mut self) {
        let table = self.node_table();
        let belong = table.values().filter(|record| record.belongs());
        let up: BTreeSet<NodeId> = self.cores().map(|(at, _)| self.machines[at].node).collect();
        let (there, all) = belong.fold((0, 0), |(there, all), record| {
            (there + usize::from(up.contains(&record.id)), all + 1)
        });
        let leader = self.group.leader.filter(|at| self.commits(*at));
        if leader.is_none() || there * 3 < all * 2 {
            self.check.emptying.clear();
            return;
        }
        let (now, term) = (self.now, self.group.terms);
        let before = std::mem::take(&mut self.check.emptying);
        let emptied = table.values().filter(|it| it.draining || !it.belongs());
        let emptied: Vec<NodeId> = emptied
            .map(|record| record.id)
            .filter(|node| self.has_movable(*node))
            .collect();
        for node in emptied {
            let since = before.get(&node).filter(|(_, then)| *then == term);
            let (since, _) = *since.unwrap_or(&(now, term));
            self.check.emptying.insert(node, (since, term));
        }
        let late = self
            .check
            .emptying
            .iter()
            .filter(|(_, (since, _))| now.since(*since) > LONG);
        let late: Vec<NodeId> = late.map(|(node, _)| *node).collect();
        for node in late {
            let what = format!("{node} has still what could be elsewhere");
            self.broke(Invariant::EmptiedNodesAreLeft, &what);
        }
    }

    fn has_movable(&self, node: NodeId) -> bool {
        self.check.heads.values().any(|applied| {
            let mut services = applied.manifest.services.iter();
            services.any(|(name, one)| is_movable(one) && applied.share(name, one, node) > 0)
        })
    }

    /// What keeps what runs from being what is wished, if anything does.
    pub fn unlike_wished(&self) -> Option<String> {
        if !self.orders.is_empty() {
            return Some(format!("{} changes wait", self.orders.len()));
        }
        let Some(leader) = self.group.leader.filter(|at| self.commits(*at)) else {
            return Some("nobody leads".to_owned());
        };
        let (desired, _) = self.heads();
        let table = self.read_node_table();
        let there = |record: &&NodeRecord| {
            let mut cores = self.cores();
            record.belongs() && cores.any(|(at, _)| self.machines[at].node == record.id)
        };
        let there: BTreeSet<NodeId> = table.values().filter(there).map(|it| it.id).collect();
        for (name, service, applied) in desired.services() {
            let share = |id: &NodeId| applied.share(&name.name, service, *id);
            let placed: u32 = table.keys().map(share).sum();
            if placed != service.replicas {
                return Some(format!(
                    "{placed} of {} of {name} are placed",
                    service.replicas
                ));
            }
            for record in table.values().filter(|record| share(&record.id) > 0) {
                let fit = there.contains(&record.id) && !record.draining;
                let moves = is_movable(service) || service.singleton && service.node.is_none();
                if moves && !fit {
                    return Some(format!("{name} is placed on {}", record.name));
                }
            }
        }
        let mut reports: BTreeMap<NodeId, NodeReport> = BTreeMap::new();
        for (at, running) in self.cores() {
            let node = self.machines[at].node;
            reports.insert(node, running.plane.report(None));
            for (name, service, applied) in desired.services() {
                let runs = running.plane.running().filter(|one| one.service == name);
                let (runs, share) = (runs.count(), applied.share(&name.name, service, node));
                if runs != share as usize {
                    return Some(format!("{runs} of {share} of {name} run on {node}"));
                }
            }
        }
        let differences = node::wishes::differences(&desired, &table, &reports);
        let first = differences.first().map(ToString::to_string);
        first.map(|first| format!("{first} ({} leads)", self.machines[leader].name))
    }
}
