//! What each figure must reach: where it closes, and where it should end.

use bench_common::figure::{Better, Goal};

pub const WRITES_1: Goal = Goal::ratio("store3_writes_1_client", "/s", Better::More, 0.8, 0.9);
pub const WRITES_64: Goal = Goal::ratio("store3_writes_64_clients", "/s", Better::More, 1.0, 1.5);
