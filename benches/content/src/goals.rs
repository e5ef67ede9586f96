//! What each figure must reach: where it closes, and where it should end.

use bench_common::figure::{Better, Goal};

/// Of content from three holders, against rsync over stunnel from one.
pub const FETCH_VS_RSYNC: Goal =
    Goal::ratio("content_fetch_vs_rsync", "Mbit/s", Better::More, 2.0, 2.7);
