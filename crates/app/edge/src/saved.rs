//! The last snapshot on disk, from which an edge serves alone.
//!
//! In: snapshots. Out: the last one that was saved.
//! Holds: the file is whole at any moment, and readable by its owner only, for
//! it holds keys; one that cannot be understood is kept aside, not deleted.
//! Never: stops an edge from starting.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use wire::edge::{EdgeSnapshot, SNAPSHOT_VERSION};

const BYTES_MAX: u64 = 128 << 20;

#[derive(Clone, Debug)]
pub struct Saved {
    path: PathBuf,
}

/// Written and synced beside the file; visible once it is kept.
#[derive(Debug)]
pub struct Staged {
    temporary: PathBuf,
    kept: bool,
}

impl Saved {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn load(&self) -> Option<EdgeSnapshot> {
        let bytes = match read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "the last snapshot cannot be read");
                return None;
            }
        };
        let why = match serde_json::from_slice::<EdgeSnapshot>(&bytes) {
            Ok(snapshot) if snapshot.format == SNAPSHOT_VERSION => return Some(snapshot),
            Ok(snapshot) => other_format(snapshot.format),
            Err(error) => match format_of(&bytes) {
                Some(format) if format != u64::from(SNAPSHOT_VERSION) => other_format(format),
                _ => format!("it cannot be understood: {error}"),
            },
        };
        self.move_aside(&why);
        None
    }

    fn move_aside(&self, why: &str) {
        let aside = self.path.with_extension("json.unusable");
        let moved = fs::rename(&self.path, &aside);
        tracing::error!(
            path = %self.path.display(),
            why,
            moved_to = %aside.display(),
            moved = moved.is_ok(),
            "the last snapshot is not used; the agent sends a new one"
        );
    }

    /// Blocks until the disk has it.
    pub fn stage(&self, snapshot: &EdgeSnapshot) -> io::Result<Staged> {
        let directory = self.directory();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        // Another edge, about to leave, may save at the same time.
        let name = format!("json.new-{}", std::process::id());
        let staged = Staged {
            temporary: self.path.with_extension(name),
            kept: false,
        };
        let _ = fs::remove_file(&staged.temporary);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&staged.temporary)?;
        let text = serde_json::to_vec(snapshot)?;
        file.write_all(&text)?;
        file.sync_all()?;
        Ok(staged)
    }

    /// The staged snapshot is the last one from now on.
    pub fn keep(&self, mut staged: Staged) -> io::Result<()> {
        fs::rename(&staged.temporary, &self.path)?;
        staged.kept = true;
        File::open(self.directory())?.sync_all()
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = File::open(path)?.take(BYTES_MAX);
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn format_of(bytes: &[u8]) -> Option<u64> {
    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    value.get("format")?.as_u64()
}

fn other_format(found: impl std::fmt::Display) -> String {
    format!("it has format {found}, this edge reads {SNAPSHOT_VERSION}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn snapshot(version: u64) -> EdgeSnapshot {
        EdgeSnapshot {
            format: SNAPSHOT_VERSION,
            version,
            ..EdgeSnapshot::default()
        }
    }

    fn files(root: &Path) -> Vec<String> {
        let entries = fs::read_dir(root.join("edge")).expect("directory");
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("entry").file_name();
        let mut names: Vec<_> = entries
            .map(|entry| name(entry).into_string().expect("text"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_kept_is_loaded_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().expect("folder");
        let saved = Saved::new(folder.path().join("edge/snapshot.json"));
        assert_eq!(saved.load(), None);
        for version in 1..4 {
            let staged = saved.stage(&snapshot(version)).expect("stages");
            saved.keep(staged).expect("keeps");
        }
        assert_eq!(saved.load(), Some(snapshot(3)));
        let mode = fs::metadata(&saved.path).expect("there").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }

    #[test]
    fn what_was_only_staged_leaves_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let saved = Saved::new(folder.path().join("edge/snapshot.json"));
        drop(saved.stage(&snapshot(1)).expect("stages"));
        assert_eq!(saved.load(), None);
        assert!(files(folder.path()).is_empty());
    }

    #[test]
    fn what_cannot_be_understood_is_moved_aside() {
        let folder = tempfile::tempdir().expect("folder");
        let saved = Saved::new(folder.path().join("edge/snapshot.json"));
        fs::create_dir(folder.path().join("edge")).expect("creates");
        for text in ["", "{", "\0\u{1}", "[]", r#"{"format":99,"version":1}"#] {
            fs::write(&saved.path, text).expect("writes");
            assert_eq!(saved.load(), None);
            assert_eq!(files(folder.path()), ["snapshot.json.unusable"], "{text}");
        }
        let other = EdgeSnapshot {
            format: SNAPSHOT_VERSION + 1,
            ..snapshot(1)
        };
        let text = serde_json::to_vec(&other).expect("encodes");
        fs::write(&saved.path, text).expect("writes");
        assert_eq!(saved.load(), None);
        assert_eq!(files(folder.path()), ["snapshot.json.unusable"]);
    }
}
