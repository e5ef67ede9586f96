//! The node's care for content: one loop over all of it.
//!
//! In: what is needed, here and elsewhere; the ends of fetches. Out: fetches,
//! mends, drops, each decision's record with the objects that it concerns.
//! Holds: each fetch is answered once before it is decided again.

use crate::event::{NodeEffect, Settings};
use crate::replica::Turn;
use control::holding::{Action, Holding, Reading, Seen, next_try};
use control::{Effort, Loop};
use kernel::{Hash, NodeId, ObjectRef, Rng, Time};
use std::collections::{BTreeMap, BTreeSet};
use wire::decision::JournalEntry;

pub(crate) struct Care {
    holding: Loop<Holding>,
    seen: Option<Seen>,
    objects: BTreeMap<Hash, Vec<ObjectRef>>,
    looked: Time,
    /// Of the decision whose end is awaited.
    failures: Vec<String>,
    came: Vec<String>,
}

/// Where copies of something are, as one node sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// On other nodes.
    pub elsewhere: u32,
    /// Of those, on nodes that come before this one.
    pub before: u32,
    /// Nodes that come before this one, and have none.
    pub without_before: u32,
}

/// Counts copies; each thing has an order of the nodes of its own, in which all
/// of them agree.
///
/// * `first`: the node that comes before all others, for it never drops its own.
/// * `others`: nodes that can be reached, without `own`, and what each has.
pub fn copies<'a>(
    hash: &Hash,
    own: NodeId,
    first: NodeId,
    others: impl IntoIterator<Item = (NodeId, &'a BTreeSet<Hash>)>,
) -> Copies {
    let mut copies = Copies::default();
    for (node, here) in others {
        let has = here.contains(hash);
        let comes_before = place(hash, node, first) < place(hash, own, first);
        copies.elsewhere += u32::from(has);
        copies.before += u32::from(has && comes_before);
        copies.without_before += u32::from(!has && comes_before);
    }
    copies
}

fn place(hash: &Hash, node: NodeId, first: NodeId) -> (bool, u64, NodeId) {
    let seed = kernel::fnv1a(hash.0.into_iter().chain(node.0.to_be_bytes()));
    (node != first, Rng::seeded(seed).next_u64(), node)
}

impl Care {
    pub fn new(settings: &Settings) -> Self {
        let subject = ObjectRef::new("node", &settings.called);
        // What failed rests by itself, and must not hold up the rest.
        let effort = Effort {
            futile_max: u32::MAX,
            ..Effort::default()
        };
        Self {
            holding: Loop::new(settings.holding, subject, effort),
            seen: None,
            objects: BTreeMap::new(),
            looked: Time(0),
            failures: Vec::new(),
            came: Vec::new(),
        }
    }

    pub fn seen(
        &mut self,
        seen: Seen,
        objects: BTreeMap<Hash, Vec<ObjectRef>>,
        turn: &mut Turn<'_>,
    ) {
        self.seen = Some(seen);
        self.objects = objects;
        self.look(turn);
    }

    /// Looks again at what was seen last, where something has rested.
    pub fn tick(&mut self, turn: &mut Turn<'_>) {
        if self.next_wake().is_some_and(|at| at <= turn.now) {
            self.look(turn);
        }
    }

    pub fn next_wake(&self) -> Option<Time> {
        self.seen.as_ref()?;
        let expiry = self.holding.next_wake();
        let retry = next_try(self.holding.state(), self.looked);
        expiry.into_iter().chain(retry).min()
    }

    pub fn fetched(&mut self, hash: Hash, what: String, turn: &mut Turn<'_>) {
        let _ = turn.step(&mut self.holding, &Reading::Fetched { hash }, Vec::new());
        self.came.push(what);
        self.conclude(turn);
    }

    pub fn failed(&mut self, hash: Hash, why: String, turn: &mut Turn<'_>) {
        let _ = turn.step(
            &mut self.holding,
            &Reading::FetchFailed { hash },
            Vec::new(),
        );
        self.failures.push(why);
        self.conclude(turn);
    }

    fn look(&mut self, turn: &mut Turn<'_>) {
        turn.record(self.holding.expire(turn.now));
        self.looked = turn.now;
        let Some(seen) = self.seen.clone() else {
            return;
        };
        let recorded = turn.effects.len();
        let action = turn.step(&mut self.holding, &Reading::Looked(seen), Vec::new());
        let Some(action) = action else { return };
        let about = self.about(&action);
        for effect in &mut turn.effects[recorded..] {
            if let NodeEffect::Record(JournalEntry::Decision(decision)) = effect {
                decision.about.clone_from(&about);
            }
        }
        carry_out(action, turn);
    }

    fn about(&self, action: &Action) -> Vec<ObjectRef> {
        let held_back = action.held_back.iter().map(|(hash, _)| hash);
        let hashes = action.fetch.iter().chain(&action.mend);
        let hashes = hashes.chain(&action.drop).chain(held_back);
        let objects = hashes.filter_map(|hash| self.objects.get(hash)).flatten();
        let objects: BTreeSet<&ObjectRef> = objects.collect();
        objects.into_iter().cloned().collect()
    }

    /// Once nothing is on its way, what was awaited came or did not.
    fn conclude(&mut self, turn: &mut Turn<'_>) {
        if !self.holding.state().fetching.is_empty() {
            return;
        }
        let came = std::mem::take(&mut self.came);
        let failures = std::mem::take(&mut self.failures);
        let entry = if failures.is_empty() {
            self.holding.came(&came.join("; "), turn.now)
        } else {
            self.holding.failed(&failures.join("; "), turn.now)
        };
        turn.record(entry);
    }
}

fn carry_out(action: Action, turn: &mut Turn<'_>) {
    let fetches = action.fetch.into_iter();
    let fetches = fetches.map(|hash| NodeEffect::FetchContent { hash });
    turn.effects.extend(fetches);
    let mends = action.mend.into_iter();
    turn.effects
        .extend(mends.map(|hash| NodeEffect::MendContent { hash }));
    if !action.drop.is_empty() {
        let hashes = action.drop;
        turn.effects.push(NodeEffect::DropContent { hashes });
    }
    let held_back = action.held_back.into_iter();
    let held_back = held_back.map(|(hash, why)| NodeEffect::ContentHeldBack { hash, why });
    turn.effects.extend(held_back);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn of_what_every_node_may_drop_the_first_copies_stay(
            of: u8, has in prop::collection::btree_map(1..40_u64, any::<bool>(), 1..12),
            wanted in 1..4_u32, first in 1..40_u64,
        ) {
            let hash = Hash([of; 32]);
            let one: BTreeSet<Hash> = [hash].into();
            let none = BTreeSet::new();
            let here = |has: bool| if has { &one } else { &none };
            let counted = |own: u64| {
                let others = has.iter().filter(|(id, _)| **id != own);
                let others = others.map(|(id, has)| (NodeId(*id), here(*has)));
                copies(&hash, NodeId(own), NodeId(first), others)
            };
            let all = u32::try_from(has.values().filter(|has| **has).count()).expect("few");
            let holders = has.iter().filter(|(_, has)| **has);
            let kept = holders.filter(|(id, _)| counted(**id).before < wanted).count();
            prop_assert_eq!(u32::try_from(kept).expect("few"), all.min(wanted));
            // And as many fetch as copies lack.
            let without = has.iter().filter(|(_, has)| !**has).map(|(id, _)| counted(*id));
            let without: Vec<Copies> = without.collect();
            let fetch = without.iter().filter(|it| {
                it.without_before < wanted.saturating_sub(it.elsewhere)
            });
            let lacking = usize::try_from(wanted.saturating_sub(all)).expect("few");
            prop_assert_eq!(fetch.count(), lacking.min(without.len()));
        }
    }
}
