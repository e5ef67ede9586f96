//! How long the disk takes for what is synced to it.
//!
//! Holds: one that takes long once is no slow disk.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_millis(500);
const LONG_IN_A_ROW: u32 = 3;
/// One that is not over after this counts as so many.
const ENDLESS: Duration = Duration::from_secs(2);

/// Of one file, by the thread that writes it.
#[derive(Debug)]
pub struct Syncs {
    made: Instant,
    /// When the one under way began, microseconds since `made` and one more; 0: none
    /// is.
    began: AtomicU64,
    long_in_a_row: AtomicU32,
}

impl Default for Syncs {
    fn default() -> Self {
        Self {
            made: Instant::now(),
            began: AtomicU64::new(0),
            long_in_a_row: AtomicU32::new(0),
        }
    }
}

impl Syncs {
    pub fn begin(&self) {
        let now = u64::try_from(self.made.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.began.store(now.saturating_add(1), Relaxed);
    }

    pub fn end(&self) {
        if self.under_way() >= LONG {
            self.long_in_a_row.fetch_add(1, Relaxed);
        } else {
            self.long_in_a_row.store(0, Relaxed);
        }
        self.began.store(0, Relaxed);
    }

    fn under_way(&self) -> Duration {
        let began = self.began.load(Relaxed);
        if began == 0 {
            return Duration::ZERO;
        }
        self.made
            .elapsed()
            .saturating_sub(Duration::from_micros(began))
    }

    pub fn are_slow(&self) -> bool {
        self.long_in_a_row.load(Relaxed) >= LONG_IN_A_ROW || self.under_way() >= ENDLESS
    }
}
