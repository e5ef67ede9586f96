//! What a node says to a holder of content, and what that answers.
//!
//! A stream carries one request and its answer, each a row of frames: `[u8
//! version][u8 kind][u32 length]`, big-endian, then as many bytes. The request
//! is one frame; the answer has, for each thing wanted in its order, a
//! description with the last piece after it, the pieces, or a refusal in the
//! place of what was not given.
//!
//! A file is cut into pieces of one size, a power of two that follows from the
//! file's length. The chaining values of the pieces, in BLAKE3's tree over the
//! whole, merge into the file's own hash: they are all that is needed to check
//! each piece by itself.
//!
//! Holds: no frame is longer than its kind allows, and that is known from its
//! header. Never: computes a hash.

use crate::record::{self, RecordError};
use kernel::Hash;
use serde::{Deserialize, Serialize};

pub const VERSION: u8 = 1;
pub const HEADER_BYTES: usize = 6;
/// Of a file with more pieces than [`PIECES_MAX`], pieces are larger.
pub const PIECE_BYTES_MIN: u64 = 256 << 10;
pub const PIECE_BYTES_MAX: u64 = 16 << 20;
pub const PIECES_MAX: u64 = 1 << 16;
/// A longer file cannot travel.
pub const FILE_BYTES_MAX: u64 = PIECE_BYTES_MAX * PIECES_MAX;
pub const WANTS_MAX: usize = 512;
const REQUEST_BYTES_MAX: u64 = 48 * WANTS_MAX as u64;
const DESCRIPTION_BYTES_MAX: u64 = 32 * PIECES_MAX + 64;
const REFUSAL_BYTES_MAX: u64 = 256;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub wants: Vec<Want>,
}

/// Hashes as their 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Want {
    /// The file's description, and its last piece: the whole file, where it has
    /// but one.
    Describe { hash: [u8; 32] },
    Pieces {
        hash: [u8; 32],
        first: u32,
        count: u32,
    },
}

/// On disk too, beside long files, as a record of [`VERSION`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    pub length: u64,
    /// Of each piece, in order; none for a file of one piece.
    pub chain: Vec<[u8; 32]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    #[error("it is not there")]
    Missing,
    #[error("it is damaged there")]
    Damaged,
    #[error("it has no such piece")]
    NoSuchPiece,
    #[error("the holder has enough to do")]
    Busy,
    #[error("the request asks for too much or cannot be read")]
    BadRequest,
    #[error("the holder speaks version {spoken}")]
    Version { spoken: u8 },
    #[error("the holder cannot read it")]
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Request = 1,
    Description = 2,
    Piece = 3,
    Refusal = 4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    /// Of what follows.
    pub length: u32,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    #[error("frame version {found}, this program speaks {VERSION}")]
    Version { found: u8 },
    #[error("frames of kind {found} are not known")]
    Kind { found: u8 },
    #[error("a frame of {bytes} bytes, where {limit} are allowed")]
    TooLong { bytes: u64, limit: u64 },
    #[error("{found} things asked for at once, where {WANTS_MAX} are allowed")]
    TooMany { found: usize },
    #[error("a file of {length} bytes cannot have {pieces} pieces")]
    Pieces { length: u64, pieces: usize },
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// How long each piece but the last is, of a file of that length.
pub const fn piece_bytes(length: u64) -> u64 {
    let mut piece = PIECE_BYTES_MIN;
    while length.div_ceil(piece) > PIECES_MAX && piece < PIECE_BYTES_MAX {
        piece *= 2;
    }
    piece
}

/// How many pieces such a file has; an empty file has one.
pub const fn pieces(length: u64) -> u64 {
    let pieces = length.div_ceil(piece_bytes(length));
    if pieces == 0 { 1 } else { pieces }
}

impl Kind {
    const fn bytes_max(self) -> u64 {
        match self {
            Self::Request => REQUEST_BYTES_MAX,
            Self::Description => DESCRIPTION_BYTES_MAX,
            Self::Piece => PIECE_BYTES_MAX,
            Self::Refusal => REFUSAL_BYTES_MAX,
        }
    }
}

impl Header {
    pub const fn encode(self) -> [u8; HEADER_BYTES] {
        let [a, b, c, d] = self.length.to_be_bytes();
        [VERSION, self.kind as u8, a, b, c, d]
    }

    pub fn decode(bytes: [u8; HEADER_BYTES]) -> Result<Self, ExchangeError> {
        let [version, kind, a, b, c, d] = bytes;
        if version != VERSION {
            return Err(ExchangeError::Version { found: version });
        }
        let kind = match kind {
            1 => Kind::Request,
            2 => Kind::Description,
            3 => Kind::Piece,
            4 => Kind::Refusal,
            found => return Err(ExchangeError::Kind { found }),
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        let (bytes, limit) = (u64::from(length), kind.bytes_max());
        if bytes > limit {
            return Err(ExchangeError::TooLong { bytes, limit });
        }
        Ok(Self { kind, length })
    }
}

impl Want {
    pub const fn hash(&self) -> Hash {
        match self {
            Self::Describe { hash } | Self::Pieces { hash, .. } => Hash(*hash),
        }
    }
}

impl Request {
    pub fn frame(&self) -> Result<Vec<u8>, ExchangeError> {
        if self.wants.len() > WANTS_MAX {
            let found = self.wants.len();
            return Err(ExchangeError::TooMany { found });
        }
        frame(Kind::Request, self)
    }

    /// From the bytes after the header.
    pub fn decode(body: &[u8]) -> Result<Self, ExchangeError> {
        let request: Self = record::decode(VERSION, body)?;
        if request.wants.len() > WANTS_MAX {
            let found = request.wants.len();
            return Err(ExchangeError::TooMany { found });
        }
        Ok(request)
    }
}

impl Description {
    pub fn frame(&self) -> Result<Vec<u8>, ExchangeError> {
        frame(Kind::Description, self)
    }

    /// What goes on disk.
    pub fn record(&self) -> Result<Vec<u8>, ExchangeError> {
        Ok(record::encode(VERSION, self)?)
    }

    /// From a record, or the bytes after a header. As many chaining values as
    /// the length asks for; whether they are right is for who can compute it.
    pub fn decode(body: &[u8]) -> Result<Self, ExchangeError> {
        let description: Self = record::decode(VERSION, body)?;
        let Self { length, chain } = &description;
        let expected = match pieces(*length) {
            1 => 0,
            many => many,
        };
        if *length > FILE_BYTES_MAX || chain.len() as u64 != expected {
            return Err(ExchangeError::Pieces {
                length: *length,
                pieces: chain.len(),
            });
        }
        Ok(description)
    }
}

impl Refusal {
    pub fn frame(&self) -> Result<Vec<u8>, ExchangeError> {
        frame(Kind::Refusal, self)
    }

    pub fn decode(body: &[u8]) -> Result<Self, ExchangeError> {
        Ok(record::decode(VERSION, body)?)
    }
}

fn frame<M: Serialize>(kind: Kind, message: &M) -> Result<Vec<u8>, ExchangeError> {
    let body = record::encode(VERSION, message)?;
    let (bytes, limit) = (body.len() as u64, kind.bytes_max());
    let length = u32::try_from(bytes).unwrap_or(u32::MAX);
    if bytes > limit {
        return Err(ExchangeError::TooLong { bytes, limit });
    }
    let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
    frame.extend_from_slice(&Header { kind, length }.encode());
    frame.extend_from_slice(&body);
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> Request {
        Request {
            wants: vec![
                Want::Describe { hash: [1; 32] },
                Want::Pieces {
                    hash: [2; 32],
                    first: 3,
                    count: 300,
                },
            ],
        }
    }

    #[test]
    fn golden_frames_of_version_1() {
        let expected = [
            &b"\x01\x01\0\0\0\x47"[..],
            b"\x01\x02\x00",
            &[1; 32],
            b"\x01",
            &[2; 32],
            b"\x03\xac\x02",
        ];
        assert_eq!(request().frame().expect("encodes"), expected.concat());
        let description = Description {
            length: PIECE_BYTES_MIN + 1,
            chain: vec![[7; 32], [8; 32]],
        };
        let expected = [
            &b"\x01\x02\0\0\0\x45\x01\x81\x80\x10\x02"[..],
            &[7; 32],
            &[8; 32],
        ];
        assert_eq!(description.frame().expect("encodes"), expected.concat());
        let refusal = Refusal::Version { spoken: 1 };
        let frame = refusal.frame().expect("encodes");
        assert_eq!(frame, b"\x01\x04\0\0\0\x03\x01\x05\x01");
        let piece = Header {
            kind: Kind::Piece,
            length: 5,
        };
        assert_eq!(piece.encode(), *b"\x01\x03\0\0\0\x05");
    }

    #[test]
    fn the_largest_messages_fit_their_frames() {
        let want = Want::Pieces {
            hash: [0xff; 32],
            first: u32::MAX,
            count: u32::MAX,
        };
        let mut request = Request {
            wants: vec![want; WANTS_MAX],
        };
        request.frame().expect("fits");
        request.wants.push(want);
        let error = request.frame().expect_err("refused");
        assert!(matches!(error, ExchangeError::TooMany { found: 513 }));
        let description = Description {
            length: FILE_BYTES_MAX,
            chain: vec![[0xff; 32]; usize::try_from(PIECES_MAX).expect("small")],
        };
        let frame = description.frame().expect("fits");
        let read = Description::decode(&frame[HEADER_BYTES..]).expect("reads");
        assert_eq!(read, description);
    }

    #[test]
    fn pieces_grow_only_when_there_would_be_too_many() {
        let (gib, tib) = (1 << 30, 1 << 40);
        assert_eq!((piece_bytes(0), pieces(0)), (PIECE_BYTES_MIN, 1));
        assert_eq!((piece_bytes(gib), pieces(gib)), (PIECE_BYTES_MIN, 4096));
        assert_eq!(piece_bytes(16 * gib), PIECE_BYTES_MIN);
        assert_eq!(piece_bytes(16 * gib + 1), 2 * PIECE_BYTES_MIN);
        assert_eq!((piece_bytes(tib), pieces(tib)), (PIECE_BYTES_MAX, 65_536));
    }

    proptest! {
        #[test]
        fn pieces_cover_the_file(length in 0..=FILE_BYTES_MAX) {
            let (piece, count) = (piece_bytes(length), pieces(length));
            prop_assert!(count * piece >= length && (count - 1) * piece <= length);
            prop_assert!(count <= PIECES_MAX && piece.is_power_of_two());
        }

        #[test]
        fn requests_come_back(hashes: Vec<[u8; 32]>, first: u32, count: u32) {
            let wants = hashes.into_iter().map(|hash| Want::Pieces { hash, first, count });
            let request = Request { wants: wants.collect() };
            let frame = request.frame().expect("encodes");
            let (head, body) = frame.split_first_chunk().expect("a header");
            let header = Header::decode(*head).expect("reads");
            prop_assert_eq!(header.kind, Kind::Request);
            prop_assert_eq!(header.length as usize, body.len());
            prop_assert_eq!(Request::decode(body).expect("reads"), request);
        }

        #[test]
        fn hostile_bytes_never_panic(head: [u8; HEADER_BYTES], known: bool, body: Vec<u8>) {
            let mut head = head;
            if known {
                head[0] = VERSION;
                head[1] %= 6;
            }
            if let Ok(header) = Header::decode(head) {
                prop_assert!(u64::from(header.length) <= header.kind.bytes_max());
            }
            let body = [&[VERSION][..], &body].concat();
            let _ = (Request::decode(&body), Refusal::decode(&body));
            if let Ok(description) = Description::decode(&body) {
                prop_assert!(description.chain.len() as u64 <= PIECES_MAX);
            }
        }
    }
}
