//! The node table as the simulated nodes keep it in the store.

use crate::machine::Machine;
use aggregation::membership::Belongs;
use kernel::{Hash, NodeId, UnixMillis};
use node::nodes::{NODES_PREFIX, NodeRecord, Way};
use wire::api::Role;

pub fn record(machine: &Machine) -> NodeRecord {
    let mut key = Hash([0; 32]);
    for (to, from) in key.0.iter_mut().zip(machine.node.0.to_le_bytes()) {
        *to = from;
    }
    NodeRecord {
        id: machine.node,
        name: machine.name.clone(),
        zone: machine.zone.clone(),
        key,
        joined_at: UnixMillis(0),
        owner: Role::Viewer,
        way: Way::default(),
        revoked_at: None,
        former: Vec::new(),
    }
}

/// What a key says of who belongs, if it is one of the table's.
pub fn read(key: &str, value: &[u8]) -> Option<(NodeId, Belongs)> {
    key.strip_prefix(NODES_PREFIX)?;
    let record: NodeRecord = serde_json::from_slice(value).ok()?;
    let belongs = Belongs {
        revoked: !record.belongs(),
        outbound_only: record.way.outbound_only,
        zone: record.zone,
    };
    Some((record.id, belongs))
}
