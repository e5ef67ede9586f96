//! Datagrams, calls and streams between nodes that know each other by id.
//!
//! In: what to send, and to whom. Out: what others sent, who came and went.
//! Holds: one UDP socket; nobody is heard before the node table agreed; every
//! queue is bounded, and what does not fit is refused by name and counted.
//! Never: decides who belongs or where a node listens.

mod accept;
mod call;
pub(crate) mod code;
mod dial;
mod error;
pub(crate) mod frames;
mod link;
mod maintain;
mod options;
mod peers;
mod relay;
mod reverse;
mod serve;
pub(crate) mod stats;
mod stream;

pub use call::{Call, CallError, IncomingCall};
pub use error::{BindError, Failure, OpenError, ReachError, SendError};
pub use options::{Address, Limits, Options, versions_spoken};
pub use peers::PeerState;
pub use relay::RELAYS_MAX;
pub use stats::{Refused, Stats};
pub use stream::{IncomingStream, Open, Priority, RecvHalf, SendHalf, Stream};

pub(crate) use dial::{agreed, spoken};

use crate::congestion::{ChoosingConfig, YieldingConfig};
use crate::identity::{CertificateView, Credentials, PeerVerifier, Requirement, Trust};
use crate::socket::Socket;
use crate::tls::{Purpose, Shown};
use arc_swap::ArcSwap;
use bytes::Bytes;
use kernel::NodeId;
use link::{Link, Own};
use peers::{Peers, Reach};
use quinn::{Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use stats::Counters;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use wire::net::Identity;
use wire::net::frame::{Content, Datagram, Hello};

/// A datagram from a peer.
#[derive(Clone, Debug)]
pub struct Received {
    pub from: Arc<Identity>,
    /// Of the sender's cluster generation.
    pub generation: u16,
    pub bytes: Bytes,
}

/// Who came and went.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    Connected {
        identity: Identity,
        address: Address,
    },
    Disconnected {
        node: NodeId,
        why: String,
    },
    /// Two living processes have this node's key: one that was replaced came
    /// back, which a restarted one never does; or one calls that has our own.
    Clones {
        node: NodeId,
        address: Address,
    },
}

/// What others send. Take from each, or drop the receivers that are not wanted:
/// what nobody takes is refused and counted.
#[derive(Debug)]
pub struct Incoming {
    pub datagrams: mpsc::Receiver<Received>,
    pub calls: mpsc::Receiver<IncomingCall>,
    pub streams: mpsc::Receiver<IncomingStream>,
    pub events: mpsc::Receiver<Event>,
}

struct Outlets {
    datagrams: mpsc::Sender<Received>,
    calls: mpsc::Sender<IncomingCall>,
    streams: mpsc::Sender<IncomingStream>,
    events: mpsc::Sender<Event>,
}

/// A node's place on the network. Clones share it; [`Transport::close`] ends it,
/// and so does dropping the last.
#[derive(Clone)]
pub struct Transport {
    inner: Arc<Inner>,
    _ends: Arc<Ends>,
}

/// Ends the endpoint with the last of its owners: our own tasks are none.
struct Ends(Endpoint);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.close(code::LEFT, b"left");
    }
}

struct Inner {
    endpoint: Endpoint,
    socket: Arc<Socket>,
    options: Options,
    trust: Arc<Trust>,
    shown: Arc<Shown>,
    own: ArcSwap<CertificateView>,
    instance: u64,
    sequence: AtomicU64,
    generation: AtomicU16,
    peers: Mutex<Peers>,
    counters: Arc<Counters>,
    outlets: Outlets,
    relays: Mutex<Vec<NodeId>>,
    tunnelled: Arc<ServerConfig>,
}

impl Transport {
    /// Opens the socket and answers from then on. Needs a tokio runtime.
    pub fn bind(options: Options) -> Result<(Self, Incoming), BindError> {
        let socket =
            std::net::UdpSocket::bind(options.bind).map_err(|source| BindError::Socket {
                address: options.bind,
                source,
            })?;
        Self::on(socket, options)
    }

    /// As [`Transport::bind`], on a socket that is bound already.
    pub fn on(
        socket: std::net::UdpSocket,
        options: Options,
    ) -> Result<(Self, Incoming), BindError> {
        let bound = |source| BindError::Socket {
            address: options.bind,
            source,
        };
        let counters = Arc::new(Counters::default());
        let socket = Socket::new(socket, options.impairments.clone(), counters.clone());
        let (socket, outbound) = socket.map_err(bound)?;
        let socket = Arc::new(socket);
        let own = options.credentials.view().map_err(BindError::Certificate)?;
        let shown = Arc::new(Shown::new(&options.credentials).map_err(BindError::Key)?);
        let trust = Arc::new(Trust::new(
            &options.credentials.root,
            options.authorise.clone(),
            options.clock.clone(),
            options.clock_tolerance,
        ));
        let server = accept::server_config(&options, &trust, &shown, &counters)?;
        let endpoint = Endpoint::new_with_abstract_socket(
            endpoint_config(&options.credentials),
            Some(server.direct),
            socket.clone(),
            Arc::new(quinn::TokioRuntime),
        )
        .map_err(bound)?;
        let (outlets, incoming) = channels(&options.limits);
        let inner = Arc::new(Inner {
            endpoint,
            socket,
            trust,
            shown,
            own: ArcSwap::from_pointee(own),
            instance: fastrand::Rng::new().u64(1..),
            sequence: AtomicU64::new(0),
            generation: AtomicU16::new(0),
            peers: Mutex::default(),
            counters,
            outlets,
            relays: Mutex::default(),
            tunnelled: server.tunnelled,
            options,
        });
        tokio::spawn(relay::run(Arc::downgrade(&inner), outbound));
        tokio::spawn(accept::run(inner.clone()));
        tokio::spawn(maintain::run(Arc::downgrade(&inner)));
        let transport = Self {
            _ends: Arc::new(Ends(inner.endpoint.clone())),
            inner,
        };
        Ok((transport, incoming))
    }

    pub fn local_addr(&self) -> Result<SocketAddr, std::io::Error> {
        self.inner.endpoint.local_addr()
    }

    /// Who this node is.
    pub fn identity(&self) -> Identity {
        self.inner.own.load().identity.clone()
    }

    /// Where a peer listens, best first. Nothing is called before something is
    /// to be said; living connections stay.
    pub fn set_peer(&self, node: NodeId, addresses: Vec<Address>) {
        let mut peers = self.inner.peers();
        let peer = peers.peer(node, &self.inner.options.limits);
        peer.set_addresses(addresses);
    }

    /// Forgets a peer's addresses and ends its connections.
    pub fn forget_peer(&self, node: NodeId) {
        let mut peers = self.inner.peers();
        if let Some(peer) = peers.known.get_mut(&node) {
            peer.addresses.clear();
        }
        let links = peers.all_links();
        drop(peers);
        for link in links.iter().filter(|link| link.identity.node == node) {
            link.close(code::DONE);
        }
    }

    /// Ends what connections there are: whoever waits on one for a node that is
    /// gone is told so. A node that is not gone is dialled again when it is
    /// wanted.
    pub fn disconnect(&self, node: NodeId) {
        let links = self.inner.peers().all_links();
        for link in links.iter().filter(|link| link.identity.node == node) {
            link.close(code::DONE);
        }
    }

    /// Keeps connections to these, at most [`RELAYS_MAX`], so that others reach
    /// this node through them as [`Address::Via`]: for one that cannot be
    /// dialled.
    pub fn set_relays(&self, mut relays: Vec<NodeId>) {
        relays.truncate(RELAYS_MAX);
        let mut kept = self
            .inner
            .relays
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *kept = relays;
        drop(kept);
        relay::keep(&self.inner);
    }

    /// Makes a connection now, or says why it cannot.
    pub async fn connect(&self, node: NodeId) -> Result<(), ReachError> {
        self.inner.link(node, Purpose::Main).await.map(|_| ())
    }

    /// The smoothed round trip of a living connection.
    pub fn rtt(&self, node: NodeId) -> Option<Duration> {
        match self.state(node) {
            PeerState::Connected { rtt, .. } => Some(rtt),
            _ => None,
        }
    }

    pub fn state(&self, node: NodeId) -> PeerState {
        self.inner.peers().state(node, Instant::now())
    }

    /// All with a living connection.
    pub fn connected(&self) -> Vec<Identity> {
        let links = self.inner.peers().all_links();
        let mut identities: Vec<Identity> = links
            .iter()
            .filter(|link| link.is_open())
            .map(|link| (*link.identity).clone())
            .collect();
        identities.sort();
        identities.dedup();
        identities
    }

    /// How many connections to a peer live; more than one main and one bulk
    /// only for a while.
    pub fn connections(&self, node: NodeId) -> usize {
        let links = self.inner.peers().all_links();
        let living = links.iter().filter(|link| link.is_open());
        living.filter(|link| link.identity.node == node).count()
    }

    pub fn stats(&self) -> Stats {
        self.inner.counters.snapshot()
    }

    /// Asks the node table again about all who are connected, and ends the
    /// connections of those for whom `keep` is false. Call it when the table
    /// changed; new handshakes ask the table themselves.
    pub fn retain(&self, mut keep: impl FnMut(&Identity) -> bool) {
        let links = self.inner.peers().all_links();
        for link in links {
            if !keep(&link.identity) {
                link.close(code::REVOKED);
            }
        }
    }

    /// As [`Transport::retain`], with the word of [`Options::authorise`].
    pub fn reauthorise(&self) {
        self.retain(|identity| self.inner.options.authorise.authorise(identity).is_ok());
    }

    /// Shows a renewed certificate from now on. Living connections go on and
    /// are replaced one after another while they still do.
    pub fn set_credentials(&self, credentials: &Credentials) -> Result<(), BindError> {
        let view = credentials.view().map_err(BindError::Certificate)?;
        self.inner.shown.swap(credentials).map_err(BindError::Key)?;
        self.inner.own.store(Arc::new(view));
        maintain::refresh(&self.inner);
        Ok(())
    }

    /// Whether ended certificates are accepted for a while; see
    /// [`crate::identity::GRACE`].
    pub fn set_no_quorum(&self, no_quorum: bool) {
        self.inner.trust.set_no_quorum(no_quorum);
    }

    /// The cluster's generation, said in each frame from now on.
    pub fn set_generation(&self, generation: u16) {
        self.inner.generation.store(generation, Ordering::Relaxed);
    }

    /// Sends at most 1,100 bytes, once. Lost without a word like any datagram;
    /// while a connection is being made a few wait for it.
    pub fn send_datagram(&self, node: NodeId, bytes: &[u8]) -> Result<(), SendError> {
        let limit = wire::net::frame::DATAGRAM_BYTES_MAX;
        if bytes.len() > limit {
            return Err(SendError::TooLong {
                bytes: bytes.len(),
                limit,
            });
        }
        self.inner
            .send_datagram(node, Bytes::copy_from_slice(bytes))
    }

    /// Ends all connections and stops answering; waits until all is said.
    pub async fn close(&self) {
        self.inner.endpoint.close(code::LEFT, b"left");
        self.inner.endpoint.wait_idle().await;
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transport({})", self.inner.own.load().identity)
    }
}

fn channels(limits: &Limits) -> (Outlets, Incoming) {
    let (datagrams, datagrams_in) = mpsc::channel(limits.datagrams_queued_max);
    let (calls, calls_in) = mpsc::channel(limits.calls_queued_max);
    let (streams, streams_in) = mpsc::channel(limits.streams_queued_max);
    let (events, events_in) = mpsc::channel(limits.events_queued_max);
    let outlets = Outlets {
        datagrams,
        calls,
        streams,
        events,
    };
    let incoming = Incoming {
        datagrams: datagrams_in,
        calls: calls_in,
        streams: streams_in,
        events: events_in,
    };
    (outlets, incoming)
}

impl Inner {
    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn generation(&self) -> u16 {
        self.generation.load(Ordering::Relaxed)
    }

    /// What this side says first on a new connection.
    fn own(&self) -> Own {
        let view = self.own.load();
        Own {
            node: view.identity.node,
            not_after: view.not_after,
            hello: Hello {
                instance: self.instance,
                sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
                generation: self.generation(),
                relays: self.options.relays,
            },
        }
    }

    fn tell(&self, event: Event) {
        // Nobody takes events: the state can still be asked for.
        let _ = self.outlets.events.try_send(event);
    }

    /// Begins to dial. No future of its own, since a dial through a relay may
    /// dial the relay first.
    fn dial(self: &Arc<Self>, node: NodeId, purpose: Purpose, addresses: Vec<Address>) {
        tokio::spawn(dial::run(self.clone(), node, purpose, addresses));
    }

    /// The living main connection to a peer, if there is one.
    fn living(&self, node: NodeId) -> Option<Arc<Link>> {
        let mut peers = self.peers();
        peers.known.get_mut(&node)?.main.best().cloned()
    }

    fn relays(&self) -> Vec<NodeId> {
        let relays = self.relays.lock().unwrap_or_else(PoisonError::into_inner);
        relays.clone()
    }

    /// An address as its peer is reached by.
    fn as_address(&self, remote: SocketAddr) -> Address {
        match self.socket.tunnels.pair(remote) {
            Some((relay, _)) => Address::Via(relay),
            None => Address::Direct(remote),
        }
    }

    /// A living connection, made when there is none.
    async fn link(
        self: &Arc<Self>,
        node: NodeId,
        purpose: Purpose,
    ) -> Result<Arc<Link>, ReachError> {
        if node == self.own.load().identity.node {
            return Err(ReachError::Own);
        }
        loop {
            let reach = self.peers().reach(node, purpose, Instant::now())?;
            let mut dialled = match reach {
                Reach::Ready(link) => return Ok(link),
                Reach::Wait(dialled) => dialled,
                Reach::Dial(dialled, addresses) => {
                    self.dial(node, purpose, addresses);
                    dialled
                }
            };
            // A sender that went away unheard was replaced: look again.
            if let Ok(ended) = dialled.wait_for(Option::is_some).await
                && let Some(Err(why)) = &*ended
            {
                return Err((**why).clone());
            }
        }
    }

    fn send_datagram(self: &Arc<Self>, node: NodeId, bytes: Bytes) -> Result<(), SendError> {
        let mut peers = self.peers();
        let reach = peers.reach(node, Purpose::Main, Instant::now());
        match reach.map_err(SendError::Unreachable)? {
            Reach::Ready(link) => {
                drop(peers);
                self.send_on(&link, &bytes)
            }
            Reach::Wait(_) => {
                self.wait_in(&mut peers, node, bytes);
                Ok(())
            }
            Reach::Dial(_, addresses) => {
                self.wait_in(&mut peers, node, bytes);
                self.dial(node, Purpose::Main, addresses);
                Ok(())
            }
        }
    }

    fn wait_in(&self, peers: &mut Peers, node: NodeId, bytes: Bytes) {
        let limits = &self.options.limits;
        let waiting = &mut peers.peer(node, limits).waiting;
        if waiting.len() >= limits.datagrams_waiting_max {
            waiting.pop_front();
            self.counters.refuse(Refused::DatagramQueue);
        }
        waiting.push_back(bytes);
    }

    fn send_on(&self, link: &Link, bytes: &[u8]) -> Result<(), SendError> {
        let datagram = Datagram {
            content: Content::Gossip(bytes),
            generation: self.generation(),
        };
        let frame = datagram.encode(link.version).map_err(SendError::Frame)?;
        link.connection
            .send_datagram(frame.into())
            .map_err(|why| SendError::Lost(why.to_string()))
    }

    /// Takes a greeted connection in and serves it until it ends.
    fn adopt(self: &Arc<Self>, link: Link) -> Result<Arc<Link>, peers::Unwanted> {
        let link = Arc::new(link);
        let limits = &self.options.limits;
        let node = link.identity.node;
        if node == self.own.load().identity.node {
            self.tell(Event::Clones {
                node,
                address: link.address,
            });
            link.close(code::CLONE);
            return Err(peers::Unwanted::Clone);
        }
        let registered = self.peers().register(&link, limits, Instant::now());
        let (events, waiting) = registered.inspect_err(|_| {
            self.counters.refuse(Refused::Penalty);
            link.close(code::PENALTY);
        })?;
        // Between the handshake and now the table may have changed.
        if self.options.authorise.authorise(&link.identity).is_err() {
            link.close(code::REVOKED);
        }
        for event in events {
            self.tell(event);
        }
        for bytes in waiting {
            let _ = self.send_on(&link, &bytes);
        }
        tokio::spawn(serve::run(self.clone(), link.clone()));
        Ok(link)
    }

    fn verifier(&self, node: NodeId) -> Arc<PeerVerifier> {
        let counters = self.counters.clone();
        let requirement = Requirement {
            kind: self.options.peers,
            node: Some(node),
        };
        Arc::new(PeerVerifier::new(
            self.trust.clone(),
            requirement,
            false,
            Arc::new(move |refusal| counters.refuse(Refused::Peer(refusal))),
        ))
    }
}

/// A restarted process knows the connections of the one before by their ids,
/// and answers that it does not have them: so their peers need not wait for
/// silence. Both come from the node's key, which outlives the process.
fn endpoint_config(credentials: &Credentials) -> EndpointConfig {
    let pkcs8 = credentials.key.to_pkcs8();
    let reset = blake3::derive_key("homeostat 2026 stateless reset", &pkcs8);
    let ids = blake3::derive_key("homeostat 2026 connection ids", &pkcs8);
    let (ids, _) = ids.split_first_chunk().unwrap_or((&[0; 8], &[]));
    let ids = u64::from_be_bytes(*ids);
    let reset = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &reset);
    let mut config = EndpointConfig::new(Arc::new(reset));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

/// How connections behave. Of those that we dial the purpose is known, and the
/// peer once it is dialled; others get leave to open streams, and their
/// congestion control, once they are known.
fn transport_config(limits: &Limits, dialled: Option<Purpose>, tunnelled: bool) -> TransportConfig {
    let mut config = TransportConfig::default();
    let known = dialled.is_some();
    let streams = VarInt::from_u32(if known { limits.streams_max } else { 0 });
    // One for the greeting.
    let greeting = VarInt::from_u32(u32::from(known));
    let idle = IdleTimeout::try_from(limits.idle).ok();
    config
        .max_concurrent_bidi_streams(streams)
        .max_concurrent_uni_streams(greeting)
        .stream_receive_window(VarInt::from_u32(limits.stream_window_bytes))
        .receive_window(VarInt::from_u32(limits.connection_window_bytes))
        .keep_alive_interval(Some(limits.keep_alive))
        .max_idle_timeout(idle)
        .datagram_receive_buffer_size(Some(256 << 10))
        .datagram_send_buffer_size(256 << 10);
    if tunnelled {
        // What a relay passes on in two pieces at most.
        config.mtu_discovery_config(None);
    }
    match dialled {
        Some(Purpose::Bulk) => {
            config.congestion_controller_factory(Arc::new(YieldingConfig));
        }
        Some(Purpose::Main | Purpose::Join) => {}
        None => {
            config.congestion_controller_factory(Arc::new(ChoosingConfig));
        }
    }
    config
}
