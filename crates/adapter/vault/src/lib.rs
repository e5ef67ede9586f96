//! Secrets at rest: sealed under a key of the node's, opened by name.
//!
//! In: values and the names they are kept under. Out: sealed text, values.
//! Holds: what was sealed under one name opens under no other, nor once a bit
//! of it has changed; no two seals share a nonce but by chance (96 random bits);
//! the key file is whole or absent, mode 0600.
//! Never: shows a value or a key in an error or in `Debug`; makes a new key
//! where one was damaged.

mod error;
mod key;

pub use error::VaultError;
pub use zeroize::Zeroizing;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use key::Key;
use ring::aead::{Aad, NONCE_LEN, Nonce};
use std::path::{Path, PathBuf};

/// What a value may have; the environment of a process holds little more.
pub const VALUE_BYTES_MAX: usize = 64 << 10;
/// Before the text of everything sealed in this format.
const FORMAT: &str = "v1";

/// A value in the clear; its memory is wiped when it is dropped.
pub type Value = Zeroizing<Vec<u8>>;

pub struct Vault {
    path: PathBuf,
    key: Key,
    /// What other nodes sealed for the whole cluster, where this one was
    /// entrusted with its key.
    cluster: Option<Key>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Vault {
    /// Reads the key in `directory`, or makes one where there is none.
    ///
    /// # Errors
    /// A damaged key is refused and left as it is: what it sealed would be lost.
    pub fn open(directory: &Path) -> Result<Self, VaultError> {
        let path = key_path(directory);
        if !path.exists() {
            key::make(&path)?;
        }
        Self::read(directory)
    }

    /// Reads the key in `directory`, which must be there.
    pub fn read(directory: &Path) -> Result<Self, VaultError> {
        let path = key_path(directory);
        let key = key::read(&path)?;
        let cluster = cluster_key_path(directory);
        let cluster = cluster.exists().then(|| key::read(&cluster));
        Ok(Self {
            path,
            key,
            cluster: cluster.transpose()?,
        })
    }

    /// As [`Vault::open`], to seal what other nodes are to open too: with the
    /// cluster's key where this node was entrusted with it, else with its own,
    /// which is the cluster's then.
    pub fn of_cluster(directory: &Path) -> Result<Self, VaultError> {
        let own = Self::open(directory)?;
        Ok(match own.cluster {
            None => own,
            Some(key) => Self {
                path: cluster_key_path(directory),
                key,
                cluster: Some(own.key),
            },
        })
    }

    /// The text of the key that [`Vault::of_cluster`] seals with, for a node
    /// that is entrusted with it.
    pub fn cluster_key(directory: &Path) -> Result<Zeroizing<String>, VaultError> {
        let path = Self::of_cluster(directory)?.path;
        let text = std::fs::read_to_string(&path);
        text.map(Zeroizing::new)
            .map_err(|source| VaultError::File { path, source })
    }

    /// Keeps the text of the cluster's key, durable when it returns.
    ///
    /// # Errors
    /// It is no key, or another one was kept before.
    pub fn keep_cluster_key(directory: &Path, text: &str) -> Result<(), VaultError> {
        let own = Self::open(directory)?;
        key::keep(&cluster_key_path(directory), text, &own.key)
    }

    /// The key with that id, if it is here.
    fn with_id(&self, id: &[u8]) -> Option<&Key> {
        let mut keys = std::iter::once(&self.key).chain(&self.cluster);
        keys.find(|key| key.id().as_bytes() == id)
    }

    /// `v1.KEY.NONCE-AND-TEXT` in the letters of URLs. `name` is not kept, and
    /// must be given again to open it.
    pub fn seal(&self, name: &str, value: &[u8]) -> Result<String, VaultError> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(VaultError::TooLarge {
                name: name.to_owned(),
                bytes: value.len(),
            });
        }
        let sealed = self.sealed(name, value.to_vec(), Vec::new())?;
        let sealed = BASE64URL_NOPAD.encode(&sealed);
        Ok(format!("{FORMAT}.{}.{sealed}", self.key.id()))
    }

    /// As [`Vault::seal`], of any length and as bytes: `v1.KEY.` and after it
    /// nonce and text as they are.
    pub fn seal_bytes(&self, name: &str, value: Vec<u8>) -> Result<Vec<u8>, VaultError> {
        let start = format!("{FORMAT}.{}.", self.key.id()).into_bytes();
        self.sealed(name, value, start)
    }

    /// `start`, a nonce of its own, and the text with its tag.
    fn sealed(
        &self,
        name: &str,
        mut value: Vec<u8>,
        start: Vec<u8>,
    ) -> Result<Vec<u8>, VaultError> {
        let bytes = value.len();
        let nonce: [u8; NONCE_LEN] = key::random()?;
        let mut sealed = start;
        sealed.extend(nonce);
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(nonce, Aad::from(name), &mut value)
            .map_err(|_| VaultError::TooLarge {
                name: name.to_owned(),
                bytes,
            })?;
        sealed.append(&mut value);
        Ok(sealed)
    }

    /// Opens what [`Vault::seal_bytes`] made under the same name.
    pub fn open_bytes(&self, name: &str, sealed: &[u8]) -> Result<Value, VaultError> {
        let damaged = || VaultError::Damaged {
            name: name.to_owned(),
        };
        let mut fields = sealed.splitn(3, |byte| *byte == b'.');
        let (Some(format), Some(id), Some(text)) = (fields.next(), fields.next(), fields.next())
        else {
            return Err(damaged());
        };
        if format != FORMAT.as_bytes() {
            return Err(damaged());
        }
        Self::unsealed(self.known(name, id)?, name, text)
    }

    fn known(&self, name: &str, id: &[u8]) -> Result<&Key, VaultError> {
        self.with_id(id).ok_or_else(|| VaultError::OtherKey {
            name: name.to_owned(),
            path: self.path.clone(),
        })
    }

    /// Opens what [`Vault::seal`] made under the same name.
    pub fn open_value(&self, name: &str, sealed: &str) -> Result<Value, VaultError> {
        let (key, text) = self.fields(name, sealed)?;
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes());
        let bytes = bytes.map_err(|_| VaultError::Damaged {
            name: name.to_owned(),
        })?;
        Self::unsealed(key, name, &bytes)
    }

    /// Whether a key that is here sealed it, without opening it.
    pub fn check(&self, name: &str, sealed: &str) -> Result<(), VaultError> {
        self.fields(name, sealed).map(drop)
    }

    /// The key that it names, if it is here, and the text after that.
    fn fields<'a>(&self, name: &str, sealed: &'a str) -> Result<(&Key, &'a str), VaultError> {
        let damaged = || VaultError::Damaged {
            name: name.to_owned(),
        };
        let mut fields = sealed.splitn(3, '.');
        let (Some(format), Some(id), Some(text)) = (fields.next(), fields.next(), fields.next())
        else {
            return Err(damaged());
        };
        if format != FORMAT {
            return Err(VaultError::Format {
                name: name.to_owned(),
                // A damaged value may hold anything: no more of it than a format.
                found: format.chars().take(8).collect(),
            });
        }
        Ok((self.known(name, id.as_bytes())?, text))
    }

    /// What [`Vault::seal`] and [`Vault::seal_bytes`] end with: a nonce, then the
    /// text with its tag.
    fn unsealed(key: &Key, name: &str, bytes: &[u8]) -> Result<Value, VaultError> {
        let damaged = || VaultError::Damaged {
            name: name.to_owned(),
        };
        let (nonce, text) = bytes.split_at_checked(NONCE_LEN).ok_or_else(damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        let mut text = Zeroizing::new(text.to_vec());
        let length = key
            .open_in_place(nonce, Aad::from(name), &mut text)
            .map_err(|_| damaged())?
            .len();
        text.truncate(length);
        Ok(text)
    }
}

fn key_path(directory: &Path) -> PathBuf {
    directory.join("secrets.key")
}

/// Of another node, which entrusted this one with it.
fn cluster_key_path(directory: &Path) -> PathBuf {
    directory.join("cluster.key")
}

/// A new token, `MARK ID _ SECRET`, and its id: 32 bits to find it by, 256 to
/// know it by.
pub fn token(mark: &str) -> Result<(String, String), VaultError> {
    let id = HEXLOWER.encode(&key::random::<[u8; 4]>()?);
    let secret = BASE64URL_NOPAD.encode(&key::random::<[u8; 32]>()?);
    let token = format!("{mark}{id}_{secret}");
    Ok((id, token))
}

/// BLAKE3 for one use, told apart from all others by its context.
pub fn derived(context: &str, bytes: &[u8]) -> [u8; 32] {
    blake3::derive_key(context, bytes)
}

/// What is kept of a token. Two of these are compared in constant time.
pub fn hash(token: &[u8]) -> blake3::Hash {
    blake3::hash(token)
}

/// A hash that was kept.
pub fn known(hash: [u8; 32]) -> blake3::Hash {
    hash.into()
}
