//! The file and the state as openraft wants them.
//!
//! Holds: entries are readable from memory as soon as they are appended, and
//! reported as flushed only after the sync.

use crate::disk::{Answer, Disk, Job, encode};
use crate::file::Loaded;
use crate::group::Early;
use crate::shared::{Applied, Kept, Shared};
use crate::types::{LogEntry, LogId, Replies, SnapshotMeta, StorageError, TypeConfig, Vote};
use openraft::storage::{
    LogFlushed, LogState, RaftLogReader, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine,
    Snapshot,
};
use openraft::{
    BasicNode, EntryPayload, OptionalSend, RaftLogId, StorageIOError, StoredMembership,
};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{self, Cursor};
use std::ops::RangeBounds;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

#[derive(Default)]
struct Memory {
    vote: Option<Vote>,
    purged: Option<LogId>,
    log: BTreeMap<u64, LogEntry>,
}

#[derive(Clone)]
pub struct Log {
    memory: Arc<Mutex<Memory>>,
    jobs: Sender<Job>,
    early: Arc<Early>,
}

#[derive(Clone)]
pub struct Machine {
    shared: Arc<Shared>,
    jobs: Sender<Job>,
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "stands in `map_err` as it is"
)]
fn failed(error: impl ToString) -> StorageError {
    StorageIOError::write(&io::Error::other(error.to_string())).into()
}

async fn ask(jobs: &Sender<Job>, job: impl FnOnce(Answer) -> Job) -> Result<(), StorageError> {
    let (answer, reply) = oneshot::channel();
    jobs.send(job(answer)).map_err(failed)?;
    reply.await.map_err(failed)?.map_err(failed)
}

/// The two halves that openraft is given.
pub fn halves(
    disk: &Disk,
    loaded: Loaded,
    shared: Arc<Shared>,
    early: Arc<Early>,
) -> Result<(Log, Machine), String> {
    if let Some((meta, data)) = &loaded.snapshot {
        shared.install(meta, Kept::read(data)?);
    }
    let memory = Memory {
        vote: loaded.vote,
        purged: loaded.purged,
        log: loaded.log,
    };
    let log = Log {
        memory: Arc::new(Mutex::new(memory)),
        jobs: disk.jobs.clone(),
        early,
    };
    let jobs = disk.jobs.clone();
    Ok((log, Machine { shared, jobs }))
}

impl Memory {
    fn last(&self) -> Option<LogId> {
        let last = self.log.values().next_back().map(|entry| entry.log_id);
        last.or(self.purged)
    }
}

impl Log {
    pub fn last(&self) -> Option<LogId> {
        self.memory().last()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, StorageError> {
        let memory = self.memory();
        Ok(memory.log.range(range).map(|(_, e)| e.clone()).collect())
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let memory = self.memory();
        Ok(LogState {
            last_purged_log_id: memory.purged,
            last_log_id: memory.last(),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let bytes = encode(vote).map_err(failed)?;
        ask(&self.jobs, |answer| Job::Vote(bytes, answer)).await?;
        self.memory().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.memory().vote)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().collect();
        let mut rows = Vec::with_capacity(entries.len());
        for entry in &entries {
            rows.push((entry.log_id.index, encode(entry).map_err(failed)?));
        }
        self.jobs
            .send(Job::Append(rows, callback))
            .map_err(|_| failed("the writer has ended"))?;
        let mut memory = self.memory();
        let (vote, before) = (memory.vote, memory.last());
        self.early.append(vote, before, &entries);
        for entry in entries {
            memory.log.insert(entry.log_id.index, entry);
        }
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.memory().log.split_off(&log_id.index);
        ask(&self.jobs, |answer| Job::Truncate(log_id.index, answer)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let record = encode(&log_id).map_err(failed)?;
        ask(&self.jobs, |answer| {
            Job::Purge(log_id.index, record, answer)
        })
        .await?;
        let mut memory = self.memory();
        memory.log = memory.log.split_off(&(log_id.index + 1));
        memory.purged = Some(log_id);
        Ok(())
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let shared = Arc::clone(&self.shared);
        let (applied, data) = tokio::task::spawn_blocking(move || shared.snapshot())
            .await
            .map_err(failed)?
            .map_err(failed)?;
        let meta = SnapshotMeta {
            last_log_id: applied.last,
            last_membership: applied.membership,
            snapshot_id: applied.last.map_or_else(|| "0".into(), |id| id.to_string()),
        };
        self.save(&meta, data.clone()).await?;
        Ok(Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(data)),
        })
    }
}

impl Machine {
    async fn save(&self, meta: &SnapshotMeta, data: Vec<u8>) -> Result<(), StorageError> {
        let about = encode(meta).map_err(failed)?;
        ask(&self.jobs, |answer| Job::Snapshot(about, data, answer)).await
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId>, StoredMembership<u64, BasicNode>), StorageError> {
        let Applied { last, membership } = self.shared.with(|applied, _| applied.clone());
        Ok((last, membership))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Replies>, StorageError>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut replies = Vec::new();
        for entry in entries {
            let id = *entry.get_log_id();
            replies.push(match entry.payload {
                EntryPayload::Blank => self.shared.apply(id, Vec::new()),
                EntryPayload::Normal(batch) => self.shared.apply(id, batch.0),
                EntryPayload::Membership(membership) => {
                    self.shared
                        .join(id, StoredMembership::new(Some(id), membership));
                    Vec::new()
                }
            });
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let data = snapshot.into_inner();
        // What cannot be read is not kept: the next start would end by it.
        let kept = Kept::read(&data).map_err(failed)?;
        self.save(meta, data).await?;
        self.shared.install(meta, kept);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let (answer, reply) = oneshot::channel();
        self.jobs
            .send(Job::ReadSnapshot(answer))
            .map_err(|_| failed("the writer has ended"))?;
        let stored = reply.await.map_err(failed)?.map_err(failed)?;
        Ok(stored.map(|(meta, data)| Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(data)),
        }))
    }
}
