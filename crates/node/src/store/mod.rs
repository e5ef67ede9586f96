//! Desired state as its users see it: linearizable transactions on keys, an
//! ordered watch, fenced leases, snapshots.
//!
//! Holds, for each implementation (one suite tests them all): an `Ok` from
//! [`Store::transact`] is durable; revisions grow by one per transaction that
//! writes; a watch never skips a revision, or says that it must resync.

mod limits;

pub use limits::{
    KEY_BYTES_MAX, LEASE_NAME_BYTES_MAX, LEASE_SPAN, TRANSACTION_BYTES_MAX,
    TRANSACTION_OPERATIONS_MAX, VALUE_BYTES_MAX, check_key, check_label, check_lease, check_prefix,
    check_value, too_large,
};

use crate::BoxFuture;
use kernel::{Bytes, FencingEpoch, Revision};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Keys are UTF-8, `/`-separated: `/service/news/search`.
pub type Key = String;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub key: Key,
    pub value: Vec<u8>,
    pub created: Revision,
    pub modified: Revision,
}

/// All `compare` hold: `then` is done, else `otherwise`; the whole or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    pub compare: Vec<Compare>,
    pub then: Vec<Operation>,
    pub otherwise: Vec<Operation>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compare {
    Absent(Key),
    Present(Key),
    Modified(Key, Revision),
    Value(Key, Vec<u8>),
    /// The lease is held under just this epoch.
    Lease(String, FencingEpoch),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    Put(Key, Vec<u8>),
    Delete(Key),
    DeletePrefix(Key),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether the comparisons held.
    pub succeeded: bool,
    /// Of this transaction if it wrote, else of the state it saw.
    pub revision: Revision,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeReply {
    /// Of the state that was read.
    pub revision: Revision,
    /// In key order.
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    Put(Entry),
    Deleted(Key),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// All changes of one revision under the watched prefix.
    Changes {
        revision: Revision,
        events: Vec<Event>,
    },
    /// History before `oldest` is gone: read the range again and watch from its
    /// revision. The watch has ended.
    Resync { oldest: Revision },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub name: String,
    pub holder: String,
    /// Larger than every earlier epoch of this lease.
    pub epoch: FencingEpoch,
    pub time_to_live: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Nothing was changed.
    #[error("{0}")]
    Invalid(String),
    /// Nothing was changed.
    #[error("the lease `{name}` is held by `{holder}`")]
    LeaseHeld { name: String, holder: String },
    /// Nothing was changed.
    #[error("the lease `{name}` is not held under this epoch")]
    LeaseLost { name: String },
    /// Nothing was changed; writes that only delete are still taken.
    #[error("the disk of `{path}` has {free} free; writing needs {need}")]
    Full {
        path: String,
        free: Bytes,
        need: Bytes,
    },
    /// Nothing was changed.
    #[error("too few members of the store can be reached")]
    NoQuorum,
    /// The write may or may not be done.
    #[error("the store did not answer in time")]
    Unknown,
    /// The store has stopped for good; nothing acknowledged is lost. The write
    /// may or may not be done.
    #[error("the store has stopped: {0}")]
    Stopped(String),
}

pub trait Store: Send + Sync + 'static {
    fn transact(&self, transaction: Transaction) -> BoxFuture<'_, Result<Outcome, StoreError>>;

    /// All entries whose key starts with `prefix`; linearizable.
    fn range(&self, prefix: &str) -> BoxFuture<'_, Result<RangeReply, StoreError>>;

    /// Changes under `prefix` after revision `after`.
    fn watch(
        &self,
        prefix: &str,
        after: Revision,
    ) -> BoxFuture<'_, Result<Box<dyn Watch>, StoreError>>;

    /// Takes a free or lapsed lease, under a new epoch; taking again what the
    /// same holder holds gives a new epoch too.
    fn grant(
        &self,
        name: &str,
        holder: &str,
        time_to_live: Duration,
    ) -> BoxFuture<'_, Result<Lease, StoreError>>;

    fn renew(&self, name: &str, epoch: FencingEpoch) -> BoxFuture<'_, Result<(), StoreError>>;

    fn release(&self, name: &str, epoch: FencingEpoch) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Why the store has stopped, if it has.
    fn fault(&self) -> Option<String>;
}

/// The entry of one key; linearizable.
///
/// # Errors
/// As [`Store::range`].
pub async fn get(store: &dyn Store, key: &str) -> Result<Option<Entry>, StoreError> {
    let entries = store.range(key).await?.entries;
    Ok(entries.into_iter().find(|entry| entry.key == key))
}

pub trait Watch: Send {
    fn next(&mut self) -> BoxFuture<'_, Result<WatchEvent, StoreError>>;
}
