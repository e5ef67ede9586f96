//! What a transport is made with, and its limits.

use crate::identity::{Authorise, Clock, Credentials, wall_clock};
use crate::join::Doorkeeper;
use crate::socket::Impairments;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use wire::net::{Kind, VERSION, VERSION_MIN};

/// Bounds on what others can make this node hold or do. Numbers are per peer
/// unless they say otherwise.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Of one call's request, and of its answer.
    pub call_bytes_max: usize,
    /// Of all requests that are being received from a peer.
    pub calls_bytes_max: usize,
    /// Calls that wait for a peer's answer; one more is refused at once.
    pub calls_out_max: usize,
    /// A peer's calls that are being answered; one more is told `busy`.
    pub calls_in_max: usize,
    /// A peer's open streams, on each of its two connections.
    pub streams_max: u32,
    /// Not yet read bytes of one stream.
    pub stream_window_bytes: u32,
    /// Not yet read bytes of one connection.
    pub connection_window_bytes: u32,
    /// Of all peers: received and not yet taken.
    pub datagrams_queued_max: usize,
    pub calls_queued_max: usize,
    pub streams_queued_max: usize,
    pub events_queued_max: usize,
    /// Datagrams that wait while a connection is made.
    pub datagrams_waiting_max: usize,
    /// Of all addresses: handshakes under way.
    pub handshakes_max: usize,
    /// New handshakes a second from one address, and at once.
    pub handshakes_per_address: u32,
    /// Of all addresses: strangers that are being heard.
    pub strangers_max: usize,
    /// How long a handshake, or a stranger's whole visit, may take.
    pub handshake_time: Duration,
    /// How long the head of a stream may take to come.
    pub head_time: Duration,
    /// Refused frames after which a connection is closed.
    pub faults_max: u32,
    /// How long a peer is not heard after that.
    pub penalty: Duration,
    pub keep_alive: Duration,
    /// Silence after which a connection is lost.
    pub idle: Duration,
    /// Until the next address is tried beside the ones before.
    pub stagger: Duration,
    pub back_off_min: Duration,
    pub back_off_max: Duration,
    /// What is passed on for one peer.
    pub relayed_bytes_per_second: u32,
}

impl Limits {
    /// For agents: few streams, small calls.
    pub fn agent() -> Self {
        Self {
            call_bytes_max: 4 << 20,
            calls_bytes_max: 16 << 20,
            calls_out_max: 256,
            calls_in_max: 256,
            streams_max: 1_024,
            stream_window_bytes: 2 << 20,
            connection_window_bytes: 16 << 20,
            datagrams_queued_max: 4_096,
            calls_queued_max: 1_024,
            streams_queued_max: 1_024,
            events_queued_max: 1_024,
            datagrams_waiting_max: 16,
            handshakes_max: 256,
            handshakes_per_address: 64,
            strangers_max: 32,
            handshake_time: Duration::from_secs(5),
            head_time: Duration::from_secs(10),
            faults_max: 64,
            penalty: Duration::from_secs(5),
            keep_alive: Duration::from_secs(5),
            idle: Duration::from_secs(15),
            stagger: Duration::from_millis(150),
            back_off_min: Duration::from_millis(100),
            back_off_max: Duration::from_secs(5),
            relayed_bytes_per_second: 4 << 20,
        }
    }

    /// For edges: a stream a request, thousands at once. A slow reader holds
    /// up its own stream only: the connection's window has room for all.
    pub fn edge() -> Self {
        Self {
            streams_max: 8_192,
            streams_queued_max: 8_192,
            stream_window_bytes: 256 << 10,
            connection_window_bytes: 1 << 30,
            keep_alive: Duration::from_secs(2),
            idle: Duration::from_secs(6),
            ..Self::agent()
        }
    }
}

/// All that [`super::Transport::bind`] needs.
#[derive(Clone)]
pub struct Options {
    /// Port 0 takes any free one.
    pub bind: SocketAddr,
    pub credentials: Credentials,
    pub authorise: Arc<dyn Authorise>,
    /// Of which kind all peers must be.
    pub peers: Kind,
    pub clock: Clock,
    /// How far clocks may be off beyond what backdating covers.
    pub clock_tolerance: Duration,
    pub limits: Limits,
    /// Versions of the frames to speak; the newest that both know is spoken.
    pub versions: RangeInclusive<u8>,
    /// Who answers strangers with a token; without one they are refused.
    pub doorkeeper: Option<Arc<dyn Doorkeeper>>,
    /// Distances, losses and cuts of a laboratory.
    pub impairments: Option<Impairments>,
    /// Whether packets are passed on for peers that cannot be dialled.
    pub relays: bool,
}

/// Holds the newest version back: for tests, and for upgrades in steps.
const WIRE_MAX: &str = "HOMEOSTAT_WIRE_MAX";

/// Versions of the frames that this program agrees on.
pub fn versions_spoken() -> RangeInclusive<u8> {
    let most = std::env::var(WIRE_MAX).ok();
    let most = most.and_then(|most| most.parse::<u8>().ok());
    VERSION_MIN..=most.map_or(VERSION, |most| most.clamp(VERSION_MIN, VERSION))
}

impl Options {
    /// An agent's; change the fields for another.
    pub fn new(bind: SocketAddr, credentials: Credentials, authorise: Arc<dyn Authorise>) -> Self {
        Self {
            bind,
            credentials,
            authorise,
            peers: Kind::Agent,
            clock: wall_clock(),
            clock_tolerance: Duration::from_mins(5),
            limits: Limits::agent(),
            versions: versions_spoken(),
            doorkeeper: None,
            impairments: None,
            relays: true,
        }
    }

    /// An edge's: it speaks with edges only.
    pub fn edge(bind: SocketAddr, credentials: Credentials, authorise: Arc<dyn Authorise>) -> Self {
        Self {
            peers: Kind::Edge,
            limits: Limits::edge(),
            ..Self::new(bind, credentials, authorise)
        }
    }
}

/// How to reach a peer.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum Address {
    Direct(SocketAddr),
    /// Through a node that it keeps a connection to.
    Via(kernel::NodeId),
}

impl Address {
    pub(crate) fn is_direct(&self) -> bool {
        matches!(self, Self::Direct(_))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Direct(address)
    }
}
