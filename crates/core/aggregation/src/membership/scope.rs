//! Decides of whom a node keeps a view.
//!
//! Holds: in a cluster up to `whole_max` nodes all know all. In a larger one
//! each knows its leaf zone; of the others the zone tree tells, so that what a
//! node keeps and says does not grow with the cluster.

use super::Membership;
use super::table::Table;
use kernel::NodeId;
use std::sync::Arc;
use wire::gossip::{Body, Writer, decode};

/// The part of the node table that `own` keeps in view, itself with it; the
/// same table where that is all of it.
pub fn in_view(table: &Arc<Table>, own: NodeId, whole_max: usize) -> Arc<Table> {
    let is_large = table.belonging() > whole_max;
    match table.get(&own) {
        Some(here) if is_large => Arc::new(table.of_zone(&here.zone)),
        _ => Arc::clone(table),
    }
}

impl Membership {
    /// From a node that is not in view. Where the cluster has just grown, it may
    /// have this one in view still: it learns that it is there.
    pub(super) fn on_outside(&mut self, from: NodeId, payload: &[u8]) {
        self.counts.outside += 1;
        if let Ok(packet) = decode(payload)
            && let Body::Ping { seq } = packet.body
        {
            let ack = Writer::new(self.own.life, &Body::Ack { seq });
            self.put_on_the_way(from, ack);
        }
    }
}
