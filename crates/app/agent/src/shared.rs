//! What the agent's tasks share: channels, the newest status, the adapters.

use crate::apply::links::Links;
use crate::audit::Audit;
use crate::buckets::BucketServer;
use crate::cluster::content::Holdings;
use crate::cluster::group::control::Control;
use crate::cluster::zones::alerts::Alerts;
use crate::cluster::{Certificates, Cluster};
use crate::components::Components;
use crate::given::Given;
use content::Content;
use drivers::ProcessDriver;
use kernel::{Revision, ScopedName};
use node::store::Store;
use node::{NodeEvent, NodeStatus};
use std::net::SocketAddr;
use std::sync::Arc;
use store::EmbeddedStore;
use telemetry::Journal;
use tokio::sync::{Mutex, RwLock, broadcast, mpsc, oneshot, watch};
use wire::api::AdminPort;
use wire::edge::{EdgeReadings, EdgeSnapshot};
use wire::layout::Layout;

/// To the loop that owns the node's state machine.
#[derive(Debug)]
pub enum Message {
    Node(NodeEvent),
    /// Stop all replicas, then end the agent.
    Down,
    /// Other certificates were given: answered by the version of the snapshot
    /// that has them, if there is one yet.
    Certificates(oneshot::Sender<Option<u64>>),
}

/// How a service's change ended.
#[derive(Clone, Debug)]
pub enum Settlement {
    Settled {
        service: ScopedName,
        generation: Revision,
    },
    Failed {
        service: ScopedName,
        generation: Revision,
        why: String,
    },
    /// A restart that a person asked for is over.
    Restarted {
        service: ScopedName,
        failed: Option<String>,
    },
    AllStopped,
}

pub type Listeners = (Option<SocketAddr>, Option<SocketAddr>);

pub struct Shared {
    pub layout: Layout,
    /// This node's own: what it must know of the control group, and what is
    /// nobody else's.
    pub store: EmbeddedStore,
    /// What the cluster wishes: of use on members, and where it is in an etcd, on
    /// whoever may lead.
    pub control: Control,
    pub buckets: Arc<BucketServer>,
    pub content: Content,
    pub content_server: content::Server,
    pub fetcher: content::Fetcher,
    pub holdings: Arc<Holdings>,
    pub cluster: Cluster,
    pub driver: ProcessDriver,
    pub components: Components,
    pub links: Links,
    pub certificates: Certificates,
    pub given: Given,
    pub journal: Journal,
    pub audit: Audit,
    pub alerts: Alerts,
    pub status: watch::Sender<Arc<NodeStatus>>,
    pub snapshot: watch::Sender<Arc<EdgeSnapshot>>,
    pub readings: watch::Sender<EdgeReadings>,
    pub edge_connected: watch::Sender<bool>,
    /// The newest snapshot version that the edge has in force.
    pub edge_applied: watch::Sender<u64>,
    /// Where the edge listens (http, https), as the supervisor says.
    pub listeners: watch::Sender<Listeners>,
    /// Where the admin API listens beside its socket, or why it does not.
    pub admin_port: watch::Sender<Option<AdminPort>>,
    /// On the leader: rollouts by stages, as it saw them last.
    pub rollouts: watch::Sender<crate::apply::rollouts::Seen>,
    pub settlements: broadcast::Sender<Settlement>,
    pub messages: mpsc::Sender<Message>,
    /// Held for the whole of an apply or rollback: one change at a time.
    pub applying: Mutex<()>,
    /// Held by each change until its end is in the audit log.
    pub changes: Arc<RwLock<()>>,
}

impl Shared {
    /// The newest that this node can read of what the cluster wishes: what the
    /// leader knows is newer than what it has told.
    pub fn known(&self) -> &dyn Store {
        if self.cluster.leads() {
            &self.control
        } else {
            &self.store
        }
    }
}
