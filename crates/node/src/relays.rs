//! Chooses the relays of a node that can only call out.
//!
//! In: the nodes that could be one, their zones, how far they are, the relays
//! of now. Out: the relays from now on, the best first.
//! Holds: each zone gives one before any gives two, so that a lost zone takes
//! one way of several; among equals the nearest, and one that is a relay now
//! stays until another is clearly nearer. Nobody dead is one.
//! Never: calls a node that nothing was heard of away from one that is there.

use kernel::{NodeId, ZonePath};
use std::collections::BTreeSet;
use std::time::Duration;

/// As many as a transport keeps.
pub const RELAYS_MAX: usize = 3;
/// To a node that is not connected.
const UNKNOWN: Duration = Duration::from_secs(10);
/// Another one is clearly nearer by half and this much.
const CLEARLY: Duration = Duration::from_millis(5);

/// A node that belongs and can be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub node: NodeId,
    pub zone: ZonePath,
    /// There and back; none while there is no connection.
    pub distance: Option<Duration>,
    pub standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Up,
    /// Nothing was heard of it yet.
    Unheard,
    Down,
}

/// * `now`: the relays of now.
///
/// Returns at most [`RELAYS_MAX`].
pub fn choose(now: &[NodeId], candidates: &[Candidate]) -> Vec<NodeId> {
    let cost = |one: &Candidate| {
        let distance = one.distance.unwrap_or(UNKNOWN);
        if now.contains(&one.node) {
            (distance / 2).saturating_sub(CLEARLY)
        } else {
            distance
        }
    };
    let mut left: Vec<&Candidate> = candidates
        .iter()
        .filter(|one| one.standing != Standing::Down)
        .collect();
    let mut zones: BTreeSet<&ZonePath> = BTreeSet::new();
    let mut chosen = Vec::new();
    while chosen.len() < RELAYS_MAX {
        let next = left.iter().enumerate().min_by_key(|(_, one)| {
            let again = zones.contains(&one.zone);
            (one.standing, again, cost(one), one.node)
        });
        let Some((at, _)) = next else {
            break;
        };
        let one = left.swap_remove(at);
        zones.insert(&one.zone);
        chosen.push(one.node);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(node: u64, zone: &str, ms: u64) -> Candidate {
        Candidate {
            node: NodeId(node),
            zone: zone.parse().expect("a zone"),
            distance: Some(Duration::from_millis(ms)),
            standing: Standing::Up,
        }
    }

    fn ids(nodes: &[u64]) -> Vec<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn the_nearest_of_each_zone_come_before_a_second_of_one() {
        let all = [
            candidate(1, "/eu", 10),
            candidate(2, "/eu", 12),
            candidate(3, "/us", 90),
            candidate(4, "/us", 80),
            candidate(5, "/ap", 200),
        ];
        assert_eq!(choose(&[], &all), ids(&[1, 4, 5]));
        assert_eq!(choose(&[], &all[..4]), ids(&[1, 4, 2]));
        assert_eq!(choose(&[], &all[..1]), ids(&[1]));
        assert_eq!(choose(&[], &[]), ids(&[]));
    }

    #[test]
    fn one_that_died_is_replaced_and_the_others_stay() {
        let mut all: Vec<Candidate> = (1..=5).map(|node| candidate(node, "/eu", 20)).collect();
        let before = choose(&[], &all);
        assert_eq!(before, ids(&[1, 2, 3]));
        all[1].standing = Standing::Down;
        assert_eq!(choose(&before, &all), ids(&[1, 3, 4]));
        // Back again, it takes nobody's place.
        all[1].standing = Standing::Up;
        assert_eq!(choose(&ids(&[1, 3, 4]), &all), ids(&[1, 3, 4]));
    }

    #[test]
    fn a_relay_stays_until_another_is_clearly_nearer() {
        let near = |ms| [candidate(1, "/eu", 20), candidate(2, "/eu", ms)];
        let first = |ms| choose(&ids(&[1]), &near(ms))[0];
        assert_eq!(first(18), NodeId(1));
        assert_eq!(first(4), NodeId(2));
    }

    #[test]
    fn one_that_was_never_heard_of_comes_last() {
        let mut all = [candidate(1, "/us", 1), candidate(2, "/eu", 50)];
        all[0].standing = Standing::Unheard;
        all[0].distance = None;
        assert_eq!(choose(&ids(&[1]), &all), ids(&[2, 1]));
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let one = (0..4_u8, 0..300_u64, 0..3_u8);
        let all = proptest::collection::vec(one, 0..12);
        all.prop_map(|all| {
            let each = all.into_iter().zip(1_u64..);
            each.map(|((zone, ms, standing), node)| Candidate {
                standing: match standing {
                    0 => Standing::Up,
                    1 => Standing::Unheard,
                    _ => Standing::Down,
                },
                ..candidate(node, &format!("/z/{zone}"), ms)
            })
            .collect()
        })
    }

    proptest! {
        #[test]
        fn as_many_as_there_are_are_chosen_and_the_choice_is_at_rest(all in candidates()) {
            let chosen = choose(&[], &all);
            let possible: Vec<&Candidate> =
                all.iter().filter(|one| one.standing != Standing::Down).collect();
            prop_assert_eq!(chosen.len(), possible.len().min(RELAYS_MAX));
            let distinct: BTreeSet<&NodeId> = chosen.iter().collect();
            prop_assert_eq!(distinct.len(), chosen.len());
            let again: BTreeSet<NodeId> = choose(&chosen, &all).into_iter().collect();
            prop_assert_eq!(again, chosen.iter().copied().collect::<BTreeSet<_>>());
            // Of those that are up, each zone is there before one is twice.
            let up = || possible.iter().filter(|one| one.standing == Standing::Up);
            let zones: BTreeSet<&ZonePath> = up().map(|one| &one.zone).collect();
            let covered: BTreeSet<&ZonePath> = up()
                .filter(|one| chosen.contains(&one.node))
                .map(|one| &one.zone)
                .collect();
            prop_assert_eq!(covered.len(), zones.len().min(RELAYS_MAX));
        }
    }
}
