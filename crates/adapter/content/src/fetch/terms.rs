//! What a fetch is told, and what it tells.

use crate::error::ContentError;
use kernel::{Bytes, Hash};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::content::TreeEntry;

#[derive(Clone, Copy, Debug)]
pub struct FetchOptions {
    /// Requests to one holder at a time.
    pub requests_per_holder: usize,
    /// Requests of one fetch at a time.
    pub requests_max: usize,
    /// Fetches at a time; others wait.
    pub fetches_max: usize,
    /// For bytes on their way to the disk, of all fetches.
    pub memory: Bytes,
    /// How long a holder may take for each piece of 256 KiB; for longer ones
    /// accordingly. After failures it gets more.
    pub piece_within: Duration,
    /// Without progress for so long (and four times the distance), a further
    /// holder is asked for the same.
    pub patience: Duration,
    /// Before a holder that failed is asked again; doubled each time.
    pub rest: Duration,
    /// Failures in a row after which a fetch gives a holder up.
    pub failures_max: u32,
    /// How long a holder that sent wrong bytes is left alone, by all fetches.
    pub wrong_rest: Duration,
    /// Of the disk, what a fetch leaves free.
    pub room_left: Bytes,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            requests_per_holder: 2,
            requests_max: 16,
            fetches_max: 8,
            memory: Bytes(64 << 20),
            piece_within: Duration::from_secs(10),
            patience: Duration::from_millis(400),
            rest: Duration::from_millis(200),
            failures_max: 5,
            wrong_rest: Duration::from_mins(10),
            room_left: Bytes(16 << 20),
        }
    }
}

/// One file to be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub hash: Hash,
    /// If known, another length is an error.
    pub bytes: Option<u64>,
    /// To be run from [`Content::path`].
    pub executable: bool,
    /// Handed over instead of becoming visible.
    pub(crate) hold: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchProgress {
    pub files: u64,
    pub files_total: u64,
    pub bytes: u64,
    /// As far as lengths are known.
    pub bytes_total: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Those that were not here before.
    pub files: u64,
    /// Taken over from an earlier fetch, or from a damaged file.
    pub resumed: Bytes,
    /// What each holder gave.
    pub from: BTreeMap<String, Bytes>,
    /// Holders that sent wrong bytes.
    pub wrong: BTreeSet<String>,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    #[error("nobody gave content {hash}: {}", told(.holders))]
    Unreachable {
        hash: Hash,
        /// Each holder that was asked, and why it did not.
        holders: Vec<(String, String)>,
    },
    #[error("content {hash} has {found} bytes, where {expected} were expected")]
    Length {
        hash: Hash,
        expected: u64,
        found: u64,
    },
    #[error("{need} are to be fetched and {free} are free on this disk, of which {left} stay free")]
    NoRoom {
        need: Bytes,
        free: Bytes,
        left: Bytes,
    },
    #[error("tree {hash} has {found}, where {limit} are allowed")]
    TreeTooLong {
        hash: Hash,
        found: Bytes,
        limit: Bytes,
    },
    #[error(transparent)]
    Content(#[from] ContentError),
}

impl FetchError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { .. } => Some("bring a node that holds it back, or apply it again"),
            Self::NoRoom { .. } => Some("free space on that disk; what is here already is kept"),
            Self::Content(error) => error.hint(),
            Self::Length { .. } | Self::TreeTooLong { .. } => None,
        }
    }
}

fn told(holders: &[(String, String)]) -> String {
    if holders.is_empty() {
        return "nobody is known to hold it".to_owned();
    }
    let each = holders.iter().map(|(name, why)| format!("{name}: {why}"));
    each.collect::<Vec<_>>().join("; ")
}

impl Wanted {
    pub fn new(hash: Hash) -> Self {
        Self {
            hash,
            bytes: None,
            executable: false,
            hold: false,
        }
    }

    #[must_use]
    pub fn of_length(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    #[must_use]
    pub fn executable(mut self) -> Self {
        self.executable = true;
        self
    }

    pub(super) fn entry(entry: &TreeEntry) -> Self {
        Self::new(entry.hash).of_length(entry.bytes)
    }
}

impl Fetched {
    /// What came over the network.
    pub fn received(&self) -> Bytes {
        Bytes(self.from.values().map(|bytes| bytes.0).sum())
    }

    pub(super) fn add(&mut self, more: Self) {
        self.files += more.files;
        self.resumed = Bytes(self.resumed.0 + more.resumed.0);
        self.wrong.extend(more.wrong);
        for (name, bytes) in more.from {
            let sum = self.from.entry(name).or_insert(Bytes(0));
            *sum = Bytes(sum.0 + bytes.0);
        }
    }
}
