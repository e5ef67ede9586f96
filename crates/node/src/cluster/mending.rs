//! The loop that places elsewhere what ran on nodes that are gone; on the leader.
//!
//! In: what is wished, who belongs, what nodes report, who can be reached. Out: what
//! the loop reads; what is written once it has decided.
//! Holds: of who belongs no more or is gone, no report counts.

use crate::cluster::placing::{Placements, is_movable, leaving, surplus};
use crate::cluster::wishes::differences;
use crate::desired::{Applied, Desired};
use crate::event::{NodeEffect, NodeEvent};
use crate::nodes::{NodeRecord, NodeReport, NodeTable};
use crate::replica::Turn;
use aggregation::membership::Reach;
use control::repair::{Parameters, Reading, Repair, Seen};
use control::{Effort, Loop};
use kernel::{NodeId, ObjectRef, ScopedName};
use std::collections::{BTreeMap, BTreeSet};

/// What the leader's node is to be told of the cluster.
///
/// * `reports`: of all nodes, as they came last.
/// * `reach`: what this node believes of each.
pub fn look(
    desired: &Desired,
    nodes: &NodeTable,
    mut reports: BTreeMap<NodeId, NodeReport>,
    reach: impl Fn(NodeId) -> Reach,
) -> NodeEvent {
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
    NodeEvent::ClusterSeen {
        reading,
        as_wished: differences.is_empty() && about.is_empty(),
        about: about.into_iter().collect::<Vec<ScopedName>>(),
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
        Self(Loop::new(
            parameters,
            ObjectRef::new("cluster", "cluster"),
            effort,
        ))
    }

    /// * `as_wished`: whether all that is wished runs where it is placed.
    /// * `about`: the services that have replicas on nodes that are gone.
    pub fn seen(
        &mut self,
        reading: &Reading,
        as_wished: bool,
        about: &[ScopedName],
        turn: &mut Turn<'_>,
    ) {
        let entry = if as_wished {
            self.0.came("as wished", turn.now)
        } else {
            self.0.expire(turn.now)
        };
        turn.record(entry);
        let first = turn.effects.len();
        let action = turn.step(&mut self.0, reading, Vec::new());
        let about = about
            .iter()
            .map(|name| ObjectRef::new("service", name.to_string()));
        let about: Vec<ObjectRef> = about.collect();
        for effect in &mut turn.effects[first..] {
            if let NodeEffect::Record(wire::decision::JournalEntry::Decision(decision)) = effect {
                decision.about.clone_from(&about);
            }
        }
        if let Some(replace) = action {
            turn.effects.push(NodeEffect::Replace {
                nodes: replace.nodes,
                at_most: replace.at_most,
            });
        }
    }
}
