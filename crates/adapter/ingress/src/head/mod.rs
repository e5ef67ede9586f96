//! Heads of requests and answers: what may be served, and what goes on.

pub mod fields;
pub mod scan;
pub mod target;
