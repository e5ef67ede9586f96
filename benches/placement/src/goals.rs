//! What each figure must reach: where it closes, and where it should end.

use bench_common::figure::{Better, Goal, Of};

/// Placements on one core, the reading of rows and the reasons of each included.
pub const PLACEMENTS: Goal = Goal {
    name: "placement_5000_nodes",
    unit: "/s",
    of: Of::Number,
    better: Better::More,
    closes: 20_000.0,
    last: 20_000.0,
};
