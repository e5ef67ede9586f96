//! Sites' documents out of content, the small ones from memory.
//!
//! In: hashes. Out: bytes in memory, or an open file that is read elsewhere.
//! Holds: what is kept in memory was checked against its hash, compressed forms
//! by what they decode to, and each piece of a larger document as it is read; a
//! document in memory costs no system call; what is wrong is said to the agent.
//! Never: holds up a thread of the reactor: what must go to the disk steps
//! aside from it first.

use crate::cache::{Cache, Kept};
use crate::evidence::Witness;
use bytes::Bytes;
use content::{CheckedFile, Content, ContentError};
use flate2::read::MultiGzDecoder;
use ingress::{Document, Documents, Encoding, Source, Stored};
use kernel::Hash;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wire::content::Tree;

/// Larger files are streamed from the disk.
const SMALL_BYTES_MAX: u64 = 512 << 10;
const CACHE_BYTES_MAX: usize = 64 << 20;
/// Compressed forms are made some time after a site came.
const ABSENT_VARIANT: Duration = Duration::from_secs(30);
/// For what should be there: neither read nor said again at once.
const ABSENT_CONTENT: Duration = Duration::from_secs(1);
/// A compressed form may not decode to more.
const DECODED_BYTES_MAX: u64 = 64 << 20;

pub struct Library {
    content: Content,
    cache: Cache,
    witness: Arc<Witness>,
}

/// A document too large for memory, kept open.
pub struct LargeFile {
    hash: Hash,
    kind: Kind,
    /// It was damaged when it was read: to be opened anew.
    failed: AtomicBool,
    witness: Arc<Witness>,
}

enum Kind {
    Plain(CheckedFile),
    /// A compressed form, checked when it was opened.
    Compressed(File),
}

impl std::fmt::Debug for LargeFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LargeFile").field(&self.hash).finish()
    }
}

impl Stored for LargeFile {
    fn read(&self, span: &Range<u64>) -> io::Result<Bytes> {
        let checked = match &self.kind {
            Kind::Compressed(file) => return Stored::read(file, span),
            Kind::Plain(checked) => checked,
        };
        checked.read(span).map(Bytes::from).map_err(|error| {
            tracing::error!(hash = %self.hash, %error, "a document is cut off");
            self.failed.store(true, Ordering::Relaxed);
            self.witness.content_failed(self.hash, &error.to_string());
            io::Error::other(error)
        })
    }
}

impl Library {
    pub fn new(content: Content, witness: Arc<Witness>) -> Self {
        Self {
            witness,
            content,
            cache: Cache::new(CACHE_BYTES_MAX),
        }
    }

    /// The sites changed: lets removed files go.
    pub fn content_changed(&self) {
        self.cache.forget_all_but_memory();
    }

    fn fetch(&self, hash: Hash, encoding: Encoding) -> Kept {
        let found = match encoding {
            Encoding::Identity => self.plain(hash).map(Some),
            Encoding::Gzip => self.variant(hash, content::Encoding::Gzip),
            Encoding::Brotli => self.variant(hash, content::Encoding::Brotli),
        };
        let absent = |wait| Kept::Absent {
            until: Instant::now() + wait,
        };
        match found {
            Ok(Some(kept)) => kept,
            Ok(None) => absent(ABSENT_VARIANT),
            Err(error) => {
                tracing::error!(%hash, ?encoding, %error, hint = error.hint(), "content cannot be served");
                self.witness.content_failed(hash, &error.to_string());
                absent(ABSENT_CONTENT)
            }
        }
    }

    fn plain(&self, hash: Hash) -> Result<Kept, ContentError> {
        let file = self.content.open_blob(hash)?;
        let bytes = length(&file).map_err(|source| self.unreadable(hash, source))?;
        drop(file);
        if bytes > SMALL_BYTES_MAX {
            let checked = self.content.open_checked(hash)?;
            return Ok(self.large(hash, Kind::Plain(checked), bytes));
        }
        Ok(Kept::Memory(self.content.read_verified(hash)?.into()))
    }

    fn variant(
        &self,
        hash: Hash,
        encoding: content::Encoding,
    ) -> Result<Option<Kept>, ContentError> {
        let Some(path) = self.content.variant(hash, encoding) else {
            return Ok(None);
        };
        let unreadable = |source| ContentError::Io {
            action: "read",
            path: path.clone(),
            source,
        };
        let mut file = File::open(&path).map_err(unreadable)?;
        let bytes = length(&file).map_err(unreadable)?;
        if bytes > SMALL_BYTES_MAX {
            if !decodes_to(&file, encoding, hash) {
                return Err(ContentError::Damaged { hash, path });
            }
            return Ok(Some(self.large(hash, Kind::Compressed(file), bytes)));
        }
        let mut packed = Vec::new();
        file.read_to_end(&mut packed).map_err(unreadable)?;
        if decodes_to(packed.as_slice(), encoding, hash) {
            Ok(Some(Kept::Memory(packed.into())))
        } else {
            Err(ContentError::Damaged { hash, path })
        }
    }

    fn large(&self, hash: Hash, kind: Kind, bytes: u64) -> Kept {
        let file = Arc::new(LargeFile {
            hash,
            kind,
            failed: AtomicBool::new(false),
            witness: Arc::clone(&self.witness),
        });
        Kept::File { file, bytes }
    }

    fn unreadable(&self, hash: Hash, source: io::Error) -> ContentError {
        ContentError::Io {
            action: "read",
            path: self.content.path(hash),
            source,
        }
    }
}

impl Documents for Library {
    /// Reads the disk: called only where a snapshot is built.
    fn tree(&self, hash: Hash) -> Option<Arc<Tree>> {
        match self.content.tree(hash) {
            Ok(tree) => Some(Arc::new(tree)),
            Err(error) => {
                tracing::error!(%hash, %error, hint = error.hint(), "a tree cannot be used");
                None
            }
        }
    }

    fn open(&self, hash: Hash, encoding: Encoding) -> Option<Document> {
        let kept = self.cache.get(hash, encoding);
        let is_good = |kept: &Kept| match kept {
            Kept::File { file, .. } => !file.failed.load(Ordering::Relaxed),
            _ => true,
        };
        let kept = kept.filter(is_good).unwrap_or_else(|| {
            let kept = tokio::task::block_in_place(|| self.fetch(hash, encoding));
            self.cache.put(hash, encoding, kept.clone());
            kept
        });
        match kept {
            Kept::Memory(memory) => Some(in_memory(memory)),
            Kept::File { file, bytes } => Some(Document {
                bytes,
                source: Source::Stored(file),
            }),
            Kept::Absent { .. } => None,
        }
    }
}

fn in_memory(memory: Bytes) -> Document {
    Document {
        bytes: memory.len() as u64,
        source: Source::Memory(memory),
    }
}

fn length(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.len())
}

fn decodes_to(packed: impl Read, encoding: content::Encoding, hash: Hash) -> bool {
    match encoding {
        content::Encoding::Gzip => has_hash(MultiGzDecoder::new(packed), hash),
        content::Encoding::Brotli => has_hash(brotli::Decompressor::new(packed, 64 << 10), hash),
    }
}

fn has_hash(decoder: impl Read, hash: Hash) -> bool {
    let mut hasher = blake3::Hasher::new();
    let copied = io::copy(&mut decoder.take(DECODED_BYTES_MAX), &mut hasher);
    copied.is_ok() && hasher.finalize().as_bytes() == &hash.0
}
