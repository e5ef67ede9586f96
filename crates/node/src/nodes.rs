//! Which nodes belong to the cluster, and what each tells of itself.
//!
//! Holds: an id is issued once; who belongs is what the store says, however
//! long a node is silent.

use crate::event::NodeStatus;
use kernel::{Bytes, Hash, Name, NodeId, ReplicaId, Revision, ScopedName, UnixMillis, ZonePath};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use wire::api::Role;
use wire::edge::GenerationReadings;
use wire::supervise::release::Span;

/// All [`NodeRecord`]s are under this prefix.
pub const NODES_PREFIX: &str = "/node/";
/// The node's [`NodeRecord`].
pub fn node_key(id: NodeId) -> String {
    format!("{NODES_PREFIX}{id}")
}

/// The id that the next node gets, as JSON.
pub const NEXT_NODE_KEY: &str = "/cluster/next-node";

/// All [`Admission`]s are under this prefix.
pub const ADMISSIONS_PREFIX: &str = "/admission/";
pub fn admission_key(token: &str) -> String {
    format!("{ADMISSIONS_PREFIX}{token}")
}

/// Replicas of one service have indices of their own on each node, so that their
/// ids differ over the cluster.
const INDICES_PER_NODE: u64 = 1 << 12;

/// The least index of a replica on `node`.
pub fn first_index(node: NodeId) -> u32 {
    let before = node.0.saturating_sub(1).saturating_mul(INDICES_PER_NODE);
    u32::try_from(before).unwrap_or(0)
}

/// The node that a replica is on.
pub fn node_of(replica: &ReplicaId) -> NodeId {
    NodeId(u64::from(replica.index) / INDICES_PER_NODE + 1)
}

pub type NodeTable = BTreeMap<NodeId, NodeRecord>;

/// A node that was admitted; it stays in the table when it is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    pub id: NodeId,
    pub name: Name,
    pub zone: ZonePath,
    /// BLAKE3 of its agent's public key.
    pub key: Hash,
    pub joined_at: UnixMillis,
    /// What its machine's owner may do without a token, beyond the node itself.
    pub owner: Role,
    /// Whether it may keep the cluster's stores, and with them its authority and
    /// its secrets.
    #[serde(default = "usually")]
    pub may_vote: bool,
    /// It is being emptied: what can run elsewhere leaves it, and nothing comes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// It is there for its vote, and runs no replicas.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub witness: bool,
    #[serde(flatten)]
    pub way: Way,
    pub revoked_at: Option<UnixMillis>,
    /// Where it was before, while certificates that say so may be shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<FormerZone>,
}

fn usually() -> bool {
    true
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerZone {
    pub zone: ZonePath,
    pub until: UnixMillis,
}

impl NodeRecord {
    /// One that can be called, may vote, and whose machine's owner may look.
    pub fn new(id: NodeId, name: Name, zone: ZonePath, key: Hash, joined_at: UnixMillis) -> Self {
        Self {
            id,
            name,
            zone,
            key,
            joined_at,
            owner: Role::Viewer,
            may_vote: true,
            draining: false,
            witness: false,
            way: Way::default(),
            revoked_at: None,
            former: Vec::new(),
        }
    }

    pub fn belongs(&self) -> bool {
        self.revoked_at.is_none()
    }

    /// Whether replicas may run on it.
    pub fn takes_replicas(&self) -> bool {
        !self.draining && !self.witness
    }

    /// Whether its certificate may say that it is there.
    pub fn is_certified(&self, zone: &ZonePath, now: UnixMillis) -> bool {
        let mut former = self.former.iter();
        self.zone == *zone || former.any(|it| it.zone == *zone && now < it.until)
    }
}

/// How other agents reach a node's, as it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// The most likely first; none of a node that can only call out.
    pub addresses: Vec<SocketAddr>,
    /// It calls others and nobody can call it: it is nobody's only holder of
    /// anything, and speaks for nobody else.
    #[serde(default)]
    pub outbound_only: bool,
    /// Nodes that an outbound-only one keeps connections to, and through which
    /// it is reached.
    #[serde(default)]
    pub relays: Vec<NodeId>,
}

/// A join token as the store keeps it until its time is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    pub zone: ZonePath,
    pub owner: Role,
    #[serde(default = "usually")]
    pub may_vote: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub witness: bool,
    pub expires_at: UnixMillis,
    /// What its secret is checked with, and is no use for making it.
    pub verifier: [u8; 32],
    /// The one node that it let in: asked again, it is told the same.
    #[serde(default)]
    pub used_by: Option<NodeId>,
}

/// What a node tells of itself, whole each time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    pub status: NodeStatus,
    pub edge: Option<EdgeReport>,
    pub program_version: String,
    /// Versions that its agent can agree on; none of one that does not tell yet.
    #[serde(default)]
    pub speaks: Option<Span>,
    #[serde(default)]
    pub machine: Option<MachineReport>,
    /// It has what a member of the stores must have, and can be let in.
    #[serde(default)]
    pub entrusted: bool,
    /// Written into the node table by the leader.
    #[serde(default)]
    pub way: Option<Way>,
    #[serde(default)]
    pub content: ContentReport,
    /// What its replicas answered, of services with several generations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub generations: BTreeMap<ScopedName, BTreeMap<Revision, GenerationReadings>>,
}

/// What a node's machine has in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineReport {
    /// Thousandths of a core.
    pub cpu_thousandths: u64,
    pub memory: Bytes,
    /// Of the data directory.
    pub disk: Bytes,
    /// As compilers call it: `x86_64`.
    pub architecture: String,
}

/// What content a node holds, and copies of what it asks the others to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContentReport {
    /// Trees with all their files, and programs.
    pub here: BTreeSet<Hash>,
    /// Said by the node that holds the store, of what desired state does not
    /// name any more and a roll-back would need.
    pub asked: BTreeMap<Hash, AskedContent>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedContent {
    /// A tree with its files; else a program.
    pub tree: bool,
    /// What people call it.
    pub name: String,
    /// Over all nodes.
    pub copies: u32,
}

/// Where clients and other edges reach a node's edge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeReport {
    pub http: Option<SocketAddr>,
    pub https: Option<SocketAddr>,
    /// The port between edges; none where nobody can call it.
    pub peer: Vec<SocketAddr>,
}
