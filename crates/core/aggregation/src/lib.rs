//! What a node knows of the others. Its first part is who is reachable; rows
//! and their aggregates stand on it.
//!
//! Never: reads a clock, does I/O, draws unseeded randomness.

pub mod membership;
pub mod program;
