//! What goes through the Raft log, and what comes back for it.

use crate::change::{Change, ChangeRefusal, Changed};
use kernel::FencingEpoch;
use node::store::{Lease, Outcome, StoreError, Transaction};
use serde::{Deserialize, Serialize};
use std::io::Cursor;
use std::time::Duration;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    Transact(Transaction),
    Grant {
        name: String,
        holder: String,
        time_to_live: Duration,
    },
    Renew {
        name: String,
        epoch: FencingEpoch,
    },
    Release {
        name: String,
        epoch: FencingEpoch,
    },
    /// Proposed by the leader; in vain when the lease was renewed meanwhile.
    Expire {
        name: String,
        epoch: FencingEpoch,
        renewals: u64,
    },
    Change(Change),
    /// Before the others of a batch: who proposed it, and which of its it is.
    From {
        member: u64,
        nonce: u64,
        number: u64,
    },
    /// Of a log that was taken over: all revisions and epochs from here on are
    /// greater than any before.
    Raise {
        generation: u16,
    },
}

impl Command {
    /// The lease whose deadline it may move.
    pub fn lease(&self) -> Option<&str> {
        match self {
            Self::Transact(_) | Self::Change(_) | Self::From { .. } | Self::Raise { .. } => None,
            Self::Grant { name, .. }
            | Self::Renew { name, .. }
            | Self::Release { name, .. }
            | Self::Expire { name, .. } => Some(name),
        }
    }
}

/// Commands that share one log entry and so one sync; each stands alone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Batch(pub Vec<Command>);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    Transacted(Outcome),
    Granted(Lease),
    Done,
    Changed(Result<Changed, ChangeRefusal>),
}

/// Nothing was changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Refusal {
    LeaseHeld { name: String, holder: String },
    LeaseLost { name: String },
}

impl From<Refusal> for StoreError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::LeaseHeld { name, holder } => Self::LeaseHeld { name, holder },
            Refusal::LeaseLost { name } => Self::LeaseLost { name },
        }
    }
}

pub type Replies = Vec<Result<Reply, Refusal>>;

openraft::declare_raft_types!(
    pub TypeConfig:
        D = Batch,
        R = Replies,
        NodeId = u64,
        Node = openraft::BasicNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = openraft::TokioRuntime,
);

pub type LogId = openraft::LogId<u64>;
pub type Vote = openraft::Vote<u64>;
pub type LogEntry = openraft::Entry<TypeConfig>;
pub type SnapshotMeta = openraft::SnapshotMeta<u64, openraft::BasicNode>;
pub type StorageError = openraft::StorageError<u64>;
