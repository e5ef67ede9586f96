//! Versioned formats of everything that crosses a process, a disk or a network:
//! the one place for encodings.
//!
//! Holds: each format carries a version; a reader refuses what it does not know
//! with an error that names both versions; no decoder panics on any bytes.
//! Never: does I/O.

pub mod actor;
pub mod api;
pub mod attributes;
pub mod bucket;
pub mod cluster;
pub mod content;
pub mod decision;
pub mod edge;
pub mod frame;
pub mod gossip;
pub mod lab;
pub mod layout;
pub mod net;
pub mod peer;
pub mod record;
pub mod rows;
pub mod shim;
pub mod supervise;
pub mod tree;

pub use actor::checkpoint;
pub use content::exchange;
use gossip::compact;
