//! What requests learn about replicas and other edges, for whoever listens.
//!
//! In: failures, from any thread. Out: the same to each listener, at most one
//! for each subject in [`GAP`].
//! Never: makes a request wait; without a listener it is lost, for it is a
//! hint, and stale soon.

use ingress::Evidence;
use kernel::{Hash, NodeId, ReplicaId};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::broadcast;
use wire::edge::FromEdge;

const GAP: Duration = Duration::from_millis(100);
/// What the agent does about it takes longer.
const CONTENT_GAP: Duration = Duration::from_secs(1);
/// A listener that is further behind misses some.
const QUEUE_MAX: usize = 256;
const WHY_BYTES_MAX: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    Replica(ReplicaId),
    /// Another node, as far as its edge goes.
    Peer(NodeId),
    /// A file of content.
    Content(Hash),
}

#[derive(Clone, Debug)]
pub struct Failed {
    pub subject: Subject,
    pub why: String,
    /// Of a replica: others of its service answer well.
    pub others_answer: bool,
}

impl From<Failed> for FromEdge {
    fn from(failed: Failed) -> Self {
        let Failed {
            subject,
            why,
            others_answer,
        } = failed;
        match subject {
            Subject::Replica(replica) => Self::EndpointFailed {
                replica,
                why,
                others_answer,
            },
            Subject::Peer(node) => Self::PeerFailed { node, why },
            Subject::Content(hash) => Self::ContentFailed { hash, why },
        }
    }
}

pub struct Witness {
    listeners: broadcast::Sender<Failed>,
    /// Until when nothing more is said of each.
    said: Mutex<HashMap<Subject, Instant>>,
}

impl Witness {
    pub fn new() -> Self {
        Self {
            listeners: broadcast::Sender::new(QUEUE_MAX),
            said: Mutex::default(),
        }
    }

    pub fn listen(&self) -> broadcast::Receiver<Failed> {
        self.listeners.subscribe()
    }

    /// Said at once to the agent, which looks at the file.
    pub fn content_failed(&self, hash: Hash, why: &str) {
        self.tell(Subject::Content(hash), why, false);
    }

    fn tell(&self, subject: Subject, why: &str, others_answer: bool) {
        let gap = match subject {
            Subject::Content(_) => CONTENT_GAP,
            _ => GAP,
        };
        if self.is_due(&subject, gap, Instant::now()) {
            let why = why[..why.floor_char_boundary(WHY_BYTES_MAX)].to_owned();
            let _ = self.listeners.send(Failed {
                subject,
                why,
                others_answer,
            });
        }
    }

    fn is_due(&self, subject: &Subject, gap: Duration, now: Instant) -> bool {
        let mut last = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, until| *until > now);
        if last.contains_key(subject) {
            return false;
        }
        last.insert(subject.clone(), now + gap);
        true
    }
}

impl Evidence for Witness {
    fn endpoint_failed(&self, replica: &ReplicaId, why: &str, others_answer: bool) {
        self.tell(Subject::Replica(replica.clone()), why, others_answer);
    }

    fn peer_failed(&self, node: NodeId, why: &str) {
        self.tell(Subject::Peer(node), why, false);
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
        assert!(witness.is_due(&one, GAP, now));
        assert!(!witness.is_due(&one, GAP, now + GAP / 2));
        assert!(witness.is_due(&two, GAP, now + GAP / 2));
        assert!(witness.is_due(&one, GAP, now + GAP));
    }
}
