//! Files that are read piece by piece, each checked before it is given.
//!
//! In: a hash, spans. Out: bytes that are right, or an error.
//! Holds: no byte of a wrong piece is given, whatever the disk did since the
//! file was opened. Never: writes: whoever only reads the store may use it.

use crate::Content;
use crate::damage::read_piece;
use crate::error::ContentError;
use crate::pieces::Pieces;
use kernel::Hash;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use wire::exchange::piece_bytes;

#[derive(Debug)]
pub struct CheckedFile {
    file: File,
    pieces: Arc<Pieces>,
    path: PathBuf,
}

impl Content {
    /// Blocks; reads the whole file where no list of its pieces lies beside it.
    pub fn open_checked(&self, hash: Hash) -> Result<CheckedFile, ContentError> {
        let file = self.open_blob(hash)?;
        let path = self.path(hash);
        let found = file.metadata().map_err(ContentError::io("read", &path))?;
        let pieces = self.pieces_to_read(hash, &file, found.len())?;
        if pieces.length() != found.len() {
            return Err(ContentError::Damaged { hash, path });
        }
        Ok(CheckedFile { file, pieces, path })
    }
}

impl CheckedFile {
    pub fn length(&self) -> u64 {
        self.pieces.length()
    }

    /// From the span's start to its end or the end of the piece that it begins
    /// in; nothing beyond the file's end. Blocks.
    pub fn read(&self, span: &Range<u64>) -> Result<Vec<u8>, ContentError> {
        let hash = self.pieces.hash;
        let end = span.end.min(self.length());
        if span.start >= end {
            return Ok(Vec::new());
        }
        let piece = piece_bytes(self.length());
        let index = u32::try_from(span.start / piece).unwrap_or(u32::MAX);
        let mut bytes = Vec::new();
        let right = read_piece(&self.pieces, &self.file, index, &mut bytes, &self.path)?;
        if !right {
            let path = self.path.clone();
            return Err(ContentError::Damaged { hash, path });
        }
        let within = |at: u64| usize::try_from(at - u64::from(index) * piece);
        let start = within(span.start).unwrap_or(bytes.len());
        bytes.truncate(within(end).unwrap_or(usize::MAX).min(bytes.len()));
        bytes.drain(..start.min(bytes.len()));
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, PermissionsExt};

    fn read(file: &CheckedFile, mut span: Range<u64>) -> Result<Vec<u8>, ContentError> {
        let mut all = Vec::new();
        while span.start < span.end.min(file.length()) {
            let bytes = file.read(&span)?;
            assert!(!bytes.is_empty());
            span.start += bytes.len() as u64;
            all.extend(bytes);
        }
        Ok(all)
    }

    #[test]
    fn what_the_disk_changed_after_it_was_opened_is_not_given() {
        let folder = tempfile::tempdir().expect("a folder");
        let content = Content::open(folder.path().join("content")).expect("opens");
        let bytes: Vec<u8> = (0..700_000_u32).map(|at| (at % 251) as u8).collect();
        let source = folder.path().join("source");
        std::fs::write(&source, &bytes).expect("writes");
        let hash = content.ingest_file(&source, false).expect("takes in");
        let file = content.open_checked(hash).expect("opens");
        assert_eq!(read(&file, 0..700_000).expect("is right"), bytes);
        assert_eq!(
            read(&file, 262_000..262_300).expect("is right"),
            bytes[262_000..262_300]
        );
        assert_eq!(
            read(&file, 699_999..800_000).expect("is right"),
            bytes[699_999..]
        );
        let path = content.path(hash);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("may");
        let disk = File::options().write(true).open(&path).expect("opens");
        disk.write_all_at(&[bytes[300_000] ^ 1], 300_000)
            .expect("writes");
        assert_eq!(read(&file, 0..262_144).expect("is right"), bytes[..262_144]);
        let wrong = read(&file, 0..262_145);
        assert!(
            matches!(wrong, Err(ContentError::Damaged { .. })),
            "{wrong:?}"
        );
        // Without a list, it is found when it is opened.
        std::fs::remove_dir_all(content.pieces()).expect("removes");
        let again = Content::open(folder.path().join("content")).expect("opens");
        let wrong = again.open_checked(hash);
        assert!(
            matches!(wrong, Err(ContentError::Damaged { .. })),
            "{wrong:?}"
        );
    }
}
