//! What a person writes (`homeostat.toml`), checked, and the typed objects that
//! come out of it.
//!
//! In: text. Out: the checked model or all mistakes with their places; the
//! editors' schema; explanations of fields; the difference of two models.
//! Never: looks at the disk; whether a `root` exists is the agent's to find out.

mod check;
mod diff;
mod explain;
mod job;
mod mistake;
mod model;
mod parse;
mod raw;
mod rollout;
mod schedule;
mod shape;
mod text;

pub use diff::{Action, Change, diff};
pub use explain::{Explanation, FieldExplanation, explain, suggest};
pub use job::{Job, Overlap};
pub use mistake::{Mistake, Position, position};
pub use model::{
    Binding, BindingTarget, Bucket, CachePolicy, Check, Goals, HostPattern, Limits, Manifest,
    PathPrefix, Probe, ProbeKind, Probes, Reach, Route, Run, Service, Site,
};
pub use parse::{TEXT_BYTES_MAX, parse};
pub use raw::schema;
pub use rollout::{Batches, BlueGreen, Canary, Rollout};
pub use schedule::{Schedule, ScheduleError};
