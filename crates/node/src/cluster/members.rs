//! Who keeps the cluster's stores: voters, and learners where voters alone would
//! be too few.
//!
//! Holds: the number of voters is odd; one that is silent for a moment stays;
//! one that is gone is replaced as soon as there is another.

use crate::nodes::NodeTable;
use kernel::{NodeId, ZonePath};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The [`Members`] that are wanted, as JSON.
pub const MEMBERS_KEY: &str = "/members/wanted";
/// Followers know all below it.
pub const MEMBERS_PREFIX: &str = "/members/";

/// Silent for so long, a voter is replaced by another.
pub const GONE_AFTER: Duration = Duration::from_secs(10);
/// Farther from the leader than this, a node votes only where none is nearer.
pub const FAR: Duration = Duration::from_millis(50);
/// From so many nodes on, five vote.
const LARGE: usize = 7;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    pub voters: BTreeSet<NodeId>,
    /// They have what voters have, and do not vote.
    #[serde(default)]
    pub learners: BTreeSet<NodeId>,
}

impl Members {
    pub fn all(&self) -> BTreeSet<NodeId> {
        self.voters.union(&self.learners).copied().collect()
    }

    pub fn has(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }
}

/// What the leader knows of a node beside its record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// None: it is there.
    pub silent_for: Option<Duration>,
    /// From the leader; none if it was not measured.
    pub round_trip: Option<Duration>,
}

impl Standing {
    fn is_far(self) -> bool {
        self.round_trip.is_some_and(|it| it > FAR)
    }

    /// By so much that it will not soon be far.
    fn is_near(self) -> bool {
        self.round_trip.is_some_and(|it| it <= FAR * 4 / 5)
    }
}

/// Who is to keep the stores.
///
/// * `leader`: which decides this, and stays.
/// * `now`: who was wanted until now.
pub fn choose(
    table: &NodeTable,
    standing: &BTreeMap<NodeId, Standing>,
    leader: NodeId,
    now: &Members,
) -> Members {
    let of = |node: NodeId| standing.get(&node).copied().unwrap_or_default();
    let is_there = |node: NodeId| node == leader || of(node).silent_for.is_none();
    let can: Vec<(NodeId, &ZonePath)> = table
        .values()
        .filter(|record| record.belongs() && record.may_vote && !record.way.outbound_only)
        .map(|record| (record.id, &record.zone))
        .collect();
    let zone = |node: NodeId| {
        can.iter()
            .find(|(id, _)| *id == node)
            .map(|(_, zone)| *zone)
    };
    let stays = |node: &NodeId| {
        let silent = of(*node).silent_for;
        *node == leader || silent.is_none_or(|silent| silent < GONE_AFTER)
    };
    let before = now
        .voters
        .iter()
        .copied()
        .filter(|node| zone(*node).is_some());
    let (mut voters, gone): (BTreeSet<NodeId>, BTreeSet<NodeId>) = before.partition(stays);
    voters.insert(leader);
    let spare = |voters: &BTreeSet<NodeId>| {
        let others = can
            .iter()
            .filter(|(node, _)| !voters.contains(node) && is_there(*node));
        others
            .min_by_key(|(node, zone)| rank(*node, zone, voters, &can, of(*node)))
            .map(|it| it.0)
    };
    let wanted = wanted(can.len());
    while voters.len() < wanted {
        let Some(node) = spare(&voters) else { break };
        voters.insert(node);
    }
    // Who is gone and cannot be replaced may come back.
    for node in gone {
        if voters.len() < wanted.min(now.voters.len()) {
            voters.insert(node);
        }
    }
    while voters.len() > wanted || voters.len().is_multiple_of(2) {
        let others = voters.iter().copied().filter(|node| *node != leader);
        let is_new = |node: &NodeId| !now.voters.contains(node);
        let least = others.max_by_key(|node| (!is_there(*node), is_new(node), *node));
        let Some(node) = least else { break };
        voters.remove(&node);
    }
    let far = voters.iter().copied().filter(|node| *node != leader);
    let far = far.filter(|node| of(*node).is_far()).max();
    if let Some(far) = far.filter(|_| voters.iter().copied().all(is_there)) {
        let near = spare(&voters).filter(|node| of(*node).is_near());
        if let Some(near) = near {
            voters.remove(&far);
            voters.insert(near);
        }
    }
    let learners = match voters.len() {
        1 => spare(&voters).into_iter().collect(),
        _ => BTreeSet::new(),
    };
    Members { voters, learners }
}

fn wanted(nodes: usize) -> usize {
    match nodes {
        0..3 => 1,
        3..LARGE => 3,
        _ => 5,
    }
}

/// The least is the best to vote beside `voters`: near, and where fewest would be
/// lost with it.
fn rank(
    node: NodeId,
    zone: &ZonePath,
    voters: &BTreeSet<NodeId>,
    can: &[(NodeId, &ZonePath)],
    standing: Standing,
) -> (bool, usize, usize, NodeId) {
    let others = can.iter().filter(|(id, _)| voters.contains(id));
    let shared: Vec<usize> = others.map(|(_, other)| common(zone, other)).collect();
    let deepest = shared.iter().copied().max().unwrap_or_default();
    (standing.is_far(), deepest, shared.iter().sum(), node)
}

/// Of how many zones, the root left out, both are.
fn common(one: &ZonePath, other: &ZonePath) -> usize {
    let depths = 1..=one.depth().min(other.depth());
    depths
        .take_while(|depth| one.ancestor(*depth) == other.ancestor(*depth))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::NodeRecord;
    use kernel::{Hash, Name, UnixMillis};

    const LEADER: NodeId = NodeId(1);

    fn table(zones: &[&str]) -> NodeTable {
        let record = |(at, zone): (usize, &&str)| {
            let id = NodeId(at as u64 + 1);
            let name = Name::new(format!("n{id}")).expect("a name");
            let zone = zone.parse().expect("a zone");
            let record = NodeRecord::new(id, name, zone, Hash([0; 32]), UnixMillis(0));
            (id, record)
        };
        zones.iter().enumerate().map(record).collect()
    }

    fn ids(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    fn members(voters: &[u64], learners: &[u64]) -> Members {
        Members {
            voters: ids(voters),
            learners: ids(learners),
        }
    }

    fn silent(nodes: &[u64], span: Duration) -> BTreeMap<NodeId, Standing> {
        let standing = Standing {
            silent_for: Some(span),
            round_trip: None,
        };
        nodes.iter().map(|node| (NodeId(*node), standing)).collect()
    }

    #[test]
    fn one_alone_then_a_learner_then_three_then_five() {
        let all = ["/a", "/b", "/c", "/a", "/b", "/c", "/d"];
        let chosen = |count: usize, now: &Members| {
            choose(&table(&all[..count]), &BTreeMap::new(), LEADER, now)
        };
        assert_eq!(chosen(1, &Members::default()), members(&[1], &[]));
        assert_eq!(chosen(2, &members(&[1], &[])), members(&[1], &[2]));
        assert_eq!(chosen(3, &members(&[1], &[2])), members(&[1, 2, 3], &[]));
        assert_eq!(
            chosen(6, &members(&[1, 2, 3], &[])),
            members(&[1, 2, 3], &[])
        );
        // The seventh is alone in its zone; of the others any is as good.
        let five = chosen(7, &members(&[1, 2, 3], &[]));
        assert_eq!(five, members(&[1, 2, 3, 4, 7], &[]));
    }

    #[test]
    fn voters_are_spread_and_near() {
        let all = table(&["/eu/a/1", "/eu/a/1", "/eu/a/2", "/eu/b/1", "/us/a/1"]);
        let mut standing = BTreeMap::new();
        let chosen = choose(&all, &standing, LEADER, &Members::default());
        assert_eq!(chosen.voters, ids(&[1, 4, 5]));
        let far = Standing {
            silent_for: None,
            round_trip: Some(Duration::from_millis(90)),
        };
        standing.insert(NodeId(5), far);
        let chosen = choose(&all, &standing, LEADER, &Members::default());
        assert_eq!(chosen.voters, ids(&[1, 3, 4]));
    }

    #[test]
    fn a_far_voter_gives_way_to_a_near_node_that_came_later() {
        let now = members(&[1, 2, 3], &[]);
        let five = table(&["/eu/1", "/eu/2", "/us/1", "/eu/1", "/eu/2"]);
        let at = |ms: u64| Standing {
            silent_for: None,
            round_trip: Some(Duration::from_millis(ms)),
        };
        let near = [(2, 5), (3, 90), (4, 5), (5, 5)];
        let mut standing: BTreeMap<NodeId, Standing> = near
            .into_iter()
            .map(|(node, ms)| (NodeId(node), at(ms)))
            .collect();
        let chosen = choose(&five, &standing, LEADER, &now);
        assert_eq!(chosen.voters.len(), 3);
        assert!(!chosen.voters.contains(&NodeId(3)), "{chosen:?}");
        assert_eq!(choose(&five, &standing, LEADER, &chosen), chosen);
        // Not while another one's vote may be needed, nor for one as far.
        let mut with_silent = standing.clone();
        with_silent.insert(NodeId(2), silent(&[2], GONE_AFTER / 2)[&NodeId(2)]);
        assert_eq!(choose(&five, &with_silent, LEADER, &now), now);
        for node in [4, 5] {
            standing.insert(NodeId(node), at(60));
        }
        assert_eq!(choose(&five, &standing, LEADER, &now), now);
    }

    #[test]
    fn a_silent_voter_is_replaced_where_there_is_another() {
        let now = members(&[1, 2, 3], &[]);
        let (short, long) = (GONE_AFTER / 2, GONE_AFTER);
        let four = table(&["/a", "/b", "/c", "/d"]);
        let chosen = choose(&four, &silent(&[3], short), LEADER, &now);
        assert_eq!(chosen, now, "for a moment it stays");
        let chosen = choose(&four, &silent(&[3], long), LEADER, &now);
        assert_eq!(chosen, members(&[1, 2, 4], &[]));
        let three = table(&["/a", "/b", "/c"]);
        let chosen = choose(&three, &silent(&[3], long), LEADER, &now);
        assert_eq!(chosen, now, "there is no other");
        let chosen = choose(&four, &silent(&[3, 4], long), LEADER, &now);
        assert_eq!(chosen, now, "the other is silent too");
    }

    #[test]
    fn who_does_not_belong_or_cannot_be_called_does_not_vote() {
        let mut three = table(&["/a", "/b", "/c"]);
        let now = members(&[1, 2, 3], &[]);
        let third = three.get_mut(&NodeId(3)).expect("there");
        third.revoked_at = Some(UnixMillis(1));
        let chosen = choose(&three, &BTreeMap::new(), LEADER, &now);
        assert_eq!(chosen, members(&[1], &[2]));
        let mut three = table(&["/a", "/b", "/c"]);
        three.get_mut(&NodeId(2)).expect("there").way.outbound_only = true;
        three.get_mut(&NodeId(3)).expect("there").may_vote = false;
        let chosen = choose(&three, &BTreeMap::new(), LEADER, &now);
        assert_eq!(chosen, members(&[1], &[]));
    }

    #[test]
    fn voters_are_always_odd_and_the_leader_is_one() {
        let zones = ["/a", "/a/1", "/b", "/b/1", "/c", "/d", "/e", "/f"];
        let mut rng = kernel::Rng::seeded(7);
        for _ in 0..2_000 {
            let count = 1 + usize::try_from(rng.below(8)).expect("small");
            let table = table(&zones[..count]);
            let pick = |rng: &mut kernel::Rng| -> Vec<u64> {
                (1..=count as u64).filter(|_| rng.below(2) == 0).collect()
            };
            let now = members(&pick(&mut rng), &[]);
            let gone = silent(&pick(&mut rng), GONE_AFTER);
            let chosen = choose(&table, &gone, LEADER, &now);
            assert!(!chosen.voters.len().is_multiple_of(2), "{chosen:?}");
            assert!(chosen.voters.contains(&LEADER), "{chosen:?}");
            assert!(chosen.voters.is_disjoint(&chosen.learners), "{chosen:?}");
            // Decided once, it stays.
            let again = choose(&table, &gone, LEADER, &chosen);
            assert_eq!(again, chosen, "{now:?} {gone:?}");
        }
    }
}
