//! Copies of several stores at one cut, in one file, and stores made from it.
//!
//! In: open stores, or a file's bytes. Out: the file's bytes, or fresh stores.
//! Holds: nothing is applied to any of the stores while the cut is made, so it
//! has all that was acknowledged before and nothing that came after; a file is
//! believed whole or not at all; no store that is there is ever written over.
//!
//! Layout: `HSBACKUP`, version (u32, big-endian), length of the rest (u64),
//! the rest (postcard of [`Parts`]), BLAKE3 of all before it.

use crate::disk::{decode, encode};
use crate::file;
use crate::serve::EmbeddedStore;
use crate::state::State;
use crate::types::{LogId, SnapshotMeta};
use crate::{OpenError, Options};
use kernel::{Revision, UnixMillis};
use node::store::StoreError;
use openraft::{BasicNode, CommittedLeaderId, Membership, StoredMembership};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

const MAGIC: &[u8; 8] = b"HSBACKUP";
const VERSION: u32 = 1;
const HEADER: usize = 8 + 4 + 8;
const HASH: usize = 32;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    #[error("this is not a backup")]
    Foreign,
    #[error("the backup has version {found}; this program reads {VERSION}")]
    Version { found: u32 },
    #[error("the backup is cut off: {found} of {expected} bytes are there")]
    Truncated { found: usize, expected: usize },
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    #[error("the backup has no `{0}`")]
    Missing(String),
    #[error("a store cannot be read")]
    Read(#[from] StoreError),
    #[error("a store cannot be made")]
    Make(#[from] OpenError),
}

impl BackupError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Foreign => Some("make one with `homeostat store backup FILE`"),
            Self::Version { .. } => Some("restore it with the version that made it"),
            Self::Truncated { .. } | Self::Damaged(_) => Some("use another copy of it"),
            Self::Make(error) => error.hint(),
            _ => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Parts {
    made_at: UnixMillis,
    parts: BTreeMap<String, Part>,
}

#[derive(Serialize, Deserialize)]
struct Part {
    revision: Revision,
    state: Vec<u8>,
}

/// A backup that was read and found whole.
pub struct Backup(Parts);

/// All stores' states at one cut, as a file's bytes. Others wait meanwhile.
///
/// * `stores`: each under the name that [`Backup::restore`] finds it by.
pub async fn backup(
    stores: &[(&str, &EmbeddedStore)],
    made_at: UnixMillis,
) -> Result<Vec<u8>, BackupError> {
    for (_, store) in stores {
        store.read_barrier().await?;
    }
    let mut parts = BTreeMap::new();
    collect(stores, &mut parts)?;
    let rest = postcard::to_stdvec(&Parts { made_at, parts });
    let rest = rest.map_err(|error| BackupError::Damaged(error.to_string()))?;
    let mut bytes = Vec::with_capacity(HEADER + rest.len() + HASH);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&(rest.len() as u64).to_be_bytes());
    bytes.extend_from_slice(&rest);
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    Ok(bytes)
}

/// Each store's lock is held until the last one is copied.
fn collect(
    stores: &[(&str, &EmbeddedStore)],
    parts: &mut BTreeMap<String, Part>,
) -> Result<(), BackupError> {
    let Some(((name, store), rest)) = stores.split_first() else {
        return Ok(());
    };
    store.look(|state| {
        let bytes = encode(state).map_err(BackupError::Damaged)?;
        let part = Part {
            revision: state.revision(),
            state: bytes,
        };
        parts.insert((*name).to_owned(), part);
        collect(rest, parts)
    })
}

impl Backup {
    /// Believes nothing that is not as it was written.
    pub fn read(bytes: &[u8]) -> Result<Self, BackupError> {
        let (magic, rest) = bytes.split_first_chunk().ok_or(BackupError::Foreign)?;
        if magic != MAGIC {
            return Err(BackupError::Foreign);
        }
        let truncated = |expected| BackupError::Truncated {
            found: bytes.len(),
            expected,
        };
        let (version, rest) = rest.split_first_chunk().ok_or(truncated(HEADER))?;
        let found = u32::from_be_bytes(*version);
        if found != VERSION {
            return Err(BackupError::Version { found });
        }
        let (length, _) = rest.split_first_chunk().ok_or(truncated(HEADER))?;
        let length = usize::try_from(u64::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let end = HEADER.saturating_add(length);
        let expected = end.saturating_add(HASH);
        if bytes.len() < expected {
            return Err(truncated(expected));
        }
        if bytes.len() > expected {
            return Err(BackupError::Damaged("bytes follow its end".to_owned()));
        }
        if blake3::hash(&bytes[..end]).as_bytes() != &bytes[end..] {
            return Err(BackupError::Damaged(
                "its checksum does not match".to_owned(),
            ));
        }
        let parts = postcard::from_bytes(&bytes[HEADER..end]);
        parts
            .map(Self)
            .map_err(|error| BackupError::Damaged(error.to_string()))
    }

    pub fn made_at(&self) -> UnixMillis {
        self.0.made_at
    }

    /// At the cut, by store.
    pub fn revisions(&self) -> impl Iterator<Item = (&str, Revision)> {
        let parts = self.0.parts.iter();
        parts.map(|(name, part)| (name.as_str(), part.revision))
    }

    /// Makes the store called `name` anew in a file that must not be there yet.
    /// Revisions and fencing epochs go on from the cut's. Blocks.
    pub fn restore(&self, name: &str, options: &Options) -> Result<(), BackupError> {
        let part = self.0.parts.get(name);
        let part = part.ok_or_else(|| BackupError::Missing(name.to_owned()))?;
        // Read here, so that what is damaged makes no store.
        let _: State = decode(&part.state).map_err(BackupError::Damaged)?;
        let node = options.node.0;
        let last = LogId::new(CommittedLeaderId::new(1, node), 1);
        let voters = vec![BTreeSet::from([node])];
        let nodes = BTreeMap::from([(node, BasicNode::default())]);
        let meta = SnapshotMeta {
            last_log_id: Some(last),
            last_membership: StoredMembership::new(Some(last), Membership::new(voters, nodes)),
            snapshot_id: "restored".to_owned(),
        };
        let about = encode(&meta).map_err(BackupError::Damaged)?;
        let purged = encode(&last).map_err(BackupError::Damaged)?;
        let rows: [(&str, &[u8]); 3] = [
            ("snapshot-meta", &about),
            ("snapshot", &part.state),
            ("purged", &purged),
        ];
        Ok(file::make_with(&options.path, node, &rows)?)
    }
}
