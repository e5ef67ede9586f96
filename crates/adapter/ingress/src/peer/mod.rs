//! The edges of other nodes: asked for replicas that are there, and answered.
//!
//! Holds: evidence against a node takes all of its replicas out at once, and
//! wakes those who wait for it and may go elsewhere.

mod answer;
mod ask;
pub mod health;
mod link;
mod stream;

pub use ask::{attempt, broke_off};

use crate::limits::Limits;
use crate::server::Ingress;
use health::{Health, Probation};
use kernel::NodeId;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use wire::edge::PeerView;
use wire::peer::Link;

/// One request's way to another edge and back. Where reading or writing fails
/// since the whole node cannot be reached, the error's kind is `NotConnected` or
/// `TimedOut`; another one says that this stream alone has ended.
pub trait PeerStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> PeerStream for S {}

pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn PeerStream>>> + Send>>;

/// Opens streams to the edges of other nodes, as this edge and to nobody else
/// than that node's edge.
pub trait PeerConnector: Send + Sync + 'static {
    /// Gives up by itself at `deadline`.
    fn connect(&self, node: NodeId, deadline: Instant) -> Connecting;

    /// As [`PeerConnector::connect`], for a service's connection.
    fn link(&self, node: NodeId, link: &Link, deadline: Instant) -> Connecting;

    /// To that node and back, if it is known.
    fn round_trip(&self, node: NodeId) -> Option<Duration>;
}

/// In hundredths, of a node of which it is not known.
const HEADROOM_USUAL: u8 = 50;

/// Another node's edge, for all services that have replicas there.
pub struct PeerState {
    pub node: NodeId,
    /// The node that asks: this one.
    pub own: NodeId,
    view: PeerView,
    /// Of it or its zone, in hundredths.
    headroom: AtomicU8,
    health: Mutex<Health>,
    /// Grows each time the node is given up.
    lost: watch::Sender<u64>,
}

impl PeerState {
    pub fn new(node: NodeId, own: NodeId, view: PeerView, limits: &Limits) -> Self {
        let probation = Probation {
            first: limits.probation_first,
            longest: limits.probation_longest,
            trial: limits.peer_greeting_time * 2,
        };
        Self {
            node,
            own,
            view,
            headroom: AtomicU8::new(HEADROOM_USUAL),
            health: Mutex::new(Health::new(probation, Instant::now())),
            lost: watch::Sender::new(0),
        }
    }

    pub fn is_as(&self, own: NodeId, view: &PeerView) -> bool {
        self.own == own && self.view == *view
    }

    pub fn set_headroom(&self, hundredths: Option<u8>) {
        let known = hundredths.unwrap_or(HEADROOM_USUAL).min(100);
        self.headroom.store(known, Relaxed);
    }

    /// Between 0 and 1.
    pub fn headroom(&self) -> f64 {
        f64::from(self.headroom.load(Relaxed)) / 100.0
    }

    fn health<T>(&self, act: impl FnOnce(&mut Health) -> T) -> T {
        act(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a request would be let through.
    pub fn admits(&self) -> bool {
        self.health(|health| health.admits(Instant::now()))
    }

    pub fn failed(&self, ingress: &Ingress, begun: Instant, why: &str) {
        if self.health(|health| health.failed(begun, Instant::now())) {
            self.lost.send_modify(|times| *times += 1);
            ingress.evidence.peer_failed(self.node, why);
        }
    }
}

/// Whether an error says that the whole node is gone, not one stream alone.
pub fn is_loss(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let kind = error.kind();
            if matches!(kind, io::ErrorKind::NotConnected | io::ErrorKind::TimedOut) {
                return true;
            }
            // What is inside is passed over by `source`.
            if let Some(inner) = error.get_ref()
                && is_loss(inner)
            {
                return true;
            }
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_found_wherever_it_is_wrapped() {
        let lost = io::Error::from(io::ErrorKind::NotConnected);
        let wrapped = io::Error::other(lost);
        assert!(is_loss(&wrapped));
        assert!(!is_loss(&io::Error::from(io::ErrorKind::ConnectionReset)));
    }
}
