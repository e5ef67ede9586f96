//! The loop that places elsewhere what ran on nodes that are gone; on the leader for the
//! cluster, and on whoever holds a zone's seat for that zone.
//!
//! In: what is wished, who belongs, what nodes report, who can be reached. Out: what
//! the loop reads; what is written once it has decided.
//! Holds: of who belongs no more or is gone, no report counts.

use crate::cluster::placing::{Placements, is_movable, leaving, surplus};
use crate::cluster::wishes::differences;
use crate::desired::{Applied, Desired};
use crate::event::NodeEffect;
use crate::nodes::{NodeRecord, NodeReport, NodeTable};
use crate::replica::Turn;
use aggregation::membership::Reach;
use control::repair::{Parameters, Reading, Repair, Replace, Seen};
use control::{Effort, Loop};
use kernel::{FencingEpoch, NodeId, ObjectRef, ScopedName, ZonePath};
use std::collections::{BTreeMap, BTreeSet};

/// What the loop is told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    pub reading: Reading,
    /// Whether all that is wished runs where it is placed.
    pub as_wished: bool,
    /// Services with replicas on nodes that are gone.
    pub about: Vec<ScopedName>,
}

/// What the leader's node is to be told of the cluster, or a seat's of its zone: of the
/// nodes of `nodes` alone, and of what is wished of these.
///
/// * `reports`: of all nodes, as they came last.
/// * `reach`: what this node believes of each.
pub fn look(
    desired: &Desired,
    nodes: &NodeTable,
    mut reports: BTreeMap<NodeId, NodeReport>,
    reach: impl Fn(NodeId) -> Reach,
) -> Look {
    let is_up = |record: &NodeRecord| record.belongs() && reach(record.id).is_up();
    let may_run = |record: &NodeRecord| record.belongs() && reach(record.id).may_answer();
    let mut movable: BTreeMap<NodeId, u32> = BTreeMap::new();
    let mut about = BTreeSet::new();
    for (name, service, applied) in desired.services() {
        for record in nodes.values() {
            let share = applied.share(&name.name, service, record.id);
            if share > 0 && is_movable(service) {
                *movable.entry(record.id).or_default() += share;
                if !may_run(record) {
                    about.insert(name.clone());
                }
            }
        }
    }
    reports.retain(|node, _| nodes.get(node).is_some_and(may_run));
    let differences = differences(desired, nodes, &reports);
    let surplus = surplus(desired, nodes, &differences);
    let seen = nodes.values().map(|record| {
        let up = is_up(record);
        let draining = up && record.draining;
        let movable = if draining {
            leaving(desired, nodes, &differences, record.id)
        } else {
            movable.get(&record.id).copied().unwrap_or_default()
        };
        let seen = Seen {
            up,
            movable,
            left: !record.belongs(),
            draining,
            unheard: reach(record.id) == Reach::Unheard,
            surplus: surplus.get(&record.id).copied().unwrap_or_default(),
        };
        (record.id, seen)
    });
    let reading = Reading {
        nodes: seen.collect(),
    };
    Look {
        reading,
        as_wished: differences.is_empty() && about.is_empty(),
        about: about.into_iter().collect(),
    }
}

/// Those of `decided` that are not there still: one that is back meanwhile keeps
/// what it has.
pub fn still_gone(
    decided: BTreeSet<NodeId>,
    nodes: &NodeTable,
    reach: impl Fn(NodeId) -> Reach,
) -> BTreeSet<NodeId> {
    let belongs = |node: &NodeId| nodes.get(node).is_some_and(NodeRecord::belongs);
    let decided = decided.into_iter();
    decided
        .filter(|node| !belongs(node) || !reach(*node).is_up())
        .collect()
}

/// What is written for a project whose replicas have other places now: the same
/// state under the same number, for nobody asked for another one. None where the
/// places were found for another state than `head`.
pub fn placed(desired: &Desired, head: Applied, placements: Placements) -> Option<Applied> {
    let planned = desired.projects.get(&head.manifest.project);
    (planned == Some(&head)).then_some(Applied { placements, ..head })
}

pub(crate) struct Mending(Loop<Repair>);

impl Mending {
    pub fn new(parameters: Parameters) -> Self {
        // What has no place waits by itself.
        let effort = Effort {
            futile_max: u32::MAX,
            ..Effort::default()
        };
        let subject = match &parameters.within {
            Some(zone) => ObjectRef::new("zone", zone),
            None => ObjectRef::new("cluster", "cluster"),
        };
        Self(Loop::new(parameters, subject, effort))
    }

    pub fn seen(&mut self, look: &Look, turn: &mut Turn<'_>) {
        if let Some(Replace { nodes, at_most }) = self.decided(look, turn) {
            turn.effects.push(NodeEffect::Replace { nodes, at_most });
        }
    }

    fn decided(&mut self, look: &Look, turn: &mut Turn<'_>) -> Option<Replace> {
        let entry = if look.as_wished {
            self.0.came("as wished", turn.now)
        } else {
            self.0.expire(turn.now)
        };
        turn.record(entry);
        let first = turn.effects.len();
        let action = turn.step(&mut self.0, &look.reading, Vec::new());
        let about = look.about.iter();
        let about = about.map(|name| ObjectRef::new("service", name.to_string()));
        let about: Vec<ObjectRef> = about.collect();
        for effect in &mut turn.effects[first..] {
            if let NodeEffect::Record(wire::decision::JournalEntry::Decision(decision)) = effect {
                decision.about.clone_from(&about);
            }
        }
        action
    }
}

/// The same of the zone whose seat this node holds.
pub(crate) struct MendingWithin {
    /// Of the cluster's loop.
    parameters: Parameters,
    zone: Option<(ZonePath, Mending)>,
}

impl MendingWithin {
    pub fn new(parameters: Parameters) -> Self {
        Self {
            parameters,
            zone: None,
        }
    }

    pub fn seen(
        &mut self,
        (zone, epoch): (ZonePath, FencingEpoch),
        look: &Look,
        turn: &mut Turn<'_>,
    ) {
        let is_its = |(its, _): &(ZonePath, Mending)| *its == zone;
        if !self.zone.as_ref().is_some_and(is_its) {
            let parameters = Parameters {
                within: Some(zone.clone()),
                ..self.parameters.clone()
            };
            self.zone = Some((zone.clone(), Mending::new(parameters)));
        }
        let Some((_, mending)) = &mut self.zone else {
            return;
        };
        if let Some(Replace { nodes, at_most }) = mending.decided(look, turn) {
            turn.effects.push(NodeEffect::ReplaceWithin {
                zone,
                epoch,
                nodes,
                at_most,
            });
        }
    }
}
