//! The network as openraft wants it.
//!
//! openraft waits as long for entries as for a heartbeat, then asks for the same
//! again; and while it does, it sends that member nothing else. What is large, or
//! goes a long and slow way, takes longer than that. So a message with entries goes
//! on while openraft gives up waiting, and is waited for again; beats go beside it;
//! and of a member of which nothing is known, it is found out with little.

use super::early::{Early, Member};
use super::message::{Answer, Ask};
use super::pulse::ANSWER_BEATS;
use super::ways::{CarryError, Ways};
use crate::limits::command_bytes;
use crate::types::{LogEntry, LogId, TypeConfig, Vote};
use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, EntryPayload};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Between two tries of one that is not reached.
const AGAIN: Duration = Duration::from_millis(200);
/// Of keys and values that are sent at once at first, where one entry has no more:
/// what goes through a new connection without waiting. Twice as many when they were
/// taken ...
const APPEND_BYTES_FIRST: usize = 8 << 10;
/// ... up to this.
const APPEND_BYTES_MAX: usize = 4 << 20;
/// Slower than that a way may not be.
const BYTES_PER_MS_MIN: usize = 64;

#[derive(Clone)]
pub struct Network {
    pub ways: Ways,
    pub early: Arc<Early>,
}

/// The way to one member.
pub struct Way {
    ways: Ways,
    to: u64,
    early: Arc<Early>,
    /// Once entries have come to it this way.
    member: Option<Arc<Member>>,
    bytes_max: usize,
    pending: Option<UnderWay>,
}

/// A message with entries that is not answered yet.
struct UnderWay {
    prev: Option<LogId>,
    last: LogId,
    is_large: bool,
    answer: JoinHandle<Result<Answer, CarryError>>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.answer.abort();
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Way;

    async fn new_client(&mut self, to: u64, _: &BasicNode) -> Way {
        Way {
            ways: self.ways.clone(),
            to,
            early: Arc::clone(&self.early),
            member: None,
            bytes_max: APPEND_BYTES_FIRST,
            pending: None,
        }
    }
}

type Refused<E = openraft::error::Infallible> = RPCError<u64, BasicNode, RaftError<u64, E>>;

impl Way {
    /// * `take`: the answer that was asked for, or why there is none.
    async fn ask<T, E: std::error::Error>(
        &self,
        ask: Ask,
        option: &RPCOption,
        take: impl FnOnce(Answer) -> Result<T, String>,
    ) -> Result<T, Refused<E>> {
        let answer = self.ways.ask(self.to, &ask, option.hard_ttl()).await;
        let answer = answer.map_err(|error| Unreachable::new(&error))?;
        take(answer).map_err(wrong)
    }

    /// As many as go at once.
    ///
    /// * `within`: that a heartbeat may take.
    fn send(
        &self,
        mut ask: AppendEntriesRequest<TypeConfig>,
        wanted: LogId,
        within: Duration,
    ) -> UnderWay {
        let (count, bytes) = fitting(&ask.entries, self.bytes_max);
        ask.entries.truncate(count);
        let (prev, last) = (ask.prev_log_id, ask.entries.last().map(|it| it.log_id));
        let ask = Ask::Append(ask);
        let more = u64::try_from(bytes / BYTES_PER_MS_MIN).unwrap_or(u64::MAX);
        let within = within.saturating_add(Duration::from_millis(more));
        let (ways, to) = (self.ways.clone(), self.to);
        UnderWay {
            prev,
            last: last.unwrap_or(wanted),
            is_large: bytes > APPEND_BYTES_FIRST,
            answer: tokio::spawn(async move { ways.ask(to, &ask, within).await }),
        }
    }
}

fn wrong<E: std::error::Error>(why: String) -> Refused<E> {
    NetworkError::new(&io::Error::other(why)).into()
}

fn append(answer: Answer) -> Result<AppendEntriesResponse<u64>, String> {
    match answer {
        Answer::Append(answer) => Ok(answer),
        other => Err(other.into_why()),
    }
}

/// Beside entries that are under way: a heartbeat of the same place in the log.
fn beat(ways: &Ways, to: u64, (vote, prev_log_id): (Vote, Option<LogId>), within: Duration) {
    let beat = Ask::Append(AppendEntriesRequest {
        vote,
        prev_log_id,
        entries: Vec::new(),
        leader_commit: None,
    });
    let ways = ways.clone();
    tokio::spawn(async move { ways.ask(to, &beat, within).await });
}

fn weight(entry: &LogEntry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(batch) => batch.0.iter().map(command_bytes).sum(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

/// How many of them go at once, one at least, and what they weigh.
fn fitting(entries: &[LogEntry], bytes_max: usize) -> (usize, usize) {
    let mut bytes = 0;
    for (at, entry) in entries.iter().enumerate() {
        let more = weight(entry);
        if at > 0 && bytes + more > bytes_max {
            return (at, bytes);
        }
        bytes += more;
    }
    (entries.len(), bytes)
}

pub fn go_at_once(entries: &[LogEntry]) -> bool {
    fitting(entries, APPEND_BYTES_MAX).0 == entries.len()
}

impl RaftNetwork<TypeConfig> for Way {
    async fn append_entries(
        &mut self,
        ask: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Refused> {
        if let Some(member) = &self.member
            && let Some(answer) = member.answer(&ask).await
        {
            return Ok(answer);
        }
        let Some(wanted) = ask.entries.last().map(|entry| entry.log_id) else {
            return self.ask(Ask::Append(ask), &option, append).await;
        };
        let (vote, prev, within) = (ask.vote, ask.prev_log_id, option.hard_ttl());
        let is_asked_for = |it: &UnderWay| {
            it.prev == prev && ask.entries.iter().any(|entry| entry.log_id == it.last)
        };
        let slow = self.pending.take_if(|it| is_asked_for(it));
        let under_way = if let Some(slow) = slow {
            self.bytes_max = (self.bytes_max / 2).max(APPEND_BYTES_FIRST);
            slow
        } else {
            self.send(ask, wanted, within)
        };
        let (last, is_large) = (under_way.last, under_way.is_large);
        let mut beats = tokio::time::interval(within / ANSWER_BEATS);
        // Stays where openraft gives up waiting.
        let under_way = self.pending.insert(under_way);
        let answer = loop {
            tokio::select! {
                answer = &mut under_way.answer => break answer,
                _ = beats.tick(), if is_large => beat(&self.ways, self.to, (vote, prev), within),
            }
        };
        self.pending = None;
        let answer = match answer {
            Ok(Ok(answer)) => append(answer).map_err(wrong),
            Ok(Err(error)) => Err(Unreachable::new(&error).into()),
            Err(error) => Err(Unreachable::new(&error).into()),
        };
        let tail = matches!(answer, Ok(AppendEntriesResponse::Success)).then_some(last);
        if tail.is_some() {
            self.bytes_max = (self.bytes_max * 2).min(APPEND_BYTES_MAX);
        }
        match (&self.member, tail) {
            (Some(member), tail) => member.sent(tail),
            (None, Some(tail)) => self.member = Some(self.early.join(self.to, vote, tail)),
            (None, None) => {}
        }
        Ok(match answer? {
            AppendEntriesResponse::Success if last < wanted => {
                AppendEntriesResponse::PartialSuccess(Some(last))
            }
            answer => answer,
        })
    }

    async fn install_snapshot(
        &mut self,
        ask: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Refused<InstallSnapshotError>> {
        let take = |answer| match answer {
            Answer::Install(answer) => Ok(answer),
            other => Err(other.into_why()),
        };
        let installed = self.ask(Ask::Install(ask), &option, take).await?;
        installed.map_err(|error| RemoteError::new(self.to, error).into())
    }

    async fn vote(
        &mut self,
        ask: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, Refused> {
        let take = |answer| match answer {
            Answer::Vote(answer) => Ok(answer),
            other => Err(other.into_why()),
        };
        self.ask(Ask::Vote(ask), &option, take).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(AGAIN))
    }
}
