//! Sites' documents out of content, the small ones from memory.
//!
//! In: hashes. Out: bytes in memory, or an open file that is read elsewhere.
//! Holds: what is kept in memory was checked against its hash, compressed forms
//! by what they decode to; a document in memory costs no system call.
//! Never: holds up a thread of the reactor: what must go to the disk steps
//! aside from it first.

use crate::cache::{Cache, Kept};
use bytes::Bytes;
use content::{Content, ContentError};
use ingress::{Document, Documents, Encoding, Source};
use kernel::Hash;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
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
}

impl Library {
    pub fn new(content: Content) -> Self {
        Self {
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
                absent(ABSENT_CONTENT)
            }
        }
    }

    fn plain(&self, hash: Hash) -> Result<Kept, ContentError> {
        let file = self.content.open_blob(hash)?;
        let bytes = length(&file).map_err(|source| self.unreadable(hash, source))?;
        if bytes > SMALL_BYTES_MAX {
            let file = Arc::new(file);
            return Ok(Kept::File { file, bytes });
        }
        drop(file);
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
            let file = Arc::new(file);
            return Ok(Some(Kept::File { file, bytes }));
        }
        let mut packed = Vec::new();
        file.read_to_end(&mut packed).map_err(unreadable)?;
        if decodes_to(&packed, encoding, hash) {
            Ok(Some(Kept::Memory(packed.into())))
        } else {
            Err(ContentError::Damaged { hash, path })
        }
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
        let kept = self.cache.get(hash, encoding).unwrap_or_else(|| {
            let kept = tokio::task::block_in_place(|| self.fetch(hash, encoding));
            self.cache.put(hash, encoding, kept.clone());
            kept
        });
        match kept {
            Kept::Memory(memory) => Some(in_memory(memory)),
            Kept::File { file, bytes } => match file.try_clone() {
                Ok(file) => Some(Document {
                    bytes,
                    source: Source::File(file),
                }),
                Err(error) => {
                    tracing::error!(%hash, %error, "no descriptor for a document");
                    None
                }
            },
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

fn decodes_to(packed: &[u8], encoding: content::Encoding, hash: Hash) -> bool {
    match encoding {
        content::Encoding::Gzip => has_hash(flate2::read::MultiGzDecoder::new(packed), hash),
        content::Encoding::Brotli => has_hash(brotli::Decompressor::new(packed, 64 << 10), hash),
    }
}

fn has_hash(decoder: impl Read, hash: Hash) -> bool {
    let mut hasher = blake3::Hasher::new();
    let copied = io::copy(&mut decoder.take(DECODED_BYTES_MAX), &mut hasher);
    copied.is_ok() && hasher.finalize().as_bytes() == &hash.0
}
