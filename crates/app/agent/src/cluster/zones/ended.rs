//! Which zones have ended: those that no node is in any more.
//!
//! Holds: a row is believed only of a node that the table puts into its zone, so
//! that a zone whose row is here and which the table leaves empty was emptied,
//! and is not new. Of those beside it, the first node that can be reached says
//! so.

use super::place::Places;
use crate::cluster::Cluster;
use aggregation::tree::Tree;
use kernel::{NodeId, ZonePath};
use node::nodes::NodeTable;

/// Those that this node is to tell the end of.
pub fn ended(cluster: &Cluster, table: &NodeTable, places: &Places, tree: &Tree) -> Vec<ZonePath> {
    let mut ended = Vec::new();
    for depth in 0..tree.zone().depth() {
        let above = tree.zone().ancestor(depth);
        for view in tree.children(&above) {
            let zone = &view.row.row.zone;
            if !view.ended
                && places.is_empty(zone)
                && speaker(cluster, table, places, &above) == Some(cluster.own.id)
            {
                ended.push(zone.clone());
            }
        }
    }
    ended
}

fn speaker(
    cluster: &Cluster,
    table: &NodeTable,
    places: &Places,
    above: &ZonePath,
) -> Option<NodeId> {
    let belonging = table.values().filter(|record| record.belongs());
    let mut beside = belonging.filter(|record| above.contains(&places.leaf(&record.zone)));
    let first = beside.find(|record| cluster.reach(record.id).is_up());
    first.map(|record| record.id)
}
