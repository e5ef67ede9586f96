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
    emptied(places, tree)
        .filter(|(above, _)| speaker(cluster, table, places, above) == Some(cluster.own.id))
        .map(|(_, zone)| zone)
        .collect()
}

/// The empty zones that are not known to have ended, after the zone above.
pub fn emptied<'a>(
    places: &'a Places,
    tree: &'a Tree,
) -> impl Iterator<Item = (ZonePath, ZonePath)> + 'a {
    (0..tree.zone().depth()).flat_map(move |depth| {
        let above = tree.zone().ancestor(depth);
        let standing = tree.children(&above).filter(|view| !view.ended);
        let empty = standing.filter(|view| places.is_empty(&view.row.row.zone));
        let empty: Vec<_> = empty
            .map(|view| (above.clone(), view.row.row.zone.clone()))
            .collect();
        empty
    })
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
