//! What the node is told and what it wants done.

use crate::alerts::{AlertSpec, AlertStatus};
use crate::attempts::AttemptStatus;
use crate::cluster::lease::{Knows, Lease};
use crate::cluster::mending::Look;
use crate::desired::{Desired, FIRST_NODE};
use crate::driver::{Adopted, DriverEvent, ProbeOutcome, ReplicaSpec};
use control::alert::Standing;
use control::{holding, stage, upgrade};
use kernel::{
    DecisionId, FencingEpoch, Hash, NodeId, ObjectRef, ReplicaId, Revision, ScopedName, Time,
    ZonePath,
};
use manifest::{Check, ProbeKind};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use wire::decision::JournalEntry;
use wire::edge::EdgeSnapshot;
use wire::layout::Layout;

/// What a node is built with.
#[derive(Clone, Debug)]
pub struct Settings {
    pub node: NodeId,
    pub layout: Layout,
    /// This program, which is also a worker.
    pub program: PathBuf,
    /// The local edge, for bindings to services: `http://127.0.0.1:8080`.
    pub base_url: String,
    /// Between leaving the routes and being asked to end.
    pub drain: Duration,
    pub rollout: control::rollout::Parameters,
    pub restart: control::restart::Parameters,
    pub holding: holding::Parameters,
    pub repair: control::repair::Parameters,
    /// What people call this node.
    pub called: String,
    /// One above the last decision in the journal.
    pub first_decision: DecisionId,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node: FIRST_NODE,
            layout: Layout::new(PathBuf::new()),
            program: PathBuf::from("homeostat"),
            base_url: "http://127.0.0.1".to_owned(),
            drain: Duration::from_secs(2),
            rollout: control::rollout::Parameters::default(),
            restart: control::restart::Parameters::default(),
            holding: holding::Parameters::default(),
            repair: control::repair::Parameters::default(),
            called: "node".to_owned(),
            first_decision: DecisionId(1),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum NodeEvent {
    /// Until it has come, nothing is started: it might run already.
    Adopted(Vec<Adopted>),
    Desired(Desired),
    Driver(DriverEvent),
    Probed {
        replica: ReplicaId,
        kind: ProbeKind,
        outcome: ProbeOutcome,
    },
    /// The edge's passive evidence.
    EndpointFailed {
        replica: ReplicaId,
        why: String,
        /// Others of its service answer the edge well.
        others_answer: bool,
    },
    RestartRequested {
        service: ScopedName,
    },
    /// What the other nodes said last, and which of them can be reached: hints.
    Peers(BTreeMap<NodeId, Peer>),
    /// What content is needed, what is here, and who else has it; and the
    /// objects that each belongs to.
    ContentSeen {
        seen: Box<holding::Seen>,
        objects: BTreeMap<Hash, Vec<ObjectRef>>,
    },
    ContentFetched {
        hash: Hash,
        /// What came from where.
        what: String,
    },
    ContentFetchFailed {
        hash: Hash,
        why: String,
    },
    /// On the leader: which nodes are there, and whether all that is wished runs
    /// where it is placed.
    ClusterSeen(Look),
    /// On whoever holds a zone's seat: the same of that zone.
    ZoneSeen {
        zone: ZonePath,
        /// Under which it holds the seat.
        epoch: FencingEpoch,
        look: Look,
    },
    /// On the leader: how all rollouts under way do.
    RolloutsSeen(BTreeMap<ScopedName, (stage::Parameters, stage::Reading)>),
    /// On the leader: a singleton has another place, or none for now.
    SingletonPlaced {
        service: ScopedName,
        /// The node's name.
        to: Option<String>,
        why: String,
    },
    /// On the leader: something was decided about a job.
    JobDecided {
        job: ScopedName,
        seen: String,
        decided: String,
    },
    /// Somebody wants this node to go over to another program.
    UpgradeAsked(Box<upgrade::Reading>),
    /// Which singletons this node may run, and which it may not any more.
    Leases(BTreeMap<ScopedName, Lease>),
    /// All that this node keeps.
    Alerts(BTreeMap<String, AlertSpec>),
    /// `None`: nobody answered.
    AlertAnswered {
        name: String,
        value: Option<serde_json::Value>,
    },
    AlertDelivered {
        name: String,
        outcome: Result<(), String>,
    },
    /// Stop all replicas; nothing is started any more.
    Shutdown,
    Tick,
}

#[derive(Clone, Debug, PartialEq)]
pub enum NodeEffect {
    /// Prepare and start it.
    Start {
        spec: ReplicaSpec,
    },
    Stop {
        replica: ReplicaId,
        grace: Duration,
    },
    Remove {
        replica: ReplicaId,
    },
    Probe {
        replica: ReplicaId,
        kind: ProbeKind,
        address: SocketAddr,
        check: Check,
        timeout: Duration,
    },
    Publish(EdgeSnapshot),
    Record(JournalEntry),
    /// Place elsewhere what these nodes have, so many replicas at most.
    Replace {
        nodes: BTreeSet<NodeId>,
        at_most: u32,
    },
    /// The same within a zone, whose seat this node held under that epoch.
    ReplaceWithin {
        zone: ZonePath,
        epoch: FencingEpoch,
        nodes: BTreeSet<NodeId>,
        at_most: u32,
    },
    /// Write down that a rollout is a stage further, if it is in that one still.
    Advance {
        service: ScopedName,
        at: stage::At,
        action: stage::Action,
    },
    /// Have it here, from other nodes; answered by its event.
    FetchContent {
        hash: Hash,
    },
    /// The same of what is or was here: only what is wrong of it is fetched.
    MendContent {
        hash: Hash,
    },
    DropContent {
        hashes: Vec<Hash>,
    },
    /// It cannot be had now.
    ContentHeldBack {
        hash: Hash,
        why: String,
    },
    /// Tell it to whom the alert names; answered by its event.
    Notify {
        name: String,
        standing: Standing,
    },
    ServiceSettled {
        service: ScopedName,
        generation: Revision,
    },
    RolloutFailed {
        service: ScopedName,
        generation: Revision,
        why: String,
    },
    /// A restart that a person asked for is over; `failed` says why it did not
    /// replace every replica.
    RestartDone {
        service: ScopedName,
        failed: Option<String>,
    },
    AllStopped,
}

/// Another node as far as requests are concerned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    pub reachable: bool,
    /// Its replicas that take requests, by service.
    pub endpoints: BTreeMap<ScopedName, Vec<ReplicaId>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub services: BTreeMap<ScopedName, ServiceStatus>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub singletons: BTreeMap<ScopedName, Knows>,
    /// Of jobs: those that are placed here, until the leader has heard how they ended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attempts: BTreeMap<ReplicaId, AttemptStatus>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alerts: BTreeMap<String, AlertStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// `ready` when as many replicas as wanted are, else the word of the one
    /// that is furthest from it.
    pub state: String,
    /// In the routes.
    pub generation: Option<Revision>,
    pub replicas_wanted: u32,
    pub replicas: Vec<ReplicaStatus>,
    /// Those of `replicas` that take requests.
    #[serde(default)]
    pub endpoints: Vec<ReplicaId>,
    /// A generation that did not come up, and why.
    #[serde(default)]
    pub failed: Option<(Revision, String)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    pub replica: ReplicaId,
    /// `ready`, `starting`, `unready`, `backing-off`, `draining`, `stopped`.
    pub state: String,
    pub pid: Option<u32>,
    pub address: Option<SocketAddr>,
    pub restarts: u32,
    pub last_exit: Option<String>,
    /// Of the last start or end.
    pub since: Time,
}
