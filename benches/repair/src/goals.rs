//! What each figure must reach: where it closes, and where it should end.

use bench_common::figure::Goal;

/// From the leader's power cut to the next acknowledged write, the longest.
pub const LEADER: Goal = Goal::number("leader_cut_to_next_write", "s", 3.0, 1.5);
/// From a node's power cut until as many replicas as are wished are ready on
/// others, the longest.
pub const REPLICA: Goal = Goal::number("replica_lost_to_serving_elsewhere", "s", 6.0, 3.0);
