//! What a machine that wants to join says, and what it is told.
//!
//! Holds: both signatures are over one statement that holds the session's own
//! bytes, so neither is worth anything in another session.

use super::token::TokenId;
use kernel::Name;
use serde::{Deserialize, Deserializer, Serialize};
use std::net::SocketAddr;

pub const ADDRESSES_MAX: usize = 16;
/// Of what the agent adds for the agent that admits it.
pub const WORDS_BYTES_MAX: usize = 8 << 10;
/// Bytes that the session exports under [`EXPORT_LABEL`].
pub const EXPORT_BYTES: usize = 32;
pub const EXPORT_LABEL: &[u8] = b"homeostat join 1";

/// Who signed a [`Statement`]; stands before it.
pub const BY_TOKEN: &[u8] = b"homeostat join 1: token\0";
pub const BY_NODE: &[u8] = b"homeostat join 1: node\0";

/// An Ed25519 signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl Serialize for Signature {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        let signature = bytes.try_into();
        signature
            .map(Self)
            .map_err(|_| serde::de::Error::custom("a signature has 64 bytes"))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    pub token: TokenId,
    /// Ed25519, of the machine that is to be a node.
    pub public_key: [u8; 32],
    pub name: Option<Name>,
    /// Where the node will listen; at most [`ADDRESSES_MAX`].
    pub addresses: Vec<SocketAddr>,
    /// The agents' own; at most [`WORDS_BYTES_MAX`].
    pub words: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    pub wish: Wish,
    /// Made with the token's secret.
    pub by_token: Signature,
    /// Made with the node's key: it is the sender's own.
    pub by_node: Signature,
}

impl Wish {
    /// What is signed in the session that exported `export`.
    pub fn statement(&self, signer: &[u8], export: &[u8; EXPORT_BYTES]) -> Vec<u8> {
        let mut statement = signer.to_vec();
        statement.extend_from_slice(export);
        // Writing to memory fails for no value of this type.
        statement.extend(postcard::to_stdvec(self).unwrap_or_default());
        statement
    }

    pub fn within_limits(&self) -> bool {
        self.addresses.len() <= ADDRESSES_MAX && self.words.len() <= WORDS_BYTES_MAX
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinAnswer {
    Admitted(Admitted),
    Refused { why: Refusal, words: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// DER, the node's own first, up to below the root.
    pub chain: Vec<Vec<u8>>,
    /// DER.
    pub root: Vec<u8>,
    /// The agents' own.
    pub words: Vec<u8>,
}

/// Why a join is refused. Nobody but the token's holder learns more than the
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Refusal {
    /// No such token, or not its secret.
    Token,
    Expired,
    Used,
    /// The name is another node's.
    Name,
    /// The key is another node's.
    Key,
    /// Too many at once; the same line will do later.
    Busy,
    /// The one who answers cannot admit anybody now.
    Unable,
    /// The request breaks the protocol.
    Protocol,
}
