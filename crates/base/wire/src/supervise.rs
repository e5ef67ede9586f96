//! What the supervisor says on `run/supervisor.sock`.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListenerName {
    Http,
    Https,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Child {
    Agent,
    Edge,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToSupervisor {
    /// Answered by [`FromSupervisor::Listeners`], the descriptors beside it.
    TakeListeners,
    Status,
    /// Edge: a new one is started on the same sockets, then the old one drains.
    Restart(Child),
    /// Edge and agent end; the agent has stopped the replicas before.
    Shutdown,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromSupervisor {
    Listeners(Vec<ListenerName>),
    Status(SupervisorStatus),
    Done,
    Failed { why: String },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SupervisorStatus {
    pub pid: u32,
    pub version: String,
    pub http: Option<SocketAddr>,
    pub https: Option<SocketAddr>,
    pub agent: Option<ChildStatus>,
    pub edge: Option<ChildStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChildStatus {
    pub pid: u32,
    /// Taken over from an earlier supervisor.
    pub adopted: bool,
    pub restarts: u64,
}
