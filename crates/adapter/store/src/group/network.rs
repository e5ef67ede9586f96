//! The network as openraft wants it.

use super::message::{Answer, Ask};
use super::ways::{CarryError, Ways};
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

fn unreached<E: std::error::Error>(error: &CarryError) -> Refused<E> {
    Unreachable::new(error).into()
}

fn other<E: std::error::Error>(answer: &Answer) -> Refused<E> {
    let why = match answer {
        Answer::Refused(why) => why.clone(),
        _ => "an answer of another kind".to_owned(),
    };
    NetworkError::new(&std::io::Error::other(why)).into()
}

impl RaftNetwork<TypeConfig> for Way {
    async fn append_entries(
        &mut self,
        ask: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Refused> {
        let asked = Ask::Append(ask);
        match self.ways.ask(self.to, &asked, option.hard_ttl()).await {
            Ok(Answer::Append(answer)) => Ok(answer),
            Ok(answer) => Err(other(&answer)),
            Err(error) => Err(unreached(&error)),
        }
    }

    async fn install_snapshot(
        &mut self,
        ask: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Refused<InstallSnapshotError>> {
        let asked = Ask::Install(ask);
        match self.ways.ask(self.to, &asked, option.hard_ttl()).await {
            Ok(Answer::Install(Ok(answer))) => Ok(answer),
            Ok(Answer::Install(Err(error))) => {
                Err(RPCError::RemoteError(RemoteError::new(self.to, error)))
            }
            Ok(answer) => Err(other(&answer)),
            Err(error) => Err(unreached(&error)),
        }
    }

    async fn vote(
        &mut self,
        ask: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, Refused> {
        let asked = Ask::Vote(ask);
        match self.ways.ask(self.to, &asked, option.hard_ttl()).await {
            Ok(Answer::Vote(answer)) => Ok(answer),
            Ok(answer) => Err(other(&answer)),
            Err(error) => Err(unreached(&error)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(AGAIN))
    }
}
