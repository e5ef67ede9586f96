//! Connections to one replica: kept alive, reused newest first.
//!
//! Holds: at most `pool_idle_max` wait, none older than `pool_idle_time`; a
//! connection is reused only after a whole answer; a request counts as in
//! flight until its [`Lease`] goes.

pub mod answers;
pub mod tally;

use crate::Component;
use crate::body::Outgoing;
use crate::limits::Limits;
use crate::peer::PeerState;
use crate::upstream::Upstream;
use answers::Answers;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use kernel::ReplicaId;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tally::Tally;
use tokio::net::TcpStream;

/// A finished answer frees its connection at once; longer means that the
/// replica still reads the request.
const SETTLE: Duration = Duration::from_millis(5);

/// Where a replica is.
#[derive(Clone)]
pub enum Place {
    Address(SocketAddr),
    Here(Arc<dyn Component>),
    /// Where on it, its own edge knows.
    Peer(Arc<PeerState>),
}

pub struct EndpointState {
    pub replica: ReplicaId,
    pub place: Place,
    pub in_flight: AtomicUsize,
    pub tally: Tally,
    pub answers: Answers,
    born: Instant,
    /// Milliseconds since `born`.
    paused_until: AtomicU64,
    idle: Mutex<Vec<(SendRequest<Outgoing>, Instant)>>,
}

impl EndpointState {
    pub fn new(replica: ReplicaId, place: Place) -> Self {
        Self {
            replica,
            place,
            in_flight: AtomicUsize::new(0),
            tally: Tally::default(),
            answers: Answers::default(),
            born: Instant::now(),
            paused_until: AtomicU64::new(0),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Since it is known here.
    pub fn age(&self) -> Duration {
        self.born.elapsed()
    }

    pub fn pause(&self, span: Duration) {
        let until = (self.age() + span).as_millis();
        self.paused_until
            .store(u64::try_from(until).unwrap_or(u64::MAX), Relaxed);
    }

    pub fn is_paused(&self) -> bool {
        let until = self.paused_until.load(Relaxed);
        until != 0 && self.age().as_millis() < u128::from(until)
    }

    /// Whether it takes another request now.
    pub fn has_room(&self) -> bool {
        match &self.place {
            Place::Address(_) | Place::Peer(_) => true,
            Place::Here(component) => self.in_flight.load(Relaxed) < component.concurrency(),
        }
    }

    pub fn is_local(&self) -> bool {
        !matches!(self.place, Place::Peer(_))
    }

    /// A request that is in flight until the lease goes.
    pub fn lease(self: &Arc<Self>, limits: &Arc<Limits>) -> Lease {
        self.in_flight.fetch_add(1, Relaxed);
        Lease {
            endpoint: Arc::clone(self),
            limits: Arc::clone(limits),
            sender: None,
            begun: None,
        }
    }

    /// A pooled connection, with `true`, or a new one.
    pub async fn connect(
        self: &Arc<Self>,
        address: SocketAddr,
        limits: &Arc<Limits>,
        fresh: bool,
    ) -> io::Result<(Lease, bool)> {
        let mut lease = self.lease(limits);
        while !fresh && let Some((mut sender, since)) = self.pop() {
            if sender.is_closed() || since.elapsed() > limits.pool_idle_time {
                continue;
            }
            if sender.is_ready()
                || matches!(
                    tokio::time::timeout(SETTLE, sender.ready()).await,
                    Ok(Ok(()))
                )
            {
                lease.sender = Some(sender);
                return Ok((lease, true));
            }
        }
        let connect = TcpStream::connect(address);
        let stream = tokio::time::timeout(limits.connect_time, connect)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "connecting took too long"))??;
        stream.set_nodelay(true)?;
        let (sender, connection) = Builder::new()
            .max_buf_size(limits.head_bytes_max.max(64 * 1024))
            .handshake(TokioIo::new(Upstream::new(stream)))
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(async move {
            // Its error reaches the request that is on it.
            let _ = connection.with_upgrades().await;
        });
        lease.sender = Some(sender);
        Ok((lease, false))
    }

    fn pop(&self) -> Option<(SendRequest<Outgoing>, Instant)> {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    fn push(&self, sender: SendRequest<Outgoing>, limits: &Limits) {
        let now = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // The oldest stand first.
        let stale = idle
            .iter()
            .take_while(|(sender, since)| {
                sender.is_closed() || now.duration_since(*since) > limits.pool_idle_time
            })
            .count();
        idle.drain(..stale);
        if idle.len() < limits.pool_idle_max {
            idle.push((sender, now));
        }
    }
}

/// The use of one connection for one request.
pub struct Lease {
    pub endpoint: Arc<EndpointState>,
    limits: Arc<Limits>,
    pub sender: Option<SendRequest<Outgoing>>,
    /// When another edge was asked.
    pub begun: Option<Instant>,
}

impl Lease {
    /// The answer came whole: the connection may serve another request.
    pub fn complete(&mut self) {
        if let Some(sender) = self.sender.take()
            && !sender.is_closed()
        {
            self.endpoint.push(sender, &self.limits);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Relaxed);
    }
}
