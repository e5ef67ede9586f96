//! Which trees and programs this node holds, over restarts.
//!
//! Holds: an age counts only while the agent runs, so that a clock that jumps
//! makes nothing old; a file that cannot be read is as if nothing were held:
//! what desired state names is found again.

use kernel::Hash;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use wire::layout::Layout;

const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct One {
    pub tree: bool,
    pub name: String,
    /// Of all its files, those shared with others too.
    pub bytes: u64,
    /// Since it was last needed.
    pub age_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct File {
    version: u32,
    held: BTreeMap<Hash, One>,
}

#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    pub held: BTreeMap<Hash, One>,
    written: BTreeMap<Hash, One>,
}

/// Ages are written this often; all else at once.
const AGES_EVERY_MS: u64 = 600_000;

impl Kept {
    pub fn read(layout: &Layout) -> Self {
        let path = layout.held_content();
        let read = std::fs::read(&path).ok();
        let read = read.and_then(|bytes| serde_json::from_slice::<File>(&bytes).ok());
        let held = read.filter(|file| file.version == VERSION);
        let held = held.map(|file| file.held).unwrap_or_default();
        Self {
            path,
            written: held.clone(),
            held,
        }
    }

    pub fn age(&mut self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        for one in self.held.values_mut() {
            one.age_ms = one.age_ms.saturating_add(by);
        }
    }

    /// Blocks. What cannot be written now is written with the next change.
    pub fn write(&mut self) {
        let news = self.held.len() != self.written.len()
            || self.held.iter().any(|(hash, one)| {
                let before = self.written.get(hash);
                before.is_none_or(|before| before.age_ms.abs_diff(one.age_ms) >= AGES_EVERY_MS)
            });
        if !news {
            return;
        }
        let file = File {
            version: VERSION,
            held: self.held.clone(),
        };
        let written = serde_json::to_vec(&file)
            .map_err(|error| error.to_string())
            .and_then(|bytes| {
                let written = crate::tls::write_private(&self.path, &bytes);
                written.map_err(|error| kernel::error_chain(&error))
            });
        match written {
            Ok(()) => self.written.clone_from(&self.held),
            Err(error) => tracing::warn!(error, "what content is held is not written down"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_and_how_long_survives_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(folder.path());
        std::fs::create_dir_all(layout.content()).expect("a folder");
        let mut kept = Kept::read(&layout);
        let one = One {
            tree: true,
            name: "site/news/front".to_owned(),
            bytes: 7,
            age_ms: 0,
        };
        kept.held.insert(Hash([1; 32]), one);
        kept.write();
        kept.age(Duration::from_hours(1));
        kept.write();
        let again = Kept::read(&layout);
        assert_eq!(again.held, kept.held);
        assert_eq!(again.held[&Hash([1; 32])].age_ms, 3_600_000);
        std::fs::write(layout.held_content(), b"{").expect("writes");
        assert!(Kept::read(&layout).held.is_empty());
    }
}
