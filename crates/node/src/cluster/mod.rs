//! What the leader decides for all nodes: who keeps the cluster's state, where
//! replicas run, what is done about nodes that are gone.

pub mod lease;
pub mod members;
pub mod mending;
pub mod placing;
mod replacing;
pub mod wishes;
