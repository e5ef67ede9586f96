//! Whether a replica's answers are errors while others of its service answer
//! well: what probes that ask for something else do not see.
//!
//! Holds: errors of one replica alone say nothing; so of one whose answers are
//! errors in a row the others are tried for a moment, where any are left. Only
//! replicas of one generation are compared: what a new one is worth is its
//! rollout's to judge, by what it answers.

use super::EndpointState;
use crate::limits::Limits;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Errors in a row that are no chance.
pub const ERRORS_IN_A_ROW: u32 = 5;
/// Good answers from before are of the past.
const LATELY: Duration = Duration::from_secs(10);

/// One replica's last answers.
#[derive(Debug, Default)]
pub struct Answers {
    errors_in_a_row: AtomicU32,
    /// Milliseconds since the endpoint is known, one more; none: 0.
    good_at: AtomicU64,
}

impl Answers {
    pub fn good(&self, now: Duration) {
        self.errors_in_a_row.store(0, Relaxed);
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.good_at.store(now.saturating_add(1), Relaxed);
    }

    /// How many in a row there are now.
    pub fn error(&self) -> u32 {
        self.errors_in_a_row.fetch_add(1, Relaxed).saturating_add(1)
    }

    fn are_good(&self, now: Duration) -> bool {
        let good_at = Duration::from_millis(self.good_at.load(Relaxed));
        let lately = good_at > Duration::ZERO && now.saturating_sub(good_at) < LATELY;
        lately && self.errors_in_a_row.load(Relaxed) == 0
    }
}

fn others<'a>(
    endpoints: &'a [Arc<EndpointState>],
    endpoint: &EndpointState,
) -> impl Iterator<Item = &'a EndpointState> {
    let replica = &endpoint.replica;
    let others = endpoints.iter().filter(move |other| {
        other.replica != *replica && other.replica.generation == replica.generation
    });
    others.map(|other| &**other)
}

/// Whether another one than `endpoint` answers well.
pub fn others_answer(endpoints: &[Arc<EndpointState>], endpoint: &EndpointState) -> bool {
    others(endpoints, endpoint).any(|other| other.answers.are_good(other.age()))
}

/// Passes over it for a moment, unless it is the last that is not passed over.
pub fn try_others(endpoints: &[Arc<EndpointState>], endpoint: &EndpointState, limits: &Limits) {
    if others(endpoints, endpoint).any(|other| !other.is_paused()) {
        endpoint.pause(limits.endpoint_pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_good_until_the_next_error_or_for_a_while() {
        let answers = Answers::default();
        let at = Duration::from_secs;
        assert!(!answers.are_good(at(0)));
        answers.good(at(0));
        assert!(answers.are_good(at(9)) && !answers.are_good(at(11)));
        answers.good(at(11));
        assert_eq!([answers.error(), answers.error()], [1, 2]);
        assert!(!answers.are_good(at(11)));
        answers.good(at(12));
        assert_eq!(answers.error(), 1);
    }
}
