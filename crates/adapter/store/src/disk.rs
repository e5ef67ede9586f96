//! The one durable file: log, vote, snapshot, in redb, written by one thread.
//!
//! In: jobs. Out: their answers, after the sync that covers them.
//! Holds: jobs are done in order, all that are queued in one redb transaction;
//! after one failure nothing is ever written again.
//! Never: blocks the runtime.

use crate::OpenError;
use crate::file::Stored;
use crate::health::Health;
use crate::syncs::Syncs;
use crate::types::TypeConfig;
use openraft::storage::LogFlushed;
use redb::{Database, Durability, ReadableDatabase, TableDefinition};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

pub const FORMAT: u32 = 1;
const RECORD: u8 = 1;
const JOBS_PER_SYNC_MAX: usize = 1_024;
pub const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
pub const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");

pub type Answer = oneshot::Sender<Result<(), String>>;

pub enum Job {
    Append(Vec<(u64, Vec<u8>)>, LogFlushed<TypeConfig>),
    Vote(Vec<u8>, Answer),
    /// Removes entries from this index on.
    Truncate(u64, Answer),
    /// Removes entries up to this index; the record says so.
    Purge(u64, Vec<u8>, Answer),
    /// What it is about, and itself.
    Snapshot(Vec<u8>, Vec<u8>, Answer),
    ReadSnapshot(oneshot::Sender<Result<Stored, String>>),
    Stop,
}

pub struct Disk {
    pub jobs: Sender<Job>,
    pub thread: JoinHandle<()>,
    pub syncs: Arc<Syncs>,
}

/// * `path`: what messages call the file.
pub fn start(database: Database, path: String, health: Arc<Health>) -> Result<Disk, OpenError> {
    let (jobs, queue) = channel();
    let syncs = Arc::new(Syncs::default());
    let writer = Writer {
        database,
        path,
        health,
        syncs: Arc::clone(&syncs),
    };
    let thread = std::thread::Builder::new()
        .name("store-writer".into())
        .spawn(move || writer.run(&queue))
        .map_err(OpenError::Thread)?;
    Ok(Disk {
        jobs,
        thread,
        syncs,
    })
}

pub fn encode<R: serde::Serialize>(record: &R) -> Result<Vec<u8>, String> {
    encode_as(RECORD, record)
}

pub fn decode<R: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<R, String> {
    decode_as(RECORD, bytes)
}

/// The same of another kind.
pub fn encode_as<R: serde::Serialize>(kind: u8, record: &R) -> Result<Vec<u8>, String> {
    wire::record::encode(kind, record).map_err(|error| error.to_string())
}

pub fn decode_as<R: serde::de::DeserializeOwned>(kind: u8, bytes: &[u8]) -> Result<R, String> {
    wire::record::decode(kind, bytes).map_err(|error| error.to_string())
}

pub fn read_snapshot(database: &Database) -> Result<Stored, redb::Error> {
    let meta = database.begin_read()?.open_table(META)?;
    let about = meta.get("snapshot-meta")?;
    let data = meta.get("snapshot")?;
    let (Some(about), Some(data)) = (about, data) else {
        return Ok(None);
    };
    let about = decode(about.value()).map_err(redb::Error::Corrupted)?;
    Ok(Some((about, data.value().to_vec())))
}

enum Reply {
    Flushed(LogFlushed<TypeConfig>),
    Answer(Answer),
}

struct Writer {
    database: Database,
    path: String,
    health: Arc<Health>,
    syncs: Arc<Syncs>,
}

impl Writer {
    fn run(&self, queue: &Receiver<Job>) {
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
                self.commit(writes);
            }
            for answer in reads {
                let _ = answer.send(self.read());
            }
            if stop {
                return;
            }
        }
    }

    fn read(&self) -> Result<Stored, String> {
        let read = catch_unwind(AssertUnwindSafe(|| read_snapshot(&self.database)));
        let stored = read.unwrap_or_else(|_| {
            let reason = "its pages contradict each other".into();
            Err(redb::Error::Corrupted(reason))
        });
        stored.map_err(|reason| {
            let reason = format!("cannot read `{}`: {reason}", self.path);
            self.health.fail(&reason);
            reason
        })
    }

    fn commit(&self, jobs: Vec<Job>) {
        let done = self.write(&jobs);
        if let Err(reason) = &done {
            self.health.fail(reason);
        }
        for reply in jobs.into_iter().filter_map(reply_to) {
            match reply {
                Reply::Flushed(flushed) => {
                    flushed.log_io_completed(done.clone().map_err(io::Error::other));
                }
                Reply::Answer(answer) => drop(answer.send(done.clone())),
            }
        }
    }

    fn write(&self, jobs: &[Job]) -> Result<(), String> {
        if let Some(reason) = self.health.fault() {
            return Err(reason);
        }
        self.syncs.begin();
        let written = catch_unwind(AssertUnwindSafe(|| write(&self.database, jobs)));
        self.syncs.end();
        let (reason, next) = match written {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(redb::Error::Io(error))) => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    (error.to_string(), "free space on its disk")
                }
                _ => (error.to_string(), "check its disk"),
            },
            Ok(Err(error)) => (error.to_string(), "check its disk"),
            Err(_) => ("its pages contradict each other".into(), "check its disk"),
        };
        Err(format!(
            "cannot write `{}`: {reason}; {next}, then start again",
            self.path
        ))
    }
}

fn reply_to(job: Job) -> Option<Reply> {
    match job {
        Job::Append(_, flushed) => Some(Reply::Flushed(flushed)),
        Job::Vote(_, answer)
        | Job::Truncate(_, answer)
        | Job::Purge(_, _, answer)
        | Job::Snapshot(_, _, answer) => Some(Reply::Answer(answer)),
        Job::ReadSnapshot(_) | Job::Stop => None,
    }
}

/// One sync: redb's commit without its second phase, whose checksums tell a
/// torn one.
fn write(database: &Database, jobs: &[Job]) -> Result<(), redb::Error> {
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
                Job::Purge(to, record, _) => {
                    log.retain_in(..=*to, |_, _| false)?;
                    meta.insert("purged", record.as_slice())?;
                }
                Job::Snapshot(about, data, _) => {
                    meta.insert("snapshot-meta", about.as_slice())?;
                    meta.insert("snapshot", data.as_slice())?;
                }
                Job::ReadSnapshot(_) | Job::Stop => {}
            }
        }
    }
    transaction.commit()?;
    Ok(())
}
