//! What members ask and answer: records of one version, in postcard.

use crate::disk::{decode_as, encode_as};
use crate::types::{Batch, LogId, Replies, TypeConfig};
use openraft::error::{InstallSnapshotError, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<u64>),
    Install(InstallSnapshotRequest<TypeConfig>),
    /// Of the leader.
    Write(Batch),
    /// Of the leader: what must be applied here before a read.
    ReadIndex,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    Append(AppendEntriesResponse<u64>),
    Vote(VoteResponse<u64>),
    Install(Result<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>>),
    Written(Replies),
    ReadIndex(Option<LogId>),
    /// Perhaps it is done.
    Unknown,
    /// Nothing came of it here; whom else to ask, where that is known.
    NotLeader(Option<u64>),
    Refused(String),
}

impl Ask {
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        encode_as(VERSION, self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        decode_as(VERSION, bytes)
    }

    /// Who a message of Raft's own says it is from.
    pub fn claims(&self) -> Option<u64> {
        let vote = match self {
            Self::Append(ask) => &ask.vote,
            Self::Vote(ask) => &ask.vote,
            Self::Install(ask) => &ask.vote,
            Self::Write(_) | Self::ReadIndex => return None,
        };
        vote.leader_id().voted_for()
    }
}

impl Answer {
    /// Where another was asked for.
    pub fn into_why(self) -> String {
        match self {
            Self::Refused(why) => why,
            _ => "an answer of another kind".to_owned(),
        }
    }

    pub fn encode(&self) -> Result<Vec<u8>, String> {
        encode_as(VERSION, self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        decode_as(VERSION, bytes)
    }
}
