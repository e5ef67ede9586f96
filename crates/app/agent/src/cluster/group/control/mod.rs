//! Where the cluster's desired state is: with its members, or in an etcd.
//!
//! In: what was chosen when the cluster began. Out: the store, and who leads by it.
//! Holds: a node leads only as long as the store confirmed it a moment ago,
//! whichever store it is.

pub mod outside;
#[cfg(feature = "etcd")]
mod seat;

use super::Network;
use crate::cluster::Own;
use kernel::{FencingEpoch, Hash, NodeId};
use node::BoxFuture;
use node::store::{Lease, Outcome, RangeReply, Store, StoreError, Transaction, Watch};
use std::time::Duration;
use store::{EmbeddedStore, Members};
use wire::cluster::{EtcdAccess, StoreGroup};
use wire::layout::Layout;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    #[error("the store did not open")]
    Embedded(#[source] store::OpenError),
    #[error(transparent)]
    Outside(#[from] outside::OutsideError),
    #[cfg(feature = "etcd")]
    #[error(transparent)]
    Etcd(#[from] etcd::OpenError),
    #[error("{url} has the state of another cluster")]
    Foreign { url: String },
    #[error("this node cannot begin a cluster with its state in {url}: {why}")]
    NotBegun { url: String, why: String },
}

impl ControlError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Embedded(error) => error.hint(),
            Self::Outside(error) => error.hint(),
            #[cfg(feature = "etcd")]
            Self::Etcd(error) => error.hint(),
            Self::Foreign { .. } => {
                Some("take another root in it: homeostat up --store etcd://HOST:PORT/ROOT")
            }
            Self::NotBegun { .. } => Some("check that a majority of its members runs"),
        }
    }
}

pub enum Control {
    /// This node's member of the control group; of use where it is one.
    Embedded(EmbeddedStore),
    #[cfg(feature = "etcd")]
    Etcd(seat::Seat),
}

impl Control {
    /// * `key`: the fingerprint of this node's.
    /// * `store`: this node's own.
    /// * `is_first`: whether this node may begin a group by itself.
    pub async fn open(
        layout: &Layout,
        (own, key): (&Own, Hash),
        store: &EmbeddedStore,
        network: &Network,
        is_first: bool,
    ) -> Result<Self, ControlError> {
        if let Some(access) = outside::read(layout)? {
            return Self::outside(&access, own, key, store).await;
        }
        let options = store::Options {
            path: layout.control(),
            node: own.id,
            group: super::kept_with(is_first, network, StoreGroup::Control),
        };
        let opened = EmbeddedStore::open(options).await;
        opened.map(Self::Embedded).map_err(ControlError::Embedded)
    }

    #[cfg(not(feature = "etcd"))]
    #[expect(clippy::unused_async, reason = "it is with etcd")]
    async fn outside(
        access: &EtcdAccess,
        _own: &Own,
        _key: Hash,
        _store: &EmbeddedStore,
    ) -> Result<Self, ControlError> {
        let url = access.url();
        Err(outside::OutsideError::NotBuilt { url }.into())
    }

    #[cfg(feature = "etcd")]
    async fn outside(
        access: &EtcdAccess,
        own: &Own,
        key: Hash,
        store: &EmbeddedStore,
    ) -> Result<Self, ControlError> {
        let seat = seat::Seat::open(access, own, key, store).await?;
        Ok(Self::Etcd(seat))
    }

    fn store(&self) -> &dyn Store {
        match self {
            Self::Embedded(store) => store,
            #[cfg(feature = "etcd")]
            Self::Etcd(seat) => seat.store(),
        }
    }

    /// Where its members keep it.
    pub fn embedded(&self) -> Option<&EmbeddedStore> {
        match self {
            Self::Embedded(store) => Some(store),
            #[cfg(feature = "etcd")]
            Self::Etcd(_) => None,
        }
    }

    /// Where they do not.
    pub fn kept_in(&self) -> Option<&str> {
        match self {
            Self::Embedded(_) => None,
            #[cfg(feature = "etcd")]
            Self::Etcd(seat) => Some(seat.url()),
        }
    }

    /// Who leads, among whom. Of an etcd: this node alone, if it may lead.
    pub fn members(&self) -> Members {
        match self {
            Self::Embedded(store) => store.members(),
            #[cfg(feature = "etcd")]
            Self::Etcd(seat) => seat.members(),
        }
    }

    /// Until they may stand otherwise, `at_most` so long. Safe to drop.
    pub async fn members_changed(&self, at_most: Duration) {
        match self {
            Self::Embedded(store) => store.members_changed(at_most).await,
            #[cfg(feature = "etcd")]
            Self::Etcd(seat) => seat.changed(at_most).await,
        }
    }

    /// Whether it was confirmed, after the call began, that this node leads.
    pub async fn is_leader(&self) -> bool {
        match self {
            Self::Embedded(store) => store.is_leader().await,
            #[cfg(feature = "etcd")]
            Self::Etcd(seat) => seat.is_confirmed().await,
        }
    }

    /// Whether this node has what it takes; members of a group know by themselves.
    pub fn may_lead(&self, may: bool) {
        match self {
            Self::Embedded(_) => {
                let _ = may;
            }
            #[cfg(feature = "etcd")]
            Self::Etcd(seat) => seat.may_lead(may),
        }
    }

    /// Of its log here: the last entry's term and index.
    pub fn last(&self) -> (u64, u64) {
        self.embedded().map_or((0, 0), EmbeddedStore::last)
    }

    /// # Errors
    /// There is no member here to answer.
    pub async fn answer(&self, from: NodeId, body: &[u8]) -> Result<Vec<u8>, String> {
        match self.embedded() {
            Some(store) => Ok(store.answer(from, body).await),
            None => Err("desired state has no members in this cluster".to_owned()),
        }
    }

    pub async fn shutdown(&self) {
        match self {
            Self::Embedded(store) => store.shutdown().await,
            #[cfg(feature = "etcd")]
            Self::Etcd(seat) => seat.leave().await,
        }
    }
}

impl Store for Control {
    fn transact(&self, transaction: Transaction) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        self.store().transact(transaction)
    }

    fn range(&self, prefix: &str) -> BoxFuture<'_, Result<RangeReply, StoreError>> {
        self.store().range(prefix)
    }

    fn watch(
        &self,
        prefix: &str,
        after: kernel::Revision,
    ) -> BoxFuture<'_, Result<Box<dyn Watch>, StoreError>> {
        self.store().watch(prefix, after)
    }

    fn grant(
        &self,
        name: &str,
        holder: &str,
        time_to_live: Duration,
    ) -> BoxFuture<'_, Result<Lease, StoreError>> {
        self.store().grant(name, holder, time_to_live)
    }

    fn renew(&self, name: &str, epoch: FencingEpoch) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store().renew(name, epoch)
    }

    fn release(&self, name: &str, epoch: FencingEpoch) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store().release(name, epoch)
    }

    fn fault(&self) -> Option<String> {
        match self {
            Self::Embedded(store) => store.fault(),
            #[cfg(feature = "etcd")]
            Self::Etcd(seat) => seat.fault(),
        }
    }
}
