//! Who belongs, as the store's node table says.

use kernel::{NodeId, ZonePath};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;

/// What the store's node table says of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Belongs {
    /// Its leaf zone.
    pub zone: ZonePath,
    /// It is never spoken to, and not listened to.
    pub revoked: bool,
    /// Nobody can call it: it does not keep its zone together with others as
    /// long as another one can.
    pub outbound_only: bool,
}

/// By node. What it has of one zone is found without going through all of it.
#[derive(Debug, Default)]
pub struct Table {
    nodes: BTreeMap<NodeId, Belongs>,
    zones: OnceLock<Zones>,
}

#[derive(Debug)]
struct Zones {
    nodes: BTreeMap<ZonePath, Vec<NodeId>>,
    belonging: usize,
}

impl Table {
    pub fn new() -> Self {
        Self::default()
    }

    /// Without those that were revoked.
    pub fn belonging(&self) -> usize {
        self.zones().belonging
    }

    /// Those of that leaf zone, the revoked with them.
    #[must_use]
    pub fn of_zone(&self, zone: &ZonePath) -> Self {
        let found = self.zones().nodes.get(zone);
        let found = found.into_iter().flatten();
        found
            .filter_map(|node| Some((*node, self.nodes.get(node)?.clone())))
            .collect()
    }

    fn zones(&self) -> &Zones {
        self.zones.get_or_init(|| {
            let mut zones = Zones {
                nodes: BTreeMap::new(),
                belonging: self.nodes.values().filter(|one| !one.revoked).count(),
            };
            for (node, one) in &self.nodes {
                match zones.nodes.get_mut(&one.zone) {
                    Some(zone) => zone.push(*node),
                    None => drop(zones.nodes.insert(one.zone.clone(), vec![*node])),
                }
            }
            zones
        })
    }
}

impl Deref for Table {
    type Target = BTreeMap<NodeId, Belongs>;

    fn deref(&self) -> &Self::Target {
        &self.nodes
    }
}

impl DerefMut for Table {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.zones = OnceLock::new();
        &mut self.nodes
    }
}

impl FromIterator<(NodeId, Belongs)> for Table {
    fn from_iter<I: IntoIterator<Item = (NodeId, Belongs)>>(nodes: I) -> Self {
        Self {
            nodes: nodes.into_iter().collect(),
            zones: OnceLock::new(),
        }
    }
}

impl Clone for Table {
    fn clone(&self) -> Self {
        Self {
            nodes: self.nodes.clone(),
            zones: OnceLock::new(),
        }
    }
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.nodes == other.nodes
    }
}

impl Eq for Table {}
