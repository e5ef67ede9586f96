//! Frames on the Unix sockets between our own processes.
//!
//! In: bytes as they arrive, in any pieces. Out: whole messages.
//! Layout: `[u32 length][u8 version][u32 crc32][JSON]`, integers big-endian,
//! `length` counting everything after itself.

use serde::Serialize;
use serde::de::DeserializeOwned;

pub const VERSION: u8 = 1;
/// A longer frame is refused before any of it is kept.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
const HEADER: usize = 5;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    #[error("a frame of {bytes} bytes is over the limit of {FRAME_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("a frame of {bytes} bytes is shorter than its header")]
    TooShort { bytes: usize },
    #[error("frame version {found}, this program speaks {VERSION}")]
    Version { found: u8 },
    #[error("a frame's checksum does not match")]
    Checksum,
    #[error("a frame's message cannot be read")]
    Message(#[source] serde_json::Error),
}

pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let body = serde_json::to_vec(message).map_err(FrameError::Message)?;
    let bytes = HEADER + body.len();
    let length = u32::try_from(bytes).map_err(|_| FrameError::TooLong { bytes })?;
    if bytes > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong { bytes });
    }
    let mut frame = Vec::with_capacity(4 + bytes);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.push(VERSION);
    frame.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Collects bytes and hands out whole messages. After an error the stream is
/// lost and must be closed.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` until more bytes come.
    #[expect(
        clippy::should_implement_trait,
        reason = "each call names its message type"
    )]
    pub fn next<M: DeserializeOwned>(&mut self) -> Result<Option<M>, FrameError> {
        let Some(length) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let bytes = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if bytes > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong { bytes });
        }
        if bytes < HEADER {
            return Err(FrameError::TooShort { bytes });
        }
        let Some(frame) = self.buffer.get(4..4 + bytes) else {
            return Ok(None);
        };
        let message = Self::read(frame)?;
        self.buffer.drain(..4 + bytes);
        Ok(Some(message))
    }

    fn read<M: DeserializeOwned>(frame: &[u8]) -> Result<M, FrameError> {
        let bytes = frame.len();
        let (&version, rest) = frame.split_first().ok_or(FrameError::TooShort { bytes })?;
        if version != VERSION {
            return Err(FrameError::Version { found: version });
        }
        let (checksum, body) = rest
            .split_first_chunk::<4>()
            .ok_or(FrameError::TooShort { bytes })?;
        if crc32fast::hash(body) != u32::from_be_bytes(*checksum) {
            return Err(FrameError::Checksum);
        }
        serde_json::from_slice(body).map_err(FrameError::Message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_frame_of_version_1() {
        let frame = encode(&"up").expect("encodes");
        assert_eq!(frame, b"\0\0\0\x09\x01\x83\x1a\x2a\0\"up\"");
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let mut frame = encode(&"up").expect("encodes");
        *frame.last_mut().expect("not empty") ^= 1;
        let mut decoder = Decoder::default();
        decoder.push(&frame);
        assert!(matches!(
            decoder.next::<String>(),
            Err(FrameError::Checksum)
        ));
    }

    proptest! {
        #[test]
        fn messages_survive_any_cutting(messages: Vec<String>, piece in 1_usize..40) {
            let mut stream = Vec::new();
            for message in &messages {
                stream.extend(encode(message).expect("encodes"));
            }
            let mut decoder = Decoder::default();
            let mut read = Vec::new();
            for bytes in stream.chunks(piece) {
                decoder.push(bytes);
                while let Some(message) = decoder.next::<String>().expect("reads") {
                    read.push(message);
                }
            }
            prop_assert_eq!(read, messages);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next::<serde_json::Value>() {}
        }
    }
}
