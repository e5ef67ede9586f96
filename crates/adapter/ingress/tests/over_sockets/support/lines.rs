//! Edges of several nodes, joined by real sockets whose faults the test makes.

use super::puppet::Wire;
use super::{World, name};
use ingress::{Connecting, Ingress, Limits, PeerConnector};
use kernel::{NodeId, ReplicaId, Revision};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use wire::edge::{Endpoint, PeerIdentity, PeerView, ServiceView};

/// How the lines to one node are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Well,
    /// What is sent is lost, and nothing comes.
    Silent,
    /// As [`State::Silent`], and it was noticed.
    Lost,
}

struct To {
    address: SocketAddr,
    state: watch::Sender<State>,
    opened: usize,
    round_trip: Option<Duration>,
}

#[derive(Default)]
pub struct Lines {
    own: Mutex<NodeId>,
    to: Mutex<BTreeMap<NodeId, To>>,
}

impl Lines {
    fn with<T>(&self, node: NodeId, act: impl FnOnce(&mut To) -> T) -> T {
        act(self.to.lock().expect("lock").get_mut(&node).expect("known"))
    }

    pub fn set(&self, node: u64, state: State) {
        self.with(NodeId(node), |to| to.state.send_replace(state));
    }

    pub fn set_round_trip(&self, node: u64, span: Duration) {
        self.with(NodeId(node), |to| to.round_trip = Some(span));
    }

    pub fn add(&self, node: u64, address: SocketAddr) {
        let to = To {
            address,
            state: watch::Sender::new(State::Well),
            opened: 0,
            round_trip: None,
        };
        self.to.lock().expect("lock").insert(NodeId(node), to);
    }

    /// Streams opened to it so far.
    pub fn opened(&self, node: u64) -> usize {
        self.with(NodeId(node), |to| to.opened)
    }
}

/// Of who opens a stream: it is a link's.
const LINK: u64 = 1 << 63;

impl PeerConnector for Lines {
    fn connect(&self, node: NodeId, _: Instant) -> Connecting {
        let own = self.own.lock().expect("lock").0;
        self.open(node, own, String::new())
    }

    fn link(&self, node: NodeId, link: &wire::peer::Link, _: Instant) -> Connecting {
        let own = self.own.lock().expect("lock").0;
        self.open(node, own | LINK, link.to_string())
    }

    fn round_trip(&self, node: NodeId) -> Option<Duration> {
        self.with(node, |to| to.round_trip)
    }
}

impl Lines {
    fn open(&self, node: NodeId, first: u64, head: String) -> Connecting {
        let (address, state) = self.with(node, |to| {
            to.opened += 1;
            (to.address, to.state.subscribe())
        });
        Box::pin(async move {
            if *state.borrow() == State::Lost {
                return Err(io::ErrorKind::NotConnected.into());
            }
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            stream.write_u64(first).await?;
            if first & LINK != 0 {
                stream
                    .write_u8(u8::try_from(head.len()).expect("short"))
                    .await?;
                stream.write_all(head.as_bytes()).await?;
            }
            Ok(Box::new(Line::new(stream, state)) as _)
        })
    }
}

struct Line {
    stream: TcpStream,
    state: watch::Receiver<State>,
    lost: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Line {
    fn new(stream: TcpStream, state: watch::Receiver<State>) -> Self {
        let mut waiting = state.clone();
        let lost = async move {
            let _ = waiting.wait_for(|state| *state == State::Lost).await;
        };
        Self {
            stream,
            state,
            lost: Box::pin(lost),
        }
    }

    fn state(&mut self, cx: &mut Context<'_>) -> State {
        match self.lost.as_mut().poll(cx) {
            Poll::Ready(()) => State::Lost,
            Poll::Pending => *self.state.borrow(),
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.state(cx) {
            State::Lost => {
                // A future that was ready must not be asked again.
                self.lost = Box::pin(std::future::ready(()));
                Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
            }
            State::Silent => Poll::Pending,
            State::Well => Pin::new(&mut self.stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if *self.state.borrow() == State::Well {
            return Pin::new(&mut self.stream).poll_write(cx, buf);
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Nodes 1, 2, … that all know one another.
pub async fn nodes<const N: usize>(limits: Limits) -> [World; N] {
    let mut worlds = Vec::new();
    let mut addresses = Vec::new();
    for _ in 0..N {
        let world = World::start(limits.clone(), false).await;
        addresses.push(listen(&world.ingress).await);
        worlds.push(world);
    }
    for (own, world) in (1..).zip(&mut worlds) {
        *world.lines.own.lock().expect("lock") = NodeId(own);
        world.snapshot.identity = Some(PeerIdentity {
            node: NodeId(own),
            chain_pem: String::new(),
            key_pem: String::new(),
            root_pem: String::new(),
        });
        for (other, address) in (1..).zip(&addresses).filter(|(other, _)| *other != own) {
            world.lines.add(other, *address);
            let view = PeerView {
                addresses: vec![*address],
                relays: Vec::new(),
                zone: "/".parse().expect("a zone"),
            };
            world.snapshot.peers.insert(NodeId(other), view);
        }
        world.snapshot.version += 1;
        world.ingress.set_snapshot(&world.snapshot).expect("taken");
    }
    worlds.try_into().ok().expect("as many")
}

/// The peer port: each connection is one stream, and says first whose.
async fn listen(ingress: &Arc<Ingress>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("address");
    let ingress = Arc::clone(ingress);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let ingress = Arc::clone(&ingress);
            tokio::spawn(async move {
                let Ok(from) = stream.read_u64().await else {
                    return;
                };
                if from & LINK == 0 {
                    let stream = Box::new(stream);
                    return ingress.serve_peer_stream(stream, NodeId(from)).await;
                }
                let length = stream.read_u8().await.expect("a length");
                let mut head = vec![0; usize::from(length)];
                stream.read_exact(&mut head).await.expect("a head");
                ingress.serve_link_stream(Box::new(stream), &head).await;
            });
        }
    });
    address
}

impl World {
    /// Replicas of `app` as this node sees them: by node, with the address of
    /// those here.
    pub fn replicas(&mut self, all: &[(u64, SocketAddr)], deadline: Duration) {
        let own = self.snapshot.identity.as_ref().map(|one| one.node.0);
        let endpoint = |(index, (node, address)): (u32, &(u64, SocketAddr))| Endpoint {
            replica: ReplicaId {
                service: name("app"),
                generation: Revision(1),
                index,
            },
            address: (Some(*node) == own).then_some(*address),
            node: Some(NodeId(*node)),
        };
        let view = ServiceView {
            deadline,
            endpoints: (0..).zip(all).map(endpoint).collect(),
        };
        self.snapshot.version += 1;
        self.snapshot.services.insert(name("app"), view);
        self.ingress.set_snapshot(&self.snapshot).expect("taken");
    }

    pub fn evidence(&self) -> Vec<String> {
        self.rows.failed.lock().expect("lock").clone()
    }

    /// Another edge's stream to this one, by hand; its greeting is read.
    pub async fn greeting(address: SocketAddr, from: u64) -> (Wire, [u8; 2]) {
        let mut wire = Wire::connect(address).await;
        wire.stream.write_u64(from).await.expect("writes");
        let mut greeting = [0; 2];
        wire.stream.read_exact(&mut greeting).await.expect("reads");
        (wire, greeting)
    }

    /// The same, to one that welcomes it.
    pub async fn peer_stream(address: SocketAddr, from: u64) -> Wire {
        let (wire, greeting) = Self::greeting(address, from).await;
        assert_eq!(greeting, [1, 0]);
        wire
    }

    /// Where this node's peer port is, as `other` knows it.
    pub fn peer_port(&self, other: &World) -> SocketAddr {
        let own = self.snapshot.identity.as_ref().expect("a node").node;
        other.snapshot.peers[&own].addresses[0]
    }
}
