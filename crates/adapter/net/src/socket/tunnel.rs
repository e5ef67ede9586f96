//! Addresses that stand for a peer behind a relay.
//!
//! In: packets for such an address, packets that came through a relay.
//! Out: packets to hand to a relay, packets as if they had come on the socket.
//! Holds: an address from a block that no network uses (240.0.0.0/4) stands for
//! one pair of relay and peer; the table and both queues are bounded, and what
//! does not fit is lost like on any network.
//! Never: looks into a packet: what is inside is between the two ends.

use kernel::NodeId;
use quinn::udp::{RecvMeta, Transmit};
use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::mpsc;

/// Pairs that are known at once; the longest unused gives way.
const PAIRS_MAX: usize = 4_096;
const QUEUED_PACKETS_MAX: usize = 1_024;
const BLOCK: u32 = 0xf000_0000;
const PORT: u16 = 1;

/// A packet for the peer behind a relay.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) relay: NodeId,
    pub(crate) peer: NodeId,
    pub(crate) packet: Vec<u8>,
}

#[derive(Debug, Default)]
struct Table {
    numbers: BTreeMap<(NodeId, NodeId), u32>,
    pairs: BTreeMap<u32, ((NodeId, NodeId), Instant)>,
    next: u32,
}

#[derive(Debug)]
pub(crate) struct Tunnels {
    table: Mutex<Table>,
    out: mpsc::Sender<Outbound>,
    arrived: mpsc::Sender<(SocketAddr, Vec<u8>)>,
    arriving: Mutex<mpsc::Receiver<(SocketAddr, Vec<u8>)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of an address of ours, also when it is written as IPv6.
fn number(address: SocketAddr) -> Option<u32> {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(ip) => ip.to_ipv4_mapped()?,
    };
    let bits = u32::from(ip);
    (bits & BLOCK == BLOCK).then_some(bits & !BLOCK)
}

pub(crate) fn is_tunnelled(address: SocketAddr) -> bool {
    number(address).is_some()
}

impl Tunnels {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Outbound>) {
        let (out, outbound) = mpsc::channel(QUEUED_PACKETS_MAX);
        let (arrived, arriving) = mpsc::channel(QUEUED_PACKETS_MAX);
        let tunnels = Self {
            table: Mutex::default(),
            out,
            arrived,
            arriving: Mutex::new(arriving),
        };
        (tunnels, outbound)
    }

    /// What stands for `peer` behind `relay`.
    pub(crate) fn address(&self, relay: NodeId, peer: NodeId, now: Instant) -> SocketAddr {
        let mut table = lock(&self.table);
        let number = if let Some(number) = table.numbers.get(&(relay, peer)) {
            *number
        } else {
            if table.pairs.len() >= PAIRS_MAX {
                table.forget_oldest();
            }
            let number = table.next;
            table.next = (table.next + 1) & !BLOCK;
            table.numbers.insert((relay, peer), number);
            number
        };
        table.pairs.insert(number, ((relay, peer), now));
        SocketAddr::from((Ipv4Addr::from(BLOCK | number), PORT))
    }

    /// Relay and peer that an address stands for.
    pub(crate) fn pair(&self, address: SocketAddr) -> Option<(NodeId, NodeId)> {
        let table = lock(&self.table);
        table.pairs.get(&number(address)?).map(|(pair, _)| *pair)
    }

    pub(crate) fn knows(&self, relay: NodeId, peer: NodeId) -> bool {
        lock(&self.table).numbers.contains_key(&(relay, peer))
    }

    /// Takes packets for an address of ours.
    pub(super) fn send(&self, transmit: &Transmit<'_>) {
        let Some((relay, peer)) = self.pair(transmit.destination) else {
            return;
        };
        let each = transmit.segment_size.unwrap_or(transmit.contents.len());
        for packet in transmit.contents.chunks(each.max(1)) {
            let packet = packet.to_vec();
            // No room: lost, and sent again by whoever misses it.
            let _ = self.out.try_send(Outbound {
                relay,
                peer,
                packet,
            });
        }
    }

    /// A packet of `peer` came through `relay`.
    pub(crate) fn arrive(&self, relay: NodeId, peer: NodeId, packet: Vec<u8>, now: Instant) {
        let address = self.address(relay, peer, now);
        let _ = self.arrived.try_send((address, packet));
    }

    pub(super) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
        own: SocketAddr,
    ) -> Poll<usize> {
        let mut arriving = lock(&self.arriving);
        let mut filled = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta.iter_mut()) {
            let Poll::Ready(Some((address, packet))) = arriving.poll_recv(cx) else {
                break;
            };
            let length = packet.len().min(buffer.len());
            buffer[..length].copy_from_slice(&packet[..length]);
            *meta = RecvMeta {
                addr: as_the_sockets(address, own),
                len: length,
                stride: length,
                ecn: None,
                dst_ip: None,
            };
            filled += 1;
        }
        if filled == 0 {
            Poll::Pending
        } else {
            Poll::Ready(filled)
        }
    }
}

/// An IPv6 socket sees IPv4 addresses as mapped ones.
fn as_the_sockets(address: SocketAddr, own: SocketAddr) -> SocketAddr {
    match (address.ip(), own.is_ipv6()) {
        (IpAddr::V4(ip), true) => SocketAddr::from((ip.to_ipv6_mapped(), address.port())),
        _ => address,
    }
}

impl Table {
    fn forget_oldest(&mut self) {
        let oldest = self.pairs.iter().min_by_key(|(_, (_, used))| *used);
        if let Some((number, (pair, _))) = oldest.map(|(number, pair)| (*number, *pair)) {
            self.pairs.remove(&number);
            self.numbers.remove(&pair);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_address_stands_for_one_pair_and_is_of_the_block() {
        let (tunnels, _) = Tunnels::new();
        let now = Instant::now();
        let one = tunnels.address(NodeId(1), NodeId(2), now);
        assert_eq!(tunnels.address(NodeId(1), NodeId(2), now), one);
        let other = tunnels.address(NodeId(2), NodeId(1), now);
        assert_ne!(other, one);
        assert!(
            is_tunnelled(one)
                && is_tunnelled(as_the_sockets(one, "[::]:1".parse().expect("an address")))
        );
        assert_eq!(tunnels.pair(one), Some((NodeId(1), NodeId(2))));
        assert!(!is_tunnelled("127.0.0.1:1".parse().expect("an address")));
        assert!(!is_tunnelled("[::1]:1".parse().expect("an address")));
    }

    #[test]
    fn the_table_is_bounded_and_the_longest_unused_pair_gives_way() {
        let (tunnels, _) = Tunnels::new();
        let now = Instant::now();
        let first = tunnels.address(NodeId(0), NodeId(0), now);
        for peer in 1..=PAIRS_MAX as u64 {
            let later = now + Duration::from_nanos(peer);
            tunnels.address(NodeId(0), NodeId(peer), later);
        }
        assert_eq!(tunnels.pair(first), None);
        assert!(!tunnels.knows(NodeId(0), NodeId(0)));
        assert!(tunnels.knows(NodeId(0), NodeId(1)));
        assert_eq!(lock(&tunnels.table).pairs.len(), PAIRS_MAX);
    }
}
