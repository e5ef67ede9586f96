//! The network of a store with one voter: nobody to call.

use crate::types::TypeConfig;
use openraft::BasicNode;
use openraft::error::{InstallSnapshotError, RPCError, RaftError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};

pub struct Nobody;

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
