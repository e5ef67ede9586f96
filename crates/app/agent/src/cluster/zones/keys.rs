//! Whose signature is under a zone's row: this node's key, and others' public
//! keys by the node table.
//!
//! Holds: a public key is believed when the node table has its fingerprint for
//! that node, and the node belongs; a row only from a node of that zone.

use super::place::Places;
use aggregation::tree::{Keys, Verdict};
use kernel::{NodeId, ZonePath};
use net::identity::verify_statement;
use net::{NodeKey, PublicKey};
use node::nodes::NodeTable;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use wire::net::join::Signature as Signed;
use wire::tree::{Digest, Notice, Signature};

pub struct NodeKeys {
    own: NodeId,
    key: NodeKey,
    known: Mutex<BTreeMap<NodeId, PublicKey>>,
}

impl NodeKeys {
    pub fn new(own: NodeId, key: NodeKey) -> Self {
        let known = Mutex::new(BTreeMap::from([(own, key.public())]));
        Self { own, key, known }
    }

    pub fn sign(&self, bytes: &[u8]) -> Signature {
        self.key.sign(bytes).0
    }

    pub fn known(&self, node: NodeId) -> Option<PublicKey> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&node).copied()
    }

    /// Whether it is that node's key, as the table has it.
    pub fn learn(&self, node: NodeId, key: PublicKey, table: &NodeTable) -> bool {
        let is_its = table
            .get(&node)
            .is_some_and(|record| record.belongs() && record.key == key.fingerprint());
        if is_its {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(node, key);
        }
        is_its
    }
}

/// The keys with the node table as it is now.
pub struct Proofs<'a> {
    pub keys: &'a NodeKeys,
    pub table: &'a Arc<NodeTable>,
    /// Of that table.
    pub places: &'a Places,
    /// The nodes that keep the stores: the one that leads has asked who may.
    pub trusted: &'a BTreeSet<NodeId>,
}

impl Proofs<'_> {
    fn signed(&self, by: NodeId, bytes: &[u8], signature: &Signature) -> Verdict {
        // Who is not in the table yet may be there in a moment.
        let Some(record) = self.table.get(&by) else {
            return Verdict::UnknownKey;
        };
        if !record.belongs() {
            return Verdict::Bad;
        }
        let Some(key) = self.keys.known(by) else {
            return Verdict::UnknownKey;
        };
        let is_its =
            key.fingerprint() == record.key && verify_statement(&key, bytes, &Signed(*signature));
        if is_its { Verdict::Good } else { Verdict::Bad }
    }
}

impl Keys for Proofs<'_> {
    fn sign(&self, bytes: &[u8]) -> Signature {
        self.keys.sign(bytes)
    }

    fn verify(
        &self,
        issuer: NodeId,
        zone: &ZonePath,
        bytes: &[u8],
        signature: &Signature,
    ) -> Verdict {
        let leaf = self.table.get(&issuer);
        let leaf = leaf.map(|record| self.places.leaf(&record.zone));
        if leaf.is_some_and(|leaf| !zone.contains(&leaf)) {
            return Verdict::Bad;
        }
        self.signed(issuer, bytes, signature)
    }

    fn may_install(&self, notice: &Notice, bytes: &[u8], signature: &Signature) -> Verdict {
        if !self.trusted.contains(&notice.issuer) {
            return Verdict::Bad;
        }
        self.signed(notice.issuer, bytes, signature)
    }

    fn digest(&self, bytes: &[u8]) -> Digest {
        cut(blake3::hash(bytes))
    }

    fn secret(&self, about: &[u8]) -> Digest {
        let key = self.keys.key.to_pkcs8();
        let mut derive = blake3::Hasher::new_derive_key("homeostat 2026 beats of a zone's row");
        derive.update(&key);
        derive.update(&self.keys.own.0.to_be_bytes());
        derive.update(about);
        cut(derive.finalize())
    }
}

fn cut(hash: blake3::Hash) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(&hash.as_bytes()[..16]);
    digest
}
