//! Brings waiting calls into the Raft log, and proposes what has lapsed.
//!
//! Holds: calls that wait while a sync is under way share the next one, up to
//! [`BATCH_COMMANDS_MAX`] commands and about [`BATCH_BYTES_MAX`] bytes; what
//! waits is bounded in number and in bytes.

use crate::group::{UNSENT_MAX, Writer, Wrote};
use crate::health::Health;
use crate::limits::command_bytes;
use crate::shared::Shared;
use crate::types::{Batch, Command, Reply, TypeConfig};
use node::store::StoreError;
use openraft::Raft;
use openraft::error::RaftError;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
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
    since: Instant,
}

impl Call {
    fn refuse(self) {
        let _ = self.answer.send(Err(StoreError::NoQuorum));
    }
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
            since: Instant::now(),
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

pub async fn propose(
    raft: Raft<TypeConfig>,
    mut writer: Writer,
    mut queue: mpsc::Receiver<Call>,
    health: Arc<Health>,
) {
    let mut received = Vec::new();
    let mut waiting = VecDeque::new();
    let mut bytes_since_snapshot = 0;
    while queue.recv_many(&mut received, BATCH_COMMANDS_MAX).await > 0 {
        waiting.extend(received.drain(..));
        while !waiting.is_empty() {
            let (batch, bytes) = next_batch(&mut waiting);
            bytes_since_snapshot += bytes;
            match write(&mut writer, batch).await {
                Ok(true) => {}
                // For those behind it there is nobody either.
                Ok(false) => {
                    let (late, rest) = std::mem::take(&mut waiting)
                        .into_iter()
                        .partition(|call: &Call| call.since.elapsed() > UNSENT_MAX / 2);
                    waiting = rest;
                    let late: VecDeque<Call> = late;
                    late.into_iter().for_each(Call::refuse);
                }
                Err(reason) => {
                    health.fail(&reason);
                    return;
                }
            }
        }
        if bytes_since_snapshot > LOG_BYTES_PER_SNAPSHOT {
            bytes_since_snapshot = 0;
            let _ = raft.trigger().snapshot().await;
        }
    }
}

/// Whether there was a leader to take it.
async fn write(writer: &mut Writer, calls: Vec<Call>) -> Result<bool, String> {
    let mut commands = Vec::with_capacity(calls.len());
    let mut answers = Vec::with_capacity(calls.len());
    for call in calls {
        commands.push(call.command);
        answers.push((call.answer, call.room));
    }
    let is_wanted = || answers.iter().any(|(answer, _)| !answer.is_closed());
    let replies = match writer.write(commands, is_wanted).await? {
        Wrote::Done(replies) => replies,
        Wrote::Unwanted => return Ok(true),
        Wrote::Unsent => {
            for (answer, _) in answers {
                let _ = answer.send(Err(StoreError::NoQuorum));
            }
            return Ok(false);
        }
    };
    for ((answer, room), reply) in answers.into_iter().zip(replies) {
        let _ = answer.send(reply.map_err(Into::into));
        drop(room);
    }
    Ok(true)
}

/// Proposes the end of lapsed leases, where it leads, and notices when Raft has
/// ended by itself.
pub async fn expire(raft: Raft<TypeConfig>, shared: Arc<Shared>, health: Arc<Health>) {
    let metrics = raft.metrics();
    loop {
        let leads = {
            let metrics = metrics.borrow();
            metrics.current_leader == Some(metrics.id)
        };
        let lapsed = shared.lapsed(BATCH_COMMANDS_MAX);
        if leads && !lapsed.is_empty() {
            match raft.client_write(Batch(lapsed)).await {
                // Whoever leads now proposes it.
                Ok(_) | Err(RaftError::APIError(_)) => {}
                Err(RaftError::Fatal(error)) => {
                    health.fail(&error.to_string());
                    return;
                }
            }
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
