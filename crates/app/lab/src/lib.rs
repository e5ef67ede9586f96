//! A whole cluster on one machine, with the distances between its zones imposed.
//!
//! In: options, faults, programs to run. Out: nodes with networks, disks and
//! limits of their own (as root), or with addresses of their own (otherwise).
//! Holds: faults end by themselves; whatever was killed, what a lab consisted of
//! can be found and taken away.
//! Never: reaches anything outside this machine.

mod clock;
mod directory;
mod enter;
mod error;
mod fabric;
mod keeper;
mod ledger;
mod machine;
mod options;
mod shape;
mod start;

pub use directory::labs_directory;
pub use enter::{LAB, enter, environment};
pub use error::LabError;
pub use keeper::run as run_keeper;
pub use machine::processes::kill_part;
pub use machine::{fill, host_device, may_make_namespaces, namespace_name, unfill};
pub use options::{NODES_MAX, Options};
pub use start::{Lab, take_down};
