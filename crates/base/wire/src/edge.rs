//! What the agent and the edge say to each other on `run/edge.sock`, and the
//! snapshot that the edge keeps on disk and serves from alone.

use kernel::{Bytes, Hash, NodeId, ReplicaId, Revision, ScopedName, Time, ZonePath, duration_text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// 2: sites and services by project and name.
pub const SNAPSHOT_VERSION: u32 = 2;

/// Everything the edge needs to serve. Replaced whole; a smaller `version` than
/// the one in force is ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EdgeSnapshot {
    /// [`SNAPSHOT_VERSION`].
    pub format: u32,
    pub version: u64,
    /// The desired state it was made from.
    pub revision: Revision,
    pub routes: Vec<RouteEntry>,
    pub sites: BTreeMap<ScopedName, SiteView>,
    pub services: BTreeMap<ScopedName, ServiceView>,
    /// What the edge itself runs: those in the routes, and those that come up.
    #[serde(default)]
    pub components: BTreeMap<ReplicaId, ComponentView>,
    pub certificates: Vec<CertificateView>,
    /// Who this edge is to others; none on a node that stands alone.
    #[serde(default)]
    pub identity: Option<PeerIdentity>,
    /// The edges of other nodes that belong: no other one is spoken to.
    #[serde(default)]
    pub peers: BTreeMap<NodeId, PeerView>,
    /// Whose edges this one keeps connections to, since nobody can call it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<NodeId>,
    /// What services and jobs of this node find each other by.
    #[serde(default, skip_serializing_if = "Callers::is_empty")]
    pub callers: Callers,
    /// How much other nodes have free, in hundredths: of one in this node's zone
    /// its own, of others what their zone's aggregate says. What is not here is
    /// not known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headroom: BTreeMap<NodeId, u8>,
}

/// By who calls.
pub type Callers = BTreeMap<ScopedName, CallerView>;

/// Whom one service or job may call, and how it finds out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerView {
    /// Answers names, over UDP and TCP, for this caller.
    pub resolver: SocketAddr,
    /// By who is called. Callers that may call alike can share an address.
    pub links: BTreeMap<ScopedName, LinkView>,
}

/// An address of this node, from which connections are carried to a replica
/// wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkView {
    pub address: SocketAddr,
    /// The callee is wasm: it takes requests, not connections.
    #[serde(default)]
    pub requests: bool,
}

/// What this edge proves itself with to other edges: short-lived, and good for
/// nothing else. All three are PEM; the chain ends below the root.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerIdentity {
    pub node: NodeId,
    pub chain_pem: String,
    pub key_pem: String,
    pub root_pem: String,
}

impl std::fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerIdentity")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// The edge of another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// Of its peer port, the best first; none where nobody can call it.
    pub addresses: Vec<SocketAddr>,
    /// Nodes whose edges it keeps connections to, where nobody can call it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<NodeId>,
    pub zone: ZonePath,
}

/// The longest matching path wins among the most specific matching host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteEntry {
    /// `news.example`, `*.news.example` or `*`.
    pub host: String,
    /// Prefix on whole path components.
    pub path: String,
    pub target: Target,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Site(ScopedName),
    Service(ScopedName),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteView {
    pub tree: Hash,
    pub index: String,
    pub not_found: Option<String>,
    #[serde(with = "duration_text")]
    pub max_age: Duration,
    pub immutable: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceView {
    /// A request's whole time: holding, attempts and the answer's head.
    #[serde(with = "duration_text")]
    pub deadline: Duration,
    pub endpoints: Vec<Endpoint>,
}

/// A replica that may be given requests. Those that drain are left out: what
/// they have in flight goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub replica: ReplicaId,
    /// None: one of the snapshot's components, or on another node.
    pub address: Option<SocketAddr>,
    /// None: this one. One of the snapshot's peers otherwise; its edge knows
    /// where on it the replica is. An edge that does not read this field finds
    /// neither address nor component, and leaves the endpoint out.
    #[serde(default)]
    pub node: Option<NodeId>,
}

/// A `wasi:http` component as the edge runs it; its code was compiled ahead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComponentView {
    /// In content.
    pub module: Hash,
    /// When it was asked for: another start of the same replica is another one.
    pub since: Time,
    pub memory: Option<Bytes>,
    #[serde(with = "duration_text")]
    pub time: Duration,
    pub concurrency: Option<u32>,
    /// Requests that one instance answers.
    #[serde(default)]
    pub reuse: Option<u32>,
    pub environment: BTreeMap<String, String>,
    /// More environment, sealed: by variable.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    pub calls: Vec<AllowedCall>,
    /// For buckets; none without a binding to one.
    #[serde(default)]
    pub capability: Option<String>,
}

/// Requests of a guest's own that are let out; all others are denied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowedCall {
    /// As the guest names it: `news.example`, `127.0.0.1:8080`.
    pub authority: String,
    /// Where that is.
    pub address: SocketAddr,
    /// Prefixes on whole path components.
    pub paths: Vec<String>,
}

/// A certificate chain and its key, both PEM. Chosen by the TLS server name,
/// the first one for a name that none covers.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateView {
    pub hosts: Vec<String>,
    pub chain_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for CertificateView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateView")
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToEdge {
    Snapshot(Box<EdgeSnapshot>),
    /// Answered by [`FromEdge::Listeners`], the descriptors beside it.
    TakeListeners,
    /// Stop accepting, finish what is in flight, exit.
    Drain,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromEdge {
    Hello {
        pid: u32,
    },
    Applied {
        version: u64,
    },
    Refused {
        version: u64,
        why: String,
        /// The version in force, where that is why: the sender's clock went
        /// back. A larger one is taken.
        #[serde(default)]
        newer: Option<u64>,
    },
    /// In the order of the descriptors passed with this frame.
    Listeners(Vec<crate::supervise::ListenerName>),
    /// The edge can give requests to this component. Said of each of a
    /// snapshot's components, after `Applied`.
    ComponentStarted {
        replica: ReplicaId,
    },
    ComponentFailed {
        replica: ReplicaId,
        why: String,
    },
    /// Each second.
    Readings(EdgeReadings),
    /// Passive evidence, at once: connecting to or talking with it failed, or
    /// its answers in a row were errors.
    EndpointFailed {
        replica: ReplicaId,
        why: String,
        /// Other replicas of its service have answered well lately.
        #[serde(default)]
        others_answer: bool,
    },
    /// A file of content could not be read, or has not the bytes of its hash;
    /// nothing of it was served. An agent that does not know the word closes
    /// the connection, and the edge says it again to the next no sooner than a
    /// second later.
    ContentFailed {
        hash: Hash,
        why: String,
    },
    /// The same of another node's edge: it takes no requests from here for now.
    PeerFailed {
        node: NodeId,
        why: String,
    },
}

/// Of the buckets in readings: three bits of a mantissa, within 6.3 %.
pub const LATENCY_LEVEL: u8 = 3;

/// Counts since the edge started; a consumer takes differences.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EdgeReadings {
    /// Of clients: one that another edge forwarded counts there.
    pub requests: u64,
    pub errors: u64,
    pub in_flight: u64,
    /// Answered for other edges.
    #[serde(default)]
    pub forwarded: u64,
    /// Clients' answers by how long they took, in milliseconds: buckets of a
    /// [`crate::attributes::Quantiles`] at [`LATENCY_LEVEL`], ascending.
    #[serde(default)]
    pub latency_ms: Vec<(i32, u64)>,
    pub services: BTreeMap<ScopedName, ServiceReadings>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceReadings {
    /// Of clients, as in [`EdgeReadings`]; errors as well.
    pub requests: u64,
    /// 5xx answers and requests that got none.
    pub errors: u64,
    /// Wherever they came from.
    pub in_flight: u64,
    pub held: u64,
    pub retried: u64,
    /// Answered for other edges.
    #[serde(default)]
    pub forwarded: u64,
    /// As in [`EdgeReadings`].
    #[serde(default)]
    pub latency_ms: Vec<(i32, u64)>,
    /// What this node's replicas answered, whoever asked; while there are several
    /// generations of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub generations: BTreeMap<Revision, GenerationReadings>,
}

/// What came to the counts of buckets between two readings, ascending as they are; a
/// count that is smaller than before has not grown.
pub fn counts_since(before: &[(i32, u64)], now: &[(i32, u64)]) -> Vec<(i32, u64)> {
    let before: BTreeMap<i32, u64> = before.iter().copied().collect();
    let grown = now.iter().map(|(index, count)| {
        let before = before.get(index).copied().unwrap_or(0);
        (*index, count.saturating_sub(before))
    });
    grown.filter(|(_, count)| *count > 0).collect()
}

/// Of several sources together.
pub fn add_counts(all: &mut Vec<(i32, u64)>, more: &[(i32, u64)]) {
    let mut sums: BTreeMap<i32, u64> = all.iter().copied().collect();
    for (index, count) in more {
        *sums.entry(*index).or_default() += count;
    }
    *all = sums.into_iter().collect();
}

/// Counts begin anew with each start of a replica.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerationReadings {
    pub requests: u64,
    pub errors: u64,
    pub latency_ms: Vec<(i32, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_peers() -> EdgeSnapshot {
        let view = ServiceView {
            deadline: Duration::from_secs(5),
            endpoints: vec![Endpoint {
                replica: "news.app-g1-0".parse().expect("a replica"),
                address: None,
                node: Some(NodeId(2)),
            }],
        };
        let peer = PeerView {
            addresses: vec![SocketAddr::from(([192, 0, 2, 7], 7072))],
            relays: Vec::new(),
            zone: "/eu/1".parse().expect("a zone"),
        };
        let mut snapshot = EdgeSnapshot {
            format: SNAPSHOT_VERSION,
            version: 7,
            ..EdgeSnapshot::default()
        };
        let app = "news/app".parse().expect("a name");
        snapshot.services.insert(app, view);
        snapshot.peers.insert(NodeId(2), peer);
        snapshot.identity = Some(PeerIdentity {
            node: NodeId(1),
            chain_pem: "chain".to_owned(),
            key_pem: "key".to_owned(),
            root_pem: "root".to_owned(),
        });
        snapshot
    }

    #[test]
    fn golden_snapshot_with_peers() {
        let text = serde_json::to_string(&with_peers()).expect("encodes");
        insta::assert_snapshot!(text, @r#"{"format":2,"version":7,"revision":0,"routes":[],"sites":{},"services":{"news/app":{"deadline":"5s","endpoints":[{"replica":"news.app-g1-0","address":null,"node":2}]}},"components":{},"certificates":[],"identity":{"node":1,"chain_pem":"chain","key_pem":"key","root_pem":"root"},"peers":{"2":{"addresses":["192.0.2.7:7072"],"zone":"/eu/1"}}}"#);
        let back: EdgeSnapshot = serde_json::from_str(&text).expect("decodes");
        assert_eq!(back, with_peers());
    }

    #[test]
    fn snapshot_from_before_there_were_peers_reads() {
        let text = r#"{"format":2,"version":3,"revision":2,"routes":[],"sites":{},
            "services":{"news/app":{"deadline":"5s","endpoints":[
                {"replica":"news.app-g1-0","address":"127.0.0.1:80"}]}},"certificates":[]}"#;
        let snapshot: EdgeSnapshot = serde_json::from_str(text).expect("decodes");
        assert!(snapshot.peers.is_empty() && snapshot.identity.is_none());
        let mut endpoints = snapshot.services.values().flat_map(|view| &view.endpoints);
        assert!(endpoints.all(|endpoint| endpoint.node.is_none()));
    }

    #[test]
    fn golden_content_failed() {
        let said = FromEdge::ContentFailed {
            hash: Hash([7; 32]),
            why: "other bytes".to_owned(),
        };
        let text = serde_json::to_string(&said).expect("encodes");
        insta::assert_snapshot!(text, @r#"{"content_failed":{"hash":"0707070707070707070707070707070707070707070707070707070707070707","why":"other bytes"}}"#);
        let back: FromEdge = serde_json::from_str(&text).expect("decodes");
        assert_eq!(back, said);
    }

    #[test]
    fn keys_do_not_show() {
        let shown = format!("{:?}", with_peers());
        assert!(
            !shown.contains("key_pem") && !shown.contains("\"key\""),
            "{shown}"
        );
    }
}
