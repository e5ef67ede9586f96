//! Feedback loops: one shape, each decision pure and written down with what it
//! saw, why, and what it expects, so that it can be told, checked and replayed.
//!
//! Never: reads a clock, does I/O, draws unseeded randomness.

pub mod alert;
mod engine;
pub mod holding;
pub mod job;
pub mod readiness;
pub mod repair;
mod replay;
pub mod restart;
pub mod rollout;
pub mod singleton;
pub mod stage;
pub mod upgrade;

pub use engine::{Controller, Decided, DecisionIds, Effort, Loop, Step};
pub use replay::{ReplayMismatch, replay, replay_as};
