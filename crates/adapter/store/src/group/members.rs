//! Who the members are, and how they stand.

use super::writer::leader;
use kernel::NodeId;
use openraft::RaftMetrics;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// As one member sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// A majority of them acknowledges each write.
    pub voters: BTreeSet<NodeId>,
    /// They have all that the voters have, a moment later, and do not vote.
    pub learners: BTreeSet<NodeId>,
    /// None also where this one led and hears no majority any more.
    pub leader: Option<NodeId>,
    /// Counts elections.
    pub term: u64,
    /// Entries of the log that are known here, and of them how many are applied.
    pub log_last: u64,
    pub log_applied: u64,
    /// By the leader: entries that each of the others does not have yet.
    pub behind: BTreeMap<NodeId, u64>,
    /// By the leader: since a majority was heard.
    pub quorum_age: Option<Duration>,
    /// By the only voter: the learner does not keep up, and nobody waits for it.
    #[serde(default)]
    pub is_degraded: bool,
}

impl Members {
    pub fn of(metrics: &RaftMetrics<u64, openraft::BasicNode>) -> Self {
        let membership = metrics.membership_config.membership();
        let last = metrics.last_log_index.unwrap_or_default();
        let replication = metrics.replication.iter().flatten();
        let behind = replication
            .filter(|(node, _)| **node != metrics.id)
            .map(|(node, known)| {
                let known = known.map_or(0, |id| id.index);
                (NodeId(*node), last.saturating_sub(known))
            });
        Self {
            voters: membership.voter_ids().map(NodeId).collect(),
            learners: membership.learner_ids().map(NodeId).collect(),
            leader: leader(metrics).map(NodeId),
            term: metrics.current_term,
            log_last: last,
            log_applied: metrics.last_applied.map_or(0, |id| id.index),
            behind: behind.collect(),
            quorum_age: metrics.millis_since_quorum_ack.map(Duration::from_millis),
            is_degraded: false,
        }
    }
}

/// Whether it is of this raft at all.
pub fn knows(metrics: &RaftMetrics<u64, openraft::BasicNode>, node: u64) -> bool {
    let membership = metrics.membership_config.membership();
    membership.get_node(&node).is_some()
}
