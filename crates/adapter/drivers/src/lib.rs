//! What runs replicas: the process driver and its shim.
//!
//! In: replica specifications, starts and stops. Out: [`node::driver::DriverEvent`]s.
//! Holds: one shim per replica, parent of the replica and outliving the agent;
//! limits kept by the kernel's control groups where this machine grants them.
//! Never: decides whether or when a replica runs again.

mod clock;
mod group;
mod link;
mod log;
mod probe;
mod process;
mod record;
mod shim;

pub use group::{
    CONTROL_GROUP, CONTROL_GROUP_ROOT, ControlGroups, GroupVersion, Hierarchy, control_groups,
};
pub use log::{LogCursor, LogWriter, Stream, read_log, replica_directories};
pub use process::{ProcessDriver, ProcessOptions};
pub use shim::run_shim;
