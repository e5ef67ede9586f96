//! Where replicas run.

use crate::apply::api_error;
use crate::shared::Shared;
use kernel::{Bytes, Name, NodeId};
use manifest::Manifest;
use node::desired::{Applied, Desired};
use node::placing::{Known, PlaceError, Placements, placements};
use std::collections::BTreeMap;
use wire::api::{ApiError, Change};
use wire::attributes::Value;

/// Where each service's replicas run: by hand, or where it is best.
pub fn place(
    shared: &Shared,
    manifest: &Manifest,
    desired: &Desired,
) -> Result<Placements, ApiError> {
    let nodes = shared.cluster.nodes.borrow().clone();
    let known = |node| known(shared, node);
    placements(manifest, desired, &nodes, known).map_err(|error| {
        let code = match error {
            PlaceError::NoNode { .. } => "invalid_placement",
            _ => "unplaceable",
        };
        api_error(code, error.to_string(), Some(error.hint()))
    })
}

/// What placement is told of a node.
pub fn known(shared: &Shared, node: NodeId) -> Known {
    let cluster = &shared.cluster;
    let row = cluster.rows.of(node).row;
    let bytes = |name: &str| match row.get(name) {
        Some(Value::Int(bytes)) => u64::try_from(*bytes).ok().map(Bytes),
        _ => None,
    };
    let reports = cluster.reports.borrow();
    Known {
        reachable: cluster.reach(node).is_up(),
        machine: reports.get(&node).and_then(|report| report.machine.clone()),
        memory_free: bytes("memory_free_bytes"),
        disk_free: bytes("disk_free_bytes"),
    }
}

fn shares(
    applied: &Applied,
    name: &Name,
    nodes: impl Iterator<Item = NodeId>,
) -> BTreeMap<NodeId, u32> {
    let Some(service) = applied.manifest.services.get(name) else {
        return BTreeMap::new();
    };
    let share = |id: NodeId| (id, applied.share(name, service, id));
    nodes.map(share).filter(|(_, count)| *count > 0).collect()
}

/// Adds to the changes on which nodes services run, where that changes.
pub fn tell(shared: &Shared, old: Option<&Applied>, new: &Applied, changes: &mut Vec<Change>) {
    let nodes = shared.cluster.nodes.borrow().clone();
    if nodes.len() < 2 {
        return;
    }
    for name in new.manifest.services.keys() {
        let ids = || nodes.keys().copied();
        let after = shares(new, name, ids());
        let before = old.map(|old| shares(old, name, ids()));
        if before.as_ref() == Some(&after) {
            continue;
        }
        let on = after.iter().filter_map(|(id, count)| {
            let record = nodes.get(id)?;
            Some(format!("{} ({count})", record.name))
        });
        let detail = format!("on: {}", on.collect::<Vec<_>>().join(", "));
        let object = format!("service/{name}");
        match changes.iter_mut().find(|change| change.object == object) {
            Some(change) => change.details.push(detail),
            None => changes.push(Change {
                action: "update".to_owned(),
                object,
                details: vec![detail],
            }),
        }
    }
}
