//! Removes what nothing needs, and lays trees out as files.
//!
//! Holds: nothing reachable and nothing younger than the grace is removed; an
//! unreadable live tree stops a collection before it removes anything.

use crate::error::ContentError;
use crate::{Collected, Content};
use kernel::Hash;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What is younger may belong to a tree still being ingested or committed.
pub const GRACE: Duration = Duration::from_hours(1);

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
        let before = SystemTime::now().checked_sub(grace);
        let mut collected = Collected::default();
        for directory in list(&self.chunks())? {
            let prefix = name(&directory);
            for path in list(&directory)? {
                let hash = format!("{prefix}{}", name(&path)).parse();
                if hash.is_ok_and(|hash| !live.contains(&hash)) {
                    self.remove_older(&path, before, &mut collected)?;
                }
            }
        }
        for path in list(&self.variants())? {
            let hash = name(&path).split('.').next().unwrap_or("").parse();
            if hash.is_ok_and(|hash| !live.contains(&hash)) {
                self.remove_older(&path, before, &mut collected)?;
            }
        }
        for path in list(&self.temporary())? {
            self.remove_older(&path, before, &mut collected)?;
        }
        Ok(collected)
    }

    fn remove_older(
        &self,
        path: &Path,
        before: Option<SystemTime>,
        collected: &mut Collected,
    ) -> Result<(), ContentError> {
        // Against an ingest that is just finding this chunk of use.
        let _guard = self.guard();
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

fn list(directory: &Path) -> Result<Vec<PathBuf>, ContentError> {
    let fail = || ContentError::io("read the directory", directory);
    fs::read_dir(directory)
        .map_err(fail())?
        .map(|entry| entry.map(|entry| entry.path()).map_err(fail()))
        .collect()
}

fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("")
}
