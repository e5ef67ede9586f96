//! The peer port, over which edges forward requests to one another.
//!
//! In: who this edge is and which others belong, from the snapshot in force;
//! streams that they open. Out: streams to them.
//! Holds: nobody but the edge of a node in the snapshot is spoken to or heard;
//! one that left it has its connections ended; without an identity there is no
//! port. One edge at a time has it: a new one waits until the old has let go.
//! An edge that nobody can call keeps connections to its relays, through which
//! the others reach it first and ask it for a direct connection.
//! Never: holds back a snapshot.

use arc_swap::ArcSwap;
use ingress::{Connecting, Ingress, PeerConnector, PeerStream};
use kernel::NodeId;
use net::identity::Refusal;
use net::transport::{IncomingStream, Open, OpenError, PeerState, Priority, Stream};
use net::{Address, Credentials, Identity, Limits, NodeKey, Options, Transport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use wire::edge::{EdgeSnapshot, PeerIdentity, PeerView};
use wire::peer::Link;

/// What a stream between edges is for: a request, or a service's connection.
const FORWARD: u16 = 1;
const LINK: u16 = 2;
const RETRY: Duration = Duration::from_millis(50);
/// Said again after so many tries in vain.
const SAY_EVERY: u32 = 400;
/// What other edges have under way here may take so long when this one leaves;
/// the next one waits for the port meanwhile, and requests for it.
const LEAVE_MAX: Duration = Duration::from_secs(5);
/// A client whose connection is kept may ask once more until then, as
/// [`Ingress::drain`] has it.
const ASK_MAX: Duration = Duration::from_millis(1_200);
const LOOK: Duration = Duration::from_millis(5);
/// A connection without a word for so long is lost, with all that is on it.
const IDLE: Duration = Duration::from_secs(3);
const KEEP_ALIVE: Duration = Duration::from_millis(700);
/// Requests bring their own pauses; a node that is back is found soon.
const BACK_OFF_MAX: Duration = Duration::from_millis(400);

type Known = BTreeMap<NodeId, PeerView>;

pub struct Peers {
    listen: SocketAddr,
    known: Arc<ArcSwap<Known>>,
    relays: ArcSwap<Vec<NodeId>>,
    identity: watch::Sender<Option<PeerIdentity>>,
    transport: watch::Sender<Option<Transport>>,
    /// Shared by each request that is with another edge.
    under_way: Arc<()>,
}

impl Peers {
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            known: Arc::default(),
            relays: ArcSwap::default(),
            identity: watch::Sender::new(None),
            transport: watch::Sender::new(None),
            under_way: Arc::default(),
        }
    }

    /// Before a snapshot takes force: those in it can be reached.
    pub fn add(&self, snapshot: &EdgeSnapshot) {
        let mut known = Known::clone(&self.known.load());
        known.extend(snapshot.peers.clone());
        self.known.store(Arc::new(known));
        if let Some(transport) = &*self.transport.borrow() {
            introduce(transport, &snapshot.peers);
        }
    }

    /// After it took force: only those in it.
    pub fn follow(&self, snapshot: &EdgeSnapshot) {
        let before = self.known.swap(Arc::new(snapshot.peers.clone()));
        self.relays.store(Arc::new(snapshot.relays.clone()));
        self.identity.send_if_modified(|identity| {
            let changed = *identity != snapshot.identity;
            identity.clone_from(&snapshot.identity);
            changed
        });
        if let Some(transport) = &*self.transport.borrow() {
            introduce(transport, &snapshot.peers);
            transport.set_relays(snapshot.relays.clone());
            for node in before.keys() {
                if !snapshot.peers.contains_key(node) {
                    transport.forget_peer(*node);
                }
            }
            transport.reauthorise();
        }
    }

    /// After `refused` took no force: those in force, but for whom it left out.
    /// Who was revoked is not spoken to, whatever else cannot be served.
    pub fn withdraw(&self, in_force: &EdgeSnapshot, refused: &EdgeSnapshot) {
        let peers = in_force.peers.iter();
        let peers = peers.filter(|(node, _)| refused.peers.contains_key(node));
        self.follow(&EdgeSnapshot {
            peers: peers.map(|(node, view)| (*node, view.clone())).collect(),
            identity: in_force.identity.clone(),
            relays: in_force.relays.clone(),
            ..EdgeSnapshot::default()
        });
    }

    /// Keeps the port as the snapshots want it.
    pub async fn run(self: Arc<Self>, ingress: Arc<Ingress>) {
        let mut wanted = self.identity.subscribe();
        loop {
            let identity = wanted.borrow_and_update().clone();
            let own = self.own();
            match identity {
                Some(identity) if own == Some(identity.node) => self.renew(&identity),
                Some(identity) => {
                    self.close().await;
                    tokio::select! {
                        () = self.open(&identity, &ingress) => {}
                        // Who it is to be changed meanwhile.
                        changed = wanted.changed() => {
                            if changed.is_err() { return }
                            continue;
                        }
                    }
                }
                None => self.close().await,
            }
            if wanted.changed().await.is_err() {
                return;
            }
        }
    }

    /// Lets go of the port once what others have under way here has ended, and what
    /// clients of this edge have there, or may ask for still.
    pub async fn leave(&self, ingress: &Ingress, running: &JoinHandle<()>) {
        running.abort();
        let since = Instant::now();
        let quiet = async {
            let may_ask = || ingress.connections() > 0 && since.elapsed() < ASK_MAX;
            while ingress.peer_streams() + self.outgoing() > 0 || may_ask() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(LEAVE_MAX, quiet).await;
        self.close().await;
    }

    /// Requests that are with others, or on their way there.
    fn outgoing(&self) -> usize {
        Arc::strong_count(&self.under_way) - 1
    }

    fn own(&self) -> Option<NodeId> {
        let transport = self.transport.borrow();
        transport.as_ref().map(|one| one.identity().node)
    }

    fn renew(&self, identity: &PeerIdentity) {
        let outcome =
            credentials(identity).and_then(|credentials| match &*self.transport.borrow() {
                Some(transport) => transport
                    .set_credentials(&credentials)
                    .map_err(|error| kernel::error_chain(&error)),
                None => Ok(()),
            });
        if let Err(why) = outcome {
            tracing::error!(why, "this edge goes on with its old certificate");
        }
    }

    /// Tries until it has the port: an edge that leaves may still hold it.
    async fn open(&self, identity: &PeerIdentity, ingress: &Arc<Ingress>) {
        let mut tries: u32 = 0;
        loop {
            let bound = credentials(identity).and_then(|credentials| {
                Transport::bind(self.options(credentials))
                    .map_err(|error| kernel::error_chain(&error))
            });
            match bound {
                Ok((transport, incoming)) => {
                    tracing::info!(address = %self.listen, node = %identity.node, "peer port open");
                    introduce(&transport, &self.known.load());
                    tokio::spawn(accept(incoming.streams, Arc::clone(ingress)));
                    self.transport.send_replace(Some(transport));
                    // It may have changed while nobody was there to be told.
                    if let Some(transport) = &*self.transport.borrow() {
                        introduce(transport, &self.known.load());
                        transport.set_relays(self.relays.load().to_vec());
                        transport.reauthorise();
                    }
                    return;
                }
                Err(why) if tries.is_multiple_of(SAY_EVERY) => {
                    tracing::warn!(address = %self.listen, why, "the peer port is not open yet");
                }
                Err(_) => {}
            }
            tries = tries.wrapping_add(1);
            tokio::time::sleep(RETRY).await;
        }
    }

    fn options(&self, credentials: Credentials) -> Options {
        let known = Arc::clone(&self.known);
        let authorise = move |identity: &Identity| {
            if known.load().contains_key(&identity.node) {
                return Ok(());
            }
            Err(Refusal::Unknown)
        };
        let mut options = Options::edge(self.listen, credentials, Arc::new(authorise));
        options.limits = Limits {
            idle: IDLE,
            keep_alive: KEEP_ALIVE,
            back_off_max: BACK_OFF_MAX,
            ..options.limits
        };
        if let Some(path) = std::env::var_os(wire::lab::IMPAIRMENTS) {
            options.impairments = Some(net::impairments_from(path.into(), self.listen.ip()));
        }
        options
    }

    async fn close(&self) {
        let transport = self.transport.send_replace(None);
        if let Some(transport) = transport {
            let _ = tokio::time::timeout(LEAVE_MAX, transport.close()).await;
        }
    }
}

impl Peers {
    fn open_stream(
        &self,
        node: NodeId,
        method: u16,
        head: bytes::Bytes,
        deadline: Instant,
    ) -> Connecting {
        let mut transport = self.transport.subscribe();
        // A service's connection has no end that could be waited for.
        let under_way = (method == FORWARD).then(|| Arc::clone(&self.under_way));
        let opening = async move {
            let transport = transport.wait_for(Option::is_some).await;
            let transport = transport.ok().and_then(|one| one.clone());
            let transport = transport.ok_or(io::ErrorKind::NotConnected)?;
            let open = Open {
                method,
                head,
                priority: Priority::Normal,
                within: deadline.saturating_duration_since(Instant::now()),
            };
            match transport.open(node, open).await {
                Ok(stream) => Ok(Box::new(UnderWay {
                    stream,
                    _counted: under_way,
                }) as Box<dyn PeerStream>),
                Err(error) => Err(unreachable_node(&error)),
            }
        };
        Box::pin(async move {
            match tokio::time::timeout_at(deadline.into(), opening).await {
                Ok(opened) => opened,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }
}

impl PeerConnector for Peers {
    fn connect(&self, node: NodeId, deadline: Instant) -> Connecting {
        self.open_stream(node, FORWARD, bytes::Bytes::new(), deadline)
    }

    fn link(&self, node: NodeId, link: &Link, deadline: Instant) -> Connecting {
        self.open_stream(node, LINK, link.to_string().into(), deadline)
    }

    fn round_trip(&self, node: NodeId) -> Option<Duration> {
        match self.transport.borrow().as_ref()?.state(node) {
            PeerState::Connected { rtt, .. } => Some(rtt),
            _ => None,
        }
    }
}

/// A stream that is counted while it is there.
struct UnderWay {
    stream: Stream,
    _counted: Option<Arc<()>>,
}

impl AsyncRead for UnderWay {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for UnderWay {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn unreachable_node(error: &OpenError) -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, kernel::error_chain(error))
}

fn introduce(transport: &Transport, peers: &Known) {
    let own = transport.identity().node;
    for (node, view) in peers {
        let addresses = view.addresses.iter().copied().map(Address::from);
        let relays = view.relays.iter().copied().filter(|relay| *relay != own);
        let ways = addresses.chain(relays.map(Address::Via));
        transport.set_peer(*node, ways.collect());
    }
}

async fn accept(mut streams: mpsc::Receiver<IncomingStream>, ingress: Arc<Ingress>) {
    while let Some(incoming) = streams.recv().await {
        let ingress = Arc::clone(&ingress);
        match incoming.method {
            FORWARD => {
                let from = incoming.from.node;
                let stream = Box::new(incoming.stream);
                tokio::spawn(ingress.serve_peer_stream(stream, from));
            }
            LINK => {
                let (stream, head) = (Box::new(incoming.stream), incoming.head);
                tokio::spawn(async move { ingress.serve_link_stream(stream, &head).await });
            }
            _ => incoming.unknown_method(),
        }
    }
}

fn credentials(identity: &PeerIdentity) -> Result<Credentials, String> {
    let chain = CertificateDer::pem_slice_iter(identity.chain_pem.as_bytes());
    let chain: Result<Vec<Vec<u8>>, _> = chain.map(|one| one.map(|one| one.to_vec())).collect();
    let chain = chain.map_err(|error| format!("its chain cannot be read: {error}"))?;
    let root = CertificateDer::from_pem_slice(identity.root_pem.as_bytes())
        .map_err(|error| format!("its root cannot be read: {error}"))?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(identity.key_pem.as_bytes())
        .map_err(|error| format!("its key cannot be read: {error}"))?;
    let key = NodeKey::from_pkcs8(key.secret_pkcs8_der())
        .map_err(|error| format!("its key cannot be used: {error}"))?;
    Ok(Credentials {
        key: Arc::new(key),
        chain,
        root: root.to_vec(),
    })
}
