//! What the tree is lent: keys, and the programs that compute a zone's row.
//!
//! Never: kept by the tree; each event comes with them.

use super::event::Failed;
use kernel::{NodeId, UnixMillis, ZonePath};
use std::sync::Arc;
use wire::tree::{Digest, Notice, Signature, SignedRow, TreeError};

#[derive(Clone, Copy)]
pub struct Tools<'a> {
    pub keys: &'a dyn Keys,
    pub programs: &'a dyn Programs,
    /// For programs' `NOW()` and nothing else: it may be wrong.
    pub wall: UnixMillis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    Bad,
    /// The issuer's certificate is not known here.
    UnknownKey,
}

/// This node's key, and others' certificates.
pub trait Keys {
    fn sign(&self, bytes: &[u8]) -> Signature;

    /// Good only when the issuer's certified leaf zone lies within `zone`.
    fn verify(
        &self,
        issuer: NodeId,
        zone: &ZonePath,
        bytes: &[u8],
        signature: &Signature,
    ) -> Verdict;

    /// Whether that issuer may have programs run, or removed, at that zone.
    fn may_install(&self, notice: &Notice, bytes: &[u8], signature: &Signature) -> Verdict;

    /// Nobody finds bytes for a given digest.
    fn digest(&self, bytes: &[u8]) -> Digest;

    /// The same for the same bytes, and for nobody without this node's key.
    fn secret(&self, about: &[u8]) -> Digest;

    /// A simulated world reads each row once for all its nodes.
    fn open(&self, bytes: &[u8]) -> Result<Arc<SignedRow>, TreeError> {
        SignedRow::decode(bytes).map(Arc::new)
    }
}

/// One row that goes into the row above it.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub of: Source<'a>,
    pub attributes: &'a [u8],
    /// How many nodes are in it: 1 for a node's own.
    pub nodes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    Node(NodeId),
    Zone(&'a ZonePath),
}

/// What all programs of a zone gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evaluated {
    /// At most [`wire::tree::ATTRIBUTES_BYTES_MAX`].
    pub attributes: Vec<u8>,
    pub failed: Vec<Failed>,
}

/// Total and deterministic: every representative must find the same.
pub trait Programs {
    /// Equal where the same programs give a zone's attributes: only then is
    /// another result a lie.
    fn fingerprint(&self, zone: &ZonePath) -> u64;

    /// `inputs` are nodes' rows in a leaf zone, else zones' rows, in one order;
    /// `now` is when its issuer says it computed the row.
    fn evaluate(&self, zone: &ZonePath, now: UnixMillis, inputs: &[Input]) -> Evaluated;

    /// Whether the step from `old` to `new` is worth telling.
    fn differs(&self, zone: &ZonePath, old: &[u8], new: &[u8]) -> bool;
}
