//! What each figure must reach: where it closes, and where it should end.

use bench_common::figure::{Better, Goal};

pub const LEAF_P99: Goal = Goal::number("row_in_leaf_zone_p99", "ms", 500.0, 300.0);
/// Until the last of all nodes has it.
pub const ROOT_10K_P99: Goal = Goal::number("root_aggregate_10k_p99", "s", 4.0, 2.0);
pub const ROOT_100K_P99: Goal = Goal::number("root_aggregate_100k_p99", "s", 6.0, 3.0);
pub const TRAFFIC: Goal = Goal::number("traffic_per_node", "KB/s", 10.0, 6.0);
/// The most by the least, over the sizes.
pub const TRAFFIC_FLAT: Goal = Goal::number("traffic_most_by_least", "", 1.2, 1.2);
/// With 15 % loss by without.
pub const LOSS: Goal = Goal::ratio(
    "root_aggregate_at_15_percent_loss",
    "s",
    Better::Less,
    1.25,
    1.15,
);
pub const REPAIRED: Goal = Goal::number("representatives_killed_to_repaired", "s", 5.0, 3.0);
pub const HEALED: Goal = Goal::number("halves_cut_10_min_to_healed", "s", 5.0, 5.0);
/// A program, at 99 % of a hundred thousand nodes.
pub const ROLLED_OUT: Goal = Goal::number("program_rolled_out", "s", 10.0, 5.0);
/// From a question until the rows behind a number, of all nodes.
pub const DRILL: Goal = Goal::number("drill_down_10k_p99", "ms", 1_000.0, 500.0);
pub const FORGED: Goal = Goal::number("forged_rows_accepted", "", 0.0, 0.0);
/// On the cores that there are.
pub const SPEED: Goal = Goal::number("simulated_10k_nodes_10_min", "s", 600.0, 120.0);
pub const MEMORY: Goal = Goal::number("simulated_10k_nodes_memory", "GB", 8.0, 8.0);
