//! Desired state in one durable file for each member: the `Store` on openraft,
//! with one member or several.
//!
//! In: transactions, lease calls, watches. Out: answers after the sync.
//! Holds: what is acknowledged is on disk; calls that arrive while a sync is
//! under way share the next one; a failed write stops the store for good.

mod backup;
mod change;
mod changing;
mod disk;
mod file;
mod group;
mod health;
mod limits;
mod propose;
mod raft;
mod room;
mod serve;
mod shared;
mod state;
#[cfg(any(test, feature = "suite"))]
pub mod suite;
mod syncs;
mod types;
mod watching;

#[cfg(test)]
mod tests;

pub use backup::{Backup, BackupError, backup};
pub use change::{
    Bound, Change, ChangeError, ChangeRefusal, Changed, Fence, ONCE_PREFIX, Once, Step,
    once_prefix, weight,
};
pub use group::{Carry, CarryError, Members, begin_anew, generation, set_generation, take_over};
pub use node::store::{LEASE_NAME_BYTES_MAX, LEASE_SPAN, TRANSACTION_BYTES_MAX};
pub use serve::{EmbeddedStore, View};
pub use state::GENERATION_SHIFT;

use kernel::NodeId;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Clone)]
pub struct Options {
    /// The file; made if absent, its folder not.
    pub path: PathBuf,
    pub node: NodeId,
    pub group: Group,
}

/// With whom it keeps its state.
#[derive(Clone, Default)]
pub enum Group {
    /// One member for good.
    #[default]
    Alone,
    /// The first of several; the others are let in by
    /// [`EmbeddedStore::set_members`].
    First(Arc<dyn Carry>),
    /// One more, which knows nothing until the leader lets it in.
    Joining(Arc<dyn Carry>),
}

/// What tests make small.
#[derive(Clone, Debug)]
struct Tuning {
    entries_per_snapshot: u64,
    history_revisions_max: usize,
    beat_ms: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            entries_per_snapshot: 5_000,
            history_revisions_max: 10_000,
            beat_ms: 100,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("the store's file `{path}` cannot be opened")]
    File {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the store's file `{path}` is in use")]
    Busy { path: String },
    #[error("`{path}` is damaged or no store's file: {reason}")]
    Damaged { path: String, reason: String },
    #[error("the store's file `{path}` has format {found}; this program reads format 1")]
    Format { path: String, found: u32 },
    #[error("the store's file `{path}` belongs to another node")]
    OtherNode { path: String },
    #[error("the store's writer thread cannot be started")]
    Thread(#[source] std::io::Error),
    #[error("the store could not start: {0}")]
    Raft(String),
}

impl OpenError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::File { source, .. } => match source.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => Some("make its folder first"),
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                    Some("let this user write the file and its folder, or choose another folder")
                }
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    Some("free space on its disk, then start again")
                }
                _ => Some("check its disk, then start again"),
            },
            Self::Busy { .. } => Some("end the other process that uses it, then start again"),
            Self::Damaged { .. } => {
                Some("put a copy back in its place, or move it away to start empty")
            }
            Self::Format { .. } => Some("start the version of the program that wrote it"),
            Self::OtherNode { .. } => Some("start the node that it belongs to, or move it away"),
            Self::Thread(_) => Some("raise the limit of threads for this user"),
            Self::Raft(_) => None,
        }
    }
}
