//! Desired state in one durable file: the `Store` on openraft, here with one
//! voter.
//!
//! In: transactions, lease calls, watches. Out: answers after the sync.
//! Holds: what is acknowledged is on disk; calls that arrive while a sync is
//! under way share the next one; a failed write stops the store for good.

mod alone;
mod disk;
mod health;
mod limits;
mod propose;
mod raft;
mod serve;
mod shared;
mod state;
mod types;
mod watching;

#[cfg(test)]
mod tests;

pub use limits::{LEASE_NAME_BYTES_MAX, LEASE_SPAN, TRANSACTION_BYTES_MAX};
pub use serve::EmbeddedStore;

use kernel::NodeId;
use std::path::PathBuf;

#[derive(Clone, Debug)]
pub struct Options {
    /// The file; made if absent, its folder not.
    pub path: PathBuf,
    pub node: NodeId,
}

/// What tests make small.
#[derive(Clone, Debug)]
struct Tuning {
    entries_per_snapshot: u64,
    history_revisions_max: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            entries_per_snapshot: 5_000,
            history_revisions_max: 10_000,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("the store's file cannot be opened: {0}")]
    File(String),
    #[error("the store's file has format {found}; this program reads format 1")]
    Format { found: u32 },
    #[error("the store's file belongs to another node")]
    OtherNode,
    #[error("the store's writer thread cannot be started")]
    Thread(#[source] std::io::Error),
    #[error("the store could not start: {0}")]
    Raft(String),
}
