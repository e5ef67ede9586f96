//! What a zone's seat hands over to the root, and what the root leaves to the zones.
//!
//! In: which nodes are gone, and what they had. Out: the nodes that a zone hands over;
//! what the root is to see.
//! Holds: a zone's seat that is dead, slow or wrong delays the root by [`ZONE_FIRST`]
//! at most, one that is not heard of not at all.

use super::{HAND_OVER_AFTER, ZONE_FIRST};
use control::repair::{Reading, Seen};
use kernel::{NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};

/// A zone's side: since when what is lost has not been placed elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Lost {
    since: BTreeMap<NodeId, Time>,
    /// Of these nodes, what had no place in the zone.
    refused: BTreeSet<NodeId>,
}

impl Lost {
    /// * `reading`: of the zone, as its seat sees it.
    pub fn look(&mut self, reading: &Reading, now: Time) {
        let is_lost = |seen: &Seen| !seen.up && !seen.unheard && seen.movable > 0;
        let lost = |node: &NodeId| reading.nodes.get(node).is_some_and(is_lost);
        self.since.retain(|node, _| lost(node));
        self.refused.retain(lost);
        for node in reading.nodes.keys().filter(|node| lost(node)) {
            self.since.entry(*node).or_insert(now);
        }
    }

    /// Nothing is waited for: the zone has no place for what these had.
    pub fn refused(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        self.refused.extend(nodes);
    }

    /// What is handed over.
    pub fn left(&self, now: Time) -> BTreeSet<NodeId> {
        let late = self.since.iter();
        let late = late.filter(|(_, since)| now.since(**since) >= HAND_OVER_AFTER);
        let late = late.map(|(node, _)| *node);
        late.chain(self.refused.iter().copied()).collect()
    }
}

/// The root's side: since when nodes have been gone.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    since: BTreeMap<NodeId, Time>,
}

impl Patience {
    /// Takes out of what the root sees what is the zones' for now, and adds what they
    /// hand over.
    ///
    /// * `works`: whether a node's zone has a seat that is at work.
    /// * `left`: what seats at work hand over.
    /// * `in_view`: whether the root sees for itself what becomes of a node.
    pub fn look(
        &mut self,
        reading: &mut Reading,
        works: impl Fn(NodeId) -> bool,
        left: &BTreeSet<NodeId>,
        in_view: impl Fn(NodeId) -> bool,
        now: Time,
    ) {
        let gone = |seen: &Seen| !seen.up && !seen.left;
        self.since
            .retain(|node, _| reading.nodes.get(node).is_some_and(gone));
        for (node, seen) in &mut reading.nodes {
            if left.contains(node) {
                if !in_view(*node) {
                    seen.up = false;
                    seen.unheard = false;
                }
                continue;
            }
            if !gone(seen) {
                continue;
            }
            let since = *self.since.entry(*node).or_insert(now);
            if now.since(since) < ZONE_FIRST && works(*node) {
                seen.movable = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(ms: u64) -> Time {
        Time(0) + Duration::from_millis(ms)
    }

    fn reading(nodes: &[(u64, bool)]) -> Reading {
        let seen = |(node, up): &(u64, bool)| {
            let seen = Seen {
                up: *up,
                movable: 2,
                ..Seen::default()
            };
            (NodeId(*node), seen)
        };
        Reading {
            nodes: nodes.iter().map(seen).collect(),
        }
    }

    #[test]
    fn what_a_zone_could_not_place_in_time_is_handed_over() {
        let mut lost = Lost::default();
        let nobody = BTreeSet::new();
        let second = BTreeSet::from([NodeId(2)]);
        let gone = reading(&[(1, true), (2, false)]);
        lost.look(&gone, at(0));
        assert_eq!(lost.left(at(1_499)), nobody);
        lost.look(&reading(&[(1, false), (2, false)]), at(1_500));
        assert_eq!(lost.left(at(1_500)), second);
        // It is back, or has nothing any more.
        lost.look(&reading(&[(1, false), (2, true)]), at(1_501));
        assert_eq!(lost.left(at(1_501)), nobody);
        let mut empty = reading(&[(1, false)]);
        empty.nodes.get_mut(&NodeId(1)).expect("there").movable = 0;
        lost.look(&empty, at(9_000));
        assert_eq!(lost.left(at(9_000)), nobody);
        // What has no place in the zone is not waited for.
        lost.look(&gone, at(9_000));
        lost.refused([NodeId(2)]);
        assert_eq!(lost.left(at(9_000)), second);
        lost.look(&reading(&[(2, true)]), at(9_001));
        assert_eq!(lost.left(at(9_001)), nobody);
    }

    /// What the root would move of the second node.
    fn movable(patience: &mut Patience, works: bool, left: &[u64], ms: u64) -> u32 {
        let mut reading = reading(&[(1, true), (2, false)]);
        let left = left.iter().copied().map(NodeId).collect();
        patience.look(&mut reading, |_| works, &left, |_| true, at(ms));
        assert_eq!(reading.nodes[&NodeId(1)].movable, 2);
        reading.nodes[&NodeId(2)].movable
    }

    #[test]
    fn the_root_leaves_what_is_lost_to_a_seat_at_work_for_a_while() {
        let mut patience = Patience::default();
        assert_eq!(movable(&mut patience, true, &[], 0), 0);
        assert_eq!(movable(&mut patience, true, &[], 2_499), 0);
        assert_eq!(movable(&mut patience, true, &[], 2_500), 2);
        let mut patience = Patience::default();
        assert_eq!(
            movable(&mut patience, false, &[], 0),
            2,
            "there is no seat at work"
        );
        assert_eq!(
            movable(&mut patience, true, &[2], 10),
            2,
            "it is handed over"
        );
        // One that came back has its time again.
        let mut patience = Patience::default();
        assert_eq!(movable(&mut patience, true, &[], 0), 0);
        let mut up = reading(&[(2, true)]);
        patience.look(&mut up, |_| true, &BTreeSet::new(), |_| true, at(2_000));
        assert_eq!(movable(&mut patience, true, &[], 4_000), 0);
    }

    #[test]
    fn of_nodes_that_are_not_in_view_the_root_believes_the_zone() {
        let left = BTreeSet::from([NodeId(1)]);
        for (in_view, up) in [(true, true), (false, false)] {
            let mut reading = reading(&[(1, true)]);
            let mut patience = Patience::default();
            patience.look(&mut reading, |_| true, &left, |_| in_view, at(0));
            let seen = reading.nodes[&NodeId(1)];
            assert_eq!((seen.up, seen.movable), (up, 2));
        }
    }
}
