//! How far a guest has come with one request, for all who wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Shared by the guest's instance and the reader of its answer: a body that
/// breaks off ends for its reader as a whole one does.
#[derive(Default)]
pub(crate) struct Progress {
    state: AtomicU8,
    /// Times that it computed until others got their turn.
    turns: AtomicU32,
}

const DONE: u8 = 1;
const CUT: u8 = 2;

impl Progress {
    /// The guest returned by itself.
    pub(crate) fn is_done(&self) {
        self.state.store(DONE, Ordering::Release);
    }

    pub(crate) fn was_cut(&self) -> bool {
        self.state.load(Ordering::Acquire) == CUT
    }

    pub(crate) fn had_turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn turns(&self) -> u32 {
        self.turns.load(Ordering::Relaxed)
    }
}

/// Says so when a guest goes before it is done.
pub(crate) struct Leaving(pub(crate) Arc<Progress>);

impl Drop for Leaving {
    fn drop(&mut self) {
        let state = &self.0.state;
        let _ = state.compare_exchange(0, CUT, Ordering::AcqRel, Ordering::Acquire);
    }
}
