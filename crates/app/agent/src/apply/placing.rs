//! Where replicas run, as far as a person or the turn decides it.

use crate::apply::api_error;
use crate::shared::Shared;
use kernel::{Name, NodeId};
use manifest::Manifest;
use node::deal::{DealError, Placements, placements};
use node::desired::Applied;
use std::collections::BTreeMap;
use wire::api::{ApiError, Change};

/// Where each service's replicas run: by hand, or in turn.
pub fn place(
    shared: &Shared,
    manifest: &Manifest,
    old: Option<&Applied>,
) -> Result<Placements, ApiError> {
    let cluster = &shared.cluster;
    let nodes = cluster.nodes.borrow();
    let is_up = |node| cluster.reach(node).is_up();
    placements(manifest, old, &nodes, is_up).map_err(|error| {
        let help = Some("homeostat node ls");
        match error {
            DealError::NoNode { .. } => api_error("invalid_placement", error.to_string(), help),
            _ => api_error("unplaceable", error.to_string(), help),
        }
    })
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
