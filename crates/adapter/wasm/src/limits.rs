//! What a guest may use.

use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of one instance's linear memory; at most [`MEMORY_BYTES_MAX`].
    pub memory_bytes: usize,
    pub table_elements: usize,
    /// Of one request, from its start to the last byte of its answer.
    pub time: Duration,
    /// Requests that are in the guest at once.
    pub concurrency: usize,
    /// Requests that one instance answers, one after the other, before another
    /// takes its place. With 1, nothing of a request is left for the next.
    pub reuse: u32,
}

/// The pool reserves so much address space for each instance.
pub const MEMORY_BYTES_MAX: usize = 1 << 30;
pub const TABLE_ELEMENTS_MAX: usize = 100_000;

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            table_elements: 10_000,
            time: Duration::from_secs(30),
            concurrency: 64,
            reuse: 1,
        }
    }
}
