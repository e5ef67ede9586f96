//! Finds content whose bytes changed on this disk, and takes it out of the way.
//!
//! In: hashes to check. Out: events for the store's owner. Damaged files of
//! several pieces are left where a fetch resumes them, so that only their wrong
//! pieces travel again.
//! Holds: after it was reported, damaged content is no longer visible. Only the
//! process that writes the store calls these.

use crate::Content;
use crate::error::ContentError;
use crate::fetch::Partial;
use crate::pieces::{Pieces, is_bad_spot};
use kernel::Hash;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What the owner of a store should hear of, as it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContentEvent {
    /// The bytes on this disk are no longer those of the hash; set aside.
    Damaged { hash: Hash },
    /// What was damaged is whole again.
    Mended { hash: Hash },
    /// That holder sent bytes that are not those of the hash.
    WrongBytes { holder: String, hash: Hash },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    Right {
        bytes: u64,
    },
    /// It was damaged, was set aside and reported.
    Damaged,
    Missing,
}

type Listener = dyn Fn(ContentEvent) + Send + Sync;

#[derive(Clone, Default)]
pub(crate) struct Report(Option<Arc<Listener>>);

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Report")
    }
}

impl Content {
    /// The same store, which tells `listener` what becomes of its content. It
    /// is called from any thread and should return soon.
    #[must_use]
    pub fn reporting_to(mut self, listener: impl Fn(ContentEvent) + Send + Sync + 'static) -> Self {
        self.report = Report(Some(Arc::new(listener)));
        self
    }

    pub(crate) fn tell(&self, event: ContentEvent) {
        tracing::info!(?event, "content");
        if let Some(listener) = &self.report.0 {
            listener(event);
        }
    }

    /// Reads the whole of a chunk; a damaged one is set aside and reported.
    /// Blocks.
    pub fn check(&self, hash: Hash) -> Result<Checked, ContentError> {
        let file = match self.open_blob(hash) {
            Ok(file) => file,
            Err(ContentError::Missing { .. }) => return Ok(Checked::Missing),
            Err(error) => return Err(error),
        };
        let right = match self.pieces_of(hash, &file) {
            Ok(pieces) => self.all_right(&pieces, &file)?,
            Err(ContentError::Damaged { .. }) => false,
            Err(error) => return Err(error),
        };
        if right {
            let path = self.path(hash);
            let found = file.metadata().map_err(ContentError::io("read", &path))?;
            return Ok(Checked::Right { bytes: found.len() });
        }
        self.set_aside(hash)?;
        Ok(Checked::Damaged)
    }

    fn all_right(&self, pieces: &Pieces, file: &File) -> Result<bool, ContentError> {
        let path = self.path(pieces.hash);
        let found = file.metadata().map_err(ContentError::io("read", &path))?;
        let mut buffer = Vec::new();
        for index in 0..pieces.count() {
            buffer.clear();
            if !read_piece(pieces, file, index, &mut buffer, &path)? {
                return Ok(false);
            }
        }
        Ok(found.len() == pieces.length())
    }

    /// Takes a chunk that was found damaged out of sight, and says so.
    pub(crate) fn set_aside(&self, hash: Hash) -> Result<(), ContentError> {
        self.lists().forget(hash);
        let path = self.path(hash);
        // A fetch may have it already: then it mends by itself.
        let claim = self.claim(hash);
        let moved = match &claim {
            Some(_) => Partial::adopt(self, hash, &path),
            None => fs::remove_file(&path).map_err(ContentError::io("remove", &path)),
        };
        match moved {
            Err(ContentError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            other => other?,
        }
        drop(claim);
        self.tell(ContentEvent::Damaged { hash });
        Ok(())
    }
}

/// Whether the piece is right; one that the disk cannot read is not.
pub(crate) fn read_piece(
    pieces: &Pieces,
    file: &File,
    index: u32,
    into: &mut Vec<u8>,
    path: &Path,
) -> Result<bool, ContentError> {
    match pieces.read(file, index, into) {
        Ok(right) => Ok(right),
        Err(error) if is_bad_spot(&error) => Ok(false),
        Err(error) => Err(ContentError::io("read", path)(error)),
    }
}
