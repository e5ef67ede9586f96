//! Finds the decisions that tell why an object is as it is.

use kernel::{DecisionId, ObjectRef, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};
use wire::api::WhyStep;
use wire::decision::{Cause, Decision, JournalEntry, Observation};

/// The decisions on `object` and those that caused them, newest first. A
/// service's include those on its replicas.
pub fn why(entries: &[JournalEntry], object: &ObjectRef) -> Vec<WhyStep> {
    let mut decisions: BTreeMap<DecisionId, &Decision> = BTreeMap::new();
    let mut observations: BTreeMap<DecisionId, &Observation> = BTreeMap::new();
    for entry in entries {
        match entry {
            JournalEntry::Decision(decision) => {
                decisions.insert(decision.id, decision);
            }
            JournalEntry::Observation(seen) => {
                observations.insert(seen.decision, seen);
            }
        }
    }
    let about = decisions
        .values()
        .filter(|decision| concerns(&decision.subject, object) || decision.about.contains(object));
    let mut open: Vec<DecisionId> = about.map(|decision| decision.id).collect();
    let mut chosen = BTreeSet::new();
    while let Some(id) = open.pop() {
        let Some(decision) = decisions.get(&id) else {
            continue;
        };
        if chosen.insert(id) {
            open.extend(decision.causes.iter().filter_map(|cause| match cause {
                Cause::Decision(earlier) => Some(*earlier),
                Cause::Event { .. } => None,
            }));
        }
    }
    chosen
        .iter()
        .rev()
        .map(|id| WhyStep {
            node: None,
            decision: (*decisions[id]).clone(),
            observation: observations.get(id).map(|seen| (*seen).clone()),
        })
        .collect()
}

fn concerns(subject: &ObjectRef, object: &ObjectRef) -> bool {
    if subject == object {
        return true;
    }
    let replica_of_service = object.kind == "service" && subject.kind == "replica";
    replica_of_service
        && subject
            .name
            .parse::<ReplicaId>()
            .is_ok_and(|replica| replica.service.to_string() == object.name)
}
