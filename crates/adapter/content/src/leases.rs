//! Who still needs what: leases of this process, and pins that outlive it.
//!
//! Holds: what is leased is not collected, from before the lease is returned
//! until it is dropped; a pin holds until its end, over restarts.

use crate::error::ContentError;
use crate::{Content, Shared};
use kernel::{Hash, UnixMillis};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use wire::content::{PINS_VERSION, Pin, Pins};

/// Keeps content from being collected until dropped.
#[derive(Debug)]
#[must_use = "it holds only until it is dropped"]
pub struct Lease {
    shared: Arc<Shared>,
    hashes: Vec<Hash>,
}

/// That a file is being fetched here; one at a time.
#[derive(Debug)]
pub(crate) struct Claim {
    shared: Arc<Shared>,
    hash: Hash,
}

impl Content {
    /// A lease on one file, whether or not it is here yet.
    pub fn lease(&self, hash: Hash) -> Lease {
        self.lease_all([hash])
    }

    /// A lease on a tree that is here and on all its files.
    pub fn lease_tree(&self, tree: Hash) -> Result<Lease, ContentError> {
        let first = self.lease(tree);
        let entries = self.tree(tree)?.entries;
        let files = entries.values().map(|entry| entry.hash);
        let all = self.lease_all(files.chain([tree]));
        drop(first);
        Ok(all)
    }

    pub(crate) fn lease_all(&self, hashes: impl IntoIterator<Item = Hash>) -> Lease {
        let hashes: Vec<Hash> = hashes.into_iter().collect();
        // Against a collection that is just judging one of them.
        let _guard = self.guard();
        let mut leases = self.shared.leases();
        for hash in &hashes {
            *leases.entry(*hash).or_insert(0) += 1;
        }
        drop(leases);
        Lease {
            shared: Arc::clone(&self.shared),
            hashes,
        }
    }

    pub(crate) fn is_leased(&self, hash: Hash) -> bool {
        self.shared.leases().contains_key(&hash)
    }

    /// How many files and trees are leased at the moment.
    pub fn leased(&self) -> Vec<Hash> {
        self.shared.leases().keys().copied().collect()
    }

    /// Keeps content, with all files of a tree, until `until`. A pin of the
    /// same name is replaced.
    pub fn pin(&self, name: &str, pin: Pin) -> Result<(), ContentError> {
        self.change_pins(|pins| {
            pins.by_name.insert(name.to_owned(), pin);
            true
        })
    }

    /// Whether there was one.
    pub fn unpin(&self, name: &str) -> Result<bool, ContentError> {
        let mut found = false;
        self.change_pins(|pins| {
            found = pins.by_name.remove(name).is_some();
            found
        })?;
        Ok(found)
    }

    /// Those that have not ended at `now`.
    pub fn pins(&self, now: UnixMillis) -> Result<BTreeMap<String, Pin>, ContentError> {
        let mut pins = self.read_pins()?.by_name;
        pins.retain(|_, pin| pin.until > now);
        Ok(pins)
    }

    fn change_pins(&self, change: impl FnOnce(&mut Pins) -> bool) -> Result<(), ContentError> {
        let _one = self
            .shared
            .pins
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut pins = self.read_pins()?;
        if !change(&mut pins) {
            return Ok(());
        }
        let path = self.pins_path();
        let bytes = wire::record::encode(PINS_VERSION, &pins);
        let bytes = bytes.map_err(|source| ContentError::Pins {
            path: path.clone(),
            source,
        })?;
        let mut stage = self.stage();
        stage.add_bytes(path, &bytes)?;
        stage.flush()
    }

    fn read_pins(&self) -> Result<Pins, ContentError> {
        let path = self.pins_path();
        match fs::read(&path) {
            Ok(bytes) => wire::record::decode(PINS_VERSION, &bytes)
                .map_err(|source| ContentError::Pins { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Pins::default()),
            Err(error) => Err(ContentError::io("read", &path)(error)),
        }
    }

    fn pins_path(&self) -> PathBuf {
        self.root.join("pins")
    }

    /// `None` while another fetch of this process has it.
    pub(crate) fn claim(&self, hash: Hash) -> Option<Claim> {
        self.shared.claims().insert(hash).then(|| Claim {
            shared: Arc::clone(&self.shared),
            hash,
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leases = self.shared.leases();
        for hash in &self.hashes {
            if let Some(count) = leases.get_mut(hash) {
                *count -= 1;
                if *count == 0 {
                    leases.remove(hash);
                }
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.claims().remove(&self.hash);
        self.shared.freed.send_modify(|count| *count += 1);
    }
}
