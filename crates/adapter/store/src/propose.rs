//! Brings waiting calls into the Raft log, and proposes what has lapsed.
//!
//! Holds: calls that wait while a sync is under way share the next one, up to
//! [`BATCH_COMMANDS_MAX`] commands and about [`BATCH_BYTES_MAX`] bytes; what
//! waits is bounded in number and in bytes.

use crate::health::Health;
use crate::limits::command_bytes;
use crate::shared::Shared;
use crate::types::{Batch, Command, Reply, TypeConfig};
use node::store::StoreError;
use openraft::Raft;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

pub const QUEUED_CALLS_MAX: usize = 4_096;
const QUEUED_BYTES_MAX: usize = 64 << 20;
const BATCH_COMMANDS_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Beside the limit in entries: large ones must not fill memory and file.
const LOG_BYTES_PER_SNAPSHOT: usize = 32 << 20;
const LEASE_CHECK_SPAN_MAX: Duration = Duration::from_secs(1);
const LEASE_CHECK_SPAN_MIN: Duration = Duration::from_millis(10);

pub struct Call {
    command: Command,
    bytes: usize,
    answer: oneshot::Sender<Result<Reply, StoreError>>,
    /// Room in the queue, until the answer.
    room: OwnedSemaphorePermit,
}

/// Where calls enter.
#[derive(Clone)]
pub struct Calls {
    queue: mpsc::Sender<Call>,
    room: Arc<Semaphore>,
}

impl Calls {
    pub fn new() -> (Self, mpsc::Receiver<Call>) {
        let (queue, calls) = mpsc::channel(QUEUED_CALLS_MAX);
        let room = Arc::new(Semaphore::new(QUEUED_BYTES_MAX));
        (Self { queue, room }, calls)
    }

    /// `None` when the proposer has ended.
    pub async fn call(&self, command: Command) -> Option<Result<Reply, StoreError>> {
        let bytes = command_bytes(&command);
        let weight = u32::try_from(bytes.min(QUEUED_BYTES_MAX)).ok()?;
        let room = Arc::clone(&self.room).acquire_many_owned(weight).await;
        let (answer, reply) = oneshot::channel();
        let call = Call {
            command,
            bytes,
            answer,
            room: room.ok()?,
        };
        self.queue.send(call).await.ok()?;
        reply.await.ok()
    }
}

/// The calls at the front that may share one log entry: one at least.
fn next_batch(waiting: &mut VecDeque<Call>) -> (Vec<Call>, usize) {
    let mut batch = Vec::new();
    let mut bytes = 0;
    while let Some(call) = waiting.front() {
        if !batch.is_empty() && bytes + call.bytes > BATCH_BYTES_MAX {
            break;
        }
        bytes += call.bytes;
        batch.extend(waiting.pop_front());
    }
    (batch, bytes)
}

pub async fn propose(raft: Raft<TypeConfig>, mut queue: mpsc::Receiver<Call>, health: Arc<Health>) {
    let mut received = Vec::new();
    let mut waiting = VecDeque::new();
    let mut bytes_since_snapshot = 0;
    while queue.recv_many(&mut received, BATCH_COMMANDS_MAX).await > 0 {
        waiting.extend(received.drain(..));
        while !waiting.is_empty() {
            let (batch, bytes) = next_batch(&mut waiting);
            bytes_since_snapshot += bytes;
            if let Err(reason) = write(&raft, batch).await {
                health.fail(&reason);
                return;
            }
        }
        if bytes_since_snapshot > LOG_BYTES_PER_SNAPSHOT {
            bytes_since_snapshot = 0;
            let _ = raft.trigger().snapshot().await;
        }
    }
}

async fn write(raft: &Raft<TypeConfig>, calls: Vec<Call>) -> Result<(), String> {
    let mut commands = Vec::with_capacity(calls.len());
    let mut answers = Vec::with_capacity(calls.len());
    for call in calls {
        commands.push(call.command);
        answers.push((call.answer, call.room));
    }
    let response = raft.client_write(Batch(commands)).await;
    let replies = response.map_err(|error| error.to_string())?.data;
    for ((answer, room), reply) in answers.into_iter().zip(replies) {
        let _ = answer.send(reply.map_err(Into::into));
        drop(room);
    }
    Ok(())
}

/// Proposes the end of lapsed leases, and notices when Raft has ended by itself.
pub async fn expire(raft: Raft<TypeConfig>, shared: Arc<Shared>, health: Arc<Health>) {
    let metrics = raft.metrics();
    loop {
        let lapsed = shared.lapsed(BATCH_COMMANDS_MAX);
        if !lapsed.is_empty()
            && let Err(error) = raft.client_write(Batch(lapsed)).await
        {
            health.fail(&error.to_string());
            return;
        }
        let ended = metrics.borrow().running_state.clone();
        if let Err(reason) = ended {
            health.fail(&reason.to_string());
            return;
        }
        let span = shared.until_next_lapse().unwrap_or(LEASE_CHECK_SPAN_MAX);
        tokio::time::sleep(span.clamp(LEASE_CHECK_SPAN_MIN, LEASE_CHECK_SPAN_MAX)).await;
    }
}
