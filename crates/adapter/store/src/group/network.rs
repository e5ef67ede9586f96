//! The network as openraft wants it.

use super::early::{Early, Member};
use super::message::{Answer, Ask};
use super::ways::Ways;
use crate::limits::command_bytes;
use crate::types::{LogEntry, LogId, TypeConfig};
use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, EntryPayload};
use std::sync::Arc;
use std::time::Duration;

/// Between two tries of one that is not reached.
const AGAIN: Duration = Duration::from_millis(200);
/// Of keys and values that are sent at once, where one entry has no more.
const APPEND_BYTES_MAX: usize = 4 << 20;

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
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Way;

    async fn new_client(&mut self, to: u64, _: &BasicNode) -> Way {
        Way {
            ways: self.ways.clone(),
            to,
            early: Arc::clone(&self.early),
            member: None,
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
        take(answer).map_err(|why| NetworkError::new(&std::io::Error::other(why)).into())
    }
}

/// How many of them go at once: one at least.
fn fitting(entries: &[LogEntry]) -> usize {
    let weight = |entry: &LogEntry| match &entry.payload {
        EntryPayload::Normal(batch) => batch.0.iter().map(command_bytes).sum::<usize>(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    let mut bytes = 0;
    let fitting = entries.iter().take_while(|entry| {
        let before = bytes;
        bytes += weight(entry);
        before == 0 || bytes <= APPEND_BYTES_MAX
    });
    fitting.count()
}

pub fn go_at_once(entries: &[LogEntry]) -> bool {
    fitting(entries) == entries.len()
}

/// Leaves no more than goes at once; the last that is left, if some were dropped.
fn shorten(entries: &mut Vec<LogEntry>) -> Option<LogId> {
    let fitting = fitting(entries);
    if fitting == entries.len() {
        return None;
    }
    entries.truncate(fitting);
    entries.last().map(|entry| entry.log_id)
}

impl RaftNetwork<TypeConfig> for Way {
    async fn append_entries(
        &mut self,
        mut ask: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Refused> {
        if let Some(member) = &self.member
            && let Some(answer) = member.answer(&ask).await
        {
            return Ok(answer);
        }
        let upto = shorten(&mut ask.entries);
        let take = |answer| match answer {
            Answer::Append(answer) => Ok(answer),
            other => Err(other.into_why()),
        };
        let (vote, last) = (ask.vote, ask.entries.last().map(|entry| entry.log_id));
        let answer = self.ask(Ask::Append(ask), &option, take).await;
        if last.is_some() {
            let is_taken = matches!(answer, Ok(AppendEntriesResponse::Success));
            let tail = last.filter(|_| is_taken);
            match (&self.member, tail) {
                (Some(member), tail) => member.sent(tail),
                (None, Some(tail)) => self.member = Some(self.early.join(self.to, vote, tail)),
                (None, None) => {}
            }
        }
        let answer = answer?;
        Ok(match (answer, upto) {
            (AppendEntriesResponse::Success, Some(upto)) => {
                AppendEntriesResponse::PartialSuccess(Some(upto))
            }
            (answer, _) => answer,
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
