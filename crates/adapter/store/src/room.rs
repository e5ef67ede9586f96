//! Refuses what would grow while the disk is nearly full.
//!
//! Holds: so long as others leave [`ROOM_BYTES_MIN`], the store itself never
//! meets the end of its disk; what only shrinks the state is let through.

use kernel::Bytes;
use node::store::StoreError;
use std::io;
use std::sync::Arc;

/// For a few batches, and a snapshot of some size.
pub const ROOM_BYTES_MIN: u64 = 32 << 20;

pub type Free = Arc<dyn Fn() -> io::Result<u64> + Send + Sync>;

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
