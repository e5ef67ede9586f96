//! The node table as the simulated nodes keep it in the store, and as each has
//! it: thousands have the same, which is kept once.

use crate::machine::Machine;
use aggregation::membership::{Belongs, Table};
use kernel::{Hash, NodeId, Revision, UnixMillis};
use node::nodes::{NODES_PREFIX, NodeRecord};
use node::store::{Entry, Event, RangeReply};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tables that some node may still come to.
const KEPT_MAX: usize = 256;
/// One in so many is made all the same, and must be what the others came to.
const PROVED: u64 = 1 << 16;

/// Tables by revision: whichever way a node comes to a revision, the table is
/// one.
#[derive(Debug, Default)]
pub struct Tables {
    known: BTreeMap<Revision, Arc<Table>>,
    asked: u64,
}

impl Tables {
    fn at(&mut self, revision: Revision, make: impl FnOnce() -> Table) -> Arc<Table> {
        self.asked += 1;
        let known = self.known.get(&revision);
        if let Some(known) = known {
            let proved = !self.asked.is_multiple_of(PROVED) || **known == make();
            assert!(proved, "two tables at {revision}");
            return Arc::clone(known);
        }
        let table = Arc::new(make());
        self.known.insert(revision, Arc::clone(&table));
        if self.known.len() > KEPT_MAX {
            self.known.pop_first();
        }
        table
    }

    pub fn whole(&mut self, reply: &RangeReply) -> Arc<Table> {
        // What has not changed since a table that is known is not read again.
        let before = self.known.range(..=reply.revision).next_back();
        let before = before.map(|(at, table)| (*at, Arc::clone(table)));
        self.at(reply.revision, || {
            let row = |entry: &Entry| {
                let known = before.as_ref().filter(|(at, _)| entry.modified <= *at);
                let node = node_of(&entry.key)?;
                let known = known.and_then(|(_, table)| table.get(&node));
                let read = || read(&entry.key, &entry.value).map(|(_, belongs)| belongs);
                Some((node, known.cloned().or_else(read)?))
            };
            reply.entries.iter().filter_map(row).collect()
        })
    }

    /// `base` with all events up to that revision.
    pub fn changed(&mut self, base: &Arc<Table>, upto: Revision, events: &[&Event]) -> Arc<Table> {
        self.at(upto, || {
            let mut table = (**base).clone();
            for event in events {
                match event {
                    Event::Put(Entry { key, value, .. }) => table.extend(read(key, value)),
                    Event::Deleted(key) => {
                        if let Some(node) = node_of(key) {
                            table.remove(&node);
                        }
                    }
                }
            }
            table
        })
    }
}

/// Whose row it is, if it is one.
pub fn node_of(key: &str) -> Option<NodeId> {
    let digits = key.strip_prefix(NODES_PREFIX)?;
    u64::from_str_radix(digits, 16).ok().map(NodeId)
}

pub fn record(machine: &Machine) -> NodeRecord {
    let mut key = Hash([0; 32]);
    for (to, from) in key.0.iter_mut().zip(machine.node.0.to_le_bytes()) {
        *to = from;
    }
    let (name, zone) = (machine.name.clone(), machine.zone.clone());
    NodeRecord::new(machine.node, name, zone, key, UnixMillis(0))
}

/// What a key says of who belongs, if it is one of the table's.
fn read(key: &str, value: &[u8]) -> Option<(NodeId, Belongs)> {
    key.strip_prefix(NODES_PREFIX)?;
    let record: NodeRecord = serde_json::from_slice(value).ok()?;
    let belongs = Belongs {
        revoked: !record.belongs(),
        outbound_only: record.way.outbound_only,
        zone: record.zone,
    };
    Some((record.id, belongs))
}
