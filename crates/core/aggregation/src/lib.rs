//! What a node knows of the others: who is reachable, and the zones' rows that
//! are aggregated from theirs.
//!
//! Never: reads a clock, does I/O, draws unseeded randomness.

pub mod installed;
pub mod membership;
pub mod program;
pub mod question;
pub mod readings;
pub mod tree;
