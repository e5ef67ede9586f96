//! Where nodes stand in the zone tree.
//!
//! Holds: only leaf zones have nodes. Nodes of a zone with others below it (the
//! first machine of a cluster, mostly) are taken together as one more zone
//! there, called [`HERE`]; every node that has the same table finds the same.

use kernel::ZonePath;
use node::nodes::NodeTable;

pub const HERE: &str = "here";

/// The leaf zone of nodes whose certificates say `zone`.
pub fn leaf(table: &NodeTable, zone: &ZonePath) -> ZonePath {
    let below = |other: &ZonePath| other != zone && zone.contains(other);
    let mut nodes = table.values().filter(|record| record.belongs());
    if !nodes.any(|record| below(&record.zone)) {
        return zone.clone();
    }
    let text = match zone.depth() {
        0 => format!("/{HERE}"),
        _ => format!("{zone}/{HERE}"),
    };
    // A zone with others below it has a level left.
    text.parse().unwrap_or_else(|_| zone.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::{Hash, NodeId, UnixMillis};
    use node::nodes::NodeRecord;
    use wire::api::Role;

    fn table(zones: &[&str]) -> NodeTable {
        let record = |(id, zone): (u64, &&str)| {
            let record = NodeRecord {
                id: NodeId(id),
                name: format!("n{id}").parse().expect("a name"),
                zone: zone.parse().expect("a zone"),
                key: Hash([0; 32]),
                joined_at: UnixMillis(0),
                owner: Role::Admin,
                way: node::nodes::Way::default(),
                revoked_at: None,
                former: Vec::new(),
            };
            (NodeId(id), record)
        };
        (1..).zip(zones).map(record).collect()
    }

    #[test]
    fn nodes_beside_zones_are_a_zone_of_their_own() {
        let leaf = |zones: &[&str], zone: &str| {
            leaf(&table(zones), &zone.parse().expect("a zone")).to_string()
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
        assert_eq!(super::leaf(&table, &ZonePath::root()), ZonePath::root());
    }
}
