//! Decides where what ran on nodes that are gone, or are being emptied, runs from
//! now on, and what has too many copies since.
//!
//! In: desired state, the node table, what is known of each node, who is gone. Out:
//! placements.
//! Holds: what cannot move stays where it is, and takes its room there; no more
//! replicas get another place than may.

use super::placing::{Known, is_movable, world};
use crate::desired::{Applied, Desired};
use crate::nodes::NodeTable;
use crate::placing::Placements;
use kernel::{Name, NodeId, ScopedName};
use manifest::Service;
use placement::{Plan, Refusal, World};
use repair::Difference;
use std::collections::{BTreeMap, BTreeSet};

/// What replaces the replicas on nodes that are gone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replaced {
    /// Of each project in which something moves, all its placements.
    pub placements: BTreeMap<Name, Placements>,
    /// Replicas that have another place now.
    pub moved: u32,
    /// What has none, and why.
    pub refused: Vec<Refusal<NodeId>>,
}

/// How many of a draining node's replicas something can be done about now: those
/// that have no successor yet, and those whose successors are ready.
///
/// * `differences`: what is not as it is wished.
pub fn leaving(
    desired: &Desired,
    nodes: &NodeTable,
    differences: &[Difference],
    node: NodeId,
) -> u32 {
    let services = desired
        .services()
        .filter(|(_, service, _)| is_movable(service));
    let stays = |one: &NodeId| {
        nodes
            .get(one)
            .is_some_and(|it| it.belongs() && it.takes_replicas())
    };
    let leaving = services.map(|(name, service, applied)| {
        let share = applied.share(&name.name, service, node);
        let elsewhere = elsewhere(applied, &name.name, service, nodes, &BTreeSet::new());
        // What a node that is being emptied has no more is no successor.
        let waits = || {
            let missing = |one: &Difference| {
                matches!(one, Difference::Missing { component, node, .. }
                    if *component == name && stays(node))
            };
            differences.iter().any(missing)
        };
        match share {
            0 => 0,
            _ if elsewhere >= service.replicas && waits() => 0,
            share => share,
        }
    });
    leaving.sum()
}

/// How many replicas on each node are more than are wanted and have been asked
/// for: a node was to be emptied, its replicas have successors that are ready, and
/// it is not to be emptied any more. Of services with a goal of availability the
/// plan says how many there are.
pub fn surplus(
    desired: &Desired,
    nodes: &NodeTable,
    differences: &[Difference],
) -> BTreeMap<NodeId, u32> {
    let mut all = BTreeMap::new();
    for (name, service, applied) in desired.services() {
        let share = |id: &NodeId| applied.share(&name.name, service, *id);
        let (surplus, last) = match too_many(applied, &name.name, service, nodes) {
            0 => continue,
            surplus => (surplus, nodes.keys().rfind(|id| share(id) > 0)),
        };
        let waits = differences.iter().any(|one| *one.component() == name);
        if let Some(last) = last.filter(|_| !waits) {
            *all.entry(*last).or_default() += surplus;
        }
    }
    all
}

/// Beyond what is wanted of one that can move, and all on nodes that stay.
fn too_many(applied: &Applied, name: &Name, service: &Service, nodes: &NodeTable) -> u32 {
    if !is_movable(service) || service.goals.availability.is_some() {
        return 0;
    }
    let share = |id: &NodeId| applied.share(name, service, *id);
    let placed: u32 = nodes.keys().map(share).sum();
    let stay = elsewhere(applied, name, service, nodes, &BTreeSet::new());
    if placed == stay {
        placed.saturating_sub(service.replicas)
    } else {
        0
    }
}

/// On nodes that stay.
fn elsewhere(
    applied: &Applied,
    name: &Name,
    service: &Service,
    nodes: &NodeTable,
    gone: &BTreeSet<NodeId>,
) -> u32 {
    let stay = nodes
        .values()
        .filter(|record| record.belongs() && record.takes_replicas() && !gone.contains(&record.id));
    stay.map(|record| applied.share(name, service, record.id))
        .sum()
}

/// The same as [`world`], in which what cannot move holds its place on the nodes
/// that are left, and asks for no other.
///
/// * `moves`: whether a service can.
pub fn world_of_movable(
    desired: &Desired,
    nodes: &NodeTable,
    gone: &BTreeSet<NodeId>,
    moves: impl Fn(&Service) -> bool,
    known: impl Fn(NodeId) -> Known,
) -> World {
    let mut world = world(desired, nodes, gone, known);
    for (name, service, _) in desired.services() {
        if moves(service) {
            continue;
        }
        if let Some(on) = world.running.get_mut(&name) {
            on.retain(|node, _| world.nodes.contains_key(node));
        }
        let on = world.running.get(&name).filter(|on| !on.is_empty());
        let Some(on) = on else {
            world.running.remove(&name);
            world.services.remove(&name);
            continue;
        };
        let first = on.keys().next().and_then(|node| world.nodes.get(node));
        if let (Some(service), Some(node)) = (world.services.get_mut(&name), first) {
            service.node = Some(node.name.clone());
            service.replicas = on.values().sum();
            service.availability = None;
        }
    }
    world
}

/// Places elsewhere what runs on nodes that are gone or draining, where it can
/// move. What is on a draining node stays until its successors are placed, and
/// leaves with the next time: who calls has seen that they are ready. What has no
/// other place keeps the one it had: there it may come back, or be found when
/// there is another. A node that has not told what it has gets nothing: a leader
/// that is new hears of it in a moment, and what was placed is not taken back.
///
/// * `at_most`: so many replicas; the rest waits.
pub fn replace(
    desired: &Desired,
    nodes: &NodeTable,
    gone: &BTreeSet<NodeId>,
    at_most: u32,
    known: impl Fn(NodeId) -> Known,
) -> Replaced {
    let told = |node| known(node).if_told();
    let world = world_of_movable(desired, nodes, gone, is_movable, told);
    let plan = placement::cluster(&world);
    let mut replaced = Replaced::default();
    for applied in desired.projects.values() {
        let mut placements = applied.placements.clone();
        for (name, service) in &applied.manifest.services {
            if !is_movable(service) {
                continue;
            }
            let moving = Moving {
                applied,
                name,
                service,
                nodes,
                gone,
            };
            let left = at_most - replaced.moved;
            let Some((after, moved)) = moving.replace(&plan, left) else {
                continue;
            };
            replaced.moved += moved;
            placements.insert(name.clone(), after);
        }
        if placements != applied.placements {
            let project = applied.manifest.project.clone();
            replaced.placements.insert(project, placements);
        }
    }
    let services = desired
        .services()
        .filter(|(_, service, _)| is_movable(service));
    let movable: BTreeSet<ScopedName> = services.map(|(name, ..)| name).collect();
    replaced.refused = plan.refused;
    replaced.refused.retain(|it| movable.contains(&it.service));
    replaced
}

/// A service of which some replicas may have to move.
struct Moving<'a> {
    applied: &'a Applied,
    name: &'a Name,
    service: &'a Service,
    nodes: &'a NodeTable,
    gone: &'a BTreeSet<NodeId>,
}

impl Moving<'_> {
    fn share(&self, node: NodeId) -> u32 {
        self.applied.share(self.name, self.service, node)
    }

    fn shares(&self, nodes: impl Iterator<Item = NodeId>) -> BTreeMap<NodeId, u32> {
        nodes
            .map(|node| (node, self.share(node)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Where its replicas are to be, and how many of them are new there; None where
    /// none is on a node that is gone or draining, and none is too many.
    fn replace(&self, plan: &Plan<NodeId>, at_most: u32) -> Option<(BTreeMap<NodeId, u32>, u32)> {
        let is_drained =
            |node: &NodeId| self.nodes.get(node).is_some_and(|it| !it.takes_replicas());
        let drained = self.nodes.keys().copied().filter(is_drained);
        let drained = self.shares(drained.filter(|node| !self.gone.contains(node)));
        let lost = self.shares(self.gone.iter().copied());
        let surplus = too_many(self.applied, self.name, self.service, self.nodes);
        if drained.is_empty() && lost.is_empty() && surplus == 0 {
            return None;
        }
        let scoped = self.applied.scoped(self.name);
        let mut after = plan.assigned.get(&scoped).cloned().unwrap_or_default();
        let (mut moved, mut wait) = (0, 0);
        for (node, count) in &mut after {
            let new = count.saturating_sub(self.share(*node));
            let now = new.min(at_most - moved);
            *count -= new - now;
            moved += now;
            wait += new - now;
        }
        let refused = plan.refused.iter().find(|it| it.service == scoped);
        wait += refused.map_or(0, |refusal| {
            let stay = u32::try_from(refusal.stay.len()).unwrap_or(u32::MAX);
            refusal.missing.saturating_sub(stay)
        });
        let elsewhere = elsewhere(self.applied, self.name, self.service, self.nodes, self.gone);
        if elsewhere < self.service.replicas {
            after.extend(drained);
        }
        for (node, count) in lost {
            let stay = count.min(wait);
            wait -= stay;
            if stay > 0 {
                after.insert(node, stay);
            }
        }
        after.retain(|_, count| *count > 0);
        Some((after, moved))
    }
}
