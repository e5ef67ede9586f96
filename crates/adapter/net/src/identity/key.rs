//! Ed25519 keys: a node's own, and the pair that a join token's secret makes.
//!
//! Holds: a private key leaves only by [`NodeKey::to_pkcs8`], and is wiped.
//! Never: shows a private key in text meant for people.

use kernel::Hash;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use std::fmt;
use wire::net::JoinToken;
use wire::net::join::Signature;
use zeroize::Zeroizing;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    #[error("the system gives no random bytes for a key")]
    Random,
    #[error("the key cannot be read: an Ed25519 key in PKCS #8 is expected")]
    Damaged,
}

/// The public half of a node's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// What names the key in the node table.
    pub fn fingerprint(&self) -> Hash {
        Hash(*blake3::hash(&self.0).as_bytes())
    }
}

impl rcgen::PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

/// A node's key pair.
pub struct NodeKey {
    pkcs8: Zeroizing<Vec<u8>>,
    pair: Ed25519KeyPair,
}

impl NodeKey {
    pub fn generate() -> Result<Self, KeyError> {
        let document =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Random)?;
        Self::from_pkcs8(document.as_ref())
    }

    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair =
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| KeyError::Damaged)?;
        Ok(Self {
            pkcs8: Zeroizing::new(der.to_vec()),
            pair,
        })
    }

    /// The private key, for the file that only the agent reads.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        self.pkcs8.clone()
    }

    pub fn public(&self) -> PublicKey {
        public(&self.pair)
    }

    pub fn sign(&self, message: &[u8]) -> Signature {
        signature(&self.pair, message)
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.public().fingerprint().short())
    }
}

/// What the store keeps of a join token: enough to check its secret, not
/// enough to use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenVerifier(pub PublicKey);

impl TokenVerifier {
    pub fn of(token: &JoinToken) -> Self {
        Self(public(&token_pair(token)))
    }
}

/// Signs with what the token's secret makes.
pub(crate) fn sign_with_token(token: &JoinToken, message: &[u8]) -> Signature {
    signature(&token_pair(token), message)
}

/// 128 random bits stretched to a seed; the id and the root keep equal secrets
/// of two tokens apart.
fn token_pair(token: &JoinToken) -> Ed25519KeyPair {
    let mut derive = blake3::Hasher::new_derive_key("homeostat 2026 join token signing seed");
    derive.update(&token.secret);
    derive.update(&token.id.0.to_be_bytes());
    derive.update(&token.root.0);
    let seed = Zeroizing::new(*derive.finalize().as_bytes());
    // A seed of 32 bytes is always a key.
    Ed25519KeyPair::from_seed_unchecked(&*seed).expect("32 bytes are a seed")
}

/// Whether `signature` over `message` was made with `key`.
pub fn verify_statement(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    UnparsedPublicKey::new(&ED25519, key.0)
        .verify(message, &signature.0)
        .is_ok()
}

fn public(pair: &Ed25519KeyPair) -> PublicKey {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(pair.public_key().as_ref());
    PublicKey(bytes)
}

fn signature(pair: &Ed25519KeyPair, message: &[u8]) -> Signature {
    let mut bytes = [0; 64];
    bytes.copy_from_slice(pair.sign(message).as_ref());
    Signature(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::ZonePath;
    use wire::net::TokenId;

    fn token(secret: u8) -> JoinToken {
        JoinToken {
            id: TokenId(1),
            secret: [secret; 16],
            root: Hash([2; 32]),
            zone: ZonePath::root(),
            addresses: Vec::new(),
        }
    }

    #[test]
    fn a_key_reads_back_and_damage_is_refused() {
        let key = NodeKey::generate().expect("random bytes");
        let mut pkcs8 = key.to_pkcs8();
        let again = NodeKey::from_pkcs8(&pkcs8).expect("reads back");
        assert_eq!(again.public(), key.public());
        pkcs8.pop();
        assert!(matches!(
            NodeKey::from_pkcs8(&pkcs8),
            Err(KeyError::Damaged)
        ));
    }

    #[test]
    fn a_tokens_verifier_knows_its_secret_from_others() {
        let verifier = TokenVerifier::of(&token(3));
        let good = sign_with_token(&token(3), b"message");
        assert!(verify_statement(&verifier.0, b"message", &good));
        assert!(!verify_statement(&verifier.0, b"massage", &good));
        let other = sign_with_token(&token(4), b"message");
        assert!(!verify_statement(&verifier.0, b"message", &other));
        let elsewhere = JoinToken {
            root: Hash([9; 32]),
            ..token(3)
        };
        let other = sign_with_token(&elsewhere, b"message");
        assert!(!verify_statement(&verifier.0, b"message", &other));
    }

    #[test]
    fn a_private_key_is_not_shown() {
        let key = NodeKey::generate().expect("random bytes");
        assert_eq!(
            format!("{key:?}"),
            format!("NodeKey({})", key.public().fingerprint().short())
        );
    }
}
