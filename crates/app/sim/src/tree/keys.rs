//! Keys of simulated nodes: a keyed hash stands for a signature, and nobody in
//! the world computes it with another's key.
//!
//! Holds: each row is read once for all nodes and shared by them, as long as
//! one of them holds it.

use super::shape::{Shape, at};
use aggregation::tree::{Keys, Verdict};
use kernel::{NodeId, ZonePath};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use wire::tree::{Digest, Notice, Signature, SignedRow, TreeError};

/// Costs of the real ones: 22 µs to sign, 52 µs to verify.
pub const SIGN_NANOS: u64 = 22_000;
pub const VERIFY_NANOS: u64 = 52_000;

/// Who installs programs; no node has its key.
pub const AUTHORITY: NodeId = NodeId(0);

#[derive(Debug, Default)]
pub struct Shelf {
    rows: RefCell<BTreeMap<Digest, Arc<SignedRow>>>,
    swept: RefCell<usize>,
}

/// Rows beyond those of the last sweep before the next.
const SWEEP: usize = 50_000;

#[derive(Clone, Debug)]
pub struct SimKeys {
    pub node: NodeId,
    pub shape: Rc<Shape>,
    pub shelf: Rc<Shelf>,
    /// Whose certificates nobody has yet.
    pub unproven: Rc<RefCell<BTreeSet<NodeId>>>,
}

impl Keys for SimKeys {
    fn sign(&self, bytes: &[u8]) -> Signature {
        signature(self.node, bytes)
    }

    fn verify(&self, issuer: NodeId, zone: &ZonePath, bytes: &[u8], given: &Signature) -> Verdict {
        if at(issuer) >= self.shape.nodes() || self.unproven.borrow().contains(&issuer) {
            return Verdict::UnknownKey;
        }
        let certified = self.shape.zone_of(at(issuer));
        if zone.contains(certified) && signature(issuer, bytes) == *given {
            Verdict::Good
        } else {
            Verdict::Bad
        }
    }

    fn may_install(&self, notice: &Notice, bytes: &[u8], given: &Signature) -> Verdict {
        if notice.issuer == AUTHORITY && signature(AUTHORITY, bytes) == *given {
            Verdict::Good
        } else {
            Verdict::Bad
        }
    }

    fn digest(&self, bytes: &[u8]) -> Digest {
        digest(0, bytes)
    }

    fn secret(&self, about: &[u8]) -> Digest {
        digest(key(self.node), about)
    }

    fn open(&self, bytes: &[u8]) -> Result<Arc<SignedRow>, TreeError> {
        let name = digest(1, bytes);
        if let Some(row) = self.shelf.rows.borrow().get(&name)
            && row.bytes() == bytes
        {
            return Ok(row.clone());
        }
        let row = Arc::new(SignedRow::decode(bytes)?);
        let mut rows = self.shelf.rows.borrow_mut();
        let mut swept = self.shelf.swept.borrow_mut();
        if rows.len() > *swept + SWEEP {
            rows.retain(|_, row| Arc::strong_count(row) > 1);
            *swept = rows.len();
        }
        rows.insert(name, row.clone());
        Ok(row)
    }
}

/// What only that node knows.
fn key(node: NodeId) -> u64 {
    mix(node.0 ^ 0x5ec2_e7f0_0d15_ea5e)
}

pub fn signature(node: NodeId, bytes: &[u8]) -> Signature {
    let digest = digest(key(node), bytes);
    let mut signature = [0; 64];
    for (at, byte) in signature.iter_mut().enumerate() {
        *byte = digest[at % digest.len()];
    }
    signature
}

/// Two lanes of 64 bits.
pub fn digest(key: u64, bytes: &[u8]) -> Digest {
    let (mut one, mut other) = (mix(key), mix(key ^ 0xa5a5_5a5a));
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.first_chunk().copied().unwrap_or_default());
        one = mix(one ^ word);
        other = (other ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(chunks.remainder()) {
        *to = *from;
    }
    let word = u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56);
    one = mix(one ^ word);
    other = mix(other ^ word ^ one);
    let mut digest = [0; 16];
    digest[..8].copy_from_slice(&one.to_le_bytes());
    digest[8..].copy_from_slice(&other.to_le_bytes());
    digest
}

fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
