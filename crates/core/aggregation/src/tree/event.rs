//! What the tree is told and what it wants done.

use crate::membership::Reach;
use kernel::{NodeId, Time, ZonePath};
use std::sync::Arc;
use std::time::Duration;
use wire::attributes::AttributeName;
use wire::gossip::AttributesVersion;
use wire::tree::{Contact, Coverage, NoticeKey, Seen, SignedRow, Stamp};

#[derive(Clone, Debug)]
pub struct Start {
    pub own: Contact,
    /// Its leaf zone.
    pub zone: ZonePath,
}

/// A node of this one's leaf zone, itself included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mate {
    pub contact: Contact,
    /// How willing it is to represent, as it publishes; 0 is never.
    pub fitness: u8,
    /// Nodes of one domain fail together; 0 is not known.
    pub domain: u64,
    /// This node is alive to itself.
    pub reach: Reach,
    /// Of the last change of `reach`.
    pub since: Time,
    /// Number 0 while its row is not known.
    pub version: AttributesVersion,
    pub attributes: Arc<[u8]>,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// How many nodes belong to the leaf zone, this one included.
    Expected(u64),
    /// One of them is so now.
    Mate(Mate),
    /// It belongs there no longer.
    Gone(NodeId),
    /// Some nodes of other zones, whom to ask when rows lead to none.
    Acquainted(Vec<Contact>),
    /// `from.node` is who the transport has proven it to be.
    Received {
        from: Contact,
        payload: Vec<u8>,
    },
    /// The certificate that [`Effect::KeyWanted`] asked for is known now.
    KeyLearned(NodeId),
    /// A zone beside one of this node's has been ended on purpose.
    Ended(ZonePath),
    /// All that the last known move of nodes to other zones changes here has
    /// been told; the number differs from that of any other layout.
    Laid(u64),
    /// A signed notice of a program, from this node's own disk or commander;
    /// `age` since it was signed.
    Notice {
        notice: Vec<u8>,
        age: Duration,
    },
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// One datagram, at most [`wire::tree::PACKET_BYTES_MAX`]; may be lost.
    Send { to: Contact, payload: Vec<u8> },
    /// Longer; by a stream.
    Stream { to: Contact, payload: Vec<u8> },
    /// A zone's row is this now.
    Row { level: usize, row: Arc<SignedRow> },
    /// Nothing has confirmed the zone's row for so long.
    Unknown { zone: ZonePath, age: Duration },
    /// The zone was unknown and is heard of again.
    Known { zone: ZonePath },
    /// This node issues the zone's row from now on, or no longer.
    Leads { zone: ZonePath, leads: bool },
    /// From the same inputs this node computes another row.
    Lie { zone: ZonePath, stamp: Stamp },
    /// Ask whoever sent it for the issuer's certificate.
    KeyWanted { issuer: NodeId, from: Contact },
    /// The leaf zone works, but is larger than advised.
    LargeZone { nodes: usize, advised: usize },
    /// What is to run has changed: make [`super::Programs`] anew from
    /// [`super::Tree::programs`], and keep the notices over a restart.
    Programs,
    /// These programs give nothing for a zone that this node represents; none
    /// of them once all do.
    Failed { zone: ZonePath, failed: Vec<Failed> },
}

/// A program that gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub key: NoticeKey,
    pub program: AttributeName,
    pub version: u64,
    pub why: String,
}

/// What was refused or ignored, and what was done, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets, rows and notices that cannot be read.
    pub garbled: u64,
    /// Rows and notices whose signature is not that of somebody who may say so.
    pub forged: u64,
    /// Beats that do not lead to their row's anchor.
    pub forged_beats: u64,
    /// Rows of an epoch or number that is over.
    pub outdated: u64,
    /// Rows whose epoch is further than any could come.
    pub future: u64,
    /// Rows that arrived again.
    pub repeated: u64,
    /// Rows of zones that are no neighbours.
    pub strange: u64,
    /// Rows whose issuer's certificate was waited for in vain.
    pub unproven: u64,
    pub accepted: u64,
    pub issued: u64,
    /// Own rows over the limits, and notices for which there is no room.
    pub oversized: u64,
    pub beats: u64,
    pub sent: u64,
    pub sent_again: u64,
    /// Ways given up.
    pub silent: u64,
    pub signed: u64,
    pub verified: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.garbled += other.garbled;
        self.forged += other.forged;
        self.forged_beats += other.forged_beats;
        self.outdated += other.outdated;
        self.future += other.future;
        self.repeated += other.repeated;
        self.strange += other.strange;
        self.unproven += other.unproven;
        self.accepted += other.accepted;
        self.issued += other.issued;
        self.oversized += other.oversized;
        self.beats += other.beats;
        self.sent += other.sent;
        self.sent_again += other.sent_again;
        self.silent += other.silent;
        self.signed += other.signed;
        self.verified += other.verified;
    }
}

/// What is known of a zone.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub row: Arc<SignedRow>,
    /// Since its issuer last stood by it.
    pub age: Duration,
    /// Nothing confirms it: it was so, and is unknown since `age`.
    pub unknown: bool,
    /// An ended zone's says that.
    pub ended: bool,
    pub coverage: Coverage,
}

/// A row as this node computes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    pub attributes: Vec<u8>,
    pub coverage: Coverage,
}

/// What a reader insists on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    pub age_max: Option<Duration>,
    /// What it has seen before: nothing older is shown.
    pub at_least: Option<Seen>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// No row of the zone is known here.
    Nothing,
    /// The row is older than was asked for.
    Stale { age: Duration },
    /// The reader has seen a later row elsewhere.
    Behind { here: Seen },
    /// What the reader has seen is not of that zone.
    OfAnother,
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => write!(f, "no row of the zone is known here"),
            Self::Stale { age } => {
                write!(
                    f,
                    "the row was confirmed {} ms ago, longer than asked for",
                    age.as_millis()
                )
            }
            Self::Behind { here } => {
                write!(
                    f,
                    "what is here, {here}, is older than what was seen before"
                )
            }
            Self::OfAnother => write!(f, "the stamp is not of this zone"),
        }
    }
}

impl std::error::Error for ReadError {}
