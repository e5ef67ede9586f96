//! What the supervisor says on `run/supervisor.sock`.

pub mod release;

use release::Release;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

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
    /// Asks the program at `program` what it is; none: the file that the node was
    /// started from. Answered by [`FromSupervisor::Inspected`] or `Refused`.
    Inspect {
        program: Option<PathBuf>,
    },
    /// All processes go over to that program. Answered when it has begun, by `Done`,
    /// or by `Refused`; how it goes on is in the status.
    Upgrade {
        program: Option<PathBuf>,
    },
    /// Edge and agent end; the agent has stopped the replicas before.
    Shutdown,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromSupervisor {
    Listeners(Vec<ListenerName>),
    Status(SupervisorStatus),
    Done,
    Failed {
        why: String,
    },
    Inspected(Inspected),
    /// Nothing was touched.
    Refused {
        why: String,
        help: Option<String>,
    },
}

/// What a program said of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inspected {
    pub program: PathBuf,
    pub running: Release,
    pub offered: Release,
    /// The file is what the node runs.
    pub same: bool,
}

/// The last upgrade: kept beside the sockets, for a supervisor's successor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpgradeStatus {
    pub program: PathBuf,
    /// Versions.
    pub from: String,
    pub to: String,
    pub stage: UpgradeStage,
    /// Of a failed one, and of one that goes back.
    pub why: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpgradeStage {
    /// A new edge is started on the same sockets.
    Edge,
    /// A new agent takes the old one's place.
    Agent,
    /// The supervisor becomes the new program.
    Supervisor,
    /// Something of the new program did not come up: the old one is started again.
    Back,
    Done,
    Failed,
}

impl std::fmt::Display for UpgradeStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Edge => "edge",
            Self::Agent => "agent",
            Self::Supervisor => "supervisor",
            Self::Back => "back",
            Self::Done => "done",
            Self::Failed => "failed",
        })
    }
}

impl UpgradeStage {
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SupervisorStatus {
    pub pid: u32,
    pub version: String,
    pub http: Option<SocketAddr>,
    pub https: Option<SocketAddr>,
    pub agent: Option<ChildStatus>,
    pub edge: Option<ChildStatus>,
    #[serde(default)]
    pub upgrade: Option<UpgradeStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChildStatus {
    pub pid: u32,
    /// Taken over from an earlier supervisor.
    pub adopted: bool,
    pub restarts: u64,
}
