//! What is counted while a world runs.

use kernel::Time;
use std::time::Duration;
use wire::tree::ZoneKey;

/// IP 20, UDP 8, QUIC's short header 11 with an id of 8, its seal 16, the
/// frame's head 3.
pub const DATAGRAM_BYTES: u64 = 58;
/// A QUIC packet that only acknowledges: it follows whatever is not answered
/// at once.
pub const ACK_BYTES: u64 = 61;

/// Of one protocol; each packet counts where it is sent and where it arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficShare {
    pub packets: u64,
    pub payload_bytes: u64,
    pub ack_packets: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub membership: TrafficShare,
    pub tree: TrafficShare,
}

impl TrafficShare {
    /// On the wire, sent once.
    pub fn bytes(&self) -> u64 {
        self.payload_bytes + self.packets * DATAGRAM_BYTES + self.ack_packets * ACK_BYTES
    }

    /// Sent and received, of each node and second.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub fn per_node(&self, nodes: usize, span: Duration) -> f64 {
        self.bytes() as f64 * 2.0 / nodes as f64 / span.as_secs_f64()
    }
}

/// A change on its way to all nodes.
#[derive(Clone, Debug)]
pub struct Watch {
    pub key: ZoneKey,
    pub value: i64,
    pub began: Time,
    /// By node.
    pub seen: Vec<Option<Duration>>,
    pub left: usize,
}

impl Watch {
    pub fn see(&mut self, at: usize, now: Time) {
        if let Some(seen) = self.seen.get_mut(at)
            && seen.is_none()
        {
            *seen = Some(now.since(self.began));
            self.left -= 1;
        }
    }

    /// Until the last node knew it; none while one does not.
    pub fn last(&self) -> Option<Duration> {
        (self.left == 0).then(|| {
            self.seen
                .iter()
                .flatten()
                .max()
                .copied()
                .unwrap_or_default()
        })
    }
}
