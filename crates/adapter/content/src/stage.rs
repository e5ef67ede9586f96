//! Writes files so that they appear whole and durable, many at a time.
//!
//! In: bytes and the path they belong at. Out: files at those paths.
//! Holds: a file gets its name only after its bytes are on the disk, and
//! `flush` returns only after the names are too; what was not flushed is
//! removed. Never: rewrites a file in place.

use crate::error::ContentError;
use rustix::fs::syncfs;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Up to this many files are synced one by one; beyond it, the file system is.
const SYNC_EACH_FILES: usize = 16;
/// Staged files are flushed when there are this many.
const STAGED_FILES_MAX: usize = 4096;
const MODE: u32 = 0o444;
const EXECUTABLE: u32 = 0o555;

static SERIAL: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
pub(crate) struct Stage {
    temporary: PathBuf,
    /// Where each belongs, and where its bytes are until then.
    staged: BTreeMap<PathBuf, PathBuf>,
}

impl Stage {
    pub fn new(temporary: PathBuf) -> Self {
        Self {
            temporary,
            staged: BTreeMap::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.staged.len()
    }

    pub fn holds(&self, target: &Path) -> bool {
        self.staged.contains_key(target)
    }

    /// Writes `target`'s bytes through `write`, under a temporary name.
    pub fn add<T>(
        &mut self,
        target: PathBuf,
        write: impl FnOnce(&mut File) -> Result<T, ContentError>,
    ) -> Result<T, ContentError> {
        self.add_with(target, MODE, write)
    }

    fn add_with<T>(
        &mut self,
        target: PathBuf,
        mode: u32,
        write: impl FnOnce(&mut File) -> Result<T, ContentError>,
    ) -> Result<T, ContentError> {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = self
            .temporary
            .join(format!("{}-{serial}", std::process::id()));
        // A process that died may have had this id.
        let _ = fs::remove_file(&path);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&path)
            .map_err(ContentError::io("create", &path))?;
        let written = write(&mut file).and_then(|value| {
            file.set_permissions(Permissions::from_mode(mode))
                .map_err(ContentError::io("set the mode of", &path))?;
            Ok(value)
        });
        if written.is_err() {
            let _ = fs::remove_file(&path);
        } else {
            self.staged.insert(target, path);
            if self.staged.len() >= STAGED_FILES_MAX {
                self.flush()?;
            }
        }
        written
    }

    pub fn add_bytes(&mut self, target: PathBuf, bytes: &[u8]) -> Result<(), ContentError> {
        self.add_bytes_as(target, bytes, false)
    }

    pub fn add_bytes_as(
        &mut self,
        target: PathBuf,
        bytes: &[u8],
        executable: bool,
    ) -> Result<(), ContentError> {
        let shown = target.clone();
        let mode = if executable { EXECUTABLE } else { MODE };
        self.add_with(target, mode, |file| {
            file.write_all(bytes)
                .map_err(ContentError::io("write", &shown))
        })
    }

    pub fn flush(&mut self) -> Result<(), ContentError> {
        if self.staged.is_empty() {
            return Ok(());
        }
        self.sync_bytes()?;
        let mut parents = BTreeSet::new();
        while let Some((target, path)) = self.staged.pop_first() {
            let renamed = rename(&path, &target);
            if renamed.is_err() {
                let _ = fs::remove_file(&path);
            }
            renamed?;
            parents.extend(above(&target));
        }
        sync_directories(parents)
    }

    fn sync_bytes(&self) -> Result<(), ContentError> {
        if self.staged.len() > SYNC_EACH_FILES {
            return File::open(&self.temporary)
                .and_then(|directory| syncfs(directory).map_err(io::Error::from))
                .map_err(ContentError::io("sync", &self.temporary));
        }
        for path in self.staged.values() {
            File::open(path)
                .and_then(|file| file.sync_all())
                .map_err(ContentError::io("sync", path))?;
        }
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for path in self.staged.values() {
            let _ = fs::remove_file(path);
        }
    }
}

/// Gives a file whose bytes are on the disk its name, durably.
pub(crate) fn publish(from: &Path, to: &Path) -> Result<(), ContentError> {
    rename(from, to)?;
    sync_directories(above(to).collect())
}

/// The two directories whose entries a new name may have changed.
fn above(target: &Path) -> impl Iterator<Item = PathBuf> {
    target.ancestors().skip(1).take(2).map(Path::to_owned)
}

fn sync_directories(directories: BTreeSet<PathBuf>) -> Result<(), ContentError> {
    for directory in directories {
        File::open(&directory)
            .and_then(|directory| directory.sync_all())
            .map_err(ContentError::io("sync", &directory))?;
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<(), ContentError> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(ContentError::io("create", parent))?;
    }
    fs::rename(from, to).map_err(ContentError::io("create", to))
}
