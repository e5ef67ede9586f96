//! What each figure must reach: where it closes, and where it should end.

use bench_common::figure::Goal;

/// In 5,000 node-hours where it closes, in 50,000 where it should end.
pub const FALSE_DEATHS: Goal = Goal::number("false_deaths", "", 0.0, 0.0);
