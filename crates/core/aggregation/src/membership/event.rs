//! What membership is told and what it wants done.

use super::table::Table;
use kernel::{NodeId, Time, UnixMillis};
use std::sync::Arc;
use wire::gossip::{AttributesVersion, Life};

/// What this node starts with.
#[derive(Clone, Debug)]
pub struct Start {
    pub node: NodeId,
    /// Drawn at random for this start.
    pub nonce: u32,
    /// What [`Effect::Remember`] last asked to keep; none after its loss.
    pub remembered: Option<u64>,
    /// The epoch of a start without memory. A clock that is behind does no
    /// harm: the others tell which epoch must be outranked.
    pub wall: UnixMillis,
    /// At most [`wire::gossip::ATTRIBUTES_BYTES_MAX`]; longer ones are refused.
    pub attributes: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Who belongs, now: the whole table.
    Table(Arc<Table>),
    /// This node's attributes have changed.
    Attributes(Vec<u8>),
    /// `from` is who the transport has proven it to be.
    Received {
        from: NodeId,
        payload: Vec<u8>,
    },
    /// Another part found it silent (a connection broke): it is probed at once.
    Doubted(NodeId),
    /// This node ends cleanly: the others are told.
    Leaving,
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// One datagram, at most [`wire::gossip::PACKET_BYTES_MAX`]; may be lost.
    Send { to: NodeId, payload: Vec<u8> },
    /// The view of `node` has changed.
    Reach {
        node: NodeId,
        was: Reach,
        is: Reach,
        life: Life,
        /// Who found it so.
        by: NodeId,
    },
    /// `node`'s attributes are these now.
    Attributes {
        node: NodeId,
        version: AttributesVersion,
        bytes: Vec<u8>,
    },
    /// Keep this durably for the next start.
    Remember { epoch: u64 },
    /// Two runs of `node` live at the same time: its key was copied.
    Cloned { node: NodeId, nonces: [u32; 2] },
    /// A clone of this node has prevailed: this run is silent from now on. The
    /// next start prevails in its turn.
    Superseded { by: u32 },
    /// The others have been told: the process may end.
    Left,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// It belongs, and nothing was heard of it since this node started.
    #[default]
    Unheard,
    Alive,
    /// Silent; it is being asked, and may refute it.
    Suspect,
    /// Unreachable. It belongs all the same: silence removes nobody.
    Dead,
    /// It ended cleanly.
    Left,
}

impl Reach {
    /// Whether it may be counted on.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }

    /// Whether nothing says that it is not there.
    pub fn may_answer(self) -> bool {
        self.is_up() || self == Self::Unheard
    }
}

/// What is known of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View<'a> {
    pub reach: Reach,
    pub life: Life,
    /// Of the last change of `reach`, by this node's clock.
    pub since: Time,
    pub version: AttributesVersion,
    /// Empty until they are known.
    pub attributes: &'a [u8],
}

/// What was refused or ignored, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that cannot be read.
    pub garbled: u64,
    /// Packets of nodes that do not belong, or no longer.
    pub strangers: u64,
    /// Packets of nodes that belong and are not in view.
    pub outside: u64,
    /// Packets of a run that a later one has replaced.
    pub outdated: u64,
    /// News of nodes that do not belong, or are not in view.
    pub unknown: u64,
    /// Own attributes over the limit.
    pub oversized: u64,
    pub sent: u64,
    pub sent_bytes: u64,
    pub received: u64,
    pub received_bytes: u64,
    /// Suspicions of this node that it refuted.
    pub refuted: u64,
}
