//! Which zones have ended: those that no node is in any more.
//!
//! Holds: a row is believed only of a node that the table puts into its zone, so
//! that a zone whose row is here and which the table leaves empty was emptied,
//! and is not new. Of those beside it, the first node that can be reached says
//! so.

use super::place::leaf;
use crate::cluster::Cluster;
use aggregation::tree::Tree;
use kernel::{NodeId, ZonePath};
use node::nodes::{NodeRecord, NodeTable};

/// Those that this node is to tell the end of.
pub fn ended(cluster: &Cluster, table: &NodeTable, tree: &Tree) -> Vec<ZonePath> {
    let beside = (0..tree.zone().depth()).flat_map(|depth| {
        let above = tree.zone().ancestor(depth);
        let shown = tree.children(&above).filter(|view| !view.ended);
        let shown = shown.map(|view| view.row.row.zone.clone());
        shown.collect::<Vec<_>>()
    });
    let empty = beside.filter(|zone| nodes_in(table, zone).next().is_none());
    let said_here = empty.filter(|zone| speaker(cluster, table, zone) == Some(cluster.own.id));
    said_here.collect()
}

fn nodes_in<'a>(table: &'a NodeTable, zone: &'a ZonePath) -> impl Iterator<Item = &'a NodeRecord> {
    let belonging = table.values().filter(|record| record.belongs());
    // The leaf zone lies in the certificate's: most are settled without it.
    belonging.filter(move |record| {
        zone.contains(&record.zone)
            || (record.zone.contains(zone) && zone.contains(&leaf(table, &record.zone)))
    })
}

fn speaker(cluster: &Cluster, table: &NodeTable, zone: &ZonePath) -> Option<NodeId> {
    let above = zone.parent()?;
    let mut beside = nodes_in(table, &above).map(|record| record.id);
    beside.find(|node| cluster.reach(*node).is_up())
}
