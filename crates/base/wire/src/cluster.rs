//! What agents ask of one another: methods of calls and streams, and bodies.
//!
//! Bodies are JSON. What a version does not know of a body it leaves out; a
//! method that it does not know it refuses as such.

use kernel::ReplicaId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A stream: to the leader of the control group, reports; from it, what a
/// follower is to know.
pub const FOLLOW: u16 = 1;
/// A stream: one request to the admin API, in HTTP/1.1.
pub const ADMIN: u16 = 2;
/// A stream: a connection to the buckets' socket.
pub const BUCKETS: u16 = 3;
/// A stream: content is asked for.
pub const CONTENT: u16 = 4;
/// A call: [`GiveRequest`], answered by [`Given`].
pub const GIVE: u16 = 5;
/// A call: [`CertifyRequest`], answered by [`Certified`].
pub const CERTIFY: u16 = 6;
/// A call: [`IssueRequest`], answered by [`IssuedChain`].
pub const ISSUE: u16 = 7;
/// A call: a packet of the zone tree that no datagram holds; an empty answer.
pub const TREE: u16 = 8;
/// A call: a node's id, eight bytes, big-endian; answered by its agent's public
/// key, 32 bytes, for whoever checks it against the node table.
pub const KEY: u16 = 9;
/// A call: [`crate::tree::question::Question`], answered by
/// [`crate::tree::question::Reply`].
pub const ASK: u16 = 10;
/// A call without a body, for whoever does not hear of the node by gossip:
/// answered by the time since its row changed, eight bytes of milliseconds,
/// big-endian, and the row ([`crate::attributes`]).
pub const ROW: u16 = 11;

/// A call between members of a store: the group, one byte ([`StoreGroup`]), and
/// what the store asks; answered by what it answers.
pub const STORE: u16 = 12;
/// A call without a body, from a node that is to be a member: answered by
/// [`Entrusted`].
pub const ENTRUST: u16 = 13;
/// A call without a body: answered by [`Standing`], whatever the generation of
/// who asks.
pub const STANDING: u16 = 14;

/// A call to the leader: a node wants its zone's seat, or to keep it, and is told whether
/// it holds it (`node::seats`).
pub const SEAT: u16 = 15;
/// A call to the leader from who holds a zone's seat: what it wants written of the zone.
pub const MOVE: u16 = 16;

/// Which of a node's stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreGroup {
    Control,
    Buckets,
}

impl StoreGroup {
    pub fn byte(self) -> u8 {
        match self {
            Self::Control => 0,
            Self::Buckets => 1,
        }
    }

    pub fn of_byte(byte: u8) -> Option<Self> {
        [Self::Control, Self::Buckets]
            .into_iter()
            .find(|group| group.byte() == byte)
    }
}

/// That a person had a node lead without the others, which raised the cluster's
/// generation: signed by that node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raised {
    pub generation: u16,
    /// Which leads from then on.
    pub by: kernel::NodeId,
    pub at: kernel::UnixMillis,
    /// Of its agent.
    pub key: [u8; 32],
    /// Over [`Raised::statement`]: 64 bytes.
    pub signature: Vec<u8>,
}

impl Raised {
    /// What is signed.
    pub fn statement(generation: u16, by: kernel::NodeId, at: kernel::UnixMillis) -> Vec<u8> {
        format!(
            "homeostat 2026 generation {generation} by node {by} at {}",
            at.0
        )
        .into_bytes()
    }

    /// Of two that two sides raised to, one counts.
    pub fn rank(&self) -> (u16, kernel::NodeId) {
        (self.generation, self.by)
    }
}

/// How a node stands in the cluster's groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// By which its generation was raised last.
    pub raised: Option<Raised>,
    /// It leads the control group.
    pub leads: bool,
    /// Of the control group's log here: the last entry's term and index.
    pub last: (u64, u64),
}

/// What each member has, so that any of them can lead: the cluster's
/// authorities, and the keys of what its stores have.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entrusted {
    /// Over nodes, as it is sealed.
    pub authority: Vec<u8>,
    /// Over what clients see.
    pub sites_pem: String,
    pub sites_key_pem: String,
    /// Of secrets in the control group: the key's file.
    pub secrets_key: String,
    /// Of capabilities for buckets.
    pub buckets_key: Vec<u8>,
    /// Where desired state is, if its members do not keep it themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<EtcdAccess>,
}

impl std::fmt::Debug for Entrusted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entrusted").finish_non_exhaustive()
    }
}

/// An etcd that keeps a cluster's desired state.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdAccess {
    /// `HOST:PORT` of each member.
    pub endpoints: Vec<String>,
    /// Before all keys.
    pub root: String,
    /// None: it is spoken to in the clear.
    pub tls: Option<EtcdTls>,
}

impl EtcdAccess {
    /// As a person writes it.
    pub fn url(&self) -> String {
        format!("etcd://{}/{}", self.endpoints.join(","), self.root)
    }
}

impl std::fmt::Debug for EtcdAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdAccess")
            .field("url", &self.url())
            .finish_non_exhaustive()
    }
}

/// In PEM: who signs its members' certificates, and what this cluster shows them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdTls {
    pub authority: String,
    pub certificate: String,
    pub key: String,
}

/// What a replica that starts may know; it must be placed on who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiveRequest {
    pub replica: ReplicaId,
}

#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// By the name within the project.
    pub secrets: BTreeMap<String, String>,
    /// For buckets, where the replica is bound to one.
    pub capability: Option<String>,
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Given").finish_non_exhaustive()
    }
}

/// A day's certificates for the node that asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertifyRequest {
    /// The one that it joined with.
    pub agent_key: [u8; 32],
    /// Of its edge, which may be a new one each time.
    pub edge_key: [u8; 32],
}

/// Chains in DER, each node's own first, up to below the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certified {
    pub agent: Vec<Vec<u8>>,
    pub edge: Vec<Vec<u8>>,
}

/// A certificate for clients, by the cluster's one authority, for a key that
/// the node that asks has made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueRequest {
    /// Hosts of the cluster's sites and services; names and addresses of the
    /// node that asks.
    pub names: Vec<String>,
    /// A point of P-256, uncompressed: 65 bytes.
    pub public_key: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedChain {
    /// Up to below the authority.
    pub chain_pem: String,
    /// Seconds.
    pub not_after_unix: i64,
    /// What clients are to trust.
    pub authority_pem: String,
}

/// What who joins says beside its wish, and is told beside its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinWords {
    pub edge_key: [u8; 32],
    /// Nobody can call the machine that joins.
    #[serde(default)]
    pub outbound_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WelcomeWords {
    pub name: String,
    pub holder: kernel::NodeId,
    pub holder_name: String,
    pub holder_addresses: Vec<SocketAddr>,
    /// The others that keep the cluster's state: one of them may lead.
    #[serde(default)]
    pub members: Vec<MemberWords>,
    /// Of the new node's edge.
    pub edge: Vec<Vec<u8>>,
    /// The cluster's generation, where it is not the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raised: Option<Raised>,
    /// What clients are to trust.
    #[serde(default)]
    pub authority_pem: String,
}

/// A node, as one that knows nobody yet is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberWords {
    pub id: kernel::NodeId,
    pub name: String,
    pub zone: kernel::ZonePath,
    /// BLAKE3 of its agent's public key.
    pub key: kernel::Hash,
    pub addresses: Vec<SocketAddr>,
}

/// Where a node's agent and edge listen for other nodes: a file on its disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// UDP, of the agent.
    pub agent: SocketAddr,
    /// UDP, of the edge.
    pub edge: SocketAddr,
    /// Where others reach this machine, when it is not where it listens.
    #[serde(default)]
    pub advertise: Vec<std::net::IpAddr>,
    /// Nobody can call this machine: it is reached through relays.
    #[serde(default)]
    pub outbound_only: bool,
}
