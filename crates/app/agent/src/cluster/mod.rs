//! This node among the others: who it is, whom it knows, what is said between
//! agents.
//!
//! In: the node table, other agents' calls and streams, what this node
//! observes. Out: who is reachable and what they run, for the node's machine
//! and the edge.
//! Holds: whoever is not in the table, or revoked, is not spoken to; a node acts
//! on what it was told last, whoever is away.
//! Never: removes a node because it is silent.

pub mod admin;
pub mod content;
mod follow;
pub mod give;
mod gossip;
pub mod group;
mod join;
mod kept;
mod listen;
mod observe;
mod outbound;
mod renew;
pub mod rows;
pub mod seats;
mod sensor;
mod serve;
mod sites;
pub mod table;
pub mod zones;

pub use join::{JoinError, join};
pub use kept::{Kept, KeptError, Own};
pub use listen::{ListenError, Wanted, listen, read as read_listen};
pub use sites::{Certificates, Use, own_names};

use crate::apply::api_error;
use crate::shared::Shared;
use aggregation::membership::Reach;
use group::control::Control;
use group::{Lead, Network};
use kernel::Revision;
use kernel::{Name, NodeId, ZonePath};
use net::identity::Refusal;
use net::transport::{BindError, Open, PeerState, Priority};
use net::{Authority, Transport};
use node::members::Members;
use node::nodes::{MachineReport, NodeRecord, NodeReport, NodeTable, Way};
use node::store::StoreError;
use node::uptime::Uptime;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use store::EmbeddedStore;
use tokio::sync::{mpsc, watch};
use wire::api::{ApiError, Follows, NodeFailures, NodeView};
use wire::cluster::{Listen, ROW};
use wire::edge::{PeerIdentity, PeerView};
use wire::layout::Layout;
use wire::net::{Identity, JoinToken, TokenId};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    #[error("this node's place in its cluster cannot be read")]
    Kept(#[from] KeptError),
    #[error("the node table cannot be read")]
    Table(#[from] StoreError),
    #[error("where other nodes reach this one is not known")]
    Listen(#[from] ListenError),
    #[error("the port for other nodes")]
    Bind(#[from] BindError),
    #[error("no thread for the network")]
    Thread(#[source] std::io::Error),
}

impl ClusterError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Kept(error) => error.hint(),
            Self::Bind(_) => Some(
                "end what uses the port, or give another: homeostat down, then \
                 homeostat up --agent-listen ADDR",
            ),
            _ => None,
        }
    }
}

/// A new join token, and what the store keeps of it.
pub struct Made {
    pub token: JoinToken,
    pub verifier: [u8; 32],
}

pub struct Cluster {
    pub own: Own,
    kept: Kept,
    /// On each node that was entrusted with it.
    authority: OnceLock<Authority>,
    /// Who leads the control group.
    lead: watch::Sender<Lead>,
    led_last: watch::Sender<NodeId>,
    /// Who is wanted as members of the stores, as this node was told.
    members: watch::Sender<Members>,
    /// Nodes that are about to be revoked: they are let go of first.
    leaving: std::sync::Mutex<BTreeSet<NodeId>>,
    /// Whether this node has what a member must have.
    entrusted: watch::Sender<bool>,
    pub generation: group::generation::Generation,
    /// For what must never run twice.
    leases: group::lease::Leases,
    /// Of leaf zones, which are not the leader's business alone.
    pub seats: seats::Seats,
    /// How far this node's own store has what the control group has.
    pub mirrored: watch::Sender<Upto>,
    listen: Listen,
    /// Of this machine, as they were last looked at.
    machine: watch::Sender<Vec<IpAddr>>,
    /// What this machine has in all, once it was read.
    has: watch::Sender<Option<MachineReport>>,
    /// Of this node, where it can only call out.
    relays: watch::Sender<Vec<NodeId>>,
    pub nodes: watch::Sender<Arc<NodeTable>>,
    /// What nodes said of themselves last, this one too.
    pub reports: watch::Sender<BTreeMap<NodeId, NodeReport>>,
    own_report: watch::Sender<NodeReport>,
    /// What the edge shows to others; none where that cannot be read.
    edge_identity: watch::Sender<Option<PeerIdentity>>,
    reach: watch::Sender<BTreeMap<NodeId, Reach>>,
    /// On the leader: how often they are down.
    pub uptimes: watch::Sender<Arc<BTreeMap<NodeId, Uptime>>>,
    /// Of nodes that are not in view, by their zones.
    far: watch::Sender<BTreeMap<NodeId, Reach>>,
    /// In a cluster up to this size all are in view.
    pub whole_max: usize,
    pub rows: rows::Rows,
    pub zones: zones::Zones,
    pub programs: zones::aggregates::Programs,
    /// Nodes that said of a zone what its rows do not give.
    pub liars: watch::Sender<BTreeMap<NodeId, ZonePath>>,
    /// Nodes whose key two processes were found to have.
    clones: watch::Sender<BTreeSet<NodeId>>,
    /// Another process has this node's key, and prevails: this one is silent.
    superseded: watch::Sender<bool>,
    /// Whether the leader's keys come in.
    pub following: watch::Sender<bool>,
    /// Whether what they said last is in force at the edge.
    pub current: watch::Sender<bool>,
    transport: Network,
    gossip: mpsc::Sender<aggregation::membership::Event>,
    gossip_inbox: std::sync::Mutex<Option<mpsc::Receiver<aggregation::membership::Event>>>,
}

/// A revision of the control group, and the one of this node's own store by which
/// all of it is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upto {
    pub of: Revision,
    pub here: Revision,
}

/// Of this run: tests make large clusters of few nodes by it.
const WHOLE_MAX_VARIABLE: &str = "HOMEOSTAT_WHOLE_MAX";

fn whole_max() -> usize {
    let usual = aggregation::membership::WHOLE_MAX;
    let Ok(text) = std::env::var(WHOLE_MAX_VARIABLE) else {
        return usual;
    };
    text.parse().unwrap_or_else(|error| {
        tracing::warn!(name = WHOLE_MAX_VARIABLE, %error, "not understood");
        usual
    })
}

const GOSSIP_QUEUED_MAX: usize = 1_024;
/// For a node's row.
const ROW_MAX: Duration = Duration::from_secs(2);
/// Connection included.
const OPEN_MAX: Duration = Duration::from_secs(5);
/// For connections to end in order, by a node that goes and by one that is back in a
/// moment.
const FAREWELL: Duration = Duration::from_secs(1);
const INTERRUPTION: Duration = Duration::from_millis(200);

/// A stream to another agent, which says by its method what it is for.
fn stream(method: u16, priority: Priority) -> Open {
    Open {
        method,
        head: bytes::Bytes::new(),
        priority,
        within: OPEN_MAX,
    }
}

impl Cluster {
    /// Finds out who this node is, or makes a cluster of it alone.
    pub fn who(layout: &Layout, name: &Name) -> Result<Own, ClusterError> {
        let kept = Kept::new(layout);
        Ok(match kept.own()? {
            Some(own) => own,
            None => kept.begin(name.clone(), ZonePath::root(), crate::machine::unix_now())?,
        })
    }

    /// The fingerprint of this node's.
    pub fn key(layout: &Layout) -> Result<kernel::Hash, ClusterError> {
        Ok(Kept::new(layout).fingerprint(wire::net::Kind::Agent)?)
    }

    /// * `store`: this node's own.
    /// * `network`: where it puts its transport.
    pub async fn open(
        layout: &Layout,
        own: Own,
        store: &EmbeddedStore,
        control: &Control,
        network: Network,
    ) -> Result<Self, ClusterError> {
        let kept = Kept::new(layout);
        let now = crate::machine::unix_now();
        let authority = match kept.authority()? {
            Some(authority) => OnceLock::from(authority),
            None => OnceLock::new(),
        };
        let leads = control.members().leader == Some(own.id);
        if own.holder.is_none() && leads {
            let key = kept.fingerprint(wire::net::Kind::Agent)?;
            let first = table::first(own.name.clone(), own.zone.clone(), key, now);
            table::begin(control, &first).await?;
        }
        let members = follow::begin(store, control, own.id).await?;
        for told in own.told() {
            table::introduce(store, told, now).await?;
        }
        let (nodes, _) = table::read_all(store).await?;
        // One that others could have been led without asks them first.
        let leads = leads && group::generation::others(&nodes, own.id).is_empty();
        let (gossip, inbox) = mpsc::channel(GOSSIP_QUEUED_MAX);
        let relays = nodes.get(&own.id).map(|record| record.way.relays.clone());
        Ok(Self {
            listen: listen::read(layout)?,
            machine: watch::Sender::new(listen::addresses()),
            has: watch::Sender::default(),
            relays: watch::Sender::new(relays.unwrap_or_default()),
            edge_identity: watch::Sender::new(renew::edge_identity(&kept, own.id)),
            rows: rows::Rows::open(&kept),
            zones: zones::Zones::new(own.id, kept.key(wire::net::Kind::Agent)?),
            programs: zones::aggregates::Programs::default(),
            liars: watch::Sender::default(),
            lead: watch::Sender::new(if leads { Lead::Here } else { Lead::Unknown }),
            led_last: watch::Sender::new(match &own.holder {
                Some(holder) if !leads => holder.id,
                _ => own.id,
            }),
            members: watch::Sender::new(members),
            leaving: std::sync::Mutex::default(),
            entrusted: watch::Sender::new(authority.get().is_some()),
            generation: group::generation::Generation::new(&kept),
            leases: group::lease::Leases::default(),
            seats: seats::Seats::default(),
            mirrored: watch::Sender::default(),
            own,
            kept,
            authority,
            nodes: watch::Sender::new(Arc::new(nodes)),
            reports: watch::Sender::default(),
            own_report: watch::Sender::default(),
            reach: watch::Sender::default(),
            uptimes: watch::Sender::default(),
            far: watch::Sender::default(),
            whole_max: whole_max(),
            clones: watch::Sender::default(),
            superseded: watch::Sender::new(false),
            following: watch::Sender::new(false),
            current: watch::Sender::new(false),
            transport: network,
            gossip,
            gossip_inbox: std::sync::Mutex::new(Some(inbox)),
        })
    }

    /// Opens the port and takes part from now on.
    pub async fn start(shared: &Arc<Shared>) -> Result<(), ClusterError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("network")
            .enable_all()
            .build()
            .map_err(ClusterError::Thread)?;
        // Gossip has a thread of its own, which the agent's work never holds
        // up; it ends with the process.
        let runtime = Box::leak(Box::new(runtime));
        let cluster = &shared.cluster;
        let options = serve::options(shared)?;
        let bound = runtime.spawn(async move { Transport::bind(options) }).await;
        let bound = bound.map_err(|error| ClusterError::Thread(std::io::Error::other(error)))?;
        let (transport, incoming) = bound?;
        transport.set_generation(cluster.generation.number());
        if cluster.transport.set(transport).is_err() {
            return Ok(());
        }
        let inbox = cluster.gossip_inbox.lock();
        let inbox = inbox
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        let (datagrams, streams) = serve::run(shared, incoming);
        if let Some(inbox) = inbox {
            runtime.spawn(gossip::run(Arc::clone(shared), datagrams, inbox));
            runtime.spawn(zones::run(Arc::clone(shared)));
        }
        tokio::spawn(streams);
        tokio::spawn(observe::table(Arc::clone(shared)));
        tokio::spawn(observe::own(Arc::clone(shared)));
        tokio::spawn(observe::peers(Arc::clone(shared)));
        tokio::spawn(observe::machine(Arc::clone(shared)));
        if cluster.outbound_only() {
            tokio::spawn(outbound::keep(Arc::clone(shared)));
        }
        tokio::spawn(rows::tell(Arc::clone(shared)));
        tokio::spawn(sensor::run(Arc::clone(shared)));
        tokio::spawn(renew::run(Arc::clone(shared)));
        tokio::spawn(group::run(Arc::clone(shared)));
        tokio::spawn(group::generation::run(Arc::clone(shared)));
        tokio::spawn(group::tend(Arc::clone(shared)));
        tokio::spawn(group::keep_entrusted(Arc::clone(shared)));
        tokio::spawn(group::lease::hold(Arc::clone(shared)));
        tokio::spawn(seats::run(Arc::clone(shared)));
        tokio::spawn(crate::apply::zone::run(Arc::clone(shared)));
        tokio::spawn(follow::follow(Arc::clone(shared)));
        tokio::spawn(sites::keep(Arc::clone(shared)));
        Ok(())
    }

    /// Ends its connections.
    ///
    /// * `goodbye`: and says so, that nobody waits for this node.
    pub async fn leave(&self, goodbye: bool) {
        if goodbye {
            let leaving = aggregation::membership::Event::Leaving;
            let _ = self.gossip.send(leaving).await;
        }
        if let Some(transport) = self.transport.get() {
            if goodbye {
                gossip::left(self).await;
            }
            // The others hear of it at once; what is waited for are their last words.
            let most = if goodbye { FAREWELL } else { INTERRUPTION };
            let _ = tokio::time::timeout(most, transport.close()).await;
        }
    }

    fn transport(&self) -> &Transport {
        self.transport.get().expect("the network was started first")
    }

    pub fn follows(&self) -> Option<Follows> {
        if self.leads() {
            return None;
        }
        Some(Follows {
            node: self.called(self.led_last()),
            connected: *self.following.borrow(),
            before: self.record(self.own.id).is_some(),
            current: *self.current.borrow(),
        })
    }

    /// What the node table says of this node; at its first moment, what it was
    /// told when it joined.
    pub fn name(&self) -> Name {
        let nodes = self.nodes.borrow();
        let record = nodes.get(&self.own.id);
        record.map_or_else(|| self.own.name.clone(), |record| record.name.clone())
    }

    /// The same of its zone.
    pub fn zone(&self) -> ZonePath {
        let record = self.record(self.own.id);
        record.map_or_else(|| self.own.zone.clone(), |record| record.zone)
    }

    /// A node's name, or its id where the table has none.
    pub fn called(&self, node: NodeId) -> String {
        let record = self.record(node);
        record.map_or_else(|| node.to_string(), |record| record.name.to_string())
    }

    fn record(&self, node: NodeId) -> Option<NodeRecord> {
        self.nodes.borrow().get(&node).cloned()
    }

    pub fn reach(&self, node: NodeId) -> Reach {
        if node == self.own.id {
            return Reach::Alive;
        }
        let far = self.far.borrow().get(&node).copied();
        far.or_else(|| self.reach.borrow().get(&node).copied())
            .unwrap_or_default()
    }

    fn see_far(&self, found: BTreeMap<NodeId, Reach>) {
        let changed = self.far.send_if_modified(|far| {
            let changed = *far != found;
            *far = found;
            changed
        });
        if changed {
            // Who waits for changes of reach waits for these too.
            self.reach.send_modify(|_| {});
        }
    }

    /// Whether its reach and attributes are heard of here, and not only its zone.
    pub fn is_in_view(&self, node: NodeId) -> bool {
        !self.far.borrow().contains_key(&node)
    }

    pub fn reach_changes(&self) -> watch::Receiver<BTreeMap<NodeId, Reach>> {
        self.reach.subscribe()
    }

    /// Somebody found it silent: it is asked at once.
    pub async fn doubt(&self, node: NodeId, why: &str) {
        tracing::info!(%node, why, "doubted");
        let doubted = aggregation::membership::Event::Doubted(node);
        let _ = self.gossip.send(doubted).await;
    }

    fn reported(&self, node: NodeId, report: NodeReport) {
        self.reports.send_if_modified(|reports| {
            if reports.get(&node) == Some(&report) {
                return false;
            }
            reports.insert(node, report);
            true
        });
    }

    /// Whether the table has this identity, and lets it in.
    fn authorise(&self, identity: &Identity) -> Result<(), Refusal> {
        let nodes = self.nodes.borrow();
        let record = nodes.get(&identity.node).ok_or(Refusal::Unknown)?;
        if !record.belongs() {
            return Err(Refusal::Revoked);
        }
        if !record.is_certified(&identity.zone, crate::machine::unix_now()) {
            return Err(Refusal::OtherZone);
        }
        // Edges have keys of their own, made anew at will; who issued their
        // certificate knew the node.
        if identity.kind == wire::net::Kind::Agent && record.key != identity.key {
            return Err(Refusal::OtherKey);
        }
        Ok(())
    }

    /// As the admin API shows it, from what is known here.
    pub fn view(&self, record: &NodeRecord) -> NodeView {
        self.view_with(record, &self.rows.of(record.id))
    }

    /// The same of a node that is asked for what is not.
    pub async fn view_asked(&self, record: &NodeRecord) -> NodeView {
        if self.is_in_view(record.id) {
            return self.view(record);
        }
        let asked = self.transport().call(record.id, ROW, Vec::new(), ROW_MAX);
        let (seen, state) = match asked.await {
            Ok(bytes) => (rows::Seen::read(&bytes), "alive"),
            Err(_) => (rows::Seen::default(), "unanswered"),
        };
        NodeView {
            state: state.to_owned(),
            ..self.view_with(record, &seen)
        }
    }

    fn view_with(&self, record: &NodeRecord, seen: &rows::Seen) -> NodeView {
        let reports = self.reports.borrow();
        let report = reports.get(&record.id);
        let edge = report.and_then(|report| report.edge.as_ref());
        let this = record.id == self.own.id;
        let state = match self.reach(record.id) {
            _ if !record.belongs() => "revoked",
            Reach::Alive if !self.is_in_view(record.id) => "zone-alive",
            Reach::Dead if !self.is_in_view(record.id) => "zone-silent",
            _ if this && *self.superseded.borrow() => "superseded",
            Reach::Unheard => "unheard",
            Reach::Alive => "alive",
            Reach::Suspect => "suspect",
            Reach::Dead => "dead",
            Reach::Left => "left",
        };
        let connected = match self.transport.get().map(|it| it.state(record.id)) {
            Some(PeerState::Connected { rtt, version, .. }) if !this => Some((rtt, version)),
            _ => None,
        };
        let services = report
            .into_iter()
            .flat_map(|report| report.status.services.values());
        let text = |address: &SocketAddr| address.to_string();
        let ago = |at| crate::machine::now().since(at);
        let uptimes = self.uptimes.borrow();
        let failures = uptimes.get(&record.id).map(|uptime| {
            let (times, down, watched) = uptime.downs(crate::machine::unix_now());
            NodeFailures {
                times,
                down_seconds: down.as_secs(),
                watched_seconds: watched.as_secs(),
            }
        });
        NodeView {
            id: record.id.to_string(),
            name: record.name.to_string(),
            zone: record.zone.to_string(),
            state: state.to_owned(),
            cloned: self.clones.borrow().contains(&record.id),
            this,
            leader: self.lead.borrow().is(record.id, self.own.id),
            draining: record.draining,
            witness: record.witness,
            votes: self.members.borrow().voters.contains(&record.id),
            addresses: record.way.addresses.iter().map(text).collect(),
            outbound_only: record.way.outbound_only,
            relays: record
                .way
                .relays
                .iter()
                .map(|it| self.called(*it))
                .collect(),
            http: edge.and_then(|edge| edge.http.as_ref().map(text)),
            https: edge.and_then(|edge| edge.https.as_ref().map(text)),
            joined_unix_ms: record.joined_at.0,
            failures,
            round_trip_us: connected.and_then(|(rtt, _)| u64::try_from(rtt.as_micros()).ok()),
            wire: connected.map(|(_, version)| version),
            version: report.map(|report| report.program_version.clone()),
            ready: services.map(|service| service.endpoints.len() as u64).sum(),
            attributes: rows::as_json(&seen.row),
            attributes_changed_ms: seen
                .changed
                .and_then(|at| u64::try_from(ago(at).as_millis()).ok()),
            attributes_unreadable: seen.unreadable,
        }
    }

    /// A token for one more node, with where this one can be reached.
    pub fn join_token(&self, zone: ZonePath) -> Result<Made, ApiError> {
        let Some(authority) = self.authority.get() else {
            let message = "this node was not entrusted with the cluster's authority";
            return Err(api_error("internal", message, None));
        };
        let random = ring::rand::SystemRandom::new();
        let failed = |_| api_error("internal", "the system gives no random bytes", None);
        let secret = ring::rand::generate::<[u8; 16]>(&random).map_err(failed)?;
        let id = ring::rand::generate::<[u8; 8]>(&random).map_err(failed)?;
        let token = JoinToken {
            id: TokenId(u64::from_be_bytes(id.expose())),
            secret: secret.expose(),
            root: authority.root_hash(),
            zone,
            addresses: self.doors(),
        };
        let verifier = net::TokenVerifier::of(&token).0.0;
        Ok(Made { token, verifier })
    }

    /// Where other agents reach this one.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.reachable(self.listen.agent)
    }

    /// Where whoever joins is let in: here, and at the other members.
    fn doors(&self) -> Vec<SocketAddr> {
        let nodes = self.nodes.borrow().clone();
        let mut members = self.members().all();
        members.remove(&self.own.id);
        let records = members.iter().filter_map(|node| nodes.get(node));
        let others = records.filter(|record| record.belongs());
        let others = others.filter_map(|record| record.way.addresses.first().copied());
        self.addresses().into_iter().chain(others).collect()
    }

    /// Where others reach a socket of this node; nowhere, if it can only call
    /// out.
    fn reachable(&self, socket: SocketAddr) -> Vec<SocketAddr> {
        if self.outbound_only() {
            return Vec::new();
        }
        listen::reachable(&self.listen, socket, &self.machine.borrow())
    }

    /// Where clients reach this node's edge.
    fn ingress(&self, http: Option<SocketAddr>) -> Option<SocketAddr> {
        self.reachable(http?).into_iter().next()
    }

    /// Whether nobody can call this node. The one that the cluster began with
    /// must be called.
    pub fn outbound_only(&self) -> bool {
        self.listen.outbound_only && self.own.holder.is_some()
    }

    /// What the others are to know.
    fn way(&self) -> Way {
        Way {
            addresses: self.addresses(),
            outbound_only: self.outbound_only(),
            relays: self.relays(),
        }
    }

    pub fn relays(&self) -> Vec<NodeId> {
        if self.outbound_only() {
            self.relays.borrow().clone()
        } else {
            Vec::new()
        }
    }

    pub fn edge_identity(&self) -> Option<PeerIdentity> {
        self.edge_identity.borrow().clone()
    }

    /// The edges of the other nodes that belong.
    pub fn edge_peers(&self) -> BTreeMap<NodeId, PeerView> {
        let nodes = self.nodes.borrow().clone();
        let reports = self.reports.borrow();
        let mut peers = BTreeMap::new();
        for record in nodes.values().filter(|record| record.belongs()) {
            let edge = reports.get(&record.id).and_then(|it| it.edge.as_ref());
            if let (Some(edge), true) = (edge, record.id != self.own.id) {
                let view = PeerView {
                    addresses: edge.peer.clone(),
                    relays: record.way.relays.clone(),
                    zone: record.zone.clone(),
                };
                peers.insert(record.id, view);
            }
        }
        peers
    }
}
