//! Carries connections of services to replicas of others, wherever those are.
//!
//! In: a connection, and the service that is called. Out: the same bytes at one
//! of its replicas, and back.
//! Holds: replicas here come first, one that takes no connection is passed over
//! for another; when none takes it, it is broken off at once; a side that ends
//! is passed on and the other may still speak, one that breaks breaks the other,
//! so that nobody takes a part for the whole. No more than a buffer waits in each
//! direction.

use super::{PeerState, PeerStream, is_loss};
use crate::choose::{Way, choose};
use crate::connection::Connection;
use crate::pool::{EndpointState, Lease, Place};
use crate::proxy::failed;
use crate::router::ServiceState;
use crate::server::{Ingress, Phase, Slot};
use kernel::{ReplicaId, ScopedName};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};
use wire::peer::{GREETING_BYTES, Greeting, LINKED, Link, NOT_LINKED};

/// To a replica that has taken the connection.
struct Linked {
    way: LinkWay,
    lease: Lease,
}

enum LinkWay {
    Here(Socket),
    /// By way of its node's edge.
    There(Box<dyn PeerStream>),
}

/// Dropped before its end, it breaks: the other side reads an error, not an end.
struct Socket {
    stream: TcpStream,
    ended: bool,
}

impl Socket {
    fn new(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        let ended = false;
        Self { stream, ended }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl Ingress {
    /// Carries a connection to a replica of `callee`, until it ends.
    pub async fn link(self: Arc<Self>, client: TcpStream, callee: &ScopedName) {
        let _slot = Slot::take(&self.connections);
        let mut client = Socket::new(client);
        let service = self.table.load().services.get(callee).cloned();
        let linked = match service {
            Some(service) => self.find_replica(&service, Way::default()).await,
            None => None,
        };
        let Some(linked) = linked else {
            tracing::debug!(%callee, "no replica takes a connection");
            return;
        };
        match self.carry(&mut client.stream, linked).await {
            Ok(()) => client.ended = true,
            Err(error) => tracing::debug!(%callee, %error, "a connection broke"),
        }
    }

    /// As [`Ingress::link`], where the callee takes requests: each is given to a
    /// replica of its own.
    pub async fn link_requests(
        self: Arc<Self>,
        client: TcpStream,
        peer: SocketAddr,
        callee: &ScopedName,
    ) {
        let _slot = Slot::take(&self.connections);
        let _ = client.set_nodelay(true);
        let connection = Connection::to_service(peer, callee.clone(), &self.limits);
        self.speak(client, Arc::new(connection)).await;
    }

    /// Carries another edge's connection to a replica here.
    ///
    /// * `head`: a [`Link`], as text.
    pub async fn serve_link_stream(self: Arc<Self>, mut stream: Box<dyn PeerStream>, head: &[u8]) {
        let (_slot, welcome) = self.greet(&mut stream).await;
        if !welcome {
            return;
        }
        let link = std::str::from_utf8(head).ok();
        let replica = link.and_then(|text| Some(text.parse::<Link>().ok()?.replica));
        let linked = match replica {
            Some(replica) => self.find_here(replica).await,
            None => None,
        };
        let said = if linked.is_some() { LINKED } else { NOT_LINKED };
        let telling = async {
            stream.write_all(&[said]).await?;
            stream.flush().await
        };
        if !matches!(timeout(self.limits.linger_time, telling).await, Ok(Ok(()))) {
            return;
        }
        match linked {
            // Dropped before its end when that fails, which breaks it.
            Some(linked) => drop(self.carry(&mut stream, linked).await),
            None => drop(timeout(self.limits.linger_time, stream.shutdown()).await),
        }
    }

    async fn find_here(self: &Arc<Self>, replica: ReplicaId) -> Option<Linked> {
        let service = self.table.load().services.get(&replica.service).cloned();
        let way = Way {
            wanted: Some(replica),
            ends_here: true,
            ..Way::default()
        };
        self.find_replica(&service?, way).await
    }

    async fn find_replica(
        self: &Arc<Self>,
        service: &Arc<ServiceState>,
        mut way: Way,
    ) -> Option<Linked> {
        loop {
            let config = service.config.load_full();
            let endpoint = choose(self, &config.endpoints, &way)?;
            let lease = endpoint.lease(&self.limits);
            let found = match &endpoint.place {
                Place::Address(address) => {
                    let reached = self.reach_here(&endpoint, *address).await;
                    reached.map(|stream| LinkWay::Here(Socket::new(stream)))
                }
                Place::Peer(peer) => {
                    let reached = self.reach_there(&endpoint, peer).await;
                    reached.map(LinkWay::There)
                }
                // Takes requests only.
                Place::Here(_) => None,
            };
            if let Some(way) = found {
                return Some(Linked { way, lease });
            }
            way.tried.push(endpoint);
        }
    }

    async fn reach_here(&self, endpoint: &EndpointState, address: SocketAddr) -> Option<TcpStream> {
        let connecting = TcpStream::connect(address);
        let why = match timeout(self.limits.connect_time, connecting).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => format!("connecting failed: {error}"),
            Err(_) => "connecting took too long".to_owned(),
        };
        failed(self, endpoint, &why, false);
        None
    }

    async fn reach_there(
        &self,
        endpoint: &EndpointState,
        peer: &PeerState,
    ) -> Option<Box<dyn PeerStream>> {
        let begun = Instant::now();
        if !peer.health(|health| health.admit(begun)) {
            return None;
        }
        let way = self.peers.round_trip(peer.node).unwrap_or_default();
        let greet_by = begun + self.limits.peer_greeting_time + way * 2;
        let link = Link {
            replica: endpoint.replica.clone(),
        };
        let greeting = async {
            let mut stream = self.peers.link(peer.node, &link, greet_by).await?;
            let mut greeting = [0; GREETING_BYTES];
            stream.read_exact(&mut greeting).await?;
            Ok::<_, io::Error>((stream, greeting))
        };
        let (mut stream, greeting) = match timeout_at(greet_by.into(), greeting).await {
            Ok(Ok(greeted)) => greeted,
            // It is there, but does not know what a link is, or broke this one off.
            Ok(Err(error)) if !is_loss(&error) => {
                endpoint.pause(self.limits.endpoint_pause);
                return None;
            }
            Ok(Err(error)) => {
                peer.failed(self, begun, &format!("connecting failed: {error}"));
                return None;
            }
            Err(_) => {
                peer.failed(self, begun, "it said nothing in time");
                return None;
            }
        };
        match Greeting::decode(greeting) {
            Ok(Greeting::Welcome) => peer.health(|health| health.heard(Instant::now())),
            Ok(Greeting::Leaving) => {
                peer.health(|health| health.steps_aside(Instant::now()));
                return None;
            }
            _ => {
                endpoint.pause(self.limits.endpoint_pause);
                return None;
            }
        }
        // It tries others of its replicas too.
        let linking = timeout(self.limits.connect_time * 2, stream.read_u8());
        if matches!(linking.await, Ok(Ok(LINKED))) {
            return Some(stream);
        }
        endpoint.pause(self.limits.endpoint_pause);
        None
    }

    async fn carry<S>(self: &Arc<Self>, client: &mut S, linked: Linked) -> io::Result<()>
    where
        S: PeerStream,
    {
        let Linked { mut way, lease } = linked;
        let begun = Instant::now();
        let mut phase = self.phase.subscribe();
        let replica: &mut dyn PeerStream = match &mut way {
            LinkWay::Here(socket) => &mut socket.stream,
            LinkWay::There(stream) => stream,
        };
        let ended = tokio::select! {
            ended = copy_bidirectional(client, replica) => ended.map(drop),
            _ = phase.wait_for(|phase| *phase == Phase::Cut) => {
                Err(io::Error::other("the edge leaves"))
            }
        };
        if let LinkWay::Here(socket) = &mut way {
            socket.ended = ended.is_ok();
        }
        if let Err(error) = &ended
            && let Place::Peer(peer) = &lease.endpoint.place
            && is_loss(error)
        {
            peer.failed(self, begun, "it was lost in the middle of a connection");
        }
        ended
    }
}
