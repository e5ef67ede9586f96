//! Takes files in: each is copied by its hash, then the tree that names them.
//!
//! Holds: what is stored under a hash has that hash, even when the source
//! changes meanwhile; a tree becomes visible after all of its files.

use crate::error::ContentError;
use crate::pieces::{PieceHasher, Pieces};
use crate::stage::Stage;
use crate::walk::walk;
use crate::{Content, IngestProgress, Ingested};
use kernel::Hash;
use rustix::fs::{OFlags, Timespec, Timestamps, UTIME_NOW, futimens};
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use wire::content::{TREE_VERSION, Tree, TreeEntry};

/// Smaller files are read once, into memory.
const WHOLE_BYTES_MAX: u64 = 4 << 20;
const PIECE_BYTES: usize = 256 << 10;
/// How often a file that changes under the reader is read again.
const TRIES: usize = 5;

struct Taken {
    hash: Hash,
    bytes: u64,
    modified_unix: u64,
    new: bool,
}

impl Content {
    /// Copies the files under `root` and returns the tree that names them.
    /// Blocks; on an error nothing of the tree is visible.
    pub fn ingest_tree(
        &self,
        root: &Path,
        progress: &mut dyn FnMut(IngestProgress),
    ) -> Result<Ingested, ContentError> {
        let files = walk(root)?;
        let mut shown = IngestProgress {
            files: 0,
            files_total: files.len() as u64,
            bytes: 0,
        };
        progress(shown);
        let mut stage = self.stage();
        let mut tree = Tree::default();
        let mut new_bytes = 0;
        for (key, path) in files {
            let taken = self.take(&mut stage, &path)?;
            shown.files += 1;
            shown.bytes += taken.bytes;
            if taken.new {
                new_bytes += taken.bytes;
            }
            let media_type = crate::media::media_type(&key);
            tree.entries.insert(
                key,
                TreeEntry {
                    hash: taken.hash,
                    bytes: taken.bytes,
                    modified_unix: taken.modified_unix,
                    media_type,
                },
            );
            progress(shown);
        }
        stage.flush()?;
        Ok(Ingested {
            tree: self.store_tree(&tree)?,
            files: shown.files,
            bytes: shown.bytes,
            new_bytes,
        })
    }

    /// Copies one file. An executable one can be run from [`Content::path`].
    pub fn ingest_file(&self, path: &Path, executable: bool) -> Result<Hash, ContentError> {
        let mut stage = self.stage();
        let hash = self.take(&mut stage, path)?.hash;
        stage.flush()?;
        if executable {
            let chunk = self.path(hash);
            fs::set_permissions(&chunk, Permissions::from_mode(0o555))
                .map_err(ContentError::io("set the mode of", &chunk))?;
        }
        Ok(hash)
    }

    fn store_tree(&self, tree: &Tree) -> Result<Hash, ContentError> {
        let none = Hash([0; 32]);
        let bytes = wire::record::encode(TREE_VERSION, tree)
            .map_err(|source| ContentError::Tree { hash: none, source })?;
        let hash = Hash(*blake3::hash(&bytes).as_bytes());
        if !self.has(hash, bytes.len() as u64) {
            let mut stage = self.stage();
            stage.add_bytes(self.path(hash), &bytes)?;
            stage.flush()?;
        }
        Ok(hash)
    }

    fn take(&self, stage: &mut Stage, path: &Path) -> Result<Taken, ContentError> {
        for _ in 0..TRIES {
            // No FIFO put there meanwhile may block us, no link lead away.
            let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let mut file = OpenOptions::new()
                .read(true)
                .custom_flags(flags.bits().cast_signed())
                .open(path)
                .map_err(ContentError::io("open", path))?;
            let before = file.metadata().map_err(ContentError::io("read", path))?;
            if !before.is_file() {
                return Err(ContentError::NotAFile {
                    path: path.to_owned(),
                });
            }
            let taken = if before.len() <= WHOLE_BYTES_MAX {
                self.take_whole(stage, path, &mut file)?
            } else {
                self.take_pieces(stage, path, &mut file)?
            };
            let after = file.metadata().map_err(ContentError::io("read", path))?;
            if let Some((hash, bytes, new)) = taken
                && version(&before) == version(&after)
                && bytes == after.len()
            {
                return Ok(Taken {
                    hash,
                    bytes,
                    modified_unix: u64::try_from(after.mtime()).unwrap_or(0),
                    new,
                });
            }
        }
        Err(ContentError::Changing {
            path: path.to_owned(),
        })
    }

    fn take_whole(
        &self,
        stage: &mut Stage,
        path: &Path,
        file: &mut File,
    ) -> Result<Option<(Hash, u64, bool)>, ContentError> {
        let mut bytes = Vec::new();
        file.take(WHOLE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(ContentError::io("read", path))?;
        let hash = Hash(*blake3::hash(&bytes).as_bytes());
        let new = self.wants(stage, hash, bytes.len() as u64);
        if new {
            stage.add_bytes(self.path(hash), &bytes)?;
        }
        Ok(Some((hash, bytes.len() as u64, new)))
    }

    /// Hashes first, so that a large file already here costs no writing.
    fn take_pieces(
        &self,
        stage: &mut Stage,
        path: &Path,
        file: &mut File,
    ) -> Result<Option<(Hash, u64, bool)>, ContentError> {
        let length = file
            .metadata()
            .map_err(ContentError::io("read", path))?
            .len();
        let (hash, bytes, pieces) = copy(path, file, length, None)?;
        if let Some(pieces) = pieces {
            self.keep_list(&pieces)?;
        }
        if !self.wants(stage, hash, bytes) {
            return Ok(Some((hash, bytes, false)));
        }
        file.rewind().map_err(ContentError::io("read", path))?;
        let target = self.path(hash);
        let copied = stage.add(target.clone(), |chunk| {
            let copied = copy(path, file, length, Some((chunk, &target)))?;
            if (copied.0, copied.1) == (hash, bytes) {
                Ok(())
            } else {
                Err(ContentError::Changing {
                    path: path.to_owned(),
                })
            }
        });
        match copied {
            Ok(()) => Ok(Some((hash, bytes, true))),
            Err(ContentError::Changing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn wants(&self, stage: &Stage, hash: Hash, bytes: u64) -> bool {
        !stage.holds(&self.path(hash)) && !self.has(hash, bytes)
    }

    /// Whether the chunk is here with that size; if so, it counts as young
    /// again, so that no collection takes it before the tree that wants it.
    pub(crate) fn has(&self, hash: Hash, bytes: u64) -> bool {
        let _guard = self.guard();
        let Ok(file) = File::open(self.path(hash)) else {
            return false;
        };
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        file.metadata().is_ok_and(|found| found.len() == bytes)
            && futimens(
                &file,
                &Timestamps {
                    last_access: now,
                    last_modification: now,
                },
            )
            .is_ok()
    }
}

/// What tells one version of a file from another.
fn version(of: &Metadata) -> (u64, i64, i64, i64, i64) {
    (
        of.len(),
        of.mtime(),
        of.mtime_nsec(),
        of.ctime(),
        of.ctime_nsec(),
    )
}

fn copy(
    path: &Path,
    from: &mut File,
    length: u64,
    mut to: Option<(&mut File, &Path)>,
) -> Result<(Hash, u64, Option<Pieces>), ContentError> {
    let mut hasher = PieceHasher::new(length);
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        let read = from
            .read(&mut piece)
            .map_err(ContentError::io("read", path))?;
        if read == 0 {
            let (hash, pieces) = hasher.finish();
            return Ok((hash, bytes, pieces));
        }
        hasher.update(&piece[..read]);
        bytes += read as u64;
        if let Some((to, target)) = &mut to {
            to.write_all(&piece[..read])
                .map_err(ContentError::io("write", target))?;
        }
    }
}
