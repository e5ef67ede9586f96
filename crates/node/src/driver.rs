//! What runs replicas, whatever their kind.
//!
//! Holds: replicas outlive the agent; what a driver started it finds again
//! with [`Driver::adopt`]; each start ends in one `Started` or `StartFailed`,
//! each `Started` in one `Exited`. A component runs in the edge: it is
//! `Prepared` (compiled) first, and the edge's word on it is its `Started`, or
//! at any later time its `StartFailed`.

use crate::BoxFuture;
use kernel::{Bytes, Hash, Name, ReplicaId, ScopedName, Time};
use manifest::{Check, Limits};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use wire::bucket::BucketGrant;
use wire::edge::AllowedCall;
use wire::shim::{Exit, Secrets};

/// What a replica is started from: bindings and paths resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaSpec {
    pub id: ReplicaId,
    pub work: Work,
    pub environment: BTreeMap<String, String>,
    /// Variables whose values are looked up at each start: the secret's
    /// `PROJECT/NAME`.
    pub secrets: BTreeMap<String, String>,
    /// By binding.
    pub buckets: BTreeMap<Name, BucketGrant>,
    /// Only one may run: a later one's epoch fences it off.
    pub singleton: bool,
    /// It runs only as long as [`Driver::lease`] says.
    #[serde(default)]
    pub leased: bool,
    pub limits: Limits,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Work {
    Process {
        command: Vec<String>,
        directory: PathBuf,
    },
    /// A `wasi:http` component in the edge.
    Component(Component),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Component {
    pub module: Hash,
    /// Of one request.
    pub time: Duration,
    /// What its own requests may reach.
    pub calls: Vec<AllowedCall>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum DriverEvent {
    /// A component is compiled: the edge may load it.
    Prepared { replica: ReplicaId, at: Time },
    Started {
        replica: ReplicaId,
        pid: u32,
        /// None for a component.
        address: Option<SocketAddr>,
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

impl DriverEvent {
    pub fn replica(&self) -> &ReplicaId {
        match self {
            Self::Prepared { replica, .. }
            | Self::Started { replica, .. }
            | Self::StartFailed { replica, .. }
            | Self::Exited { replica, .. } => replica,
        }
    }
}

/// Called from the driver's own tasks; must not block.
pub type DriverEvents = Arc<dyn Fn(DriverEvent) + Send + Sync>;

/// A replica found after the agent's restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adopted {
    pub replica: ReplicaId,
    pub state: Found,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Found {
    Running(Running),
    /// None: it never ran.
    Ended(Option<Exit>),
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Running {
    pub pid: u32,
    /// None for a component.
    pub address: Option<SocketAddr>,
    pub since: Time,
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

    /// The leased replicas of this service may run until then, on the boot-time
    /// clock; what still runs then is killed, also when nobody is there to say so.
    fn lease(&self, service: &ScopedName, until: Time) -> BoxFuture<'_, ()>;
}
