//! Where an actor is while it is put away: one file, whole or not there.
//!
//! Holds: what `write` returned from is on the disk; what `remove` returned
//! from does not come back after a power cut, for it is the past by then.

use super::error::WakeError;
use super::instance::Saved;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wire::checkpoint::{self, HASH_BYTES};

const FILE: &str = "actor.checkpoint";
const REFUSED: &str = "actor.refused";

/// Seals what is put away: an actor's memory may hold secrets.
pub trait Seal: Send + Sync {
    fn seal(&self, bytes: Vec<u8>) -> io::Result<Vec<u8>>;
    fn open(&self, sealed: &[u8]) -> io::Result<Vec<u8>>;
}

#[derive(Clone)]
pub(super) struct Keep {
    directory: PathBuf,
    seal: Option<Arc<dyn Seal>>,
}

fn mark(bytes: &[u8]) -> [u8; HASH_BYTES] {
    *blake3::hash(bytes).as_bytes()
}

impl Keep {
    /// Makes the directory (mode 0700) where it is missing.
    pub(super) fn open(directory: &Path, seal: Option<Arc<dyn Seal>>) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let directory = directory.to_owned();
        Ok(Self { directory, seal })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    pub(super) fn is_there(&self) -> bool {
        self.path().exists()
    }

    pub(super) fn write(&self, (state, pages): &Saved) -> io::Result<()> {
        let mut bytes = checkpoint::encode(state, pages).map_err(io::Error::other)?;
        bytes.extend(mark(&bytes));
        if let Some(seal) = &self.seal {
            bytes = seal.seal(bytes)?;
        }
        let beside = self.directory.join(format!("{FILE}.new"));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&beside, self.path()))
            .and_then(|()| self.sync());
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }

    pub(super) fn read(&self) -> Result<Saved, WakeError> {
        let mut bytes = fs::read(self.path())?;
        // One in the clear is from before there was anything to seal it for.
        if let Some(seal) = &self.seal
            && !bytes.starts_with(&checkpoint::MAGIC)
        {
            bytes = seal.open(&bytes)?;
        }
        let (state, pages) = checkpoint::decode(&bytes, mark)?;
        Ok((state, pages.to_vec()))
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(self.path()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.sync(),
        }
    }

    /// Out of the way, for whoever wants to look at it: one at most.
    pub(super) fn refuse(&self) -> io::Result<()> {
        fs::rename(self.path(), self.directory.join(REFUSED))?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}
