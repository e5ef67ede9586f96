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
pub mod faults;
mod group;
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

use std::ops::Range;

/// `7` is one seed, `100..200` are a hundred.
///
/// # Panics
/// On anything else: it is for those who test.
pub fn seeds(text: &str) -> Range<u64> {
    let number = |text: &str| text.parse::<u64>().expect("a seed, or a range of them");
    let range = text.split_once("..");
    range.map_or_else(
        || number(text)..number(text) + 1,
        |(first, end)| number(first)..number(end),
    )
}

pub use deaths::{DeathRun, Deaths};
pub use play::{Options, Outcome, Report, play, play_with};
