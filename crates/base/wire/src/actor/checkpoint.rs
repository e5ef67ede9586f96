//! An actor's whole state between two requests, architecture-neutral.
//!
//! Layout: `[8 bytes magic][u32 length][record of that length][pages][32 bytes
//! BLAKE3 of all before it]`, the length big-endian. The record is a
//! [`Checkpoint`]; after it stand as many pages of [`PAGE_BYTES`] as it names.
//! Holds: what is cut, changed or longer than it says is refused by name.

use crate::record::{self, RecordError};
use kernel::Hash;
use serde::{Deserialize, Serialize};

pub const VERSION: u8 = 1;
pub const MAGIC: [u8; 8] = *b"hsactor\n";
pub const PAGE_BYTES: usize = 4096;
pub const HASH_BYTES: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Of the module as it was written, not as it was prepared.
    pub module: Hash,
    /// Version of the actor ABI that the module was called with.
    pub abi: u8,
    /// Of the actor's own clock, which never goes back, nanoseconds.
    pub monotonic_ns: u64,
    /// Each mutable global, in the module's order.
    pub globals: Vec<Value>,
    /// The subscribers that the actor has been told of.
    pub sessions: Vec<Session>,
    /// Linear memory, bytes.
    pub memory_bytes: u64,
    /// Indices of the pages that are not all zero, ascending.
    pub pages: Vec<u32>,
}

/// A number's bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    I32(u32),
    I64(u64),
    F32(u32),
    F64(u64),
    V128(u128),
}

/// Kind, name and cursor of something a guest holds; never a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub channel: String,
    pub subscriber: u64,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    #[error("it is no checkpoint")]
    Foreign,
    #[error("it is cut off after {0} bytes")]
    Short(usize),
    #[error("its checksum does not match")]
    Checksum,
    #[error("it names {named} pages and holds {held} bytes of them")]
    Pages { named: usize, held: usize },
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// All but the checksum, which is for who can compute it to append. `pages`
/// follow one another in the order in which `checkpoint` names them.
pub fn encode(checkpoint: &Checkpoint, pages: &[u8]) -> Result<Vec<u8>, CheckpointError> {
    let record = record::encode(VERSION, checkpoint)?;
    let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(MAGIC.len() + 4 + record.len() + pages.len() + HASH_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(length.to_be_bytes());
    bytes.extend(record);
    bytes.extend_from_slice(pages);
    Ok(bytes)
}

/// The checkpoint and its pages; `hash` computes BLAKE3.
pub fn decode(
    bytes: &[u8],
    hash: impl Fn(&[u8]) -> [u8; HASH_BYTES],
) -> Result<(Checkpoint, &[u8]), CheckpointError> {
    let start = bytes.len().min(MAGIC.len());
    if bytes[..start] != MAGIC[..start] {
        return Err(CheckpointError::Foreign);
    }
    let short = CheckpointError::Short(bytes.len());
    let Some((body, mark)) = bytes.split_last_chunk::<HASH_BYTES>() else {
        return Err(short);
    };
    let Some((length, rest)) = body
        .get(MAGIC.len()..)
        .and_then(<[u8]>::split_first_chunk::<4>)
    else {
        return Err(short);
    };
    if hash(body) != *mark {
        return Err(CheckpointError::Checksum);
    }
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let (record, pages) = rest.split_at_checked(length).ok_or(short)?;
    let checkpoint: Checkpoint = record::decode(VERSION, record)?;
    let named = checkpoint.pages.len();
    if named.checked_mul(PAGE_BYTES) != Some(pages.len()) {
        let held = pages.len();
        return Err(CheckpointError::Pages { named, held });
    }
    Ok((checkpoint, pages))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Stands for the real one: this crate knows none.
    fn mark(bytes: &[u8]) -> [u8; HASH_BYTES] {
        let mut mark = [0; HASH_BYTES];
        mark[..4].copy_from_slice(&crc32fast::hash(bytes).to_be_bytes());
        mark
    }

    fn whole() -> (Checkpoint, Vec<u8>, Vec<u8>) {
        let checkpoint = Checkpoint {
            module: Hash([7; 32]),
            abi: 1,
            monotonic_ns: 5,
            globals: vec![Value::I32(1), Value::F64(2), Value::V128(3)],
            sessions: vec![Session {
                channel: "live".to_owned(),
                subscriber: 9,
            }],
            memory_bytes: 65_536,
            pages: vec![3],
        };
        let pages = vec![1; PAGE_BYTES];
        let mut bytes = encode(&checkpoint, &pages).expect("encodes");
        bytes.extend(mark(&bytes));
        (checkpoint, pages, bytes)
    }

    #[test]
    fn golden_checkpoint_of_version_1() {
        let (checkpoint, pages, bytes) = whole();
        let head = &bytes[..bytes.len() - PAGE_BYTES - HASH_BYTES];
        let hex = "07".repeat(32);
        let expected = [
            &b"hsactor\n\0\0\0\x57\x01\x40"[..],
            hex.as_bytes(),
            b"\x01\x05\x03\x00\x01\x03\x02\x04\x03\x01\x04live\x09\x80\x80\x04\x01\x03",
        ];
        assert_eq!(head, expected.concat());
        let read = decode(&bytes, mark).expect("reads");
        assert_eq!(read, (checkpoint, &pages[..]));
    }

    #[test]
    fn what_is_cut_or_foreign_is_refused_by_name() {
        let (.., bytes) = whole();
        for end in 0..bytes.len() {
            let error = decode(&bytes[..end], mark).expect_err("refused");
            let named = matches!(error, CheckpointError::Short(_) | CheckpointError::Checksum);
            assert!(named, "{end}: {error}");
        }
        let error = decode(b"something else", mark).expect_err("refused");
        assert!(matches!(error, CheckpointError::Foreign), "{error}");
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_noticed(at in 0_usize..4_000, bit in 0_u8..8) {
            let (.., mut bytes) = whole();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes, mark).is_err());
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let mut bytes = [&MAGIC[..], &bytes].concat();
            bytes.extend(mark(&bytes));
            let _ = decode(&bytes, mark);
        }
    }
}
