//! The store as its users see it.
//!
//! Holds: limits are checked before anything is proposed; no call waits longer
//! than [`CALL_SPAN_MAX`]; a watch waits as long as it takes.

use crate::disk::{self, Disk, Fault, Job, Loaded};
use crate::raft::halves;
use crate::shared::Shared;
use crate::types::{Batch, Command, Replies, Reply, TypeConfig};
use crate::{OpenError, Options};
use kernel::{FencingEpoch, NodeId, Revision};
use node::BoxFuture;
use node::store::{
    Compare, KEY_BYTES_MAX, Lease, Operation, Outcome, RangeReply, Store, StoreError,
    TRANSACTION_OPERATIONS_MAX, Transaction, VALUE_BYTES_MAX, Watch, WatchEvent,
};
use openraft::error::{InstallSnapshotError, RPCError, RaftError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, Config, Raft, SnapshotPolicy};
use redb::{Builder, Database, StorageBackend};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

pub const CALL_SPAN_MAX: Duration = Duration::from_secs(5);
const CACHE_BYTES: usize = 8 << 20;
const ENTRIES_PER_SNAPSHOT: u64 = 5_000;
const QUEUED_CALLS_MAX: usize = 4_096;
const BATCH_COMMANDS_MAX: usize = 512;
const LEASE_CHECK_SPAN: Duration = Duration::from_millis(100);

type Call = (Command, oneshot::Sender<Result<Reply, StoreError>>);

pub struct EmbeddedStore {
    raft: Raft<TypeConfig>,
    calls: mpsc::Sender<Call>,
    shared: Arc<Shared>,
    fault: Fault,
    jobs: std::sync::mpsc::Sender<Job>,
    writer: Mutex<Option<JoinHandle<()>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl EmbeddedStore {
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let Options { path, node } = options;
        Self::start(node, move |builder| {
            let database = builder.create(&path)?;
            if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
                // A new file's name must outlive a power cut too.
                std::fs::File::open(folder)
                    .and_then(|folder| folder.sync_all())
                    .map_err(|error| redb::DatabaseError::Storage(error.into()))?;
            }
            Ok(database)
        })
        .await
    }

    /// On another file layer, for tests.
    pub async fn open_on(backend: impl StorageBackend, node: NodeId) -> Result<Self, OpenError> {
        Self::start(node, move |builder| builder.create_with_backend(backend)).await
    }

    async fn start(
        node: NodeId,
        open: impl FnOnce(&mut Builder) -> Result<Database, redb::DatabaseError> + Send + 'static,
    ) -> Result<Self, OpenError> {
        let (database, loaded) = tokio::task::spawn_blocking(move || {
            disk::load(|| open(Builder::new().set_cache_size(CACHE_BYTES)), node.0)
        })
        .await
        .map_err(|error| OpenError::File(error.to_string()))??;
        let fault: Fault = Arc::new(OnceLock::new());
        let disk = disk::start(database, Arc::clone(&fault))?;
        let shared = Arc::new(Shared::default());
        let raft = start_raft(node, &disk, loaded, Arc::clone(&shared)).await?;
        let (calls, queue) = mpsc::channel(QUEUED_CALLS_MAX);
        let tasks = vec![
            tokio::spawn(propose(raft.clone(), queue, Arc::clone(&fault))),
            tokio::spawn(expire(Arc::clone(&shared), calls.clone())),
        ];
        Ok(Self {
            raft,
            calls,
            shared,
            fault,
            jobs: disk.jobs,
            writer: Mutex::new(Some(disk.thread)),
            tasks,
        })
    }

    /// Ends the store; what was acknowledged is on disk already.
    pub async fn shutdown(&self) {
        for task in &self.tasks {
            task.abort();
        }
        let _ = self.raft.shutdown().await;
        let _ = self.fault.set("it was shut down".into());
        self.shared.changed.send_replace(());
        let _ = self.jobs.send(Job::Stop);
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer {
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }

    fn stopped(&self) -> Result<(), StoreError> {
        match self.fault.get() {
            Some(reason) => Err(StoreError::Stopped(reason.clone())),
            None => Ok(()),
        }
    }

    async fn call(&self, command: Command) -> Result<Reply, StoreError> {
        self.stopped()?;
        let answer = async {
            let (answer, reply) = oneshot::channel();
            self.calls.send((command, answer)).await.ok()?;
            reply.await.ok()
        };
        match tokio::time::timeout(CALL_SPAN_MAX, answer).await {
            Ok(Some(reply)) => reply,
            Ok(None) => Err(stopped_by(&self.fault)),
            Err(_) => Err(self.stopped().err().unwrap_or(StoreError::Unknown)),
        }
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        let _ = self.jobs.send(Job::Stop);
    }
}

fn stopped_by(fault: &Fault) -> StoreError {
    let reason = fault.get().cloned();
    StoreError::Stopped(reason.unwrap_or_else(|| "it is shutting down".into()))
}

async fn start_raft(
    node: NodeId,
    disk: &Disk,
    loaded: Loaded,
    shared: Arc<Shared>,
) -> Result<Raft<TypeConfig>, OpenError> {
    let failed = |error: &dyn std::fmt::Display| OpenError::Raft(error.to_string());
    let config = Config {
        cluster_name: "homeostat".into(),
        heartbeat_interval: 250,
        election_timeout_min: 750,
        election_timeout_max: 1_500,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(ENTRIES_PER_SNAPSHOT),
        max_in_snapshot_log_to_keep: 0,
        ..Config::default()
    };
    let config = config.validate().map_err(|e| failed(&e))?;
    let (log, machine) = halves(disk, loaded, shared).map_err(OpenError::File)?;
    let raft = Raft::new(node.0, Arc::new(config), Nobody, log, machine)
        .await
        .map_err(|e| failed(&e))?;
    if raft.is_initialized().await.map_err(|e| failed(&e))? {
        let _ = raft.trigger().elect().await;
    } else {
        let members = BTreeMap::from([(node.0, BasicNode::default())]);
        raft.initialize(members).await.map_err(|e| failed(&e))?;
    }
    raft.wait(Some(CALL_SPAN_MAX))
        .current_leader(node.0, "alone")
        .await
        .map_err(|e| failed(&e))?;
    // Once this is applied, so is all that was ever acknowledged.
    raft.client_write(Batch::default())
        .await
        .map_err(|e| failed(&e))?;
    Ok(raft)
}

/// Puts all calls that wait into one log entry, so that they share its sync.
async fn propose(raft: Raft<TypeConfig>, mut queue: mpsc::Receiver<Call>, fault: Fault) {
    let mut calls = Vec::new();
    while queue.recv_many(&mut calls, BATCH_COMMANDS_MAX).await > 0 {
        let (commands, answers): (Vec<_>, Vec<_>) = calls.drain(..).unzip();
        match raft.client_write(Batch(commands)).await {
            Ok(response) => {
                let replies: Replies = response.data;
                for (answer, reply) in answers.into_iter().zip(replies) {
                    let _ = answer.send(reply.map_err(Into::into));
                }
            }
            Err(error) => {
                let _ = fault.set(error.to_string());
                for answer in answers {
                    let _ = answer.send(Err(stopped_by(&fault)));
                }
            }
        }
    }
}

async fn expire(shared: Arc<Shared>, calls: mpsc::Sender<Call>) {
    loop {
        for command in shared.lapsed() {
            let (answer, reply) = oneshot::channel();
            if calls.send((command, answer)).await.is_err() {
                return;
            }
            let _ = reply.await;
        }
        tokio::time::sleep(LEASE_CHECK_SPAN).await;
    }
}

fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(StoreError::Invalid(format!(
            "a key has {} bytes; 1 to {KEY_BYTES_MAX} are allowed",
            key.len()
        )));
    }
    Ok(())
}

fn check_value(value: &[u8]) -> Result<(), StoreError> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(StoreError::Invalid(format!(
            "a value has {} bytes; at most {VALUE_BYTES_MAX} are allowed",
            value.len()
        )));
    }
    Ok(())
}

fn check(transaction: &Transaction) -> Result<(), StoreError> {
    let Transaction {
        compare,
        then,
        otherwise,
    } = transaction;
    let count = compare.len() + then.len() + otherwise.len();
    if count > TRANSACTION_OPERATIONS_MAX {
        return Err(StoreError::Invalid(format!(
            "a transaction has {count} operations; at most {TRANSACTION_OPERATIONS_MAX} are allowed"
        )));
    }
    for compare in compare {
        match compare {
            Compare::Absent(key)
            | Compare::Present(key)
            | Compare::Modified(key, _)
            | Compare::Lease(key, _) => check_key(key)?,
            Compare::Value(key, value) => check_key(key).and_then(|()| check_value(value))?,
        }
    }
    for operation in then.iter().chain(otherwise) {
        match operation {
            Operation::Put(key, value) => check_key(key).and_then(|()| check_value(value))?,
            Operation::Delete(key) => check_key(key)?,
            Operation::DeletePrefix(prefix) if prefix.is_empty() => {}
            Operation::DeletePrefix(prefix) => check_key(prefix)?,
        }
    }
    Ok(())
}

fn unexpected() -> StoreError {
    StoreError::Stopped("a reply of another kind came back".into())
}

impl Store for EmbeddedStore {
    fn transact(&self, transaction: Transaction) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        Box::pin(async move {
            check(&transaction)?;
            match self.call(Command::Transact(transaction)).await? {
                Reply::Transacted(outcome) => Ok(outcome),
                _ => Err(unexpected()),
            }
        })
    }

    fn range(&self, prefix: &str) -> BoxFuture<'_, Result<RangeReply, StoreError>> {
        let prefix = prefix.to_owned();
        Box::pin(async move {
            self.stopped()?;
            match tokio::time::timeout(CALL_SPAN_MAX, self.raft.ensure_linearizable()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    self.stopped()?;
                    return Err(StoreError::Stopped(error.to_string()));
                }
                Err(_) => return Err(StoreError::Unknown),
            }
            Ok(self.shared.with(|_, state| RangeReply {
                revision: state.revision(),
                entries: state.range(&prefix),
            }))
        })
    }

    fn watch(
        &self,
        prefix: &str,
        after: Revision,
    ) -> BoxFuture<'_, Result<Box<dyn Watch>, StoreError>> {
        let watch = Watching {
            prefix: prefix.to_owned(),
            after,
            ended: false,
            changed: self.shared.changed.subscribe(),
            shared: Arc::clone(&self.shared),
            fault: Arc::clone(&self.fault),
        };
        Box::pin(async move {
            self.stopped()?;
            Ok(Box::new(watch) as Box<dyn Watch>)
        })
    }

    fn grant(
        &self,
        name: &str,
        holder: &str,
        time_to_live: Duration,
    ) -> BoxFuture<'_, Result<Lease, StoreError>> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        Box::pin(async move {
            check_key(&name)?;
            check_key(&holder)?;
            let command = Command::Grant {
                name,
                holder,
                time_to_live,
            };
            match self.call(command).await? {
                Reply::Granted(lease) => Ok(lease),
                _ => Err(unexpected()),
            }
        })
    }

    fn renew(&self, name: &str, epoch: FencingEpoch) -> BoxFuture<'_, Result<(), StoreError>> {
        let name = name.to_owned();
        Box::pin(async move { self.call(Command::Renew { name, epoch }).await.map(drop) })
    }

    fn release(&self, name: &str, epoch: FencingEpoch) -> BoxFuture<'_, Result<(), StoreError>> {
        let name = name.to_owned();
        Box::pin(async move { self.call(Command::Release { name, epoch }).await.map(drop) })
    }

    fn fault(&self) -> Option<String> {
        self.fault.get().cloned()
    }
}

struct Watching {
    prefix: String,
    after: Revision,
    ended: bool,
    changed: watch::Receiver<()>,
    shared: Arc<Shared>,
    fault: Fault,
}

impl Watching {
    fn step(&mut self) -> Option<WatchEvent> {
        let (revision, oldest, found) = self.shared.with(|_, state| {
            let found = state.next_events(&self.prefix, self.after);
            (state.revision(), state.oldest(), found)
        });
        if self.ended || self.after.0 + 1 < oldest.0 {
            self.ended = true;
            return Some(WatchEvent::Resync { oldest });
        }
        if let Some((revision, events)) = found {
            self.after = revision;
            return Some(WatchEvent::Changes { revision, events });
        }
        self.after = self.after.max(revision);
        None
    }
}

impl Watch for Watching {
    fn next(&mut self) -> BoxFuture<'_, Result<WatchEvent, StoreError>> {
        Box::pin(async move {
            loop {
                self.changed.mark_unchanged();
                if let Some(event) = self.step() {
                    return Ok(event);
                }
                if self.fault.get().is_some() {
                    return Err(stopped_by(&self.fault));
                }
                if self.changed.changed().await.is_err() {
                    return Err(stopped_by(&self.fault));
                }
            }
        })
    }
}

/// One voter has nobody to call.
struct Nobody;

impl RaftNetworkFactory<TypeConfig> for Nobody {
    type Network = Self;

    async fn new_client(&mut self, _: u64, _: &BasicNode) -> Self {
        Self
    }
}

type Refused<E = openraft::error::Infallible> = RPCError<u64, BasicNode, RaftError<u64, E>>;

fn nobody() -> Unreachable {
    Unreachable::new(&std::io::Error::other("this store has one voter"))
}

impl RaftNetwork<TypeConfig> for Nobody {
    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Refused> {
        Err(nobody().into())
    }

    async fn install_snapshot(
        &mut self,
        _: InstallSnapshotRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Refused<InstallSnapshotError>> {
        Err(nobody().into())
    }

    async fn vote(
        &mut self,
        _: VoteRequest<u64>,
        _: RPCOption,
    ) -> Result<VoteResponse<u64>, Refused> {
        Err(nobody().into())
    }
}
