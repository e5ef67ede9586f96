//! The store as its users see it.
//!
//! Holds: limits are checked before anything is proposed; no call waits longer
//! than [`CALL_SPAN_MAX`]; a watch waits as long as it takes; all return when
//! the store stops.

use crate::change::{Change, ChangeError, Changed};
use crate::disk::{self, Disk, Job};
use crate::file::{self, Loaded, Place};
use crate::group::{
    ANSWER_BEATS, Aside, Early, LEASE_BEATS, Members, Network, NoLeader, Second, Silence, Ways,
    Writer, pulse, read_index,
};
use crate::health::Health;
use crate::propose::{Calls, expire, propose};
use crate::raft::{Log, halves};
use crate::room::{self, Room};
use crate::shared::Shared;
use crate::state::{State, entry};
use crate::syncs::Syncs;
use crate::types::{Batch, Command, Reply, TypeConfig};
use crate::watching::Watching;
use crate::{Group, OpenError, Options, Tuning, limits};
use kernel::{FencingEpoch, NodeId, Revision};
use node::BoxFuture;
use node::store::{
    Entry, Key, Lease, Outcome, RangeReply, Store, StoreError, Transaction, Watch, check_prefix,
};
use openraft::{BasicNode, Config, Raft, SnapshotPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Entries that a member may be behind before it is sent a snapshot.
const LOG_KEPT: u64 = 2_000;
/// Of a snapshot, at once.
const SNAPSHOT_CHUNK_BYTES: u64 = 1 << 20;
/// For each, over a slow way too.
const SNAPSHOT_CHUNK_MS_MAX: u64 = 20_000;
/// Between two looks for a leader.
const LEADER_LOOK: Duration = Duration::from_millis(20);
pub const CALL_SPAN_MAX: Duration = Duration::from_secs(5);

/// The state at one revision.
pub struct View<'a>(&'a State);

impl View<'_> {
    pub fn revision(&self) -> Revision {
        self.0.revision()
    }

    pub fn get(&self, key: &str) -> Option<Entry> {
        self.0.value(key).map(|value| entry(key, value))
    }

    pub fn has(&self, key: &str) -> bool {
        self.0.value(key).is_some()
    }

    /// Up to `limit` keys that start with `prefix` and come after `after`.
    pub fn keys(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<Key> {
        // From whichever comes later.
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let found = self.0.between((start, Bound::Unbounded));
        let found = found.take_while(|(key, _)| key.starts_with(prefix));
        found.take(limit).map(|(key, _)| key.clone()).collect()
    }

    /// What a [`crate::Bound`] on this prefix counts, in bytes.
    pub fn weight(&self, prefix: &str) -> u64 {
        self.0.weight(prefix)
    }

    /// The highest epoch that a change was fenced with.
    pub fn fenced(&self, holder: &str) -> Option<FencingEpoch> {
        self.0.fenced(holder)
    }
}

pub struct EmbeddedStore {
    pub(crate) raft: Raft<TypeConfig>,
    pub(crate) silence: Arc<Silence>,
    pub(crate) second: Arc<Second>,
    pub(crate) aside: Arc<Aside>,
    pub(crate) own: NodeId,
    pub(crate) log: Log,
    syncs: Arc<Syncs>,
    /// Of another store on the same disk.
    beside: Arc<OnceLock<Arc<Syncs>>>,
    ways: Ways,
    calls: Calls,
    shared: Arc<Shared>,
    health: Arc<Health>,
    jobs: std::sync::mpsc::Sender<Job>,
    writer: Mutex<Option<JoinHandle<()>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    room: Room,
}

impl EmbeddedStore {
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let Options { path, node, group } = options;
        let free = |path: &Path| file::free_bytes(path).unwrap_or(u64::MAX);
        room::give_up_reserve(&path, free(&path));
        let opened =
            Self::open_at(Place::File(path.clone()), node, group, Tuning::default()).await?;
        room::set_reserve_aside(&path, free(&path));
        Ok(opened)
    }

    pub(crate) async fn open_at(
        place: Place,
        node: NodeId,
        group: Group,
        tuning: Tuning,
    ) -> Result<Self, OpenError> {
        let path = place.name();
        let room = place.room();
        let opening = tokio::task::spawn_blocking(move || file::open(place, node.0));
        let (database, loaded) = opening
            .await
            .map_err(|e| OpenError::Raft(e.to_string()))??;
        let health = Arc::new(Health::default());
        let disk = disk::start(database, path.clone(), Arc::clone(&health))?;
        let shared = Arc::new(Shared::new(tuning.history_revisions_max));
        let started = start_raft(node, &group, &tuning, &disk, loaded, Arc::clone(&shared)).await;
        let (raft, log) = match started {
            Ok(started) => started,
            Err(error) => {
                let _ = disk.jobs.send(Job::Stop);
                return Err(health.fault().map_or(error, OpenError::Raft));
            }
        };
        let ways = ways(&group);
        let second = Arc::new(Second::default());
        let aside = Arc::new(Aside::default());
        let beside = (Arc::clone(&shared), Arc::clone(&second), Arc::clone(&aside));
        let writer = Writer::new(raft.clone(), ways.clone(), beside, node.0);
        let (calls, queue) = Calls::new();
        let silence = Arc::new(Silence::default());
        let mut tasks = vec![
            tokio::spawn(propose(raft.clone(), writer, queue, Arc::clone(&health))),
            tokio::spawn(expire(
                raft.clone(),
                Arc::clone(&shared),
                Arc::clone(&health),
            )),
        ];
        let beside = Arc::<OnceLock<Arc<Syncs>>>::default();
        if ways.0.is_some() {
            let beat = Duration::from_millis(tuning.beat_ms);
            let (own, beside, room) = (Arc::clone(&disk.syncs), Arc::clone(&beside), room.clone());
            let are_slow = move || own.are_slow() || beside.get().is_some_and(|it| it.are_slow());
            tasks.push(tokio::spawn(pulse(
                raft.clone(),
                (Arc::clone(&silence), Arc::clone(&aside)),
                move || are_slow() || room.check().is_err(),
                beat,
            )));
        }
        Ok(Self {
            raft,
            silence,
            second,
            aside,
            own: node,
            log,
            syncs: disk.syncs,
            beside,
            ways,
            calls,
            shared,
            health,
            jobs: disk.jobs,
            writer: Mutex::new(Some(disk.thread)),
            tasks,
            room,
        })
    }

    /// This one's file is on the same disk as the other's: that it is slow is seen by
    /// what is written to either. Said once.
    pub fn shares_disk_with(&self, other: &Self) {
        let _ = self.beside.set(Arc::clone(&other.syncs));
    }

    /// Ends the store; what was acknowledged is on disk already.
    pub async fn shutdown(&self) {
        self.health.shut_down();
        for task in &self.tasks {
            task.abort();
        }
        let _ = self.raft.shutdown().await;
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

    /// Durable when it returns `Ok`, like a transaction.
    pub async fn change(&self, change: Change) -> Result<Changed, ChangeError> {
        match self.call(Command::Change(change)).await? {
            Reply::Changed(changed) => Ok(changed?),
            Reply::Transacted(_) | Reply::Granted(_) | Reply::Done => Err(unexpected().into()),
        }
    }

    /// Reads what is needed of the state, without copying the rest;
    /// linearizable. Others wait for `read`.
    pub async fn read<T>(&self, read: impl FnOnce(View<'_>) -> T) -> Result<T, StoreError> {
        self.read_barrier().await?;
        Ok(self.shared.with(|_, state| read(View(state))))
    }

    /// The same of what is applied here, which may be behind the others. Others
    /// wait for `read`.
    pub fn read_here<T>(&self, read: impl FnOnce(View<'_>) -> T) -> T {
        self.look(|state| read(View(state)))
    }

    /// Raised by [`crate::take_over`].
    pub fn generation(&self) -> u16 {
        self.look(State::generation)
    }

    async fn call(&self, command: Command) -> Result<Reply, StoreError> {
        limits::check(&command)?;
        self.health.check()?;
        if limits::takes_room(&command) {
            self.room.check()?;
        }
        let answer = async {
            tokio::select! {
                biased;
                reply = self.calls.call(command) => match reply {
                    Some(reply) => reply,
                    None => Err(self.health.ended().await),
                },
                stopped = self.health.ended() => Err(stopped),
            }
        };
        tokio::time::timeout(CALL_SPAN_MAX, answer)
            .await
            .unwrap_or(Err(StoreError::Unknown))
    }

    /// The state as it is applied now. Others wait for `look`.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.shared.with(|_, state| look(state))
    }

    pub(crate) async fn read_barrier(&self) -> Result<(), StoreError> {
        self.health.check()?;
        let barrier = async {
            tokio::select! {
                biased;
                stopped = self.health.ended() => Err(stopped),
                () = self.caught_up() => Ok(()),
            }
        };
        let silent = match self.ways.0 {
            None => StoreError::Unknown,
            Some(_) => StoreError::NoQuorum,
        };
        tokio::time::timeout(CALL_SPAN_MAX, barrier)
            .await
            .unwrap_or(Err(silent))
    }

    /// Until all is applied here that was acknowledged before the call.
    async fn caught_up(&self) {
        let mut changed = self.shared.changed.subscribe();
        let index = loop {
            match read_index(&self.raft, &self.ways, &self.aside).await {
                Ok(index) => break index,
                Err(NoLeader) => tokio::time::sleep(LEADER_LOOK).await,
            }
        };
        while self.shared.with(|applied, _| applied.last < index) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.health.shut_down();
        for task in &self.tasks {
            task.abort();
        }
        let _ = self.jobs.send(Job::Stop);
    }
}

fn ways(group: &Group) -> Ways {
    Ways(match group {
        Group::Alone => None,
        Group::First(carry) | Group::Joining(carry) => Some(Arc::clone(carry)),
    })
}

async fn start_raft(
    node: NodeId,
    group: &Group,
    tuning: &Tuning,
    disk: &Disk,
    mut loaded: Loaded,
    shared: Arc<Shared>,
) -> Result<(Raft<TypeConfig>, Log), OpenError> {
    let failed = |error: &dyn std::fmt::Display| OpenError::Raft(error.to_string());
    let is_alone = matches!(group, Group::Alone);
    if !is_alone {
        loaded.forget_leading(node.0);
    }
    let config = Config {
        cluster_name: "homeostat".into(),
        // Of these, openraft keeps how long a member may take to answer, and the
        // lease; the beats are `pulse`'s.
        heartbeat_interval: tuning.beat_ms * u64::from(ANSWER_BEATS),
        election_timeout_min: tuning.beat_ms * (LEASE_BEATS - 1),
        election_timeout_max: tuning.beat_ms * LEASE_BEATS,
        enable_heartbeat: is_alone,
        enable_elect: is_alone,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(tuning.entries_per_snapshot),
        max_in_snapshot_log_to_keep: if is_alone { 0 } else { LOG_KEPT },
        snapshot_max_chunk_size: SNAPSHOT_CHUNK_BYTES,
        install_snapshot_timeout: SNAPSHOT_CHUNK_MS_MAX,
        ..Config::default()
    };
    let config = config.validate().map_err(|e| failed(&e))?;
    let ways = ways(group);
    let within = Duration::from_millis(config.heartbeat_interval);
    let early = Arc::new(Early::new(ways.clone(), node.0, within));
    let halves = halves(disk, loaded, shared, Arc::clone(&early));
    let (log, machine) = halves.map_err(|e| failed(&e))?;
    let network = Network { ways, early };
    let raft = Raft::new(node.0, Arc::new(config), network, log.clone(), machine)
        .await
        .map_err(|e| failed(&e))?;
    let is_made = raft.is_initialized().await.map_err(|e| failed(&e))?;
    if is_made {
        let voters = Members::of(&raft.metrics().borrow()).voters;
        if voters != BTreeSet::from([node]) {
            // The others are waited for by whoever calls.
            return Ok((raft, log));
        }
        let _ = raft.trigger().elect().await;
    } else if matches!(group, Group::Joining(_)) {
        return Ok((raft, log));
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
    Ok((raft, log))
}

fn unexpected() -> StoreError {
    StoreError::Stopped("a reply of another kind came back".into())
}

impl Store for EmbeddedStore {
    fn transact(&self, transaction: Transaction) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        Box::pin(async move {
            match self.call(Command::Transact(transaction)).await? {
                Reply::Transacted(outcome) => Ok(outcome),
                Reply::Granted(_) | Reply::Done | Reply::Changed(_) => Err(unexpected()),
            }
        })
    }

    fn range(&self, prefix: &str) -> BoxFuture<'_, Result<RangeReply, StoreError>> {
        let prefix = prefix.to_owned();
        Box::pin(async move {
            check_prefix(&prefix)?;
            self.read_barrier().await?;
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
        let prefix = prefix.to_owned();
        Box::pin(async move {
            check_prefix(&prefix)?;
            self.health.check()?;
            let (shared, health) = (Arc::clone(&self.shared), Arc::clone(&self.health));
            Ok(Box::new(Watching::new(prefix, after, shared, health)) as Box<dyn Watch>)
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
            let command = Command::Grant {
                name,
                holder,
                time_to_live,
            };
            match self.call(command).await? {
                Reply::Granted(lease) => Ok(lease),
                Reply::Transacted(_) | Reply::Done | Reply::Changed(_) => Err(unexpected()),
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
        self.health.fault()
    }
}
