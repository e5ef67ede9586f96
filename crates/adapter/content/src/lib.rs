//! Immutable content by hash on a local disk: files, and trees that name them.
//!
//! In: files and directories to take in, the hashes still wanted, holders to
//! fetch from. Out: open files, trees, compressed variants, answers to those
//! who fetch from here. Lies as `chunks/ab/cdef…`, `pieces/ab/cdef…`,
//! `variants/HASH.gz|.br`, `pins` and `tmp/`.
//! Holds: what is visible under a hash is whole and durable; a tree is visible
//! only after its files. Never: changes a visible file, follows a link out of
//! the root, knows where heads are kept or how bytes travel.

mod checked;
mod damage;
mod error;
mod fetch;
mod ingest;
mod keep;
mod leases;
mod media;
mod pieces;
mod scrub;
mod serve;
mod stage;
mod variants;
mod walk;

#[cfg(test)]
mod tests;

pub use checked::CheckedFile;
pub use damage::{Checked, ContentEvent};
pub use error::ContentError;
pub use fetch::{
    FetchError, FetchOptions, FetchProgress, Fetched, Fetcher, Holder, HolderStream, Wanted,
};
pub use keep::GRACE;
pub use leases::Lease;
pub use scrub::{ScrubCursor, Scrubbed};
pub use serve::{ServeError, ServeOptions, Served, Server};
pub use wire::content::{Pin, PinKind};

use damage::Report;
use kernel::Hash;
use pieces::PiecesCache;
use stage::Stage;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use wire::content::{TREE_VERSION, Tree};

/// A store of content. Cheap to clone; several processes may open the same
/// one, of which one writes.
#[derive(Clone, Debug)]
pub struct Content {
    root: Arc<PathBuf>,
    shared: Arc<Shared>,
    report: Report,
}

/// What all clones of a store share.
#[derive(Debug, Default)]
struct Shared {
    /// Held while a chunk is marked young, and while one is judged old.
    ages: Mutex<()>,
    lists: Mutex<PiecesCache>,
    /// How many leases each has.
    leases: Mutex<BTreeMap<Hash, usize>>,
    /// Held while the file of pins is changed.
    pins: Mutex<()>,
    /// What is being fetched.
    claims: Mutex<BTreeSet<Hash>>,
    /// Counts the claims given back.
    freed: watch::Sender<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestProgress {
    pub files: u64,
    pub files_total: u64,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ingested {
    pub tree: Hash,
    pub files: u64,
    pub bytes: u64,
    /// Of `bytes`, what was not here before.
    pub new_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Gzip,
    Brotli,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Precompressed {
    /// Variants made by this call.
    pub made: u64,
    /// Variants that would have saved less than a tenth.
    pub not_worth: u64,
    pub bytes_before: u64,
    pub bytes_after: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub files: u64,
    pub bytes: u64,
}

impl Content {
    /// Opens the store in `directory`, making it where there is none.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, ContentError> {
        let content = Self {
            root: Arc::new(directory.into()),
            shared: Arc::default(),
            report: Report::default(),
        };
        for path in [
            content.chunks(),
            content.pieces(),
            content.variants(),
            content.temporary(),
        ] {
            fs::create_dir_all(&path).map_err(ContentError::io("create", &path))?;
        }
        Ok(content)
    }

    /// Where a chunk lies, or would.
    pub fn path(&self, hash: Hash) -> PathBuf {
        let text = hash.to_string();
        self.chunks().join(&text[..2]).join(&text[2..])
    }

    pub fn open_blob(&self, hash: Hash) -> Result<File, ContentError> {
        let path = self.path(hash);
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ContentError::Missing { hash, path },
            _ => ContentError::io("open", &path)(error),
        })
    }

    /// The whole of a chunk, checked against its hash.
    pub fn read_verified(&self, hash: Hash) -> Result<Vec<u8>, ContentError> {
        let path = self.path(hash);
        let mut bytes = Vec::new();
        self.open_blob(hash)?
            .read_to_end(&mut bytes)
            .map_err(ContentError::io("read", &path))?;
        if blake3::hash(&bytes).as_bytes() == &hash.0 {
            Ok(bytes)
        } else {
            Err(ContentError::Damaged { hash, path })
        }
    }

    /// A tree, checked against its hash; its paths are safe to join to a root.
    pub fn tree(&self, hash: Hash) -> Result<Tree, ContentError> {
        Self::read_tree(hash, &self.read_verified(hash)?)
    }

    /// From bytes that have that hash.
    pub(crate) fn read_tree(hash: Hash, bytes: &[u8]) -> Result<Tree, ContentError> {
        let tree: Tree = wire::record::decode(TREE_VERSION, bytes)
            .map_err(|source| ContentError::Tree { hash, source })?;
        match tree.entries.keys().find(|path| !is_safe(path)) {
            Some(path) => Err(ContentError::TreePath {
                hash,
                path: path.clone(),
            }),
            None => Ok(tree),
        }
    }

    fn chunks(&self) -> PathBuf {
        self.root.join("chunks")
    }

    fn pieces(&self) -> PathBuf {
        self.root.join("pieces")
    }

    fn variants(&self) -> PathBuf {
        self.root.join("variants")
    }

    fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    fn stage(&self) -> Stage {
        Stage::new(self.temporary())
    }

    fn guard(&self) -> MutexGuard<'_, ()> {
        let ages = &self.shared.ages;
        ages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lists(&self) -> MutexGuard<'_, PiecesCache> {
        let lists = &self.shared.lists;
        lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn leases(&self) -> MutexGuard<'_, BTreeMap<Hash, usize>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claims(&self) -> MutexGuard<'_, BTreeSet<Hash>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_safe(path: &str) -> bool {
    !path.contains('\0')
        && !Path::new(path).is_absolute()
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}
