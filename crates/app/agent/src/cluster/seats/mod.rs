//! The zones' seats between agents: nodes ask for their zone's, the leader gives it, and
//! writes what its holder wants written.
//!
//! The rules are `node::seats`; here are the ways between them, what is read and what is
//! written. What a seat does is `apply::zone`.
//! Holds: a seat is written down before it is answered; what a seat writes is one
//! transaction that compares the seat's record; a node that cannot reach the leader
//! holds still.

mod ask;
mod give;

pub use ask::run;
pub use give::{answer, standing, write};

use super::Cluster;
use crate::machine::{now, unix_now};
use control::repair::Reading;
use kernel::{FencingEpoch, NodeId, UnixMillis, ZonePath};
use net::transport::CallError;
use node::nodes::NodeTable;
use node::seats::{Held, Keeper, Lost, zone_table};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

pub struct Seats {
    /// The leader's; of use while this node leads.
    keeper: Mutex<Keeper>,
    led_since: Mutex<UnixMillis>,
    /// One is written down at a time.
    giving: tokio::sync::Mutex<()>,
    /// The one that this node held last.
    held: Mutex<Option<Held>>,
    /// The same without its time: changes when it comes or goes.
    pub tenure: watch::Sender<Option<(ZonePath, FencingEpoch)>>,
    /// What this node's zone has lost.
    lost: Mutex<Lost>,
    /// The leader is told at once.
    soon: Notify,
    /// On the leader: what seats hand over.
    pub handed: watch::Sender<BTreeSet<NodeId>>,
    /// What the seat decided is done one after the other.
    pub moving: tokio::sync::Mutex<()>,
}

impl Default for Seats {
    fn default() -> Self {
        Self {
            keeper: Mutex::new(Keeper::new(now())),
            led_since: Mutex::default(),
            giving: tokio::sync::Mutex::default(),
            held: Mutex::default(),
            tenure: watch::Sender::default(),
            lost: Mutex::default(),
            soon: Notify::new(),
            handed: watch::Sender::default(),
            moving: tokio::sync::Mutex::default(),
        }
    }
}

fn locked<T>(one: &Mutex<T>) -> MutexGuard<'_, T> {
    one.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seats {
    /// This node leads from now on.
    pub fn begin(&self) {
        *locked(&self.keeper) = Keeper::new(now());
        *locked(&self.led_since) = unix_now();
    }

    pub fn led_since(&self) -> UnixMillis {
        *locked(&self.led_since)
    }

    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        locked(&self.keeper)
    }

    /// On the leader: whoever holds a zone's seat and is heard of.
    pub fn at_work(&self, zone: &ZonePath) -> Option<NodeId> {
        self.keeper().at_work(zone, now())
    }

    /// On the leader: the nodes that seats at work hand over.
    pub fn left(&self) -> BTreeSet<NodeId> {
        self.keeper().left(now())
    }

    /// On the leader: who holds seats, as far as is known.
    pub fn holders(&self) -> BTreeSet<NodeId> {
        let standing = self.keeper().standing();
        standing.values().map(|one| one.seat.holder).collect()
    }

    /// The seat that this node holds now.
    pub fn held(&self) -> Option<Held> {
        let held = locked(&self.held).clone();
        held.filter(|held| held.is_held(now()))
    }

    fn holds(&self, held: Option<Held>) {
        let tenure = held.as_ref().map(|held| (held.zone.clone(), held.epoch));
        *locked(&self.held) = held;
        self.tenure.send_if_modified(|last| {
            let news = *last != tenure;
            if news {
                tracing::info!(seat = ?tenure, "the seat that this node holds");
                last.clone_from(&tenure);
                *locked(&self.lost) = Lost::default();
            }
            news
        });
    }

    /// What this node's zone is seen to have lost.
    pub fn seen(&self, reading: &Reading) {
        locked(&self.lost).look(reading, now());
    }

    /// For what these nodes had the zone has no place: the root is told at once.
    pub fn refused(&self, nodes: BTreeSet<NodeId>) {
        if !nodes.is_empty() {
            locked(&self.lost).refused(nodes);
            self.soon.notify_one();
        }
    }
}

impl Cluster {
    /// A zone's nodes that may run replicas, as this node's table has them; none where
    /// there is no such leaf zone.
    pub fn zone_table(&self, nodes: &Arc<NodeTable>, zone: &ZonePath) -> Option<NodeTable> {
        let leaves = self.zones.leaves(nodes);
        Some(zone_table(nodes, leaves.get(zone)?))
    }
}

/// A question to the leader, in JSON as its answer.
pub async fn call<Q: Serialize, A: DeserializeOwned>(
    cluster: &Cluster,
    (leader, method): (NodeId, u16),
    asked: &Q,
    within: Duration,
) -> Result<A, String> {
    let body = serde_json::to_vec(asked).map_err(|error| error.to_string())?;
    let answer = cluster.transport().call(leader, method, body, within).await;
    let answer = answer.map_err(|error| match error {
        CallError::Refused { error, .. } => String::from_utf8_lossy(&error).into_owned(),
        other => other.to_string(),
    })?;
    serde_json::from_slice(&answer).map_err(|error| error.to_string())
}
