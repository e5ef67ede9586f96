//! What each figure must reach: where it closes, and where it should end.

use bench_common::figure::{Better, Goal};

/// In 5,000 node-hours where it closes, in 50,000 where it should end.
pub const FALSE_DEATHS: Goal = Goal::number("false_deaths", "", 0.0, 0.0);

pub const JOIN: Goal = Goal::number("join_to_serving", "s", 5.0, 2.0);
pub const POWER: Goal = Goal::number("power_cut_to_dead_in_zone", "s", 6.0, 4.0);

pub const SERF_DEATH: Goal = Goal::ratio("killed_to_dead_vs_serf", "s", Better::Less, 1.0, 0.7);
pub const SERF_CHANGE: Goal = Goal::ratio("attribute_to_all_vs_serf", "s", Better::Less, 1.0, 0.3);
pub const SERF_BYTES: Goal = Goal::ratio("bytes_vs_serf", "B/s", Better::Less, 1.5, 1.0);

/// The peer is the same link without bulk.
pub const HEARTBEAT: Goal = Goal::ratio("heartbeat_p99_beside_bulk", "ms", Better::Less, 2.0, 1.2);
