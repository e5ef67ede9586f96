//! Who this node is, as it lies on its disk.
//!
//! In: a first start, or what the holder of the store gave to one that joined.
//! Out: identity, keys, certificates; on the first node, the authority.
//! Holds: private keys lie in files of mode 0600, the authority sealed; a node
//! without its last file is none, and starts anew.
//! Never: keeps the root's key longer than until it was shown.

use crate::tls::{TlsError, write_private};
use kernel::{Hash, Name, NodeId, UnixMillis, ZonePath};
use net::{Authority, Credentials, NodeKey, PublicKey};
use node::desired::FIRST_NODE;
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use vault::Vault;
use wire::layout::Layout;
use wire::net::Kind;

const AUTHORITY: &str = "authority.sealed";
const RECORD: &str = "node.json";
/// What the authority is sealed under.
const SEALED_AS: &str = "cluster/authority";

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeptError {
    #[error("cannot read or write {path}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot write a private file")]
    Private(#[source] TlsError),
    #[error("{path} is damaged")]
    Damaged { path: PathBuf },
    #[error("the cluster's authority does not open")]
    Sealed(#[source] vault::VaultError),
    #[error("the cluster's authority")]
    Authority(#[source] net::identity::AuthorityError),
    #[error("no key could be made")]
    Key(#[source] net::identity::KeyError),
}

impl KeptError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Damaged { .. } => {
                Some("put a copy back in its place; a follower can also leave and join anew")
            }
            Self::Sealed(error) => error.hint(),
            _ => None,
        }
    }
}

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    pub id: NodeId,
    /// When it joined; the node table's is the one that counts.
    pub name: Name,
    pub zone: ZonePath,
    /// The node that let this one in, where it did not begin the cluster.
    pub holder: Option<Holder>,
    /// Others that kept the cluster's state then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Holder>,
}

impl Own {
    /// Whom this node was told of when it joined.
    pub fn told(&self) -> impl Iterator<Item = &Holder> {
        self.holder.iter().chain(&self.members)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub id: NodeId,
    pub name: Name,
    pub zone: ZonePath,
    /// BLAKE3 of its agent's public key.
    pub key: Hash,
    pub addresses: Vec<SocketAddr>,
}

pub struct Kept {
    directory: PathBuf,
    keys: PathBuf,
}

impl Kept {
    pub fn new(layout: &Layout) -> Self {
        Self {
            directory: layout.cluster(),
            keys: layout.keys(),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where the root's key lies until a person was shown it.
    pub fn root_key(&self) -> PathBuf {
        self.at("root.key")
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, KeptError> {
        let path = self.at(name);
        fs::read(&path).map_err(|source| KeptError::File { path, source })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), KeptError> {
        let path = self.directory.clone();
        fs::create_dir_all(&path).map_err(|source| KeptError::File { path, source })?;
        write_private(&self.at(name), bytes).map_err(KeptError::Private)
    }

    /// None: this node has never been one.
    pub fn own(&self) -> Result<Option<Own>, KeptError> {
        let path = self.at(RECORD);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|_| KeptError::Damaged { path }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KeptError::File { path, source }),
        }
    }

    pub fn keep_own(&self, own: &Own) -> Result<(), KeptError> {
        let bytes = serde_json::to_vec_pretty(own).unwrap_or_default();
        self.write(RECORD, &bytes)
    }

    /// Makes a cluster of this one node.
    pub fn begin(&self, name: Name, zone: ZonePath, now: UnixMillis) -> Result<Own, KeptError> {
        let (authority, root_key) = Authority::create(now).map_err(KeptError::Authority)?;
        self.keep_authority(&authority)?;
        for kind in [Kind::Agent, Kind::Edge] {
            let key = self.make_key(kind)?;
            let identity = authority.identity(kind, FIRST_NODE, zone.clone(), &key);
            let issued = authority.issue(&identity, &key, now);
            self.keep_chain(kind, &issued.map_err(KeptError::Authority)?.chain)?;
        }
        self.keep_root(authority.root())?;
        self.write("root.key", root_key.pem().as_bytes())?;
        let own = Own {
            id: FIRST_NODE,
            name,
            zone,
            holder: None,
            members: Vec::new(),
        };
        self.keep_own(&own)?;
        Ok(own)
    }

    /// Sealed with this node's key.
    pub fn keep_authority(&self, authority: &Authority) -> Result<(), KeptError> {
        let sealed = Vault::open(&self.keys)
            .and_then(|vault| vault.seal_bytes(SEALED_AS, authority.to_bytes().to_vec()))
            .map_err(KeptError::Sealed)?;
        self.write(AUTHORITY, &sealed)
    }

    /// None on a node that was not entrusted with it.
    pub fn authority(&self) -> Result<Option<Authority>, KeptError> {
        if !self.at(AUTHORITY).exists() {
            return Ok(None);
        }
        let sealed = self.read(AUTHORITY)?;
        let opened = Vault::read(&self.keys)
            .and_then(|vault| vault.open_bytes(SEALED_AS, &sealed))
            .map_err(KeptError::Sealed)?;
        let authority = Authority::from_bytes(&opened).map_err(KeptError::Authority)?;
        Ok(Some(authority))
    }

    /// A new private key; returns its public half.
    pub fn make_key(&self, kind: Kind) -> Result<PublicKey, KeptError> {
        let key = NodeKey::generate().map_err(KeptError::Key)?;
        self.write(&format!("{kind}.key"), &key.to_pkcs8())?;
        Ok(key.public())
    }

    pub fn key(&self, kind: Kind) -> Result<NodeKey, KeptError> {
        let name = format!("{kind}.key");
        let path = self.at(&name);
        NodeKey::from_pkcs8(&self.read(&name)?).map_err(|_| KeptError::Damaged { path })
    }

    /// The key of a join that was begun, or a new one.
    pub fn key_or_new(&self, kind: Kind) -> Result<NodeKey, KeptError> {
        if !self.at(&format!("{kind}.key")).exists() {
            self.make_key(kind)?;
        }
        self.key(kind)
    }

    /// * `chain`: DER, the node's own first, up to below the root.
    pub fn keep_chain(&self, kind: Kind, chain: &[Vec<u8>]) -> Result<(), KeptError> {
        let bytes = serde_json::to_vec(chain).unwrap_or_default();
        self.write(&format!("{kind}.chain"), &bytes)
    }

    /// The cluster's, in DER.
    pub fn root(&self) -> Result<Vec<u8>, KeptError> {
        self.read("root.der")
    }

    pub fn keep_root(&self, root: &[u8]) -> Result<(), KeptError> {
        self.write("root.der", root)
    }

    pub fn credentials(&self, kind: Kind) -> Result<Credentials, KeptError> {
        let name = format!("{kind}.chain");
        let path = self.at(&name);
        let chain = serde_json::from_slice(&self.read(&name)?);
        Ok(Credentials {
            key: Arc::new(self.key(kind)?),
            chain: chain.map_err(|_| KeptError::Damaged { path })?,
            root: self.root()?,
        })
    }

    /// The public key's fingerprint, as the node table has it.
    pub fn fingerprint(&self, kind: Kind) -> Result<Hash, KeptError> {
        Ok(self.key(kind)?.public().fingerprint())
    }

    /// What this node notes down for its next start.
    pub fn note(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.at(name)).ok()
    }

    pub fn keep_note(&self, name: &str, bytes: &[u8]) -> Result<(), KeptError> {
        self.write(name, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        Name::new("one").expect("a name")
    }

    #[test]
    fn the_first_node_begins_once_and_is_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Kept::new(&Layout::new(folder.path()));
        assert_eq!(kept.own().expect("reads"), None);
        let own = kept.begin(name(), ZonePath::root(), UnixMillis(1_000_000_000));
        assert_eq!(kept.own().expect("reads"), Some(own.expect("begins")));
        let authority = kept.authority().expect("opens").expect("it has one");
        let credentials = kept.credentials(Kind::Agent).expect("reads");
        let view = credentials.view().expect("a certificate");
        assert_eq!(view.identity.cluster, authority.cluster());
        assert_eq!(
            view.identity.key,
            kept.fingerprint(Kind::Agent).expect("reads")
        );
        assert_ne!(
            view.identity.key,
            kept.fingerprint(Kind::Edge).expect("reads")
        );
    }

    #[test]
    fn private_files_are_their_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(folder.path());
        let begun = Kept::new(&layout).begin(name(), ZonePath::root(), UnixMillis(1_000_000_000));
        begun.expect("begins");
        for entry in fs::read_dir(layout.cluster()).expect("a folder") {
            let entry = entry.expect("an entry");
            let mode = entry.metadata().expect("is there").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{:?}", entry.path());
        }
    }
}
