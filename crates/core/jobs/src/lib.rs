//! Decides when a job runs, which parts of it start now, what is tried again,
//! and how a run ended.
//!
//! In: [`Event`]s with [`Now`], a job as its manifest has it, its [`Record`].
//! Out: [`Effect`]s; the record, which its owner writes down before any of them is
//! carried out.
//! Holds: each part of a run succeeds once, or the run ends with a reason; never
//! more parts at the same time than `parallel`, never more attempts of one than
//! `retries` and one; nothing starts after the deadline; an instant of a schedule
//! begins one run at most; what runs `once` is not tried again when it is not
//! known how it ended.
//! Never: reads a clock, remembers what is not in the record.

mod event;
mod machine;
mod record;
mod timing;

pub use event::{Effect, Event, Now};
pub use machine::Machine;
pub use record::{
    Attempt, Cause, End, EndedAttempt, Part, Record, Run, Stopping, Verdict, WHY_BYTES_MAX,
};

use std::time::Duration;

/// The longest wait before another attempt, unless the first one is longer.
pub const BACKOFF_MAX: Duration = Duration::from_mins(10);
/// Parts of all runs of a job that go on at the same time: more are not begun.
pub const PARTS_MAX: u32 = 2_000;
/// Of all arguments of a run together.
pub const ARGUMENTS_BYTES_MAX: usize = 1 << 10;
/// Ended attempts that a run remembers.
pub const RECENT_MAX: usize = 8;
