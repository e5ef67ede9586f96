//! Telemetry on a node's disk: the row log, Parquet files, the journal of
//! decisions.
//!
//! In: access rows and journal entries. Out: files of them, and readers that
//! bear what a crash leaves behind.
//! Holds: a killed process loses at most what it was given within the last
//! flush interval; no row is sealed twice; directories stay under their caps.
//! Never: blocks a request on the disk.

mod error;
mod journal;
mod machine;
mod parquet_file;
mod row_log;
mod seal;
mod segment;

#[cfg(test)]
mod tests;

pub use error::TelemetryError;
pub use journal::{Journal, JournalOptions, last_decision_id, read_all};
pub use machine::{MachineError, MachineReadings, MachineSensor};
pub use row_log::{RowLog, RowLogCounts, RowLogOptions};
pub use seal::{Sealed, seal};
pub use segment::{Rows, read_segment};
