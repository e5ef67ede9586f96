//! Where one member votes and another learns: what is acknowledged is on both, as
//! long as the other is reached.
//!
//! Holds: a write waits for the learner's disk, at most [`WAIT_MAX`]; after one
//! that waited in vain none does, and the group is degraded, until the learner
//! has caught up.
//! Never: refuses a write because there is no second.

use crate::types::TypeConfig;
use openraft::{Raft, RaftMetrics};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const WAIT_MAX: Duration = Duration::from_secs(1);
/// A learner that is behind by no more has caught up: writes wait for it again.
const CAUGHT_UP: u64 = 16;

type Metrics = RaftMetrics<u64, openraft::BasicNode>;

/// Whether the only voter is without a learner that has all.
#[derive(Debug, Default)]
pub struct Second {
    missed: AtomicBool,
}

impl Second {
    pub fn is_missed(&self) -> bool {
        self.missed.load(Ordering::Relaxed)
    }

    /// On the leader, once `index` is committed: until a learner has it too.
    pub async fn has(&self, raft: &Raft<TypeConfig>, index: u64) {
        let mut metrics = raft.metrics();
        let (behind, is_needed) = {
            let metrics = metrics.borrow();
            (matched(&metrics), is_needed(&metrics))
        };
        if !is_needed {
            self.missed.store(false, Ordering::Relaxed);
            return;
        }
        let has = |at: Option<u64>, index: u64| at.is_some_and(|at| at >= index);
        if self.is_missed() && !has(behind, index.saturating_sub(CAUGHT_UP)) {
            return;
        }
        let waited = metrics.wait_for(|now| !self::is_needed(now) || has(matched(now), index));
        let is_there = matches!(tokio::time::timeout(WAIT_MAX, waited).await, Ok(Ok(_)));
        if self.missed.swap(!is_there, Ordering::Relaxed) == is_there {
            tracing::warn!(is_there, "the second that keeps what is acknowledged");
        }
    }
}

fn is_needed(metrics: &Metrics) -> bool {
    let membership = metrics.membership_config.membership();
    membership.voter_ids().eq([metrics.id]) && membership.learner_ids().next().is_some()
}

/// How far the learner is that has most.
fn matched(metrics: &Metrics) -> Option<u64> {
    let replication = metrics.replication.iter().flatten();
    let others = replication.filter(|(node, _)| **node != metrics.id);
    others
        .filter_map(|(_, known)| known.map(|id| id.index))
        .max()
}
