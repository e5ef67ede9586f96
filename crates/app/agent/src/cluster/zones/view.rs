//! The zone tree as the admin API shows it, from where this node stands.

use super::Shared;
use crate::cluster::rows;
use aggregation::tree::{Aggregate, Demand, ReadError, Tree, View};
use kernel::ZonePath;
use std::collections::BTreeMap;
use wire::api::{NodeInZone, ZoneView, ZonesReply};
use wire::attributes::{Row, Value};

/// The root, this node's zones, and those beside them.
pub fn view(shared: &Shared) -> ZonesReply {
    let zones = &shared.cluster.zones;
    zones
        .read(|tree| ZonesReply {
            zone: tree.zone().to_string(),
            zones: all(shared, tree),
            nodes: nodes(shared, tree),
            liars: liars(shared),
        })
        .unwrap_or_default()
}

/// One zone, if what is known of it is good enough: its row, as its nodes have
/// signed it; of the root, which has none, what its children's rows give.
pub fn read(shared: &Shared, zone: &ZonePath, demand: &Demand) -> Result<ZoneView, ReadError> {
    let read = shared.cluster.zones.read(|tree| {
        if zone.depth() == 0 {
            let found = super::with_tools(shared, |tools| tree.read_computed(zone, demand, tools));
            return found.map(|aggregate| as_computed(tree, zone, Some(&aggregate)));
        }
        tree.read(zone, demand).map(|view| issued(shared, &view))
    });
    read.unwrap_or(Err(ReadError::Nothing))
}

fn all(shared: &Shared, tree: &Tree) -> Vec<ZoneView> {
    let own = tree.zone();
    let mut zones = vec![computed(shared, tree, &ZonePath::root())];
    for depth in 0..own.depth() {
        let above = own.ancestor(depth);
        let mut seen_own = false;
        for view in tree.children(&above).filter(|view| !view.ended) {
            seen_own |= view.row.row.zone == own.ancestor(depth + 1);
            zones.push(issued(shared, &view));
        }
        if !seen_own {
            zones.push(computed(shared, tree, &own.ancestor(depth + 1)));
        }
    }
    zones.sort_by(|a, b| a.zone.cmp(&b.zone));
    zones
}

/// As its children's rows give it here: the root has no row of its own.
fn computed(shared: &Shared, tree: &Tree, zone: &ZonePath) -> ZoneView {
    let aggregate = super::with_tools(shared, |tools| tree.aggregate(zone, tools));
    as_computed(tree, zone, aggregate.as_ref())
}

fn as_computed(tree: &Tree, zone: &ZonePath, aggregate: Option<&Aggregate>) -> ZoneView {
    let attributes = aggregate.map(|it| it.attributes.as_slice());
    let coverage = aggregate.map(|it| it.coverage).unwrap_or_default();
    // The others have rows with stamps, which are only not here yet.
    let seen = tree.seen(zone).filter(|_| zone.depth() == 0);
    ZoneView {
        zone: zone.to_string(),
        expected: coverage.expected,
        reporting: coverage.reporting,
        oldest_ms: coverage.oldest_ms,
        own: true,
        stamp: seen.map(|seen| seen.to_string()),
        attributes: shown(attributes),
        ..ZoneView::default()
    }
}

fn issued(shared: &Shared, view: &View) -> ZoneView {
    let row = &view.row.row;
    let age_ms = u64::try_from(view.age.as_millis()).unwrap_or(u64::MAX);
    let contacts = row.contacts.iter();
    ZoneView {
        zone: row.zone.to_string(),
        expected: view.coverage.expected,
        reporting: if view.unknown {
            0
        } else {
            view.coverage.reporting
        },
        oldest_ms: view.coverage.oldest_ms.saturating_add(age_ms),
        unknown_since_ms: view.unknown.then_some(age_ms),
        own: false,
        issuer: Some(shared.cluster.called(row.stamp.issuer)),
        stamp: Some(row.stamp.to_string()),
        representatives: contacts
            .map(|one| shared.cluster.called(one.node))
            .collect(),
        attributes: shown(Some(&row.attributes)),
    }
}

/// What people read: not what the level above merges.
fn shown(bytes: Option<&[u8]>) -> BTreeMap<String, serde_json::Value> {
    let row = bytes.map(Row::decode).and_then(Result::ok);
    let mut row = row.unwrap_or_default();
    row.0.retain(|_, value| !matches!(value, Value::Partial(_)));
    rows::as_json(&row)
}

fn liars(shared: &Shared) -> BTreeMap<String, String> {
    let liars = shared.cluster.liars.borrow();
    let liars = liars.iter();
    liars
        .map(|(node, zone)| (shared.cluster.called(*node), zone.to_string()))
        .collect()
}

fn nodes(shared: &Shared, tree: &Tree) -> Vec<NodeInZone> {
    let cluster = &shared.cluster;
    let table = cluster.nodes.borrow().clone();
    let places = cluster.zones.places(&table);
    let nodes = table.values().filter(|record| record.belongs());
    let nodes = nodes.map(|record| NodeInZone {
        node: record.name.to_string(),
        zone: places.leaf(&record.zone).to_string(),
        reachable: cluster.reach(record.id).is_up(),
    });
    let own = tree.zone().to_string();
    let mut nodes: Vec<NodeInZone> = nodes.collect();
    // This node's own zone first.
    nodes.sort_by_key(|one| (one.zone != own, one.zone.clone(), one.node.clone()));
    nodes
}
