//! What nodes tell each other of who is reachable: packets that fit a datagram.
//!
//! In: bytes from a peer whose identity the transport has proven. Out: packets.
//! Layout: `[version][life][body][news…]`; numbers are LEB128, a node and a
//! hash are eight bytes, big-endian; news fill the packet to its end.
//! Holds: what is written is at most [`PACKET_BYTES_MAX`] long; what is read
//! was at most that long, is whole, and has one spelling only.
//! Never: says who may speak; the transport and the node table do.

pub(crate) mod compact;
pub mod patch;

use compact::put;
use kernel::NodeId;

pub const VERSION: u8 = 1;
/// What a QUIC datagram always carries.
pub const PACKET_BYTES_MAX: usize = 1_100;
/// So that one packet holds them.
pub const ATTRIBUTES_BYTES_MAX: usize = 1_024;
/// So that one packet holds them.
pub const ENTRIES_MAX: usize = 24;
pub const RANGES_MAX: usize = 16;
pub const WANTED_MAX: usize = 100;

/// Which run of a node something is about, and how often that run has refuted
/// a suspicion. Of two lives, the larger is the later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    /// Grows with each start of the node.
    pub epoch: u64,
    /// Drawn at each start: tells two runs with one key from each other.
    pub nonce: u32,
    pub incarnation: u32,
}

impl Life {
    /// Whether both are the same run.
    pub fn is_same_run(&self, other: &Self) -> bool {
        (self.epoch, self.nonce) == (other.epoch, other.nonce)
    }
}

/// What is said of a node's reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Said {
    #[default]
    Alive,
    Suspect,
    Dead,
    Left,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The sender's own.
    pub life: Life,
    pub body: Body,
    pub news: Vec<News>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Only news.
    Gossip,
    Ping {
        seq: u32,
    },
    Ack {
        seq: u32,
    },
    /// Asks the receiver to ping `target`.
    PingFor {
        seq: u32,
        target: NodeId,
    },
    /// `target` answered the one who was asked.
    AckFor {
        seq: u32,
        target: NodeId,
    },
    /// `target` did not answer the one who was asked, who is well.
    NackFor {
        seq: u32,
        target: NodeId,
    },
    /// What the sender knows, by parts of the space of ids.
    Ranges(Vec<Range>),
    /// All that the sender knows in one part.
    Entries {
        low: NodeId,
        high: NodeId,
        entries: Vec<Entry>,
    },
    /// Asks for these nodes' attributes.
    Want(Vec<NodeId>),
}

/// A part of the space of ids, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub low: NodeId,
    pub high: NodeId,
    /// Of all that is known in it.
    pub hash: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub node: NodeId,
    pub life: Life,
    pub said: Said,
    pub attributes: AttributesVersion,
}

/// The larger is the later; zero is none at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttributesVersion {
    /// Of the life that set them.
    pub epoch: u64,
    pub number: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    Reach {
        node: NodeId,
        life: Life,
        said: Said,
        /// Who found it so.
        by: NodeId,
    },
    Attributes {
        node: NodeId,
        version: AttributesVersion,
        bytes: Vec<u8>,
    },
    /// What has changed since `base`, as [`patch::diff`] gives it.
    Patch {
        node: NodeId,
        base: AttributesVersion,
        version: AttributesVersion,
        patch: Vec<u8>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GossipError {
    #[error("a gossip packet of {bytes} bytes is over the limit of {PACKET_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("gossip version {found}, this program speaks {VERSION}")]
    Version { found: u8 },
    #[error("a gossip packet ends in the middle")]
    Cut,
    #[error("a gossip packet has {found} for {what}")]
    Wrong { what: &'static str, found: u64 },
}

/// A packet being filled.
#[derive(Clone, Debug)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// With no news yet. Lists over their limits are cut.
    pub fn new(life: Life, body: &Body) -> Self {
        let mut bytes = Vec::with_capacity(match body {
            Body::Ranges(_) | Body::Entries { .. } | Body::Want(_) => PACKET_BYTES_MAX,
            _ => 64,
        });
        bytes.push(VERSION);
        put_life(&mut bytes, life);
        put_body(&mut bytes, body);
        Self(bytes)
    }

    /// Adds news that [`encode_news`] made, if there is room.
    pub fn push(&mut self, news: &[u8]) -> bool {
        let fits = self.0.len() + news.len() <= PACKET_BYTES_MAX;
        if fits {
            self.0.extend_from_slice(news);
        }
        fits
    }

    pub fn room(&self) -> usize {
        PACKET_BYTES_MAX.saturating_sub(self.0.len())
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Attributes over their limit are cut: whoever sets them has checked.
pub fn encode_news(news: &News) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    match news {
        News::Reach {
            node,
            life,
            said,
            by,
        } => {
            bytes.push(said_byte(*said));
            put_node(&mut bytes, *node);
            put_life(&mut bytes, *life);
            put_node(&mut bytes, *by);
        }
        News::Attributes {
            node,
            version,
            bytes: blob,
        } => {
            let blob = blob.get(..ATTRIBUTES_BYTES_MAX).unwrap_or(blob);
            bytes.push(4);
            put_node(&mut bytes, *node);
            put_version(&mut bytes, *version);
            put(&mut bytes, blob.len() as u64);
            bytes.extend_from_slice(blob);
        }
        News::Patch {
            node,
            base,
            version,
            patch,
        } => {
            bytes.push(5);
            put_node(&mut bytes, *node);
            put_version(&mut bytes, *base);
            put_version(&mut bytes, *version);
            put(&mut bytes, patch.len() as u64);
            bytes.extend_from_slice(patch);
        }
    }
    bytes
}

pub fn decode(bytes: &[u8]) -> Result<Packet, GossipError> {
    if bytes.len() > PACKET_BYTES_MAX {
        return Err(GossipError::TooLong { bytes: bytes.len() });
    }
    let mut reader = Reader(compact::Reader::new(bytes));
    let version = reader.byte()?;
    if version != VERSION {
        return Err(GossipError::Version { found: version });
    }
    let life = reader.life()?;
    let body = reader.body()?;
    let mut news = Vec::new();
    while !reader.0.is_empty() {
        news.push(reader.news()?);
    }
    Ok(Packet { life, body, news })
}

fn said_byte(said: Said) -> u8 {
    match said {
        Said::Alive => 0,
        Said::Suspect => 1,
        Said::Dead => 2,
        Said::Left => 3,
    }
}

fn put_node(bytes: &mut Vec<u8>, node: NodeId) {
    bytes.extend_from_slice(&node.0.to_be_bytes());
}

fn put_life(bytes: &mut Vec<u8>, life: Life) {
    put(bytes, life.epoch);
    put(bytes, life.nonce.into());
    put(bytes, life.incarnation.into());
}

fn put_version(bytes: &mut Vec<u8>, version: AttributesVersion) {
    put(bytes, version.epoch);
    put(bytes, version.number.into());
}

fn put_about(bytes: &mut Vec<u8>, kind: u8, seq: u32, target: NodeId) {
    bytes.push(kind);
    put(bytes, seq.into());
    put_node(bytes, target);
}

fn put_body(bytes: &mut Vec<u8>, body: &Body) {
    match body {
        Body::Gossip => bytes.push(0),
        Body::Ping { seq } => {
            bytes.push(1);
            put(bytes, (*seq).into());
        }
        Body::Ack { seq } => {
            bytes.push(2);
            put(bytes, (*seq).into());
        }
        Body::PingFor { seq, target } => put_about(bytes, 3, *seq, *target),
        Body::AckFor { seq, target } => put_about(bytes, 4, *seq, *target),
        Body::NackFor { seq, target } => put_about(bytes, 5, *seq, *target),
        Body::Ranges(ranges) => {
            let ranges = ranges.get(..RANGES_MAX).unwrap_or(ranges);
            bytes.push(6);
            put(bytes, ranges.len() as u64);
            for range in ranges {
                put_node(bytes, range.low);
                put_node(bytes, range.high);
                bytes.extend_from_slice(&range.hash.to_be_bytes());
            }
        }
        Body::Entries { low, high, entries } => {
            let entries = entries.get(..ENTRIES_MAX).unwrap_or(entries);
            bytes.push(7);
            put_node(bytes, *low);
            put_node(bytes, *high);
            put(bytes, entries.len() as u64);
            for entry in entries {
                put_node(bytes, entry.node);
                put_life(bytes, entry.life);
                bytes.push(said_byte(entry.said));
                put_version(bytes, entry.attributes);
            }
        }
        Body::Want(nodes) => {
            let nodes = nodes.get(..WANTED_MAX).unwrap_or(nodes);
            bytes.push(8);
            put(bytes, nodes.len() as u64);
            for node in nodes {
                put_node(bytes, *node);
            }
        }
    }
}

struct Reader<'a>(compact::Reader<'a>);

impl From<compact::CompactError> for GossipError {
    fn from(why: compact::CompactError) -> Self {
        match why {
            compact::CompactError::Cut => Self::Cut,
            compact::CompactError::Spelling { found } => Self::Wrong {
                what: "a number's spelling",
                found,
            },
        }
    }
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, GossipError> {
        Ok(self.0.byte()?)
    }

    fn number(&mut self) -> Result<u64, GossipError> {
        Ok(self.0.number()?)
    }

    fn small(&mut self, what: &'static str) -> Result<u32, GossipError> {
        let found = self.number()?;
        u32::try_from(found).map_err(|_| GossipError::Wrong { what, found })
    }

    fn count(&mut self, what: &'static str, max: usize) -> Result<usize, GossipError> {
        let found = self.number()?;
        let count = usize::try_from(found).ok().filter(|count| *count <= max);
        count.ok_or(GossipError::Wrong { what, found })
    }

    fn eight(&mut self) -> Result<u64, GossipError> {
        Ok(self.0.eight()?)
    }

    fn node(&mut self) -> Result<NodeId, GossipError> {
        self.eight().map(NodeId)
    }

    fn life(&mut self) -> Result<Life, GossipError> {
        Ok(Life {
            epoch: self.number()?,
            nonce: self.small("a nonce")?,
            incarnation: self.small("an incarnation")?,
        })
    }

    fn version(&mut self) -> Result<AttributesVersion, GossipError> {
        Ok(AttributesVersion {
            epoch: self.number()?,
            number: self.small("a version")?,
        })
    }

    fn said(&mut self) -> Result<Said, GossipError> {
        match self.byte()? {
            0 => Ok(Said::Alive),
            1 => Ok(Said::Suspect),
            2 => Ok(Said::Dead),
            3 => Ok(Said::Left),
            other => Err(GossipError::Wrong {
                what: "a reach",
                found: other.into(),
            }),
        }
    }

    fn body(&mut self) -> Result<Body, GossipError> {
        let kind = self.byte()?;
        Ok(match kind {
            0 => Body::Gossip,
            1 => Body::Ping {
                seq: self.small("a number of a ping")?,
            },
            2 => Body::Ack {
                seq: self.small("a number of a ping")?,
            },
            3..=5 => {
                let (seq, target) = (self.small("a number of a ping")?, self.node()?);
                match kind {
                    3 => Body::PingFor { seq, target },
                    4 => Body::AckFor { seq, target },
                    _ => Body::NackFor { seq, target },
                }
            }
            6 => {
                let count = self.count("a count of ranges", RANGES_MAX)?;
                Body::Ranges((0..count).map(|_| self.range()).collect::<Result<_, _>>()?)
            }
            7 => {
                let (low, high) = (self.node()?, self.node()?);
                let count = self.count("a count of entries", ENTRIES_MAX)?;
                let entries = (0..count).map(|_| self.entry());
                let entries = entries.collect::<Result<_, _>>()?;
                Body::Entries { low, high, entries }
            }
            8 => {
                let count = self.count("a count of wanted nodes", WANTED_MAX)?;
                Body::Want((0..count).map(|_| self.node()).collect::<Result<_, _>>()?)
            }
            other => {
                return Err(GossipError::Wrong {
                    what: "a kind of packet",
                    found: other.into(),
                });
            }
        })
    }

    fn range(&mut self) -> Result<Range, GossipError> {
        Ok(Range {
            low: self.node()?,
            high: self.node()?,
            hash: self.eight()?,
        })
    }

    fn entry(&mut self) -> Result<Entry, GossipError> {
        Ok(Entry {
            node: self.node()?,
            life: self.life()?,
            said: self.said()?,
            attributes: self.version()?,
        })
    }

    fn news(&mut self) -> Result<News, GossipError> {
        if self.0.peek() == Some(4) {
            self.byte()?;
            let (node, version) = (self.node()?, self.version()?);
            let length = self.count("a length of attributes", ATTRIBUTES_BYTES_MAX)?;
            let bytes = self.0.take(length)?;
            return Ok(News::Attributes {
                node,
                version,
                bytes: bytes.to_vec(),
            });
        }
        if self.0.peek() == Some(5) {
            self.byte()?;
            let node = self.node()?;
            let (base, version) = (self.version()?, self.version()?);
            let length = self.count("a length of a patch", ATTRIBUTES_BYTES_MAX)?;
            let patch = self.0.take(length)?.to_vec();
            return Ok(News::Patch {
                node,
                base,
                version,
                patch,
            });
        }
        Ok(News::Reach {
            said: self.said()?,
            node: self.node()?,
            life: self.life()?,
            by: self.node()?,
        })
    }
}

#[cfg(test)]
mod tests;
