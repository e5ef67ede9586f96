//! The agent's mark on capabilities: who has none of this node is nobody.

use crate::tls::write_private;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use wire::bucket::{Capability, Grant};

const KEY_BYTES: usize = 32;

pub struct Marker {
    key: [u8; KEY_BYTES],
}

impl Marker {
    /// Makes the key (mode 0600) where there is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut key = [0; KEY_BYTES];
        match fs::read(path) {
            Ok(found) if found.len() == KEY_BYTES => {
                key.copy_from_slice(&found);
                return Ok(Self { key });
            }
            Ok(_) => {
                let path = path.display();
                tracing::warn!(%path, "damaged and made anew: replicas need a restart");
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        write_private(path, &key).map_err(io::Error::other)?;
        Ok(Self { key })
    }

    /// Another node's key in the place of this one's.
    pub fn keep(path: &Path, key: &[u8]) -> io::Result<Self> {
        let key: [u8; KEY_BYTES] = (key.try_into())
            .map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is no such key"))?;
        write_private(path, &key).map_err(io::Error::other)?;
        Ok(Self { key })
    }

    /// For a node that is entrusted with it.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    pub fn capability(&self, grant: Grant) -> String {
        Capability::new(grant, |bytes| self.mark(bytes).into()).text()
    }

    /// What a text grants; `None` when the mark is not ours.
    pub fn believe(&self, text: &str) -> Option<Grant> {
        let Ok(capability) = Capability::read(text) else {
            tracing::warn!("refused: what is no capability was shown for buckets");
            return None;
        };
        // Compared in constant time.
        if self.mark(&capability.marked) == blake3::Hash::from_bytes(capability.mark) {
            return Some(capability.grant);
        }
        let Grant {
            project,
            service,
            replica,
            ..
        } = capability.grant;
        tracing::warn!(%project, %service, replica, "refused: a capability for buckets without our mark");
        None
    }

    fn mark(&self, bytes: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.key, bytes)
    }
}
