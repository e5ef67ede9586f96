//! What the agent and a replica's shim say on `run/replicas/ID.sock`.
//!
//! The shim is the replica's parent: it keeps output and exit status safe while
//! the agent is away. A new connection first gets a [`FromShim::State`].

use kernel::{ReplicaId, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// All a shim needs to run its replica, kept in `replicas/ID/spec.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShimSpec {
    pub replica: ReplicaId,
    /// Program and arguments; the program is absolute or looked up in the path.
    pub command: Vec<String>,
    pub directory: PathBuf,
    pub environment: BTreeMap<String, String>,
    /// Control group directories (one per v1 hierarchy, one in v2), made and
    /// limited by the agent; the replica enters them before it runs.
    pub control_groups: Vec<PathBuf>,
    pub open_files: Option<u64>,
    pub log_directory: PathBuf,
    pub log_bytes_max: u64,
    pub log_files_max: u32,
    /// It runs only as long as [`ToShim::Lease`] says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leased: bool,
}

/// Variables and values for one replica's environment.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secrets(pub BTreeMap<String, String>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToShim {
    /// Run the replica (again); refused while it runs.
    Start,
    /// The same, with secrets in its environment. They are kept nowhere: each
    /// start needs them anew. A message of its own, so that a shim of an
    /// earlier release, which never has such a replica, knows the other one.
    StartWith { secrets: Secrets },
    /// SIGTERM, then SIGKILL to the whole group after the grace.
    Stop { grace_ms: u64 },
    /// End the shim; the replica must have ended.
    Leave,
    /// A leased replica may run until then, on the boot-time clock, and is killed
    /// at once if nobody says a later time.
    Lease { until: Time },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromShim {
    State(ShimState),
    Started {
        pid: u32,
        address: SocketAddr,
        at: Time,
    },
    StartFailed {
        why: String,
        at: Time,
    },
    Exited {
        exit: Exit,
        at: Time,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShimState {
    Idle,
    Running {
        pid: u32,
        address: SocketAddr,
        since: Time,
    },
    Exited {
        exit: Exit,
        at: Time,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// Killed for its memory limit.
    OutOfMemory,
    /// Nobody was there to see it.
    Unknown,
}

impl ToShim {
    pub fn is_start(&self) -> bool {
        matches!(self, Self::Start | Self::StartWith { .. })
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::OutOfMemory => f.write_str("killed at its memory limit"),
            Self::Unknown => f.write_str("ended unseen"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_secrets_is_their_variables() {
        let secrets = Secrets([("TOKEN".to_owned(), "hidden".to_owned())].into());
        let start = ToShim::StartWith { secrets };
        assert!(start.is_start());
        let shown = format!("{start:?} {start:#?}");
        assert!(
            shown.contains("TOKEN") && !shown.contains("hidden"),
            "{shown}"
        );
    }
}
