//! What requests learn about replicas and other edges, for whoever listens.
//!
//! In: failures, from any thread. Out: the same to each listener, at most one
//! for each of them in [`GAP`].
//! Never: makes a request wait; without a listener it is lost, for it is a
//! hint, and stale soon.

use ingress::Evidence;
use kernel::{NodeId, ReplicaId};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::broadcast;
use wire::edge::FromEdge;

const GAP: Duration = Duration::from_millis(100);
/// A listener that is further behind misses some.
const QUEUE_MAX: usize = 256;
const WHY_BYTES_MAX: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    Replica(ReplicaId),
    /// Another node, as far as its edge goes.
    Peer(NodeId),
}

#[derive(Clone, Debug)]
pub struct Failed {
    pub subject: Subject,
    pub why: String,
}

impl From<Failed> for FromEdge {
    fn from(Failed { subject, why }: Failed) -> Self {
        match subject {
            Subject::Replica(replica) => Self::EndpointFailed { replica, why },
            Subject::Peer(node) => Self::PeerFailed { node, why },
        }
    }
}

pub struct Witness {
    listeners: broadcast::Sender<Failed>,
    last: Mutex<HashMap<Subject, Instant>>,
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

    fn tell(&self, subject: Subject, why: &str) {
        if self.is_due(&subject, Instant::now()) {
            let why = why[..why.floor_char_boundary(WHY_BYTES_MAX)].to_owned();
            let _ = self.listeners.send(Failed { subject, why });
        }
    }

    fn is_due(&self, subject: &Subject, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, at| now.duration_since(*at) < GAP);
        if last.contains_key(subject) {
            return false;
        }
        last.insert(subject.clone(), now);
        true
    }
}

impl Evidence for Witness {
    fn endpoint_failed(&self, replica: &ReplicaId, why: &str) {
        self.tell(Subject::Replica(replica.clone()), why);
    }

    fn peer_failed(&self, node: NodeId, why: &str) {
        self.tell(Subject::Peer(node), why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_fails_often_is_told_of_once_in_a_while() {
        let witness = Witness::new();
        let replica = |text: &str| Subject::Replica(text.parse().expect("replica"));
        let [one, two] = [replica("p.a-g1-0"), Subject::Peer(NodeId(1))];
        let now = Instant::now();
        assert!(witness.is_due(&one, now));
        assert!(!witness.is_due(&one, now + GAP / 2));
        assert!(witness.is_due(&two, now + GAP / 2));
        assert!(witness.is_due(&one, now + GAP));
    }
}
