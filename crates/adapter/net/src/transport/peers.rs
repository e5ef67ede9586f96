//! Whom we know: addresses, live connections, dials under way, back-off.
//!
//! Holds: of several connections to one peer both sides prefer the same one;
//! whoever dialled another ends it once nothing runs on it.
//! Never: awaits; each change is made under one lock.

use super::link::Link;
use super::options::{Address, Limits};
use super::{Event, ReachError};
use crate::tls::Purpose;
use bytes::Bytes;
use kernel::NodeId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};

/// Instances that a peer is remembered by.
const INSTANCES_MAX: usize = 8;
/// Connections for one purpose that may live beside each other for a while.
const LINKS_MAX: usize = 4;

/// How a dial ended; nothing while it goes on.
pub(super) type Dialled = Option<Result<(), Arc<ReachError>>>;

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) links: Vec<Arc<Link>>,
    dial: Option<watch::Sender<Dialled>>,
    failures: u32,
    retry_at: Option<Instant>,
    last: Option<Arc<ReachError>>,
}

impl Slot {
    fn new() -> Self {
        Self {
            links: Vec::new(),
            dial: None,
            failures: 0,
            retry_at: None,
            last: None,
        }
    }

    /// The connection that both sides prefer.
    pub(super) fn best(&self) -> Option<&Arc<Link>> {
        let living = self.links.iter().filter(|link| link.is_open());
        living.max_by_key(|link| link.rank())
    }
}

pub(super) struct Peer {
    pub(super) addresses: Vec<Address>,
    pub(super) main: Slot,
    pub(super) bulk: Slot,
    /// Datagrams that wait for a connection.
    pub(super) waiting: VecDeque<Bytes>,
    pub(super) calls_out: Arc<Semaphore>,
    pub(super) calls_in: Arc<Semaphore>,
    /// Bytes of requests that are being received.
    pub(super) calls_bytes: Arc<Semaphore>,
    /// Newest last.
    instances: VecDeque<u64>,
    pub(super) penalty_until: Option<Instant>,
}

impl Peer {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            addresses: Vec::new(),
            main: Slot::new(),
            bulk: Slot::new(),
            waiting: VecDeque::new(),
            calls_out: Arc::new(Semaphore::new(limits.calls_out_max)),
            calls_in: Arc::new(Semaphore::new(limits.calls_in_max)),
            calls_bytes: Arc::new(Semaphore::new(limits.calls_bytes_max)),
            instances: VecDeque::new(),
            penalty_until: None,
        }
    }

    pub(super) fn slot(&mut self, purpose: Purpose) -> &mut Slot {
        match purpose {
            Purpose::Bulk => &mut self.bulk,
            Purpose::Main | Purpose::Join => &mut self.main,
        }
    }

    /// What failed at the addresses before says nothing of new ones.
    pub(super) fn set_addresses(&mut self, addresses: Vec<Address>) {
        if self.addresses != addresses {
            self.addresses = addresses;
            for slot in [&mut self.main, &mut self.bulk] {
                slot.retry_at = None;
                slot.failures = 0;
            }
        }
    }

    fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.main.links.iter().chain(&self.bulk.links)
    }
}

/// What is to be done to reach a peer.
pub(super) enum Reach {
    Ready(Arc<Link>),
    /// Somebody dials already.
    Wait(watch::Receiver<Dialled>),
    /// The caller is to dial these.
    Dial(watch::Receiver<Dialled>, Vec<Address>),
}

#[derive(Default)]
pub(super) struct Peers {
    pub(super) known: BTreeMap<NodeId, Peer>,
}

impl Peers {
    pub(super) fn peer(&mut self, node: NodeId, limits: &Limits) -> &mut Peer {
        self.known.entry(node).or_insert_with(|| Peer::new(limits))
    }

    pub(super) fn reach(
        &mut self,
        node: NodeId,
        purpose: Purpose,
        now: Instant,
    ) -> Result<Reach, ReachError> {
        let unknown = ReachError::NoAddress { node };
        let Some(peer) = self.known.get_mut(&node) else {
            return Err(unknown);
        };
        let addresses = peer.addresses.clone();
        let called = peer.main.best().is_some();
        let slot = peer.slot(purpose);
        if let Some(link) = slot.best() {
            return Ok(Reach::Ready(link.clone()));
        }
        if let Some(dial) = &slot.dial {
            return Ok(Reach::Wait(dial.subscribe()));
        }
        // One without an address that called us is asked to call for this too.
        let asked = purpose == Purpose::Bulk && called;
        if addresses.is_empty() && !asked {
            return Err(unknown);
        }
        if let Some(retry_at) = slot.retry_at
            && retry_at > now
        {
            return Err(ReachError::BackOff {
                node,
                retry_in: retry_at - now,
                last: slot.last.clone(),
            });
        }
        let (sender, receiver) = watch::channel(None);
        slot.dial = Some(sender);
        Ok(Reach::Dial(receiver, addresses))
    }

    /// A further connection beside the living one, with renewed credentials.
    pub(super) fn redial(&mut self, node: NodeId, purpose: Purpose) -> Option<Vec<Address>> {
        let peer = self.known.get_mut(&node)?;
        let addresses = peer.addresses.clone();
        let slot = peer.slot(purpose);
        if addresses.is_empty() || slot.dial.is_some() {
            return None;
        }
        slot.dial = Some(watch::channel(None).0);
        Some(addresses)
    }

    /// Addresses to dial without a relay, unless there is such a connection, or
    /// one is being made, or was in vain just now.
    pub(super) fn redial_directly(
        &mut self,
        node: NodeId,
        purpose: Purpose,
        now: Instant,
    ) -> Option<Vec<Address>> {
        let peer = self.known.get_mut(&node)?;
        let direct = peer.addresses.iter().filter(|address| address.is_direct());
        let direct: Vec<Address> = direct.copied().collect();
        let slot = peer.slot(purpose);
        let waits = slot.retry_at.is_some_and(|at| at > now);
        let has_one = slot.best().is_some_and(|link| link.is_direct());
        if direct.is_empty() || slot.dial.is_some() || waits || has_one {
            return None;
        }
        slot.dial = Some(watch::channel(None).0);
        Some(direct)
    }

    /// How the dial that is under way ends.
    pub(super) fn dialled(
        &mut self,
        node: NodeId,
        purpose: Purpose,
    ) -> Option<watch::Receiver<Dialled>> {
        let slot = self.known.get_mut(&node)?.slot(purpose);
        slot.dial.as_ref().map(watch::Sender::subscribe)
    }

    pub(super) fn dial_failed(
        &mut self,
        node: NodeId,
        purpose: Purpose,
        error: ReachError,
        limits: &Limits,
        now: Instant,
    ) {
        let Some(peer) = self.known.get_mut(&node) else {
            return;
        };
        peer.waiting.clear();
        let slot = peer.slot(purpose);
        let error = Arc::new(error);
        slot.retry_at = Some(now + back_off(slot.failures, limits));
        slot.failures = slot.failures.saturating_add(1);
        slot.last = Some(error.clone());
        if let Some(dial) = slot.dial.take() {
            dial.send_replace(Some(Err(error)));
        }
    }

    /// Takes a new connection in. Returns events to tell, and the datagrams
    /// that waited for it; or why it is not wanted.
    pub(super) fn register(
        &mut self,
        link: &Arc<Link>,
        limits: &Limits,
        now: Instant,
    ) -> Result<(Vec<Event>, VecDeque<Bytes>), Unwanted> {
        let peer = self.peer(link.identity.node, limits);
        if peer.penalty_until.is_some_and(|until| until > now) {
            return Err(Unwanted::Penalty);
        }
        let mut events = Vec::new();
        let was_connected = peer.links().any(|link| link.is_open());
        let instance = link.hello.instance;
        if peer.instances.back() != Some(&instance) {
            let replaced = peer.instances.back().copied();
            if peer.instances.contains(&instance) {
                events.push(Event::Clones {
                    node: link.identity.node,
                    address: link.address,
                });
            }
            peer.instances.retain(|known| *known != instance);
            peer.instances.push_back(instance);
            if peer.instances.len() > INSTANCES_MAX {
                peer.instances.pop_front();
            }
            // What an earlier process held open ended with it.
            if replaced.is_some() {
                for old in peer.links().filter(|old| old.hello.instance != instance) {
                    old.close(super::code::REPLACED);
                }
            }
        }
        let waiting = match link.purpose {
            Purpose::Main => std::mem::take(&mut peer.waiting),
            Purpose::Bulk | Purpose::Join => VecDeque::new(),
        };
        let slot = peer.slot(link.purpose);
        slot.links.retain(|link| link.is_open());
        slot.links.push(link.clone());
        slot.links.sort_by_key(|link| link.rank());
        if slot.links.len() > LINKS_MAX {
            slot.links.remove(0).close(super::code::SUPERSEDED);
        }
        slot.failures = 0;
        slot.retry_at = None;
        slot.last = None;
        if let Some(dial) = slot.dial.take() {
            dial.send_replace(Some(Ok(())));
        }
        if !was_connected {
            events.push(Event::Connected {
                identity: (*link.identity).clone(),
                address: link.address,
            });
        }
        Ok((events, waiting))
    }

    /// Forgets a connection that ended; tells when it was the peer's last.
    pub(super) fn unregister(&mut self, link: &Arc<Link>) -> Option<Event> {
        let peer = self.known.get_mut(&link.identity.node)?;
        let slot = peer.slot(link.purpose);
        slot.links.retain(|other| !Arc::ptr_eq(other, link));
        let connected = peer.links().any(|link| link.is_open());
        (!connected).then(|| Event::Disconnected {
            node: link.identity.node,
            why: link.why_closed(),
        })
    }

    pub(super) fn all_links(&self) -> Vec<Arc<Link>> {
        self.known
            .values()
            .flat_map(|peer| peer.links().cloned())
            .collect()
    }

    /// Whether both sides prefer another connection to `link`.
    pub(super) fn is_superseded(&self, link: &Arc<Link>) -> bool {
        let Some(peer) = self.known.get(&link.identity.node) else {
            return false;
        };
        let slot = match link.purpose {
            Purpose::Bulk => &peer.bulk,
            Purpose::Main | Purpose::Join => &peer.main,
        };
        slot.best().is_some_and(|best| !Arc::ptr_eq(best, link))
    }

    pub(super) fn state(&self, node: NodeId, now: Instant) -> PeerState {
        let Some(peer) = self.known.get(&node) else {
            return PeerState::Unknown;
        };
        if let Some(link) = peer.main.best().or_else(|| peer.bulk.best()) {
            return PeerState::Connected {
                address: link.address,
                rtt: link.rtt(),
                version: link.version,
                relays: link.hello.relays,
            };
        }
        if peer.main.dial.is_some() || peer.bulk.dial.is_some() {
            return PeerState::Dialling;
        }
        match (peer.main.retry_at, &peer.main.last) {
            (Some(at), Some(last)) => PeerState::BackOff {
                retry_in: at.saturating_duration_since(now),
                failures: peer.main.failures,
                last: last.clone(),
            },
            _ => PeerState::Idle,
        }
    }
}

pub(super) enum Unwanted {
    Penalty,
    Clone,
}

/// How a peer stands with us.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PeerState {
    /// No address was given and it never called.
    Unknown,
    /// It is called when something is to be said.
    Idle,
    Dialling,
    Connected {
        address: Address,
        rtt: Duration,
        version: u8,
        /// Whether it passes packets on for others.
        relays: bool,
    },
    BackOff {
        retry_in: Duration,
        failures: u32,
        last: Arc<ReachError>,
    },
}

/// Doubles with each failure, and spreads by a half, so that peers that failed
/// together do not come back together.
fn back_off(failures: u32, limits: &Limits) -> Duration {
    let doubled = limits
        .back_off_min
        .saturating_mul(1_u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX));
    let most = doubled.min(limits.back_off_max);
    most.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_within_its_bounds() {
        let limits = Limits::agent();
        for failures in 0..40 {
            let wait = back_off(failures, &limits);
            assert!(wait >= limits.back_off_min / 2 && wait <= limits.back_off_max);
        }
        assert!(back_off(10, &limits) >= limits.back_off_max / 2);
    }

    #[test]
    fn nobody_unknown_is_reached_and_one_dial_serves_all_who_wait() {
        let (limits, now) = (Limits::agent(), Instant::now());
        let mut peers = Peers::default();
        let node = NodeId(7);
        assert!(matches!(
            peers.reach(node, Purpose::Main, now),
            Err(ReachError::NoAddress { .. })
        ));
        let address: std::net::SocketAddr = "127.0.0.1:1".parse().expect("an address");
        peers.peer(node, &limits).addresses = vec![address.into()];
        assert!(matches!(
            peers.reach(node, Purpose::Main, now),
            Ok(Reach::Dial(..))
        ));
        assert!(matches!(
            peers.reach(node, Purpose::Main, now),
            Ok(Reach::Wait(_))
        ));
        assert!(matches!(
            peers.reach(node, Purpose::Bulk, now),
            Ok(Reach::Dial(..))
        ));
        let failed = ReachError::NoAddress { node };
        peers.dial_failed(node, Purpose::Main, failed, &limits, now);
        assert!(matches!(
            peers.reach(node, Purpose::Main, now),
            Err(ReachError::BackOff { .. })
        ));
        let later = now + limits.back_off_max;
        assert!(matches!(
            peers.reach(node, Purpose::Main, later),
            Ok(Reach::Dial(..))
        ));
    }
}
