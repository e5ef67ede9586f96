//! A long file while it is being fetched: pieces in any order, over restarts.
//!
//! In: pieces that were found right. Out: the file, visible under its hash.
//! Lies as `tmp/partial-HASH` with a byte for each piece in
//! `tmp/partial-HASH.got`.
//! Holds: what was there before is checked piece by piece before it counts; a
//! piece is written once, and never after the file became visible.

use crate::Content;
use crate::damage::read_piece;
use crate::error::ContentError;
use crate::pieces::Pieces;
use kernel::Hash;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

const PREFIX: &str = "partial-";
const GOT: &str = ".got";

#[derive(Debug)]
pub(crate) struct Partial {
    content: Content,
    pieces: Arc<Pieces>,
    data: File,
    got: File,
    path: PathBuf,
    executable: bool,
    have: Mutex<Vec<bool>>,
    /// Whether it is visible; read by who writes pieces.
    done: RwLock<bool>,
}

impl Partial {
    /// Of which file that name in `tmp` is a part.
    pub fn hash_of(name: &str) -> Option<Hash> {
        let hash = name.strip_prefix(PREFIX)?;
        hash.strip_suffix(GOT).unwrap_or(hash).parse().ok()
    }

    /// How much room on the disk an earlier fetch took for that file.
    pub fn bytes_of(content: &Content, hash: Hash) -> u64 {
        let (data, _) = Self::paths(content, hash);
        fs::metadata(data).map_or(0, |found| found.blocks().saturating_mul(512))
    }

    fn paths(content: &Content, hash: Hash) -> (PathBuf, PathBuf) {
        let data = content.temporary().join(format!("{PREFIX}{hash}"));
        let got = content.temporary().join(format!("{PREFIX}{hash}{GOT}"));
        (data, got)
    }

    /// Makes a damaged file a partial one all of whose pieces are in doubt.
    pub fn adopt(content: &Content, hash: Hash, from: &Path) -> Result<(), ContentError> {
        let (data, got) = Self::paths(content, hash);
        let found = fs::symlink_metadata(from).map_err(ContentError::io("read", from))?;
        let pieces = wire::exchange::pieces(found.len());
        let _guard = content.guard();
        fs::rename(from, &data).map_err(ContentError::io("move", from))?;
        let mode = Permissions::from_mode(found.mode() | 0o200);
        fs::set_permissions(&data, mode).map_err(ContentError::io("set the mode of", &data))?;
        let count = usize::try_from(pieces).unwrap_or(0);
        // Without it the file would only be fetched whole: no reason to fail.
        let _ = fs::write(&got, vec![1; count]);
        Ok(())
    }

    /// Opens what an earlier fetch left, or begins. Whoever calls has the claim
    /// on that file. Blocks: what is there is read and checked.
    pub fn open(
        content: &Content,
        pieces: Arc<Pieces>,
        executable: bool,
    ) -> Result<Self, ContentError> {
        let (path, got_path) = Self::paths(content, pieces.hash);
        let data = match open(&path) {
            // It may be a program that is running.
            Err(error) if error.raw_os_error() == Some(Errno::TXTBSY.raw_os_error()) => {
                fs::remove_file(&path).map_err(ContentError::io("remove", &path))?;
                open(&path)
            }
            other => other,
        };
        let data = data.map_err(ContentError::io("open", &path))?;
        let got = open(&got_path).map_err(ContentError::io("open", &got_path))?;
        let found = data.metadata().map_err(ContentError::io("read", &path))?;
        let partial = Self {
            content: content.clone(),
            executable: executable || found.mode() & 0o100 != 0,
            have: Mutex::new(vec![false; pieces.count() as usize]),
            pieces,
            data,
            got,
            path,
            done: RwLock::new(false),
        };
        let reserved = partial.reserve(found.len());
        if reserved.is_err() && found.len() == 0 {
            let _ = fs::remove_file(&partial.path);
            let _ = fs::remove_file(&got_path);
        }
        reserved?;
        partial.resume()?;
        Ok(partial)
    }

    /// Takes the room on the disk that the whole file needs, so that a disk
    /// that is too small is known before anything travels.
    fn reserve(&self, found: u64) -> Result<(), ContentError> {
        let length = self.pieces.length();
        if found > length {
            let cut = self.data.set_len(length);
            cut.map_err(ContentError::io("write", &self.path))?;
        }
        match fallocate(&self.data, FallocateFlags::empty(), 0, length) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let set = self.data.set_len(length);
                set.map_err(ContentError::io("write", &self.path))
            }
            Err(error) => Err(ContentError::io("write", &self.path)(error.into())),
        }
    }

    fn resume(&self) -> Result<(), ContentError> {
        let mut claimed = vec![0; self.pieces.count() as usize];
        let mut filled = 0;
        while filled < claimed.len() {
            let read = self.got.read_at(&mut claimed[filled..], filled as u64);
            match read.map_err(ContentError::io("read", &self.path))? {
                0 => break,
                read => filled += read,
            }
        }
        let mut buffer = Vec::new();
        for (index, _) in (0..).zip(&claimed).filter(|(_, claim)| **claim == 1) {
            buffer.clear();
            if read_piece(&self.pieces, &self.data, index, &mut buffer, &self.path)? {
                self.have()[index as usize] = true;
            }
        }
        Ok(())
    }

    pub fn missing(&self) -> Vec<u32> {
        let have = self.have();
        let missing = (0..).zip(have.iter()).filter(|(_, have)| !**have);
        missing.map(|(index, _)| index).collect()
    }

    pub fn is_right(&self, index: u32, bytes: &[u8]) -> bool {
        self.pieces.is_right(index, bytes)
    }

    pub fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    /// Writes a piece that is right; false when it was here already. Blocks.
    pub fn write(&self, index: u32, bytes: &[u8]) -> Result<bool, ContentError> {
        let done = self.done.read().unwrap_or_else(PoisonError::into_inner);
        if *done || self.have()[index as usize] {
            return Ok(false);
        }
        let Some((offset, _)) = self.pieces.range(index) else {
            return Ok(false);
        };
        let fail = || ContentError::io("write", &self.path);
        self.data.write_all_at(bytes, offset).map_err(fail())?;
        self.got
            .write_all_at(&[1], u64::from(index))
            .map_err(fail())?;
        let new = !std::mem::replace(&mut self.have()[index as usize], true);
        Ok(new)
    }

    /// The whole, once no piece is missing. Blocks.
    pub fn bytes(&self) -> Result<Vec<u8>, ContentError> {
        let length = usize::try_from(self.pieces.length()).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length];
        let read = self.data.read_exact_at(&mut bytes, 0);
        read.map_err(ContentError::io("read", &self.path))?;
        Ok(bytes)
    }

    /// Makes the file visible under its hash, whole and durable. Blocks.
    pub fn finish(&self) -> Result<(), ContentError> {
        let mut done = self.done.write().unwrap_or_else(PoisonError::into_inner);
        assert!(self.missing().is_empty(), "no piece is missing");
        let hash = self.pieces.hash;
        let mode = if self.executable { 0o555 } else { 0o444 };
        let mode = Permissions::from_mode(mode);
        let set = self.data.set_permissions(mode);
        set.map_err(ContentError::io("set the mode of", &self.path))?;
        let synced = self.data.sync_all();
        synced.map_err(ContentError::io("sync", &self.path))?;
        self.content.keep_list(&self.pieces)?;
        crate::stage::publish(&self.path, &self.content.path(hash))?;
        *done = true;
        let _ = fs::remove_file(Self::paths(&self.content, hash).1);
        Ok(())
    }

    fn have(&self) -> MutexGuard<'_, Vec<bool>> {
        self.have.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(path)
}
