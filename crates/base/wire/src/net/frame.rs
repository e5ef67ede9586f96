//! Frames between nodes: the head of each stream, and each datagram.
//!
//! Layout of a head: `[u8 version][u8 kind][u32 length][postcard]`, the length
//! big-endian and of the postcard alone; a body follows where the head tells
//! its length. Of a datagram: `[u8 version][u8 kind]`, from version 2 on
//! `[u16 generation]`, then the payload.
//! Holds: a frame of another version than its connection's is refused; version
//! 1 is written and read as long as [`VERSION_MIN`] says so.

use super::join::{JoinAnswer, JoinRequest};
use kernel::NodeId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version 2 added the cluster's generation to each frame, and relays.
pub const VERSION: u8 = 2;
pub const VERSION_MIN: u8 = 1;

pub const HEADER_BYTES: usize = 6;
/// Of a head's postcard, but for the answer to a join.
pub const HEAD_BYTES_MAX: usize = 32 << 10;
/// Of the answer to a join, which brings what a node needs to begin.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What a datagram always carries, whatever the path.
pub const DATAGRAM_BYTES_MAX: usize = 1_100;
/// Of an [`Open`]'s head.
pub const OPEN_BYTES_MAX: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Hello = 1,
    Call = 2,
    Open = 3,
    Reply = 4,
    Join = 5,
    Joined = 6,
}

impl Kind {
    fn read(byte: u8) -> Option<Self> {
        [
            Self::Hello,
            Self::Call,
            Self::Open,
            Self::Reply,
            Self::Join,
            Self::Joined,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    #[error("frame version {found}, this connection speaks {expected}")]
    Version { found: u8, expected: u8 },
    #[error("{0} is no kind of frame")]
    Kind(u8),
    #[error("a frame ends before its content does")]
    Truncated,
    #[error("a frame goes on after its content")]
    Trailing,
    #[error("a frame's head of {bytes} bytes is over the limit of {limit}")]
    TooLong { bytes: usize, limit: usize },
    #[error("a frame's content cannot be read")]
    Content,
}

/// The first thing each side says, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Drawn at each start of the process: two living ones are clones.
    pub instance: u64,
    /// Of the connections that this instance dialled, rising.
    pub sequence: u64,
    /// Of the cluster; 0 in version 1.
    pub generation: u16,
    /// Whether the speaker passes on others' packets; never in version 1.
    pub relays: bool,
}

#[derive(Serialize, Deserialize)]
struct HelloV1 {
    instance: u64,
    sequence: u64,
}

/// A request; its body follows, then the stream ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    pub method: u16,
    /// What is left until the caller stops waiting; 0 when it has passed.
    pub deadline_ms: u32,
    pub body_bytes: u32,
    /// Of the cluster; 0 in version 1.
    pub generation: u16,
}

#[derive(Serialize, Deserialize)]
struct CallV1 {
    method: u16,
    deadline_ms: u32,
    body_bytes: u32,
}

/// A stream; what follows is the methods' own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    pub method: u16,
    /// Of the opener; the answering half is sent under the same.
    pub priority: u8,
    pub head: Vec<u8>,
    /// Of the cluster; 0 in version 1.
    pub generation: u16,
}

#[derive(Serialize, Deserialize)]
struct OpenV1 {
    method: u16,
    priority: u8,
    head: Vec<u8>,
}

/// The method of a call that the transport itself answers: the caller cannot
/// dial, and asks to be dialled. Its body is a [`DialFor`]; `Done` says that a
/// dial has begun.
pub const DIAL_ME: u16 = u16::MAX;

/// What a connection that is asked for is to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DialFor {
    Main = 0,
    Bulk = 1,
}

impl DialFor {
    pub fn encode(self) -> [u8; 1] {
        [self as u8]
    }

    pub fn decode(body: &[u8]) -> Option<Self> {
        match body {
            [0] => Some(Self::Main),
            [1] => Some(Self::Bulk),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Done,
    /// The method refused; the body is its error.
    Refused,
    /// Too much to do; nothing was done.
    Busy,
    /// Nothing was done.
    UnknownMethod,
    /// The deadline passed; whether something was done is unknown.
    Late,
    /// The handler went away; whether something was done is unknown.
    Abandoned,
}

/// The answer to a call; its body follows, then the stream ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    pub status: Status,
    pub body_bytes: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    Hello(Hello),
    Call(Call),
    Open(Open),
    Reply(Reply),
    Join(JoinRequest),
    Joined(JoinAnswer),
}

/// The fixed part of a head, read before the rest is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub version: u8,
    pub kind: Kind,
    pub bytes: usize,
}

impl Header {
    /// Reads a header of a connection that speaks `version`.
    pub fn read(bytes: [u8; HEADER_BYTES], version: u8) -> Result<Self, FrameError> {
        let [found, kind, length @ ..] = bytes;
        if found != version {
            return Err(FrameError::Version {
                found,
                expected: version,
            });
        }
        let kind = Kind::read(kind).ok_or(FrameError::Kind(kind))?;
        let bytes = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let limit = match kind {
            Kind::Joined => ANSWER_BYTES_MAX,
            _ => HEAD_BYTES_MAX,
        };
        if bytes > limit {
            return Err(FrameError::TooLong { bytes, limit });
        }
        Ok(Self {
            version,
            kind,
            bytes,
        })
    }
}

impl Head {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Call(_) => Kind::Call,
            Self::Open(_) => Kind::Open,
            Self::Reply(_) => Kind::Reply,
            Self::Join(_) => Kind::Join,
            Self::Joined(_) => Kind::Joined,
        }
    }

    /// The frame for a connection that speaks `version`.
    pub fn encode(&self, version: u8) -> Result<Vec<u8>, FrameError> {
        let old = version < 2;
        let content = match self.clone() {
            Self::Hello(hello) if old => write(&HelloV1 {
                instance: hello.instance,
                sequence: hello.sequence,
            }),
            Self::Call(call) if old => write(&CallV1 {
                method: call.method,
                deadline_ms: call.deadline_ms,
                body_bytes: call.body_bytes,
            }),
            Self::Open(open) if old => write(&OpenV1 {
                method: open.method,
                priority: open.priority,
                head: open.head,
            }),
            Self::Hello(hello) => write(&hello),
            Self::Call(call) => write(&call),
            Self::Open(open) => write(&open),
            Self::Reply(reply) => write(&reply),
            Self::Join(join) => write(&join),
            Self::Joined(answer) => write(&answer),
        }?;
        let kind = self.kind() as u8;
        let length = u32::try_from(content.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes();
        let [a, b, c, d] = length;
        // The reader's limits are the writer's.
        Header::read([version, kind, a, b, c, d], version)?;
        let mut frame = Vec::with_capacity(HEADER_BYTES + content.len());
        frame.extend_from_slice(&[version, kind]);
        frame.extend_from_slice(&length);
        frame.extend_from_slice(&content);
        Ok(frame)
    }

    /// Reads what follows `header`, all of it.
    pub fn decode(header: Header, content: &[u8]) -> Result<Self, FrameError> {
        let old = header.version < 2;
        Ok(match header.kind {
            Kind::Hello if old => {
                let HelloV1 { instance, sequence } = read(content)?;
                Self::Hello(Hello {
                    instance,
                    sequence,
                    generation: 0,
                    relays: false,
                })
            }
            Kind::Call if old => {
                let call: CallV1 = read(content)?;
                Self::Call(Call {
                    method: call.method,
                    deadline_ms: call.deadline_ms,
                    body_bytes: call.body_bytes,
                    generation: 0,
                })
            }
            Kind::Open if old => {
                let open: OpenV1 = read(content)?;
                Self::Open(Open {
                    method: open.method,
                    priority: open.priority,
                    head: open.head,
                    generation: 0,
                })
            }
            Kind::Hello => Self::Hello(read(content)?),
            Kind::Call => Self::Call(read(content)?),
            Kind::Open => Self::Open(read(content)?),
            Kind::Reply => Self::Reply(read(content)?),
            Kind::Join => Self::Join(read(content)?),
            Kind::Joined => Self::Joined(read(content)?),
        })
    }
}

fn write<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    postcard::to_stdvec(message).map_err(|_| FrameError::Content)
}

fn read<M: DeserializeOwned>(content: &[u8]) -> Result<M, FrameError> {
    match postcard::take_from_bytes(content) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(FrameError::Trailing),
        Err(postcard::Error::DeserializeUnexpectedEnd) => Err(FrameError::Truncated),
        Err(_) => Err(FrameError::Content),
    }
}

/// One datagram between two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    pub content: Content<'a>,
    /// Of the cluster; 0 in version 1.
    pub generation: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// At most [`DATAGRAM_BYTES_MAX`].
    Gossip(&'a [u8]),
    /// A piece of a packet for a node that cannot be dialled; not in version 1.
    Relay(RelayPiece<'a>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To be passed on by the receiver.
    To,
    /// Passed on by the sender.
    From,
}

/// A packet of a connection between two others, in one or two pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayPiece<'a> {
    pub direction: Direction,
    /// On the way to the relay, for whom; on the way from it, from whom.
    pub node: NodeId,
    /// Of the packet, the same in its pieces.
    pub packet: u16,
    pub place: Place,
    pub bytes: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Place {
    Whole = 0,
    First = 1,
    Second = 2,
}

const GOSSIP: u8 = 1;
const RELAY_TO: u8 = 2;
const RELAY_FROM: u8 = 3;

impl<'a> Datagram<'a> {
    pub fn encode(&self, version: u8) -> Result<Vec<u8>, FrameError> {
        let mut frame = Vec::with_capacity(16 + DATAGRAM_BYTES_MAX);
        frame.push(version);
        frame.push(match self.content {
            Content::Gossip(_) => GOSSIP,
            Content::Relay(_) if version < 2 => return Err(FrameError::Kind(RELAY_TO)),
            Content::Relay(piece) => match piece.direction {
                Direction::To => RELAY_TO,
                Direction::From => RELAY_FROM,
            },
        });
        if version >= 2 {
            frame.extend_from_slice(&self.generation.to_be_bytes());
        }
        let bytes = match self.content {
            Content::Gossip(bytes) => bytes,
            Content::Relay(piece) => {
                frame.extend_from_slice(&piece.node.0.to_be_bytes());
                frame.extend_from_slice(&piece.packet.to_be_bytes());
                frame.push(piece.place as u8);
                piece.bytes
            }
        };
        if let Content::Gossip(_) = self.content
            && bytes.len() > DATAGRAM_BYTES_MAX
        {
            return Err(FrameError::TooLong {
                bytes: bytes.len(),
                limit: DATAGRAM_BYTES_MAX,
            });
        }
        frame.extend_from_slice(bytes);
        Ok(frame)
    }

    pub fn decode(frame: &'a [u8], version: u8) -> Result<Self, FrameError> {
        let ([found, kind], mut rest) = frame
            .split_first_chunk::<2>()
            .ok_or(FrameError::Truncated)?;
        if *found != version {
            return Err(FrameError::Version {
                found: *found,
                expected: version,
            });
        }
        let mut generation = 0;
        if version >= 2 {
            let (bytes, tail) = rest.split_first_chunk().ok_or(FrameError::Truncated)?;
            generation = u16::from_be_bytes(*bytes);
            rest = tail;
        }
        let content = match *kind {
            GOSSIP if rest.len() > DATAGRAM_BYTES_MAX => {
                return Err(FrameError::TooLong {
                    bytes: rest.len(),
                    limit: DATAGRAM_BYTES_MAX,
                });
            }
            GOSSIP => Content::Gossip(rest),
            RELAY_TO if version >= 2 => Content::Relay(relay_piece(Direction::To, rest)?),
            RELAY_FROM if version >= 2 => Content::Relay(relay_piece(Direction::From, rest)?),
            other => return Err(FrameError::Kind(other)),
        };
        Ok(Self {
            content,
            generation,
        })
    }
}

fn relay_piece(direction: Direction, rest: &[u8]) -> Result<RelayPiece<'_>, FrameError> {
    let (node, rest) = rest.split_first_chunk().ok_or(FrameError::Truncated)?;
    let (packet, rest) = rest.split_first_chunk().ok_or(FrameError::Truncated)?;
    let (place, bytes) = rest.split_first().ok_or(FrameError::Truncated)?;
    Ok(RelayPiece {
        direction,
        node: NodeId(u64::from_be_bytes(*node)),
        packet: u16::from_be_bytes(*packet),
        place: match *place {
            0 => Place::Whole,
            1 => Place::First,
            2 => Place::Second,
            _ => return Err(FrameError::Content),
        },
        bytes,
    })
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
