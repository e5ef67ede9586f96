//! A simulated world: many nodes in one thread, their network, their store and
//! the drivers of their replicas, in simulated time.
//!
//! In: a script, or a load, and a seed. Out: what came of it, and the hash of
//! all that happened.
//! Holds: one seed, one history, bit for bit; the nodes are the real cores
//! (`node`, `aggregation`); what stands around them is no kinder than the world.
//! Never: reads a clock, does I/O, draws unseeded randomness.

mod apply;
mod check;
mod client;
mod deaths;
mod host;
mod machine;
mod network;
mod plane;
mod play;
mod queue;
pub mod store;
mod table;
mod trace;
pub mod tree;
mod world;

pub use deaths::{DeathRun, Deaths};
pub use play::{Outcome, Report, play};
