//! Nodes that this one does not keep in view: in a large cluster, those of other
//! zones.
//!
//! In: the node table, the tree's rows. Out: whether they may be counted on;
//! through whom the tree begins.
//! Holds: of such a node only its zone is known: it counts as reachable as long
//! as its zone reports. Whoever must know more asks it.

use super::place::Places;
use crate::cluster::Cluster;
use aggregation::membership::Reach;
use aggregation::tree::{Tree, View};
use kernel::{NodeId, ZonePath, fnv1a};
use node::nodes::{NodeRecord, NodeTable};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Of other zones, over all levels.
const ACQUAINTED_MAX: usize = 32;

/// What was found last: it is gone into again only when one of these moves.
#[derive(Default)]
pub struct Seen {
    table: Arc<NodeTable>,
    zones: Vec<(ZonePath, Reach)>,
}

/// Finds anew what can be said of those that are not in view; tells it when it
/// has changed.
pub fn look(cluster: &Cluster, places: &Places, table: &Arc<NodeTable>, seen: &mut Seen) {
    let zones = cluster.zones.read(beside).unwrap_or_default();
    if Arc::ptr_eq(&seen.table, table) && seen.zones == zones {
        return;
    }
    let of = |record: &NodeRecord| {
        let leaf = places.leaf(&record.zone);
        let mut all = zones.iter();
        let known = all.find(|(zone, _)| zone.contains(&leaf));
        known.map_or(Reach::Unheard, |(_, reach)| *reach)
    };
    let found = out_of_view(cluster, table).map(|record| (record.id, of(record)));
    cluster.see_far(found.collect());
    *seen = Seen {
        table: Arc::clone(table),
        zones,
    };
}

/// The zones beside this node's at each level, the lowest first.
fn beside(tree: &Tree) -> Vec<(ZonePath, Reach)> {
    let own = tree.zone();
    let mut zones = Vec::new();
    for depth in (0..own.depth()).rev() {
        let own_child = own.ancestor(depth + 1);
        for view in tree.children(&own.ancestor(depth)) {
            if view.row.row.zone != own_child {
                zones.push((view.row.row.zone.clone(), reach_of(&view)));
            }
        }
    }
    zones
}

fn reach_of(view: &View) -> Reach {
    if view.ended {
        Reach::Left
    } else if view.unknown || view.coverage.reporting == 0 {
        Reach::Dead
    } else {
        Reach::Alive
    }
}

/// None where all know all.
fn out_of_view<'a>(
    cluster: &Cluster,
    table: &'a NodeTable,
) -> impl Iterator<Item = &'a NodeRecord> {
    let belong = table.values().filter(|record| record.belongs());
    let is_large = belong.clone().count() > cluster.whole_max;
    let here = table.get(&cluster.own.id).map(|record| record.zone.clone());
    belong.filter(move |record| is_large && Some(&record.zone) != here.as_ref())
}

/// Nodes of other zones that the tree may begin with, some at each level; which
/// of many, each node chooses for itself.
pub fn acquaintances<'a>(
    cluster: &Cluster,
    places: &Places,
    zone: &ZonePath,
    others: &[&'a NodeRecord],
) -> Vec<&'a NodeRecord> {
    let mut levels: BTreeMap<usize, Vec<(u64, &NodeRecord)>> = BTreeMap::new();
    let callable = others
        .iter()
        .filter(|record| !record.way.outbound_only && cluster.reach(record.id).may_answer());
    for record in callable {
        let leaf = places.leaf(&record.zone);
        let shared = (0..=zone.depth())
            .rev()
            .find(|depth| zone.ancestor(*depth).contains(&leaf));
        let rank = rank(cluster.own.id, record.id);
        let level = levels.entry(shared.unwrap_or_default()).or_default();
        level.push((rank, record));
    }
    let each = ACQUAINTED_MAX / levels.len().max(1);
    let mut chosen = Vec::new();
    for mut level in levels.into_values() {
        level.sort_unstable_by_key(|(rank, record)| (*rank, record.id));
        chosen.extend(level.into_iter().take(each).map(|(_, record)| record));
    }
    chosen
}

fn rank(own: NodeId, other: NodeId) -> u64 {
    let bytes = own.0.to_be_bytes().into_iter().chain(other.0.to_be_bytes());
    fnv1a(bytes)
}
