//! Where nodes stand in the zone tree.
//!
//! Holds: only leaf zones have nodes. Nodes of a zone with others below it (the
//! first machine of a cluster, mostly) are taken together as one more zone
//! there, called [`HERE`]; every node that has the same table finds the same.

use kernel::{NodeId, ZonePath, fnv1a};
use node::nodes::NodeTable;
use node::seats;
use std::collections::BTreeSet;
use std::sync::Arc;

pub const HERE: &str = "here";

/// Of one node table.
pub struct Places {
    /// Zones below which nodes stand.
    inner: BTreeSet<ZonePath>,
    /// Leaf zones with nodes, and all above them.
    occupied: BTreeSet<ZonePath>,
    /// Differs where a node that was in one zone is in another.
    layout: u64,
    /// Leaf zones with their nodes.
    pub leaves: Arc<seats::Zones>,
    /// Those that have a seat, with who may hold it.
    pub seated: Arc<seats::Zones>,
}

fn above(zone: &ZonePath) -> impl Iterator<Item = ZonePath> + '_ {
    (0..zone.depth()).map(|depth| zone.ancestor(depth))
}

impl Places {
    pub fn of(table: &NodeTable) -> Self {
        let nodes = || table.values().filter(|record| record.belongs());
        let mut places = Self {
            inner: nodes().flat_map(|record| above(&record.zone)).collect(),
            occupied: BTreeSet::new(),
            layout: 0,
            leaves: Arc::default(),
            seated: Arc::default(),
        };
        places.layout = places.number(table);
        let mut leaves = seats::Zones::new();
        for record in nodes() {
            let leaf = places.leaf(&record.zone);
            places.occupied.extend(above(&leaf));
            leaves.entry(leaf).or_default().insert(record.id);
        }
        places.occupied.extend(leaves.keys().cloned());
        places.seated = Arc::new(seats::seated(&leaves, table));
        places.leaves = Arc::new(leaves);
        places
    }

    /// The leaf zone of nodes whose certificates say `zone`.
    pub fn leaf(&self, zone: &ZonePath) -> ZonePath {
        if !self.inner.contains(zone) {
            return zone.clone();
        }
        let text = match zone.depth() {
            0 => format!("/{HERE}"),
            _ => format!("{zone}/{HERE}"),
        };
        // A zone with others below it has a level left.
        text.parse().unwrap_or_else(|_| zone.clone())
    }

    /// Of the zones that have others below them, and of where nodes went that
    /// were moved: who joins or leaves changes no other node's zone.
    fn number(&self, table: &NodeTable) -> u64 {
        let moved = table.values().filter(|record| !record.former.is_empty());
        let moved = moved.map(|record| format!("{}{} ", record.id.0, record.zone));
        let inner = self.inner.iter().map(|zone| format!("{zone} "));
        fnv1a(inner.chain(moved).flat_map(String::into_bytes))
    }

    pub fn layout(&self) -> u64 {
        self.layout
    }

    /// The number that `own` says while it goes by this layout in part only: nobody
    /// else's, so that nothing is added to what it says as if it were of one layout.
    pub fn layout_begun(&self, own: NodeId) -> u64 {
        let numbers = [self.layout, own.0].map(u64::to_be_bytes);
        fnv1a(numbers.into_iter().flatten())
    }

    /// Whether no node is in the zone, nor below it.
    pub fn is_empty(&self, zone: &ZonePath) -> bool {
        !self.occupied.contains(zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::{Hash, UnixMillis};
    use node::nodes::{FormerZone, NodeRecord};

    fn table(zones: &[&str]) -> NodeTable {
        let record = |(id, zone): (u64, &&str)| {
            let name = format!("n{id}").parse().expect("a name");
            let zone = zone.parse().expect("a zone");
            let record = NodeRecord::new(NodeId(id), name, zone, Hash([0; 32]), UnixMillis(0));
            (NodeId(id), record)
        };
        (1..).zip(zones).map(record).collect()
    }

    #[test]
    fn nodes_beside_zones_are_a_zone_of_their_own() {
        let leaf = |zones: &[&str], zone: &str| {
            let places = Places::of(&table(zones));
            places.leaf(&zone.parse().expect("a zone")).to_string()
        };
        assert_eq!(leaf(&["/"], "/"), "/");
        assert_eq!(leaf(&["/", "/"], "/"), "/");
        assert_eq!(leaf(&["/", "/eu/1"], "/"), "/here");
        assert_eq!(leaf(&["/", "/eu/1"], "/eu/1"), "/eu/1");
        assert_eq!(leaf(&["/eu", "/eu/1", "/us"], "/eu"), "/eu/here");
        assert_eq!(leaf(&["/eu", "/eu/1", "/us"], "/us"), "/us");
        // Only what belongs counts.
        let mut table = table(&["/", "/eu/1"]);
        if let Some(record) = table.get_mut(&NodeId(2)) {
            record.revoked_at = Some(UnixMillis(1));
        }
        let places = Places::of(&table);
        assert_eq!(places.leaf(&ZonePath::root()), ZonePath::root());
    }

    #[test]
    fn leaf_zones_have_their_nodes_and_seats_where_there_are_several() {
        let places = Places::of(&table(&["/", "/eu/1", "/eu/1"]));
        let leaves = places.leaves.iter().map(|(zone, nodes)| {
            let nodes: Vec<u64> = nodes.iter().map(|node| node.0).collect();
            (zone.to_string(), nodes)
        });
        let leaves: Vec<_> = leaves.collect();
        let eu = ("/eu/1".to_owned(), vec![2, 3]);
        assert_eq!(leaves, [eu, ("/here".to_owned(), vec![1])]);
        let seated: Vec<String> = places.seated.keys().map(ToString::to_string).collect();
        assert_eq!(seated, ["/eu/1"]);
    }

    #[test]
    fn a_layout_is_another_once_a_node_is_in_another_zone() {
        let layout = |table: &NodeTable| Places::of(table).layout();
        let before = table(&["/", "/eu/1", "/us/1"]);
        assert_eq!(
            layout(&table(&["/", "/eu/1", "/us/1", "/us/1"])),
            layout(&before)
        );
        // The first node is in a zone of its own from then on.
        assert_ne!(layout(&table(&["/"])), layout(&before));
        let mut after = before.clone();
        let third = after.get_mut(&NodeId(3)).expect("is there");
        let there = "/eu/1".parse().expect("a zone");
        third.former.push(FormerZone {
            zone: std::mem::replace(&mut third.zone, there),
            until: UnixMillis(1),
        });
        assert_ne!(layout(&after), layout(&before));
        let begun = |node| Places::of(&after).layout_begun(NodeId(node));
        assert_ne!(begun(1), layout(&after));
        assert_ne!(begun(1), begun(2));
    }

    #[test]
    fn a_zone_is_empty_once_no_node_is_in_it_or_below() {
        let places = Places::of(&table(&["/", "/eu/1"]));
        let is_empty = |zone: &str| places.is_empty(&zone.parse().expect("a zone"));
        assert!(
            ["/", "/here", "/eu", "/eu/1"]
                .iter()
                .all(|zone| !is_empty(zone))
        );
        assert!(
            ["/eu/2", "/us", "/eu/here"]
                .iter()
                .all(|zone| is_empty(zone))
        );
    }
}
