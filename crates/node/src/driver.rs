//! What runs replicas, whatever their kind.
//!
//! Holds: replicas outlive the agent; what a driver started it finds again
//! with [`Driver::adopt`]; each start ends in one `Started` or `StartFailed`,
//! each `Started` in one `Exited`.

use crate::BoxFuture;
use kernel::{Bytes, ReplicaId, Time};
use manifest::{Check, Limits};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use wire::shim::{Exit, Secrets};

/// What a replica is started from: bindings and paths resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaSpec {
    pub id: ReplicaId,
    pub command: Vec<String>,
    pub directory: PathBuf,
    pub environment: BTreeMap<String, String>,
    /// Variables whose values are looked up at each start: the secret's
    /// `PROJECT/NAME`.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    pub limits: Limits,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum DriverEvent {
    Started {
        replica: ReplicaId,
        pid: u32,
        address: SocketAddr,
        at: Time,
    },
    StartFailed {
        replica: ReplicaId,
        why: String,
        at: Time,
    },
    Exited {
        replica: ReplicaId,
        exit: Exit,
        at: Time,
    },
}

/// Called from the driver's own tasks; must not block.
pub type DriverEvents = Arc<dyn Fn(DriverEvent) + Send + Sync>;

/// A replica found after the agent's restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adopted {
    pub replica: ReplicaId,
    pub state: wire::shim::ShimState,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeOutcome {
    pub healthy: bool,
    /// `200 OK`, `connection refused`, `no answer within 1s`.
    pub detail: String,
    pub took: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplicaStats {
    pub cpu: Duration,
    pub memory: Option<Bytes>,
    pub processes: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    #[error("no replica `{0}` here")]
    Unknown(ReplicaId),
    #[error("{what}")]
    Failed {
        what: String,
        source: Option<std::io::Error>,
    },
}

pub trait Driver: Send + Sync + 'static {
    /// Control groups, directories, the shim: all that can be done before the
    /// replica is wanted.
    fn prepare(&self, spec: &ReplicaSpec) -> BoxFuture<'_, Result<(), DriverError>>;

    /// Runs a prepared replica, or runs it again after its exit, with these
    /// variables besides those of its specification. They are kept nowhere.
    fn start(
        &self,
        replica: &ReplicaId,
        secrets: Secrets,
    ) -> BoxFuture<'_, Result<(), DriverError>>;

    fn probe(
        &self,
        address: SocketAddr,
        check: &Check,
        timeout: Duration,
    ) -> BoxFuture<'_, ProbeOutcome>;

    /// Asks it to end, and kills what is left of it after `grace`. `Exited`
    /// follows if it ran.
    fn stop(&self, replica: &ReplicaId, grace: Duration) -> BoxFuture<'_, Result<(), DriverError>>;

    /// Forgets a replica that has ended; its logs stay.
    fn remove(&self, replica: &ReplicaId) -> BoxFuture<'_, Result<(), DriverError>>;

    /// All replicas of an earlier agent, running or ended. Their events follow
    /// from here on.
    fn adopt(&self) -> BoxFuture<'_, Result<Vec<Adopted>, DriverError>>;

    fn stats(&self, replica: &ReplicaId) -> BoxFuture<'_, Result<ReplicaStats, DriverError>>;
}
