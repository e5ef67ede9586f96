//! Makes, opens and reads the one file.
//!
//! In: a place. Out: the open file and all it holds, or why not.
//! Holds: what exists is opened or refused, never made anew; a new file appears
//! whole under its name; every page is checked before it is trusted.

use crate::OpenError;
use crate::disk::{FORMAT, LOG, META, decode, read_snapshot};
use crate::room::{Free, Room};
use crate::types::{LogEntry, LogId, SnapshotMeta, Vote};
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CACHE_BYTES: usize = 8 << 20;
/// How long opening waits for an earlier owner in this process or another to
/// let go of the file.
const LOCK_SPAN_MAX: Duration = Duration::from_secs(2);
const LOCK_CHECK_SPAN: Duration = Duration::from_millis(10);

#[cfg(test)]
pub type OpenLayer = Box<dyn FnOnce(&Builder) -> Result<Database, DatabaseError> + Send>;

pub enum Place {
    File(PathBuf),
    /// What stands below redb in tests.
    #[cfg(test)]
    Layer {
        fresh: bool,
        open: OpenLayer,
        free: Free,
    },
}

impl Place {
    #[cfg(test)]
    pub fn layer(layer: impl redb::StorageBackend) -> Self {
        Self::layer_with(layer, Arc::new(|| Ok(u64::MAX)))
    }

    #[cfg(test)]
    pub fn layer_with(layer: impl redb::StorageBackend, free: Free) -> Self {
        Self::Layer {
            free,
            fresh: layer.len().expect("has a length") == 0,
            open: Box::new(move |builder| builder.create_with_backend(layer)),
        }
    }

    pub fn room(&self) -> Room {
        let path = self.name();
        let free: Free = match self {
            Self::File(path) => {
                let path = path.clone();
                Arc::new(move || free_bytes(&path))
            }
            #[cfg(test)]
            Self::Layer { free, .. } => Arc::clone(free),
        };
        Room { path, free }
    }

    /// What messages call it.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            #[cfg(test)]
            Self::Layer { .. } => "a file layer".into(),
        }
    }
}

pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

pub type Stored = Option<(SnapshotMeta, Vec<u8>)>;

/// What the file held when it was opened.
#[derive(Default)]
pub struct Loaded {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub log: BTreeMap<u64, LogEntry>,
    pub snapshot: Stored,
}

impl Loaded {
    pub fn last(&self) -> Option<LogId> {
        let entry = self.log.values().next_back().map(|entry| entry.log_id);
        let snapshot = self.snapshot.as_ref();
        let snapshot = snapshot.and_then(|(meta, _)| meta.last_log_id);
        entry.or(self.purged).max(snapshot)
    }

    /// Whoever led must be elected again: others may have entries of its term that
    /// its own disk has lost, and it must not give their places to others. Its
    /// vote for itself stays.
    pub fn forget_leading(&mut self, own: u64) {
        if let Some(vote) = &mut self.vote
            && vote.leader_id().voted_for() == Some(own)
        {
            vote.committed = false;
        }
    }
}

/// Blocks, for seconds when the file is in use.
pub fn open(place: Place, node: u64) -> Result<(Database, Loaded), OpenError> {
    let path = place.name();
    // redb promises errors, not panics, for most damage; what is left of it
    // must not take the node down.
    catch_unwind(AssertUnwindSafe(|| {
        let database = match place {
            Place::File(path) => open_file(&path, node)?,
            #[cfg(test)]
            Place::Layer { fresh, open, .. } => {
                let database = open(&builder()).map_err(|error| unreadable(&path, error))?;
                if fresh {
                    let made = initialise(&database, node, &[]);
                    made.map_err(|error| unreadable(&path, error))?;
                }
                database
            }
        };
        let loaded = read_all(&database, node, &path)?;
        Ok((database, loaded))
    }))
    .unwrap_or_else(|_| Err(damaged(&path, "its pages contradict each other")))
}

fn damaged(path: &str, reason: impl Display) -> OpenError {
    OpenError::Damaged {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// A failing disk is told from a damaged file.
pub fn unreadable(path: &str, error: impl Into<redb::Error>) -> OpenError {
    let path = path.to_owned();
    match error.into() {
        redb::Error::DatabaseAlreadyOpen => OpenError::Busy { path },
        redb::Error::Io(source) => match source.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => damaged(&path, source),
            _ => OpenError::File { path, source },
        },
        error @ redb::Error::PreviousIo => OpenError::File {
            path,
            source: io::Error::other(error.to_string()),
        },
        other => damaged(&path, other),
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true);
    builder
}

fn open_file(path: &Path, node: u64) -> Result<Database, OpenError> {
    let name = path.display().to_string();
    let file = |source| OpenError::File {
        path: name.clone(),
        source,
    };
    match std::fs::metadata(path) {
        Ok(about) if about.len() == 0 => return Err(damaged(&name, "it is empty")),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_file(path, node, &name, &[])?;
        }
        Err(error) => return Err(file(error)),
    }
    let since = Instant::now();
    loop {
        match builder().open(path) {
            Err(DatabaseError::DatabaseAlreadyOpen) if since.elapsed() < LOCK_SPAN_MAX => {
                std::thread::sleep(LOCK_CHECK_SPAN);
            }
            done => return done.map_err(|error| unreadable(&name, error)),
        }
    }
}

/// A store that begins with these rows of `meta`, where there is no file yet.
pub fn make_with(path: &Path, node: u64, rows: &[(&str, &[u8])]) -> Result<(), OpenError> {
    let name = path.display().to_string();
    if path.exists() {
        let source = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(OpenError::File { path: name, source });
    }
    make_file(path, node, &name, rows)
}

/// Under another name first: a power cut leaves no half-made store behind.
fn make_file(path: &Path, node: u64, name: &str, rows: &[(&str, &[u8])]) -> Result<(), OpenError> {
    let file = |source| OpenError::File {
        path: name.to_owned(),
        source,
    };
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".new-{}", std::process::id()));
    let draft = PathBuf::from(draft);
    let made = make_draft(&draft, node, name, rows).and_then(|()| {
        // A hard link, unlike a rename, never replaces what is there.
        match std::fs::hard_link(&draft, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(file(error)),
            _ => Ok(()),
        }
    });
    let _ = std::fs::remove_file(&draft);
    made?;
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty());
    let folder = std::fs::File::open(folder.unwrap_or(Path::new(".")));
    folder.and_then(|folder| folder.sync_all()).map_err(file)
}

fn make_draft(
    draft: &Path,
    node: u64,
    name: &str,
    rows: &[(&str, &[u8])],
) -> Result<(), OpenError> {
    let _ = std::fs::remove_file(draft);
    let database = builder().create(draft);
    let database = database.map_err(|error| unreadable(name, error))?;
    initialise(&database, node, rows).map_err(|error| unreadable(name, error))?;
    database.close().map_err(|error| unreadable(name, error))
}

fn initialise(database: &Database, node: u64, rows: &[(&str, &[u8])]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert("format", FORMAT.to_le_bytes().as_slice())?;
        meta.insert("node", node.to_le_bytes().as_slice())?;
        for (key, value) in rows {
            meta.insert(*key, *value)?;
        }
        transaction.open_table(LOG)?;
    }
    transaction.commit()?;
    Ok(())
}

fn read_all(database: &Database, node: u64, path: &str) -> Result<Loaded, OpenError> {
    let bad = |error: String| damaged(path, error);
    let failed = |error: redb::Error| unreadable(path, error);
    let reading = database.begin_read().map_err(|e| failed(e.into()))?;
    let meta = reading.open_table(META).map_err(|e| failed(e.into()))?;
    let get = |key: &str| -> Result<Option<Vec<u8>>, OpenError> {
        let row = meta.get(key).map_err(|e| failed(e.into()))?;
        Ok(row.map(|bytes| bytes.value().to_vec()))
    };
    let format = get("format")?.unwrap_or_default();
    if format != FORMAT.to_le_bytes() {
        let found = <[u8; 4]>::try_from(format).map_or(0, u32::from_le_bytes);
        let path = path.to_owned();
        return Err(OpenError::Format { path, found });
    }
    let owner = get("node")?.unwrap_or_default();
    if owner != node.to_le_bytes() {
        let path = path.to_owned();
        return Err(OpenError::OtherNode { path });
    }
    let vote = get("vote")?.map(|bytes| decode(&bytes)).transpose();
    let purged = get("purged")?.map(|bytes| decode(&bytes)).transpose();
    let mut loaded = Loaded {
        vote: vote.map_err(bad)?,
        purged: purged.map_err(bad)?,
        log: BTreeMap::new(),
        snapshot: read_snapshot(database).map_err(failed)?,
    };
    let log = reading.open_table(LOG).map_err(|e| failed(e.into()))?;
    for row in log.iter().map_err(|e| failed(e.into()))? {
        let (index, bytes) = row.map_err(|e| failed(e.into()))?;
        let entry = decode(bytes.value()).map_err(bad)?;
        loaded.log.insert(index.value(), entry);
    }
    check_gaps(&loaded).map_err(bad)?;
    Ok(loaded)
}

/// Snapshot and log must follow on each other, entry by entry.
fn check_gaps(loaded: &Loaded) -> Result<(), String> {
    let first = loaded.purged.map_or(0, |id| id.index + 1);
    let snapshot = loaded.snapshot.as_ref();
    let held = snapshot.and_then(|(meta, _)| meta.last_log_id);
    if held.map_or(0, |id| id.index + 1) < first {
        return Err(format!("the snapshot before log entry {first} is missing"));
    }
    for (expected, (index, entry)) in (first..).zip(&loaded.log) {
        if *index != expected || entry.log_id.index != expected {
            return Err(format!("log entry {expected} is missing"));
        }
    }
    Ok(())
}
