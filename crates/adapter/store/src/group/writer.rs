//! Brings batches to the leader, wherever it is.
//!
//! Holds: a batch is tried until its outcome is known or nobody waits for it;
//! each carries a number by which it is applied once, so that one whose answer
//! was lost with a leader is sent again without a doubt.

use super::fitness::Aside;
use super::message::{Answer, Ask};
use super::second::Second;
use super::ways::Ways;
use crate::shared::Shared;
use crate::types::{Batch, Command, LogId, Replies, TypeConfig};
use openraft::error::{ClientWriteError, RaftError};
use openraft::{BasicNode, Raft, RaftMetrics};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// For one try; then the leader may be another.
const TRY_MAX: Duration = Duration::from_secs(1);
/// What was never sent is given up after this, for that is certain.
pub const UNSENT_MAX: Duration = Duration::from_secs(3);
/// A leader that no majority has answered for so long is none.
const QUORUM_AGE_MS_MAX: u64 = 1_000;
const LOOK: Duration = Duration::from_millis(50);

pub struct Writer {
    raft: Raft<TypeConfig>,
    ways: Ways,
    shared: Arc<Shared>,
    second: Arc<Second>,
    aside: Arc<Aside>,
    own: u64,
    /// Of this run of the program: its numbers are its own.
    nonce: u64,
    number: u64,
}

#[derive(Debug)]
pub enum Wrote {
    Done(Replies),
    /// There was nobody to take it: nothing was changed.
    Unsent,
    /// Nobody waits any more.
    Unwanted,
}

impl Writer {
    pub fn new(
        raft: Raft<TypeConfig>,
        ways: Ways,
        (shared, second, aside): (Arc<Shared>, Arc<Second>, Arc<Aside>),
        own: u64,
    ) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nonce = since.map_or(0, |since| since.as_nanos());
        Self {
            raft,
            ways,
            shared,
            second,
            aside,
            own,
            nonce: u64::try_from(nonce).unwrap_or_default(),
            number: 0,
        }
    }

    /// # Errors
    /// The store has stopped.
    pub async fn write(
        &mut self,
        mut commands: Vec<Command>,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Wrote, String> {
        if self.ways.0.is_none() {
            let response = self.raft.client_write(Batch(commands)).await;
            let response = response.map_err(|error| error.to_string())?;
            return Ok(Wrote::Done(response.data));
        }
        self.number += 1;
        let mark = Command::From {
            member: self.own,
            nonce: self.nonce,
            number: self.number,
        };
        commands.insert(0, mark);
        let batch = Batch(commands);
        let began = Instant::now();
        let mut sent = false;
        while is_wanted() {
            if !sent && began.elapsed() > UNSENT_MAX {
                return Ok(Wrote::Unsent);
            }
            let leader = leader(&self.raft.metrics().borrow());
            let Some(leader) = leader else {
                self.wait().await;
                continue;
            };
            match self.attempt(leader, &batch).await? {
                Tried::Done(replies) => {
                    self.applied_here().await;
                    return Ok(Wrote::Done(replies));
                }
                Tried::Refused => self.wait().await,
                Tried::Unknown => sent = true,
            }
        }
        Ok(Wrote::Unwanted)
    }

    /// Whoever wrote reads it here too, and watches go on from there.
    async fn applied_here(&self) {
        let mut changed = self.shared.changed.subscribe();
        let applied = async {
            while !self.shared.has_done(self.own, self.nonce, self.number) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(TRY_MAX, applied).await;
    }

    async fn attempt(&self, leader: u64, batch: &Batch) -> Result<Tried, String> {
        if leader == self.own {
            return here(&self.raft, (&self.second, &self.aside), batch.clone()).await;
        }
        let ask = Ask::Write(batch.clone());
        Ok(match self.ways.ask(leader, &ask, TRY_MAX).await {
            Ok(Answer::Written(replies)) => Tried::Done(replies),
            Ok(Answer::NotLeader(_) | Answer::Refused(_)) => Tried::Refused,
            Ok(_) | Err(_) => {
                self.wait().await;
                Tried::Unknown
            }
        })
    }

    async fn wait(&self) {
        let mut metrics = self.raft.metrics();
        metrics.mark_unchanged();
        let _ = tokio::time::timeout(LOOK, metrics.changed()).await;
    }
}

pub enum Tried {
    Done(Replies),
    /// Not appended anywhere.
    Refused,
    Unknown,
}

/// By the leader itself.
///
/// # Errors
/// The store has stopped.
pub async fn here(
    raft: &Raft<TypeConfig>,
    (second, aside): (&Second, &Aside),
    batch: Batch,
) -> Result<Tried, String> {
    if aside.is() {
        return Ok(Tried::Refused);
    }
    let is_leader = {
        let metrics = raft.metrics();
        // Borrowed twice at once, it would wait for itself.
        let metrics = metrics.borrow();
        leader(&metrics) == Some(metrics.id)
    };
    let written = tokio::time::timeout(TRY_MAX, raft.client_write(batch)).await;
    match written {
        Ok(Ok(response)) => {
            second.has(raft, response.log_id.index).await;
            Ok(Tried::Done(response.data))
        }
        // One that was leader has perhaps told it to others before it was
        // deposed.
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) if !is_leader => {
            Ok(Tried::Refused)
        }
        Ok(Err(RaftError::Fatal(fatal))) => Err(fatal.to_string()),
        Ok(Err(_)) | Err(_) => Ok(Tried::Unknown),
    }
}

/// Who leads, as far as it is known here and is not doubtful.
pub fn leader(metrics: &RaftMetrics<u64, BasicNode>) -> Option<u64> {
    let leader = metrics.current_leader?;
    let heard = metrics.millis_since_quorum_ack;
    let is_doubtful = leader == metrics.id
        && metrics.membership_config.membership().voter_ids().count() > 1
        && heard.is_none_or(|age| age > QUORUM_AGE_MS_MAX);
    (!is_doubtful).then_some(leader)
}

/// What must be applied here so that a read is of now; none when nobody who
/// could say so is reached.
pub async fn read_index(
    raft: &Raft<TypeConfig>,
    ways: &Ways,
    aside: &Aside,
) -> Result<Option<LogId>, NoLeader> {
    let (own, leader) = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow();
        (metrics.id, leader(&metrics))
    };
    match leader {
        None => Err(NoLeader),
        Some(leader) if leader == own => index_here(raft, aside).await,
        Some(leader) => match ways.ask(leader, &Ask::ReadIndex, TRY_MAX).await {
            Ok(Answer::ReadIndex(index)) => Ok(index),
            Ok(_) | Err(_) => Err(NoLeader),
        },
    }
}

/// Asks all others: who stands aside is not to be heard.
pub async fn index_here(raft: &Raft<TypeConfig>, aside: &Aside) -> Result<Option<LogId>, NoLeader> {
    if aside.is() {
        return Err(NoLeader);
    }
    let index = tokio::time::timeout(TRY_MAX, raft.ensure_linearizable()).await;
    index.map_err(|_| NoLeader)?.map_err(|_| NoLeader)
}

#[derive(Debug)]
pub struct NoLeader;
