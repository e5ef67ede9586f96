//! What requests learn about replicas, for whoever listens.
//!
//! In: failures, from any thread. Out: the same to each listener, at most one
//! for each replica in [`GAP`].
//! Never: makes a request wait; without a listener it is lost, for it is a
//! hint, and stale soon.

use ingress::Evidence;
use kernel::ReplicaId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::broadcast;

const GAP: Duration = Duration::from_millis(100);
/// A listener that is further behind misses some.
const QUEUE_MAX: usize = 256;
const WHY_BYTES_MAX: usize = 512;

#[derive(Clone, Debug)]
pub struct Failed {
    pub replica: ReplicaId,
    pub why: String,
}

pub struct Witness {
    listeners: broadcast::Sender<Failed>,
    last: Mutex<HashMap<ReplicaId, Instant>>,
}

impl Witness {
    pub fn new() -> Self {
        Self {
            listeners: broadcast::Sender::new(QUEUE_MAX),
            last: Mutex::default(),
        }
    }

    pub fn listen(&self) -> broadcast::Receiver<Failed> {
        self.listeners.subscribe()
    }

    fn is_due(&self, replica: &ReplicaId, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, at| now.duration_since(*at) < GAP);
        if last.contains_key(replica) {
            return false;
        }
        last.insert(replica.clone(), now);
        true
    }
}

impl Evidence for Witness {
    fn endpoint_failed(&self, replica: &ReplicaId, why: &str) {
        if self.is_due(replica, Instant::now()) {
            let why = why[..why.floor_char_boundary(WHY_BYTES_MAX)].to_owned();
            let replica = replica.clone();
            let _ = self.listeners.send(Failed { replica, why });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_fails_often_is_told_of_once_in_a_while() {
        let witness = Witness::new();
        let [one, two]: [ReplicaId; 2] =
            ["p.a-g1-0", "p.a-g1-1"].map(|text| text.parse().expect("replica"));
        let now = Instant::now();
        assert!(witness.is_due(&one, now));
        assert!(!witness.is_due(&one, now + GAP / 2));
        assert!(witness.is_due(&two, now + GAP / 2));
        assert!(witness.is_due(&one, now + GAP));
    }
}
