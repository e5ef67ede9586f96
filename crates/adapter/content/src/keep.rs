//! Removes what nothing needs, and lays trees out as files.
//!
//! Holds: nothing reachable, leased, pinned or younger than the grace is
//! removed; an unreadable live tree stops a collection before it removes
//! anything.

use crate::error::ContentError;
use crate::fetch::Partial;
use crate::{Collected, Content};
use kernel::{Hash, UnixMillis};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use wire::content::PinKind;

/// What is younger may belong to a tree still being ingested or committed.
pub const GRACE: Duration = Duration::from_hours(1);
/// A fetch that was cut off is resumed within that time.
const PARTIAL_GRACE: Duration = Duration::from_hours(24);

impl Content {
    pub fn collect(
        &self,
        live_trees: &[Hash],
        live_files: &[Hash],
    ) -> Result<Collected, ContentError> {
        self.collect_older(live_trees, live_files, GRACE)
    }

    /// As [`Content::collect`], with another grace.
    pub fn collect_older(
        &self,
        live_trees: &[Hash],
        live_files: &[Hash],
        grace: Duration,
    ) -> Result<Collected, ContentError> {
        let mut live: BTreeSet<Hash> = live_files.iter().copied().collect();
        for &hash in live_trees {
            live.insert(hash);
            live.extend(self.tree(hash)?.entries.values().map(|entry| entry.hash));
        }
        self.add_pinned(&mut live)?;
        let now = SystemTime::now();
        let before = now.checked_sub(grace);
        let mut collected = Collected::default();
        for (hash, path) in hashed(&self.chunks())? {
            if !live.contains(&hash) {
                self.remove_older(Some(hash), &path, before, &mut collected)?;
            }
        }
        for (hash, path) in hashed(&self.pieces())? {
            if !self.path(hash).exists() {
                self.remove_older(Some(hash), &path, before, &mut collected)?;
            }
        }
        for path in list(&self.variants())? {
            let hash = name(&path).split('.').next().unwrap_or("").parse();
            if let Ok(hash) = hash
                && !live.contains(&hash)
            {
                self.remove_older(Some(hash), &path, before, &mut collected)?;
            }
        }
        for path in list(&self.temporary())? {
            let hash = Partial::hash_of(name(&path));
            let grace = hash.map_or(GRACE, |_| PARTIAL_GRACE);
            let before = now.checked_sub(grace);
            self.remove_older(hash, &path, before, &mut collected)?;
        }
        Ok(collected)
    }

    /// What pins keep; it need not be here.
    fn add_pinned(&self, live: &mut BTreeSet<Hash>) -> Result<(), ContentError> {
        for pin in self.pins(unix_now())?.into_values() {
            live.insert(pin.hash);
            if pin.kind == PinKind::File {
                continue;
            }
            match self.tree(pin.hash) {
                Ok(tree) => live.extend(tree.entries.values().map(|entry| entry.hash)),
                Err(ContentError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn remove_older(
        &self,
        hash: Option<Hash>,
        path: &Path,
        before: Option<SystemTime>,
        collected: &mut Collected,
    ) -> Result<(), ContentError> {
        // Against an ingest that is just finding this chunk of use.
        let _guard = self.guard();
        if hash.is_some_and(|hash| self.is_leased(hash)) {
            return Ok(());
        }
        let found = match fs::symlink_metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(ContentError::io("read", path)(error)),
        };
        let modified = found.modified().map_err(ContentError::io("read", path))?;
        if found.is_file() && before.is_some_and(|before| modified <= before) {
            fs::remove_file(path).map_err(ContentError::io("remove", path))?;
            collected.files += 1;
            collected.bytes += found.len();
        }
        Ok(())
    }

    /// Lays a tree out as read-only files, by hard links where the file system
    /// allows. The directory appears whole; one that is already there is taken
    /// as done, so its name should tell the tree.
    pub fn export_tree(&self, tree: Hash, to: &Path) -> Result<(), ContentError> {
        if to.exists() {
            return Ok(());
        }
        let tree = self.tree(tree)?;
        let mut partial = to.as_os_str().to_owned();
        partial.push(format!(".partial-{}", std::process::id()));
        let partial = PathBuf::from(partial);
        let _ = fs::remove_dir_all(&partial);
        let laid = tree.entries.iter().try_for_each(|(key, entry)| {
            let target = partial.join(key);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent).map_err(ContentError::io("create", parent))?;
            }
            self.lay(entry.hash, &target)
        });
        let done = laid.and_then(|()| {
            fs::create_dir_all(&partial).map_err(ContentError::io("create", &partial))?;
            fs::rename(&partial, to).map_err(ContentError::io("create", to))
        });
        if done.is_err() {
            let _ = fs::remove_dir_all(&partial);
        }
        done
    }

    fn lay(&self, hash: Hash, target: &Path) -> Result<(), ContentError> {
        let path = self.path(hash);
        if fs::hard_link(&path, target).is_ok() {
            return Ok(());
        }
        drop(self.open_blob(hash)?);
        fs::copy(&path, target)
            .map(drop)
            .map_err(ContentError::io("create", target))
    }
}

fn unix_now() -> UnixMillis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixMillis(since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }))
}

/// What lies under `root` as `ab/cdef…`.
fn hashed(root: &Path) -> Result<Vec<(Hash, PathBuf)>, ContentError> {
    let mut found = Vec::new();
    for directory in list(root)? {
        let prefix = name(&directory).to_owned();
        for path in list(&directory)? {
            if let Ok(hash) = format!("{prefix}{}", name(&path)).parse() {
                found.push((hash, path));
            }
        }
    }
    Ok(found)
}

pub(crate) fn list(directory: &Path) -> Result<Vec<PathBuf>, ContentError> {
    let fail = || ContentError::io("read the directory", directory);
    fs::read_dir(directory)
        .map_err(fail())?
        .map(|entry| entry.map(|entry| entry.path()).map_err(fail()))
        .collect()
}

pub(crate) fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("")
}
