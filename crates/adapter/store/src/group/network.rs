//! The network as openraft wants it.

use super::message::{Answer, Ask};
use super::ways::Ways;
use crate::types::TypeConfig;
use openraft::BasicNode;
use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use std::time::Duration;

/// Between two tries of one that is not reached.
const AGAIN: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub struct Network(pub Ways);

/// The way to one member.
pub struct Way {
    ways: Ways,
    to: u64,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Way;

    async fn new_client(&mut self, to: u64, _: &BasicNode) -> Way {
        Way {
            ways: self.0.clone(),
            to,
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

impl RaftNetwork<TypeConfig> for Way {
    async fn append_entries(
        &mut self,
        ask: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Refused> {
        let take = |answer| match answer {
            Answer::Append(answer) => Ok(answer),
            other => Err(other.into_why()),
        };
        self.ask(Ask::Append(ask), &option, take).await
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
