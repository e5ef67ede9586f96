//! Reads all content slowly, again and again, to find what the disk changed.
//!
//! In: how much may be read now, and where the last pass stopped. Out: what was
//! read and found, and where to go on.
//! Holds: each chunk that stays is checked once a round; a long one is checked
//! in parts. What is in the page cache is checked there: it is what readers get.

use crate::damage::read_piece;
use crate::error::ContentError;
use crate::keep::{list, name};
use crate::{Checked, Content};
use kernel::{Bytes, Hash};
use std::fs;
use std::io;

/// Where a round stands; the default is its beginning. The caller keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubCursor {
    /// The chunk to go on with, and its piece.
    at: Option<(Hash, u32)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    pub files: u64,
    pub bytes: Bytes,
    /// Set aside and reported.
    pub damaged: Vec<Hash>,
    /// For the next call.
    pub next: ScrubCursor,
    /// Whether this call came to the end of a round.
    pub round_done: bool,
}

impl ScrubCursor {
    /// As text, to be kept over restarts.
    pub fn to_text(self) -> String {
        self.at
            .map_or_else(String::new, |(hash, piece)| format!("{hash}:{piece}"))
    }

    /// What is no cursor is the beginning of a round.
    pub fn from_text(text: &str) -> Self {
        let at = text.trim().split_once(':').and_then(|(hash, piece)| {
            let hash = hash.parse().ok()?;
            Some((hash, piece.parse().ok()?))
        });
        Self { at }
    }
}

impl Content {
    /// Checks content from `cursor` on until `budget` is used up or the round is
    /// done. Blocks. Only a long file without a list beside it goes over budget.
    pub fn scrub(&self, cursor: ScrubCursor, budget: Bytes) -> Result<Scrubbed, ContentError> {
        let mut done = Scrubbed::default();
        let from = cursor.at.map(|(hash, _)| hash.to_string());
        let mut directories = list(&self.chunks())?;
        directories.sort();
        for directory in directories {
            let prefix = name(&directory).to_owned();
            if from.as_ref().is_some_and(|from| from[..2] > *prefix) {
                continue;
            }
            let mut paths = list(&directory)?;
            paths.sort();
            for path in paths {
                let Ok(hash) = format!("{prefix}{}", name(&path)).parse::<Hash>() else {
                    continue;
                };
                let first = match cursor.at {
                    Some((at, _)) if hash < at => continue,
                    Some((at, piece)) if hash == at => piece,
                    _ => 0,
                };
                if done.bytes >= budget {
                    done.next.at = Some((hash, first));
                    return Ok(done);
                }
                if let Some(piece) = self.scrub_file(hash, first, budget, &mut done)? {
                    done.next.at = Some((hash, piece));
                    return Ok(done);
                }
            }
        }
        done.round_done = true;
        Ok(done)
    }

    /// The piece to go on with, where the budget ended within the file.
    fn scrub_file(
        &self,
        hash: Hash,
        first: u32,
        budget: Bytes,
        done: &mut Scrubbed,
    ) -> Result<Option<u32>, ContentError> {
        let path = self.path(hash);
        let file = match self.open_blob(hash) {
            Ok(file) => file,
            // Collected meanwhile.
            Err(ContentError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let pieces = match self.pieces_of(hash, &file) {
            Ok(pieces) => pieces,
            Err(ContentError::Damaged { .. }) => return self.scrubbed_badly(hash, done),
            Err(error) => return Err(error),
        };
        let length = match fs::metadata(&path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ContentError::io("read", &path)(error)),
        };
        let mut buffer = Vec::new();
        for index in first..pieces.count() {
            if index > first && done.bytes >= budget {
                return Ok(Some(index));
            }
            buffer.clear();
            let right = read_piece(&pieces, &file, index, &mut buffer, &path)?;
            done.bytes = Bytes(done.bytes.0 + buffer.len() as u64);
            if !right || length != pieces.length() {
                return self.scrubbed_badly(hash, done);
            }
        }
        done.files += 1;
        Ok(None)
    }

    fn scrubbed_badly(&self, hash: Hash, done: &mut Scrubbed) -> Result<Option<u32>, ContentError> {
        if self.check(hash)? == Checked::Damaged {
            done.damaged.push(hash);
        }
        Ok(None)
    }
}
