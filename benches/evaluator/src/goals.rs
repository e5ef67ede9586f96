//! What each figure must reach: where it closes, and where it should end.

use bench_common::figure::{Better, Goal, Of};

const fn sets(name: &'static str, of: Of, closes: f64, last: f64) -> Goal {
    Goal {
        name,
        unit: "/s",
        of,
        better: Better::More,
        closes,
        last,
    }
}

/// A row changes, then 4 programs run over 64 rows, on one core.
pub const SETS: Goal = sets("evaluator_sets", Of::Number, 40_000.0, 100_000.0);
/// The same work by `SQLite`.
pub const SETS_SQLITE: Goal = sets("evaluator_sets_vs_sqlite", Of::Ratio, 1.3, 1.5);
/// The programs alone, nothing changed.
pub const RUNS_SQLITE: Goal = sets("evaluator_runs_vs_sqlite", Of::Ratio, 1.3, 1.5);
pub const PANICS: Goal = Goal::number("hostile_panics", "", 0.0, 0.0);
pub const LONGEST: Goal = Goal::number("hostile_longest", "ms", 1.0, 1.0);
pub const LARGEST: Goal = Goal::number("hostile_largest", "KiB", 64.0, 64.0);
