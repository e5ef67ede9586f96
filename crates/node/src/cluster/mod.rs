//! What the leader decides for all nodes: who keeps the cluster's state, where
//! replicas run, which attempts of jobs start, what is done about nodes that are gone;
//! and what a zone's seat decides for its own.

pub mod jobs;
pub mod lease;
pub mod members;
pub mod mending;
pub mod placing;
mod replacing;
pub mod rollouts;
pub mod seats;
pub mod stages;
pub mod uptime;
pub mod wishes;
