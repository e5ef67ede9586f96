//! Desired state in one durable file: the `Store` on openraft, here with one
//! voter.
//!
//! In: transactions, lease calls, watches. Out: answers after the sync.
//! Holds: what is acknowledged is on disk; calls that arrive while a sync is
//! under way share the next one; a failed write stops the store for good.

mod disk;
mod raft;
mod serve;
mod shared;
mod state;
mod types;

#[cfg(test)]
mod tests;

pub use serve::EmbeddedStore;

use kernel::NodeId;
use std::path::PathBuf;

#[derive(Clone, Debug)]
pub struct Options {
    /// The file; made if absent, its folder not.
    pub path: PathBuf,
    pub node: NodeId,
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
