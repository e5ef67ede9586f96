//! Pure composition of the cores: node events in, node effects out; and the
//! traits behind which the adapters stand.
//!
//! Never: reads a clock, does I/O, knows a runtime.

mod alerts;
pub mod attempts;
pub mod buckets;
mod cluster;
pub mod desired;
pub mod driver;
mod event;
mod holding;
mod machine;
pub mod nodes;
pub mod relays;
mod replica;
pub mod script;
mod service;
mod snapshot;
mod spec;
pub mod store;
mod why;

pub use alerts::{AlertSpec, AlertStatus};
pub use cluster::{jobs, lease, members, mending, placing, rollouts, seats, uptime, wishes};
pub use control::{ReplayMismatch, replay};
pub use event::{NodeEffect, NodeEvent, NodeStatus, Peer, ReplicaStatus, ServiceStatus, Settings};
pub use holding::{Copies, copies};
pub use machine::Node;
pub use spec::replica_spec;
pub use why::why;

/// A future behind a trait object.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
