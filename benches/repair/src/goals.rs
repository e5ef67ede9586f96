//! What each figure must reach: where it closes, and where it should end.

use bench_common::figure::{Better, Goal};

/// Those that are measured in a lab.
pub const OF_LAB: [Goal; 7] = [
    EDGES,
    REPLICA,
    SINGLETON,
    TWICE,
    LEADER,
    SEAT,
    SEAT_WITH_LEADER,
];

/// From the leader's power cut to the next acknowledged write, the longest.
pub const LEADER: Goal = Goal::number("leader_cut_to_next_write", "s", 3.0, 1.5);
/// From the power cut of a zone's seat's holder until another one is at work, the longest.
pub const SEAT: Goal = Goal::number("seat_moved", "s", 3.0, 3.0);
/// The same where the leader's power is cut too.
pub const SEAT_WITH_LEADER: Goal = Goal::number("seat_moved_with_leader", "s", 6.0, 6.0);
/// From a node's power cut until as many replicas as are wished are ready on
/// others, the longest.
pub const REPLICA: Goal = Goal::number("replica_lost_to_serving_elsewhere", "s", 6.0, 3.0);
/// From a node's power cut, at 500 requests/s to the others' edges, until of each
/// second's requests 99 % are answered well within a second, the longest.
pub const EDGES: Goal = Goal::number("node_lost_to_edges_well_again", "s", 2.0, 1.0);
/// From the loss of a singleton's node until it starts on another, the longest.
pub const SINGLETON: Goal = Goal::number("singleton_elsewhere", "s", 10.0, 8.0);
/// How often one started while another one ran.
pub const TWICE: Goal = Goal::number("singleton_ran_twice", "", 0.0, 0.0);
/// Random faults in a lab after which all was not as wished within two minutes.
pub const NOT_WHOLE: Goal = Goal::number("faults_not_ended_as_wished", "", 0.0, 0.0);
/// From the kill of a process to its next start, the median.
pub const RESTART: Goal = Goal::ratio("crash_to_restarted", "ms", Better::Less, 0.5, 0.2);
