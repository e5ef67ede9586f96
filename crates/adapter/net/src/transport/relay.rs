//! Passes packets on for nodes that cannot be dialled, and uses those who do.
//!
//! Holds: what is passed on is whole packets of a connection between two
//! others, encrypted and authenticated end to end; a relay passes on between
//! peers that are connected to it now, at a bounded rate for each sender, and a
//! node takes passed-on packets only from relays that it chose.
//! Never: dials for others.

use super::link::Link;
use super::stats::Refused;
use super::{Inner, Purpose};
use crate::socket::Outbound;
use kernel::NodeId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;
use tokio::sync::mpsc;
use wire::net::frame::{Content, Datagram, Direction, Place, RelayPiece};

/// Relays that a node keeps connections to.
pub const RELAYS_MAX: usize = 3;
/// Of header and piece in a datagram.
const OVERHEAD: usize = 4 + 11;
/// Halves of packets that wait for their other half, on one connection.
const HALVES_MAX: usize = 64;

/// What a connection keeps for relaying.
#[derive(Debug, Default)]
pub(super) struct Relaying {
    halves: Mutex<Halves>,
    /// Bytes that its peer may still have passed on, and since when.
    allowance: Mutex<Option<(Instant, f64)>>,
    packets: std::sync::atomic::AtomicU16,
}

#[derive(Debug, Default)]
struct Halves {
    waiting: BTreeMap<(NodeId, u16), (Place, Vec<u8>)>,
    order: VecDeque<(NodeId, u16)>,
}

impl Halves {
    /// The whole packet, once both halves are there.
    fn join(&mut self, piece: &RelayPiece<'_>) -> Option<Vec<u8>> {
        if piece.place == Place::Whole {
            return Some(piece.bytes.to_vec());
        }
        let key = (piece.node, piece.packet);
        match self.waiting.remove(&key) {
            Some((Place::First, mut first)) if piece.place == Place::Second => {
                first.extend_from_slice(piece.bytes);
                Some(first)
            }
            Some((Place::Second, second)) if piece.place == Place::First => {
                Some([piece.bytes, &second].concat())
            }
            _ => {
                self.waiting
                    .insert(key, (piece.place, piece.bytes.to_vec()));
                self.order.push_back(key);
                while self.order.len() > HALVES_MAX {
                    if let Some(oldest) = self.order.pop_front() {
                        self.waiting.remove(&oldest);
                    }
                }
                None
            }
        }
    }
}

impl Relaying {
    /// Whether `bytes` more may be passed on; a second's worth at once.
    fn allow(&self, bytes: usize, per_second: u32, now: Instant) -> bool {
        let most = f64::from(per_second);
        let bytes = f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
        let mut allowance = self
            .allowance
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (at, left) = allowance.unwrap_or((now, most));
        let gained = now.saturating_duration_since(at).as_secs_f64() * most;
        let left = (left + gained).min(most);
        let allowed = left >= bytes;
        *allowance = Some((now, if allowed { left - bytes } else { left }));
        allowed
    }
}

/// Hands packets of tunnelled connections to their relays.
pub(super) async fn run(inner: Weak<Inner>, mut outbound: mpsc::Receiver<Outbound>) {
    while let Some(out) = outbound.recv().await {
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let link = inner.living(out.relay);
        if let Some(link) = link {
            pass(
                &link,
                Direction::To,
                out.peer,
                &out.packet,
                inner.generation(),
            );
        }
    }
}

/// A packet in one piece, or two where the path's datagrams are too short.
fn pass(link: &Link, direction: Direction, node: NodeId, packet: &[u8], generation: u16) {
    let room = link.connection.max_datagram_size().unwrap_or(0);
    let room = room.saturating_sub(OVERHEAD);
    let number = link
        .relaying
        .packets
        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let pieces = if packet.len() <= room {
        vec![(Place::Whole, packet)]
    } else {
        let (first, second) = packet.split_at(packet.len() / 2);
        vec![(Place::First, first), (Place::Second, second)]
    };
    for (place, bytes) in pieces {
        let datagram = Datagram {
            content: Content::Relay(RelayPiece {
                direction,
                node,
                packet: number,
                place,
                bytes,
            }),
            generation,
        };
        // A version without relays, or no room: lost like any packet.
        if let Ok(frame) = datagram.encode(link.version) {
            let _ = link.connection.send_datagram(frame.into());
        }
    }
}

/// A piece that a peer sent: to pass on, or passed on to us.
pub(super) fn heard(inner: &Inner, link: &Link, piece: &RelayPiece<'_>) {
    let from = link.identity.node;
    let now = Instant::now();
    match piece.direction {
        Direction::To => {
            let target = inner
                .options
                .relays
                .then(|| inner.living(piece.node))
                .flatten();
            let per_second = inner.options.limits.relayed_bytes_per_second;
            let (Some(target), true) = (
                target,
                link.relaying.allow(piece.bytes.len(), per_second, now),
            ) else {
                return inner.counters.refuse(Refused::Relay);
            };
            forward(inner, &target, from, piece);
        }
        Direction::From => {
            let chosen = inner.relays().contains(&from);
            if !chosen && !inner.socket.tunnels.knows(from, piece.node) {
                return inner.counters.refuse(Refused::Relay);
            }
            let mut halves = link
                .relaying
                .halves
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(packet) = halves.join(piece) {
                inner.socket.tunnels.arrive(from, piece.node, packet, now);
            }
        }
    }
}

/// Passes a piece on as it came; a whole packet that is too long for the next
/// path is cut here. Halves fit every path.
fn forward(inner: &Inner, target: &Link, from: NodeId, piece: &RelayPiece<'_>) {
    let room = target.connection.max_datagram_size().unwrap_or(0);
    let generation = inner.generation();
    if piece.place == Place::Whole && piece.bytes.len() + OVERHEAD > room {
        return pass(target, Direction::From, from, piece.bytes, generation);
    }
    let datagram = Datagram {
        content: Content::Relay(RelayPiece {
            direction: Direction::From,
            node: from,
            ..*piece
        }),
        generation,
    };
    if let Ok(frame) = datagram.encode(target.version) {
        let _ = target.connection.send_datagram(frame.into());
    }
}

/// Calls the chosen relays that are not connected: one that is reached through
/// another relay would pass nothing on once that one is gone.
pub(super) fn keep(inner: &Arc<Inner>) {
    for relay in inner.relays() {
        let addresses = inner
            .peers()
            .redial_directly(relay, Purpose::Main, Instant::now());
        if let Some(addresses) = addresses {
            inner.dial(relay, Purpose::Main, addresses);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn piece(packet: u16, place: Place, bytes: &[u8]) -> RelayPiece<'_> {
        RelayPiece {
            direction: Direction::From,
            node: NodeId(1),
            packet,
            place,
            bytes,
        }
    }

    #[test]
    fn halves_are_joined_in_either_order() {
        let mut halves = Halves::default();
        assert_eq!(
            halves.join(&piece(0, Place::Whole, b"ab")),
            Some(b"ab".to_vec())
        );
        assert_eq!(halves.join(&piece(1, Place::First, b"a")), None);
        assert_eq!(halves.join(&piece(2, Place::Second, b"d")), None);
        assert_eq!(
            halves.join(&piece(1, Place::Second, b"b")),
            Some(b"ab".to_vec())
        );
        assert_eq!(
            halves.join(&piece(2, Place::First, b"c")),
            Some(b"cd".to_vec())
        );
        assert!(halves.waiting.is_empty());
    }

    #[test]
    fn halves_that_stay_alone_cost_bounded_memory() {
        let mut halves = Halves::default();
        for packet in 0..10_000 {
            assert_eq!(halves.join(&piece(packet, Place::First, b"a")), None);
        }
        assert!(halves.waiting.len() <= HALVES_MAX && halves.order.len() <= HALVES_MAX);
    }

    #[test]
    fn what_is_passed_on_has_a_rate() {
        let (relaying, now) = (Relaying::default(), Instant::now());
        let passed = |now| (0..100).filter(|_| relaying.allow(100, 1_000, now)).count();
        assert_eq!(passed(now), 10);
        assert_eq!(passed(now + Duration::from_millis(500)), 5);
    }
}
