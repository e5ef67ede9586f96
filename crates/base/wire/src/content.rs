//! A tree of content: paths to hashes. A tree is itself stored by its hash, so
//! a site's head is one hash and moves atomically.

use kernel::Hash;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const TREE_VERSION: u8 = 1;

/// Stored through [`crate::record`] with [`TREE_VERSION`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Keys are relative, `/`-separated, without `.` or `..` components.
    pub entries: BTreeMap<String, TreeEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEntry {
    pub hash: Hash,
    pub bytes: u64,
    /// Seconds since 1970, for `last-modified`.
    pub modified_unix: u64,
    /// For example `text/html; charset=utf-8`.
    pub media_type: String,
}
