//! What a member answers others, and who is a member.

use super::members::{Members, knows};
use super::message::{Answer, Ask};
use super::writer::{self, Tried};
use crate::types::{Batch, Command};
use crate::{EmbeddedStore, limits};
use kernel::NodeId;
use node::store::StoreError;
use openraft::BasicNode;
use openraft::error::{CheckIsLeaderError, RaftError};
use openraft::raft::AppendEntriesResponse;
use std::collections::BTreeSet;
use std::time::Duration;

impl EmbeddedStore {
    /// Answers another member's question.
    ///
    /// * `from`: who the transport has proven it to be.
    pub async fn answer(&self, from: NodeId, body: &[u8]) -> Vec<u8> {
        let answer = match Ask::decode(body) {
            Ok(ask) => self.answer_to(from, ask).await,
            Err(why) => Answer::Refused(why),
        };
        let encoded = answer.encode().or_else(|why| Answer::Refused(why).encode());
        encoded.unwrap_or_default()
    }

    async fn answer_to(&self, from: NodeId, ask: Ask) -> Answer {
        let refused = |why: &dyn std::fmt::Display| Answer::Refused(why.to_string());
        if ask.claims().is_some_and(|node| node != from.0) {
            return refused(&format!("node {from} speaks for another"));
        }
        // Whoever lags does not know of members that came since, one of which may lead:
        // entries and votes are taken of those as well (Ongaro's thesis, §4.1).
        let is_rafts = matches!(ask, Ask::Append(_) | Ask::Vote(_) | Ask::Install(_));
        if !is_rafts && !knows(&self.raft.metrics().borrow(), from.0) {
            return refused(&format!("node {from} is no member of this store"));
        }
        match ask {
            Ask::Append(ask) => match self.raft.append_entries(ask).await {
                Ok(answer) => {
                    if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                        self.silence.ends();
                    }
                    Answer::Append(answer)
                }
                Err(error) => refused(&error),
            },
            Ask::Vote(ask) => match self.raft.vote(ask).await {
                Ok(answer) => {
                    if answer.vote_granted {
                        self.silence.ends();
                    }
                    Answer::Vote(answer)
                }
                Err(error) => refused(&error),
            },
            Ask::Install(ask) => {
                let answer = self.raft.install_snapshot(ask).await;
                if answer.is_ok() {
                    self.silence.ends();
                }
                Answer::Install(answer)
            }
            Ask::Write(batch) => match self.write_for(from, batch).await {
                Ok(Tried::Done(replies)) => Answer::Written(replies),
                Ok(Tried::Refused) => self.not_leader(),
                Ok(Tried::Unknown) => Answer::Unknown,
                Err(why) => refused(&why),
            },
            Ask::ReadIndex if self.aside.is() => self.not_leader(),
            Ask::ReadIndex => match self.raft.get_read_log_id().await {
                Ok((index, _)) => Answer::ReadIndex(index),
                Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_))) => {
                    self.not_leader()
                }
                Err(error) => refused(&error),
            },
        }
    }

    /// A member's own batch, within the limits that its calls have.
    async fn write_for(&self, from: NodeId, batch: Batch) -> Result<Tried, String> {
        let (mark, commands) = batch.0.split_first().ok_or("a batch of nothing")?;
        if !matches!(mark, Command::From { member, .. } if *member == from.0) {
            return Err(format!("node {from} sends what another proposed"));
        }
        for command in commands {
            if matches!(
                command,
                Command::From { .. } | Command::Expire { .. } | Command::Raise { .. }
            ) {
                return Err("nobody proposes that for itself".to_owned());
            }
            limits::check(command).map_err(|error| error.to_string())?;
        }
        writer::here(&self.raft, (&self.second, &self.aside), batch).await
    }

    fn not_leader(&self) -> Answer {
        Answer::NotLeader(self.raft.metrics().borrow().current_leader)
    }

    /// Who the members are, as far as it is known here.
    pub fn members(&self) -> Members {
        let mut members = Members::of(&self.raft.metrics().borrow());
        // One that only learns keeps the leader's name, however long it is silent.
        members.leader = members.leader.filter(|leader| {
            if *leader == self.own {
                !self.aside.is()
            } else {
                !self.silence.is_long()
            }
        });
        members.is_degraded = self.second.is_missed();
        members
    }

    /// Of the log here: the last entry's term and index.
    pub fn last(&self) -> (u64, u64) {
        let last = self.log.last();
        last.map_or((0, 0), |id| (id.leader_id.term, id.index))
    }

    /// Whether a majority has confirmed, after the call began, that this member
    /// leads.
    pub async fn is_leader(&self) -> bool {
        writer::index_here(&self.raft, &self.aside).await.is_ok()
    }

    /// Until they may stand otherwise, `at_most` so long. Safe to drop.
    pub async fn members_changed(&self, at_most: Duration) {
        let mut metrics = self.raft.metrics();
        metrics.mark_unchanged();
        let _ = tokio::time::timeout(at_most, metrics.changed()).await;
    }

    /// Makes these the members, one step after the other: who is new first gets
    /// all that there is, and only then votes.
    ///
    /// # Errors
    /// This is not the leader, or the members could not be reached; what was done
    /// until then stays, and calling again goes on from there.
    pub async fn set_members(
        &self,
        voters: BTreeSet<NodeId>,
        learners: BTreeSet<NodeId>,
    ) -> Result<(), StoreError> {
        let refused =
            |error: &dyn std::fmt::Display| StoreError::Invalid(format!("members: {error}"));
        if voters.is_empty() {
            return Err(refused(&"a store has one voter at least"));
        }
        let before = self.members();
        let all = || voters.iter().chain(&learners).copied();
        let known = |node: &NodeId| before.voters.contains(node) || before.learners.contains(node);
        for node in all().filter(|node| !known(node)) {
            let added = self.raft.add_learner(node.0, BasicNode::default(), true);
            added.await.map_err(|error| refused(&error))?;
        }
        let ids: BTreeSet<u64> = voters.iter().map(|node| node.0).collect();
        if before.voters != voters {
            // Who votes no more stays and learns, for now.
            let changed = self.raft.change_membership(ids, true).await;
            changed.map_err(|error| refused(&error))?;
        }
        let wanted: BTreeSet<NodeId> = all().collect();
        let gone = self.members().learners;
        let gone: BTreeSet<u64> = gone.difference(&wanted).map(|node| node.0).collect();
        if !gone.is_empty() {
            let removed = openraft::ChangeMembers::RemoveNodes(gone);
            let changed = self.raft.change_membership(removed, true).await;
            changed.map_err(|error| refused(&error))?;
        }
        Ok(())
    }
}
