//! Refuses what would grow while the disk is nearly full.
//!
//! Holds: so long as others leave [`ROOM_BYTES_MIN`], the store itself never
//! meets the end of its disk; what only shrinks the state is let through.

use kernel::Bytes;
use node::store::StoreError;
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// For a few batches, and a snapshot of some size.
pub const ROOM_BYTES_MIN: u64 = 32 << 20;

pub type Free = Arc<dyn Fn() -> io::Result<u64> + Send + Sync>;

#[derive(Clone)]
pub struct Room {
    /// What messages call the file.
    pub path: String,
    /// Bytes that may still be written beside it.
    pub free: Free,
}

impl Room {
    pub fn check(&self) -> Result<(), StoreError> {
        match (self.free)() {
            Ok(free) if free < ROOM_BYTES_MIN => Err(StoreError::Full {
                path: self.path.clone(),
                free: Bytes(free),
                need: Bytes(ROOM_BYTES_MIN),
            }),
            // Whether it can be written, the write itself will tell.
            _ => Ok(()),
        }
    }
}

/// Kept allocated beside the file. Opening it writes, also where others have
/// filled the disk to its end since: then this is given up for it.
const RESERVE_BYTES: u64 = 4 << 20;

fn reserve(path: &Path) -> PathBuf {
    path.with_extension("reserve")
}

/// Before the file at `path` is opened.
pub fn give_up_reserve(path: &Path, free: u64) {
    if free < ROOM_BYTES_MIN && fs::remove_file(reserve(path)).is_ok() {
        tracing::warn!(path = %path.display(), free, "the disk is full: the store's reserve is used");
    }
}

/// Once it is open. What cannot be set aside is not: the store works without.
pub fn set_reserve_aside(path: &Path, free: u64) {
    let reserve = reserve(path);
    if free < 2 * ROOM_BYTES_MIN || reserve.exists() {
        return;
    }
    let made = File::create(&reserve).and_then(|file| {
        fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES).map_err(io::Error::from)
    });
    if let Err(error) = made {
        tracing::debug!(%error, path = %reserve.display(), "no reserve for the store");
        let _ = fs::remove_file(&reserve);
    }
}
