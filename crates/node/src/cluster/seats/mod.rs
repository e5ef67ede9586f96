//! Seats: where the loops run that are no node's own (design, section 5).
//!
//! The root's seat is the leader of the control group. Each leaf zone of several nodes
//! has a seat besides, which one of them holds: it places elsewhere in the zone what the
//! zone has lost, and says what it could not. Who holds it is a record in the store; its
//! epoch is the revision at which that was written, and whatever the seat writes is a
//! transaction that compares it. So no clock is trusted for safety: one who was replaced,
//! and does not know it, writes nothing. Leases only say when a seat may be given to
//! another, and when a holder falls silent by itself.
//!
//! In: asks of nodes, the node table, who is gone. Out: who holds which seat; what a seat
//! writes; what the root leaves to the zones.
//! Holds: what is written under an epoch is written before anything is under a later one.
//! Never: moves what a person, a lease or a rollout has the say of.

mod holder;
mod keeper;
mod root;
mod within;

pub use holder::{Held, Holder};
pub use keeper::{Keeper, Standing, Verdict};
pub use root::{Lost, Patience};
pub use within::{Decided, Move, Moves, NotMade, decide, part, zone_table};

use crate::nodes::{NodeRecord, NodeTable};
use kernel::{FencingEpoch, NodeId, Revision, UnixMillis, ZonePath};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// All [`Seat`]s are under this prefix, as JSON.
pub const SEATS_PREFIX: &str = "/seat/";

/// The seat of `/eu/1` is `/seat/eu/1`.
pub fn seat_key(zone: &ZonePath) -> String {
    format!("/seat{zone}")
}

/// The zone of a key that [`seat_key`] made.
pub fn zone_of_key(key: &str) -> Option<ZonePath> {
    key.strip_prefix("/seat")?.parse().ok()
}

/// For so long after it was heard of last, a holder's seat is given to nobody else, if
/// nothing says that it is gone.
pub const TIME_TO_LIVE: Duration = Duration::from_secs(2);
/// For so long, from before it asked, a holder counts on it: the rest is for clocks that
/// run at different speeds, and for what is on its way.
pub const HELD_FOR: Duration = Duration::from_millis(1_600);
pub const ASK_EVERY: Duration = Duration::from_millis(500);
/// So many of a zone's nodes that are alive ask, whoever holds the seat: one that is
/// free is taken at once, and the leader is not asked by all.
pub const ASKERS: usize = 3;
/// What a zone has lost for so long, and still has not placed, is handed over to the root.
pub const HAND_OVER_AFTER: Duration = Duration::from_millis(1_500);
/// For so long after a node went, the root leaves what it had to the zone's seat; it looks
/// each second.
pub const ZONE_FIRST: Duration = Duration::from_millis(2_500);
/// A seat of fewer nodes could place nothing anywhere.
const NODES_MIN: usize = 2;

/// Who holds a seat, as it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    pub holder: NodeId,
    /// For people.
    pub since: UnixMillis,
}

/// The epoch of a seat that was written down at this revision.
pub fn epoch_at(written: Revision) -> FencingEpoch {
    FencingEpoch(written.0)
}

/// The revision at which a seat of this epoch was written down.
pub fn written_at(epoch: FencingEpoch) -> Revision {
    Revision(epoch.0)
}

/// A node wants its zone's seat, or wants to keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    pub zone: ZonePath,
    /// By its holder: nodes that are gone, and whose replicas it could not place.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub left: BTreeSet<NodeId>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Of the seat, where the asking node holds it.
    pub epoch: Option<FencingEpoch>,
}

/// Zones, each with nodes of it.
pub type Zones = BTreeMap<ZonePath, BTreeSet<NodeId>>;

/// Whether a node may hold its zone's seat, where it asks for it: an older one does not.
/// A machine that may keep none of the cluster's state decides nothing for others.
pub fn may_hold(record: &NodeRecord) -> bool {
    let may_be_trusted = record.may_vote && !record.way.outbound_only;
    record.belongs() && record.takes_replicas() && may_be_trusted
}

/// The zones that have a seat, each with who may hold it.
///
/// * `leaves`: all leaf zones that have nodes. Where there is one alone, the root sees
///   the same rows: it has none.
pub fn seated(leaves: &Zones, nodes: &NodeTable) -> Zones {
    if leaves.len() < 2 {
        return Zones::new();
    }
    let able = leaves.iter().map(|(zone, within)| {
        let may = |node: &NodeId| nodes.get(node).is_some_and(may_hold);
        let able: BTreeSet<NodeId> = within.iter().copied().filter(may).collect();
        (zone.clone(), able)
    });
    able.filter(|(_, able)| able.len() >= NODES_MIN).collect()
}

/// Whether `own` asks for the seat now.
///
/// * `able`: who may hold it.
/// * `is_alive`: beyond doubt.
pub fn asks(
    own: NodeId,
    able: &BTreeSet<NodeId>,
    holds: bool,
    is_alive: impl Fn(NodeId) -> bool,
) -> bool {
    let before = able.range(..own).filter(|node| is_alive(**node));
    able.contains(&own) && (holds || before.count() < ASKERS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::{Hash, Name};

    fn table(count: u64) -> NodeTable {
        let record = |id: u64| {
            let name = Name::new(format!("n{id}")).expect("a name");
            let zone = ZonePath::root();
            let record = NodeRecord::new(NodeId(id), name, zone, Hash([0; 32]), UnixMillis(0));
            (NodeId(id), record)
        };
        (1..=count).map(record).collect()
    }

    fn zones(all: &[(&str, &[u64])]) -> Zones {
        let zone = |(zone, nodes): &(&str, &[u64])| {
            let nodes = nodes.iter().copied().map(NodeId).collect();
            (zone.parse().expect("a zone"), nodes)
        };
        all.iter().map(zone).collect()
    }

    #[test]
    fn a_zone_of_several_nodes_beside_others_has_a_seat() {
        let nodes = table(5);
        assert_eq!(seated(&zones(&[("/", &[1, 2])]), &nodes), Zones::new());
        let all = zones(&[("/here", &[1]), ("/eu/1", &[2, 3]), ("/us/1", &[4, 5])]);
        let two = zones(&[("/eu/1", &[2, 3]), ("/us/1", &[4, 5])]);
        assert_eq!(seated(&all, &nodes), two);
    }

    #[test]
    fn who_takes_no_replicas_cannot_be_called_or_may_not_vote_holds_none() {
        let mut nodes = table(8);
        let all = zones(&[("/eu/1", &[1, 2, 3, 4, 5, 6, 7]), ("/us/1", &[8])]);
        let mut change = |node: u64, how: fn(&mut NodeRecord)| {
            how(nodes.get_mut(&NodeId(node)).expect("there"));
        };
        change(1, |it| it.draining = true);
        change(2, |it| it.witness = true);
        change(3, |it| it.way.outbound_only = true);
        change(4, |it| it.revoked_at = Some(UnixMillis(1)));
        change(5, |it| it.may_vote = false);
        assert_eq!(seated(&all, &nodes), zones(&[("/eu/1", &[6, 7])]));
    }

    #[test]
    fn the_first_that_are_alive_ask_and_the_holder() {
        let able: BTreeSet<NodeId> = (1..=6).map(NodeId).collect();
        let asking = |dead: &[u64], holder: u64| -> Vec<u64> {
            let asks = |node: &NodeId| {
                let alive = |other: NodeId| !dead.contains(&other.0);
                asks(*node, &able, node.0 == holder, alive)
            };
            able.iter()
                .filter(|node| asks(node))
                .map(|it| it.0)
                .collect()
        };
        assert_eq!(asking(&[], 5), [1, 2, 3, 5]);
        // The dead may believe that they ask.
        assert_eq!(asking(&[1, 2], 0), [1, 2, 3, 4, 5]);
        assert!(
            !asks(NodeId(9), &able, true, |_| true),
            "it is of no such zone"
        );
    }

    #[test]
    fn a_key_tells_its_zone() {
        let zone: ZonePath = "/eu/1".parse().expect("a zone");
        assert_eq!(seat_key(&zone), "/seat/eu/1");
        assert_eq!(zone_of_key(&seat_key(&zone)), Some(zone));
        assert_eq!(zone_of_key("/seats"), None);
    }
}
