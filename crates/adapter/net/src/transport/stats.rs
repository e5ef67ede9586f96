//! Counts: bytes with their packets' overhead, and what was refused and why.

use crate::identity::Refusal;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use wire::net::frame::FrameError;

/// What was refused, dropped or lost before it was acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Refused {
    /// A certificate, or the node table's word on it.
    Peer(Refusal),
    /// No protocol of ours, or no handshake at all.
    Handshake,
    /// Too many handshakes from one address, or at once.
    HandshakeRate,
    /// One without a certificate that did anything but join.
    Stranger,
    /// A join whose request or proof is wrong.
    Join,
    /// A join that the doorkeeper refused.
    JoinRefused,
    FrameVersion,
    FrameKind,
    FrameTruncated,
    FrameTrailing,
    FrameTooLong,
    FrameContent,
    /// A head that did not come in time.
    FrameLate,
    /// Taken by nobody in time.
    DatagramQueue,
    CallQueue,
    StreamQueue,
    /// One of a peer that is not heard for a while.
    Penalty,
    /// A packet to pass on for or to one we do not relay for.
    Relay,
}

const PLAIN: [Refused; 17] = [
    Refused::Handshake,
    Refused::HandshakeRate,
    Refused::Stranger,
    Refused::Join,
    Refused::JoinRefused,
    Refused::FrameVersion,
    Refused::FrameKind,
    Refused::FrameTruncated,
    Refused::FrameTrailing,
    Refused::FrameTooLong,
    Refused::FrameContent,
    Refused::FrameLate,
    Refused::DatagramQueue,
    Refused::CallQueue,
    Refused::StreamQueue,
    Refused::Penalty,
    Refused::Relay,
];

const COUNTED: usize = PLAIN.len() + Refusal::ALL.len();

fn all() -> impl Iterator<Item = Refused> {
    let peers = Refusal::ALL.into_iter().map(Refused::Peer);
    PLAIN.into_iter().chain(peers)
}

impl From<&FrameError> for Refused {
    fn from(error: &FrameError) -> Self {
        match error {
            FrameError::Version { .. } => Self::FrameVersion,
            FrameError::Kind(_) => Self::FrameKind,
            FrameError::Truncated => Self::FrameTruncated,
            FrameError::Trailing => Self::FrameTrailing,
            FrameError::TooLong { .. } => Self::FrameTooLong,
            _ => Self::FrameContent,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Counters {
    refused: [AtomicU64; COUNTED],
    pub(crate) tx_bytes: AtomicU64,
    pub(crate) rx_bytes: AtomicU64,
    pub(crate) tx_packets: AtomicU64,
    pub(crate) rx_packets: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            refused: [const { AtomicU64::new(0) }; COUNTED],
            tx_bytes: AtomicU64::default(),
            rx_bytes: AtomicU64::default(),
            tx_packets: AtomicU64::default(),
            rx_packets: AtomicU64::default(),
        }
    }
}

impl Counters {
    pub(crate) fn refuse(&self, what: Refused) {
        if let Some(at) = all().position(|known| known == what) {
            self.refused[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// `bytes` in `packets` of UDP to or from `remote`.
    pub(crate) fn sent(&self, remote: SocketAddr, bytes: usize, packets: usize) {
        add(&self.tx_bytes, bytes + packets * overhead(remote));
        add(&self.tx_packets, packets);
    }

    pub(crate) fn received(&self, remote: SocketAddr, bytes: usize, packets: usize) {
        add(&self.rx_bytes, bytes + packets * overhead(remote));
        add(&self.rx_packets, packets);
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            tx_bytes: load(&self.tx_bytes),
            rx_bytes: load(&self.rx_bytes),
            tx_packets: load(&self.tx_packets),
            rx_packets: load(&self.rx_packets),
            refused: all()
                .zip(&self.refused)
                .map(|(what, count)| (what, load(count)))
                .filter(|(_, count)| *count > 0)
                .collect(),
        }
    }
}

fn add(counter: &AtomicU64, amount: usize) {
    let amount = u64::try_from(amount).unwrap_or(u64::MAX);
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// Of IP and UDP headers.
fn overhead(remote: SocketAddr) -> usize {
    let mapped = matches!(remote.ip(), std::net::IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
    if remote.is_ipv4() || mapped { 28 } else { 48 }
}

/// A transport's counts since it was bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// With IP and UDP headers.
    pub tx_bytes: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub rx_packets: u64,
    /// Only what happened.
    pub refused: BTreeMap<Refused, u64>,
}

impl Stats {
    pub fn refused(&self, what: Refused) -> u64 {
        self.refused.get(&what).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_by_itself() {
        let counters = Counters::default();
        for what in all() {
            counters.refuse(what);
        }
        counters.refuse(Refused::Peer(Refusal::Revoked));
        let stats = counters.snapshot();
        assert_eq!(stats.refused.len(), COUNTED);
        assert_eq!(stats.refused(Refused::Peer(Refusal::Revoked)), 2);
        assert_eq!(stats.refused(Refused::Handshake), 1);
    }

    #[test]
    fn bytes_are_counted_with_their_headers() {
        let counters = Counters::default();
        counters.sent("127.0.0.1:1".parse().expect("an address"), 1_000, 2);
        counters.received("[::1]:1".parse().expect("an address"), 100, 1);
        let stats = counters.snapshot();
        assert_eq!((stats.tx_bytes, stats.tx_packets), (1_056, 2));
        assert_eq!((stats.rx_bytes, stats.rx_packets), (148, 1));
    }
}
