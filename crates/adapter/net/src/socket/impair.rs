//! Distances, losses, narrow links and cuts of a laboratory without root.
//!
//! Holds: what is said of an address goes for every packet to it from the next
//! one on; packets to one address keep their order; what waits is bounded like
//! a router's queue, and what does not fit is lost.

use quinn::AsyncUdpSocket;
use quinn::udp::{EcnCodepoint, Transmit};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Of all packets that wait for their time.
const WAITING_BYTES_MAX: usize = 256 << 20;

/// What a packet to an address meets.
#[derive(Clone, Debug, PartialEq)]
pub struct Impairment {
    /// One way.
    pub delay: Duration,
    /// Up to this is added, without changing the order.
    pub jitter: Duration,
    /// Share of packets that are lost, 0 to 1.
    pub loss: f64,
    /// Nothing is sent there.
    pub cut_to: bool,
    /// Nothing is heard from there.
    pub cut_from: bool,
    /// How fast the link is; packets that find it busy wait.
    pub bytes_per_second: Option<u64>,
    /// How much waits for a narrow link at most.
    pub queue_bytes_max: usize,
}

impl Default for Impairment {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            cut_to: false,
            cut_from: false,
            bytes_per_second: None,
            queue_bytes_max: 256 << 10,
        }
    }
}

impl Impairment {
    /// Neither way.
    pub fn cut() -> Self {
        Self {
            cut_to: true,
            cut_from: true,
            ..Self::default()
        }
    }

    pub fn delayed(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }
}

/// A link's state beside what is said of it.
#[derive(Debug, Default)]
struct Link {
    impairment: Impairment,
    /// When all before has been sent.
    free_at: Option<Instant>,
    /// When the last packet before arrives.
    last_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    by_socket: BTreeMap<SocketAddr, Link>,
    by_ip: BTreeMap<IpAddr, Link>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    waiting_bytes: usize,
    number: u64,
    lost: u64,
}

/// The impairments of a transport's socket, changed while it runs. Clones share
/// them.
#[derive(Clone, Debug, Default)]
pub struct Impairments {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct Waiting {
    at: Instant,
    number: u64,
    socket: Weak<dyn AsyncUdpSocket>,
    destination: SocketAddr,
    ecn: Option<EcnCodepoint>,
    bytes: Vec<u8>,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// What becomes of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The socket sends it.
    Now,
    /// It was taken, to be sent in its time, or lost.
    Later,
}

impl Impairments {
    pub fn new() -> Self {
        Self::default()
    }

    /// For one port of an address; it goes before what is said of the address.
    pub fn set(&self, remote: SocketAddr, impairment: Impairment) {
        let mut state = self.state();
        state.by_socket.entry(remote).or_default().impairment = impairment;
    }

    pub fn set_ip(&self, remote: IpAddr, impairment: Impairment) {
        self.state().by_ip.entry(remote).or_default().impairment = impairment;
    }

    pub fn clear(&self, remote: SocketAddr) {
        self.state().by_socket.remove(&remote);
    }

    pub fn clear_ip(&self, remote: IpAddr) {
        self.state().by_ip.remove(&remote);
    }

    pub fn clear_all(&self) {
        let mut state = self.state();
        state.by_socket.clear();
        state.by_ip.clear();
    }

    /// Packets that were lost here: cut, by chance, or for want of room.
    pub fn lost(&self) -> u64 {
        self.state().lost
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to send what waits; ends with the socket.
    pub(super) fn attach(&self, socket: &Arc<dyn AsyncUdpSocket>) {
        let (impairments, socket) = (self.clone(), Arc::downgrade(socket));
        tokio::spawn(async move {
            while socket.strong_count() > 0 {
                // Without anything due it looks now and then whether the socket
                // is still there.
                let idle = Instant::now() + Duration::from_secs(1);
                let next = impairments.send_due(Instant::now()).unwrap_or(idle);
                tokio::select! {
                    () = tokio::time::sleep_until(next.into()) => {}
                    () = impairments.changed.notified() => {}
                }
            }
        });
    }

    /// Sends what is due; returns when the next is.
    fn send_due(&self, now: Instant) -> Option<Instant> {
        loop {
            let due = {
                let mut state = self.state();
                let next = state.waiting.peek()?.0.at;
                if next > now {
                    return Some(next);
                }
                let Reverse(due) = state.waiting.pop()?;
                state.waiting_bytes -= due.bytes.len();
                due
            };
            if let Some(socket) = due.socket.upgrade() {
                // A full socket loses it, as a router would.
                let _ = socket.try_send(&Transmit {
                    destination: due.destination,
                    ecn: due.ecn,
                    contents: &due.bytes,
                    segment_size: None,
                    src_ip: None,
                });
            }
        }
    }

    pub(super) fn refuses(&self, remote: SocketAddr) -> bool {
        let mut state = self.state();
        let link = state.link(remote);
        link.is_some_and(|link| link.impairment.cut_from)
    }

    pub(super) fn send(
        &self,
        socket: &Arc<dyn AsyncUdpSocket>,
        transmit: &Transmit<'_>,
    ) -> Verdict {
        let mut state = self.state();
        let destination = transmit.destination;
        match state.link(destination) {
            Some(link) if link.impairment != Impairment::default() => {}
            _ => return Verdict::Now,
        }
        let each = transmit.segment_size.unwrap_or(transmit.contents.len());
        let now = Instant::now();
        for packet in transmit.contents.chunks(each.max(1)) {
            let number = state.number;
            let Some(at) = state
                .link(destination)
                .and_then(|link| link.arrival(packet.len(), now))
            else {
                state.lost += 1;
                continue;
            };
            if state.waiting_bytes + packet.len() > WAITING_BYTES_MAX {
                state.lost += 1;
                continue;
            }
            state.number += 1;
            state.waiting_bytes += packet.len();
            state.waiting.push(Reverse(Waiting {
                at,
                number,
                socket: Arc::downgrade(socket),
                destination,
                ecn: transmit.ecn,
                bytes: packet.to_vec(),
            }));
        }
        drop(state);
        self.changed.notify_one();
        Verdict::Later
    }
}

impl State {
    fn link(&mut self, remote: SocketAddr) -> Option<&mut Link> {
        match self.by_socket.get_mut(&remote) {
            Some(link) => Some(link),
            None => self.by_ip.get_mut(&remote.ip()),
        }
    }
}

impl Link {
    /// When a packet of `bytes` is to leave, or nothing when it is lost.
    fn arrival(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        let impairment = &self.impairment;
        if impairment.cut_to || fastrand::f64() < impairment.loss {
            return None;
        }
        let mut at = now;
        if let Some(rate) = impairment.bytes_per_second {
            let free_at = self.free_at.unwrap_or(now).max(now);
            let queued = (free_at - now).as_secs_f64() * rate_of(rate);
            if queued > size_of_queue(impairment.queue_bytes_max) {
                return None;
            }
            let takes = Duration::from_secs_f64(size_of_queue(bytes + 28) / rate_of(rate));
            at = free_at + takes;
            self.free_at = Some(at);
        }
        at += impairment.delay + impairment.jitter.mul_f64(fastrand::f64());
        let at = at.max(self.last_at.unwrap_or(at));
        self.last_at = Some(at);
        Some(at)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "rates are far below 2^53 bytes a second"
)]
fn rate_of(bytes_per_second: u64) -> f64 {
    bytes_per_second.max(1) as f64
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53 bytes")]
fn size_of_queue(bytes: usize) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(impairment: Impairment) -> Link {
        Link {
            impairment,
            ..Link::default()
        }
    }

    #[test]
    fn delay_keeps_the_order_and_a_cut_loses_all() {
        let now = Instant::now();
        let mut far = link(Impairment {
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(10),
            ..Impairment::default()
        });
        let mut before = now;
        for _ in 0..100 {
            let at = far.arrival(100, now).expect("arrives");
            assert!(at >= before && at >= now + Duration::from_millis(20));
            assert!(at <= now + Duration::from_millis(30));
            before = at;
        }
        assert_eq!(link(Impairment::cut()).arrival(100, now), None);
    }

    #[test]
    fn a_narrow_link_queues_what_fits_and_loses_the_rest() {
        let now = Instant::now();
        let mut narrow = link(Impairment {
            bytes_per_second: Some(1_000_000),
            queue_bytes_max: 10_000,
            ..Impairment::default()
        });
        let arrivals: Vec<_> = (0..100).map(|_| narrow.arrival(972, now)).collect();
        let kept = arrivals.iter().flatten().count();
        assert!((10..=12).contains(&kept), "{kept}");
        let tenth = arrivals[9].expect("fits") - now;
        assert!(tenth.abs_diff(Duration::from_millis(10)) < Duration::from_micros(10));
    }

    #[test]
    fn loss_is_about_what_was_asked_for() {
        let now = Instant::now();
        let mut lossy = link(Impairment {
            loss: 0.2,
            ..Impairment::default()
        });
        let lost = (0..10_000)
            .filter(|_| lossy.arrival(100, now).is_none())
            .count();
        assert!((1_500..2_500).contains(&lost), "{lost}");
    }
}
