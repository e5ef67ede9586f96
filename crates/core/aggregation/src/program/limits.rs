//! How much a program may ask for.
//!
//! Holds: whatever its text, a program within these limits is read and
//! evaluated in bounded time and memory.

use wire::attributes::{KEPT_MAX, STATES_MAX};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub text_bytes: usize,
    /// Words, numbers, texts and signs.
    pub tokens: usize,
    /// Parentheses and operators within one another.
    pub depth: usize,
    /// Operators, functions, columns and constants.
    pub nodes: usize,
    pub outputs: usize,
    /// Calls of aggregate functions that differ.
    pub states: usize,
    /// Entries of one `FIRST`, `TOP` or `RANDOM`.
    pub kept: usize,
    /// Of one evaluation: about one unit for each operator and row.
    pub fuel: u64,
    /// That the states of one evaluation may come to; what one row's expressions
    /// hold meanwhile is bounded by `depth` and [`Limits::MADE_BYTES_MAX`].
    pub state_bytes: usize,
    /// That the parts may take in a zone's row.
    pub partial_bytes: usize,
}

impl Limits {
    /// A text that an expression makes is no longer, or NULL.
    pub const MADE_BYTES_MAX: usize = 512;

    /// Of a text in a program.
    pub const LITERAL_BYTES_MAX: usize = 256;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            text_bytes: 4 << 10,
            tokens: 600,
            depth: 24,
            nodes: 256,
            outputs: 32,
            states: STATES_MAX,
            kept: KEPT_MAX,
            fuel: 60_000,
            state_bytes: 40 << 10,
            partial_bytes: 3 << 10,
        }
    }
}
