//! The one durable file: log, vote, snapshot, in redb, written by one thread.
//!
//! In: jobs. Out: their answers, after the sync that covers them.
//! Holds: jobs are done in order, all that are queued in one redb transaction;
//! after one failure nothing is ever written again.
//! Never: blocks the runtime.

use crate::OpenError;
use crate::health::Health;
use crate::types::{LogEntry, LogId, SnapshotMeta, TypeConfig, Vote};
use openraft::storage::LogFlushed;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

pub const FORMAT: u32 = 1;
const RECORD: u8 = 1;
const JOBS_PER_SYNC_MAX: usize = 1_024;
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");

pub type Answer = oneshot::Sender<Result<(), String>>;

pub enum Job {
    Append(Vec<(u64, Vec<u8>)>, LogFlushed<TypeConfig>),
    Vote(Vec<u8>, Answer),
    /// Removes entries from this index on.
    Truncate(u64, Answer),
    /// Removes entries up to this id.
    Purge(LogId, Answer),
    Snapshot(SnapshotMeta, Vec<u8>, Answer),
    ReadSnapshot(oneshot::Sender<Result<Stored, String>>),
    Stop,
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

pub struct Disk {
    pub jobs: Sender<Job>,
    pub thread: JoinHandle<()>,
}

pub fn start(database: Database, health: Arc<Health>) -> Result<Disk, OpenError> {
    let (jobs, queue) = channel();
    let thread = std::thread::Builder::new()
        .name("store-writer".into())
        .spawn(move || run(&database, &queue, &health))
        .map_err(OpenError::Thread)?;
    Ok(Disk { jobs, thread })
}

pub fn encode<R: serde::Serialize>(record: &R) -> Result<Vec<u8>, String> {
    wire::record::encode(RECORD, record).map_err(|error| error.to_string())
}

pub fn decode<R: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<R, String> {
    wire::record::decode(RECORD, bytes).map_err(|error| error.to_string())
}

/// Opens and reads the whole file; a damaged one may make redb panic, which is
/// an error here.
pub fn load(
    open: impl FnOnce() -> Result<Database, redb::DatabaseError>,
    node: u64,
) -> Result<(Database, Loaded), OpenError> {
    catch_unwind(AssertUnwindSafe(|| {
        let database = open().map_err(|error| OpenError::File(error.to_string()))?;
        let loaded = read_all(&database, node)?;
        Ok((database, loaded))
    }))
    .unwrap_or_else(|_| Err(OpenError::File("the file is damaged".into())))
}

fn damaged(error: impl std::fmt::Display) -> OpenError {
    OpenError::File(error.to_string())
}

fn read_all(database: &Database, node: u64) -> Result<Loaded, OpenError> {
    let transaction = database.begin_write().map_err(damaged)?;
    let fresh = transaction.list_tables().map_err(damaged)?.next().is_none();
    if fresh {
        {
            let mut meta = transaction.open_table(META).map_err(damaged)?;
            meta.insert("format", FORMAT.to_le_bytes().as_slice())
                .map_err(damaged)?;
            meta.insert("node", node.to_le_bytes().as_slice())
                .map_err(damaged)?;
            transaction.open_table(LOG).map_err(damaged)?;
        }
        transaction.commit().map_err(damaged)?;
        return Ok(Loaded::default());
    }
    transaction.abort().map_err(damaged)?;
    let reading = database.begin_read().map_err(damaged)?;
    let meta = reading.open_table(META).map_err(damaged)?;
    let get = |key: &str| -> Result<Option<Vec<u8>>, OpenError> {
        Ok(meta.get(key).map_err(damaged)?.map(|v| v.value().to_vec()))
    };
    let format = get("format")?.unwrap_or_default();
    if format != FORMAT.to_le_bytes() {
        let found = <[u8; 4]>::try_from(format).map_or(0, u32::from_le_bytes);
        return Err(OpenError::Format { found });
    }
    let owner = get("node")?.unwrap_or_default();
    if owner != node.to_le_bytes() {
        return Err(OpenError::OtherNode);
    }
    let vote = get("vote")?.map(|bytes| decode(&bytes)).transpose();
    let purged = get("purged")?.map(|bytes| decode(&bytes)).transpose();
    let mut loaded = Loaded {
        vote: vote.map_err(damaged)?,
        purged: purged.map_err(damaged)?,
        log: BTreeMap::new(),
        snapshot: read_snapshot(database).map_err(OpenError::File)?,
    };
    let log = reading.open_table(LOG).map_err(damaged)?;
    for row in log.iter().map_err(damaged)? {
        let (index, bytes) = row.map_err(damaged)?;
        let entry = decode(bytes.value()).map_err(damaged)?;
        loaded.log.insert(index.value(), entry);
    }
    Ok(loaded)
}

fn read_snapshot(database: &Database) -> Result<Stored, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let reading = database.begin_read().map_err(|e| text(&e))?;
    let meta = reading.open_table(META).map_err(|e| text(&e))?;
    let about = meta.get("snapshot-meta").map_err(|e| text(&e))?;
    let data = meta.get("snapshot").map_err(|e| text(&e))?;
    match (about, data) {
        (Some(about), Some(data)) => Ok(Some((decode(about.value())?, data.value().to_vec()))),
        _ => Ok(None),
    }
}

enum Reply {
    Flushed(LogFlushed<TypeConfig>),
    Answer(Answer),
}

fn run(database: &Database, queue: &Receiver<Job>, health: &Health) {
    while let Ok(first) = queue.recv() {
        let mut jobs = vec![first];
        jobs.extend(queue.try_iter().take(JOBS_PER_SYNC_MAX));
        let mut stop = false;
        let mut writes = Vec::new();
        let mut reads = Vec::new();
        for job in jobs {
            match job {
                Job::Stop => stop = true,
                Job::ReadSnapshot(answer) => reads.push(answer),
                write => writes.push(write),
            }
        }
        if !writes.is_empty() {
            commit(database, writes, health);
        }
        for answer in reads {
            let stored = catch_unwind(AssertUnwindSafe(|| read_snapshot(database)))
                .unwrap_or_else(|_| Err("the file is damaged".into()));
            if let Err(reason) = &stored {
                health.fail(reason);
            }
            let _ = answer.send(stored);
        }
        if stop {
            return;
        }
    }
}

fn commit(database: &Database, jobs: Vec<Job>, health: &Health) {
    let mut replies = Vec::new();
    let done = match health.fault() {
        Some(reason) => Err(reason),
        None => catch_unwind(AssertUnwindSafe(|| {
            write(database, &jobs).map_err(|error| error.to_string())
        }))
        .unwrap_or_else(|_| Err("the file is damaged".into())),
    };
    for job in jobs {
        match job {
            Job::Append(_, flushed) => replies.push(Reply::Flushed(flushed)),
            Job::Vote(_, answer)
            | Job::Truncate(_, answer)
            | Job::Purge(_, answer)
            | Job::Snapshot(_, _, answer) => replies.push(Reply::Answer(answer)),
            Job::ReadSnapshot(_) | Job::Stop => {}
        }
    }
    if let Err(reason) = &done {
        health.fail(reason);
    }
    for reply in replies {
        match reply {
            Reply::Flushed(flushed) => {
                flushed.log_io_completed(done.clone().map_err(io::Error::other));
            }
            Reply::Answer(answer) => drop(answer.send(done.clone())),
        }
    }
}

fn write(database: &Database, jobs: &[Job]) -> Result<(), Box<dyn std::error::Error>> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut meta = transaction.open_table(META)?;
        let mut log = transaction.open_table(LOG)?;
        for job in jobs {
            match job {
                Job::Append(entries, _) => {
                    for (index, bytes) in entries {
                        log.insert(*index, bytes.as_slice())?;
                    }
                }
                Job::Vote(bytes, _) => {
                    meta.insert("vote", bytes.as_slice())?;
                }
                Job::Truncate(from, _) => log.retain_in(*from.., |_, _| false)?,
                Job::Purge(id, _) => {
                    log.retain_in(..=id.index, |_, _| false)?;
                    meta.insert("purged", encode(id)?.as_slice())?;
                }
                Job::Snapshot(about, data, _) => {
                    meta.insert("snapshot-meta", encode(about)?.as_slice())?;
                    meta.insert("snapshot", data.as_slice())?;
                }
                Job::ReadSnapshot(_) | Job::Stop => {}
            }
        }
    }
    transaction.commit()?;
    Ok(())
}
