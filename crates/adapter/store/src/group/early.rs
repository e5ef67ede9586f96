//! Sends a leader's new entries to the others while its own disk is still at
//! them.
//!
//! openraft asks for them to be sent once they are synced here. What is sent
//! before is the same message, an `AppendEntries` of this leader's (a leader may
//! write its disk while its followers write theirs: Ongaro's thesis, §10.2.1);
//! when openraft asks, its answer is there or on its way.
//!
//! In: what the leader appends, and what openraft wants sent. Out: messages, and
//! the answers to those that openraft asks for later.
//! Holds: only what follows on what a member was sent before is sent early, so
//! that it comes in order; what came to nothing is sent again as openraft asks.
//! Never: counts for anything by itself. An entry is committed by members that
//! have synced it, of which this one is one only when its own sync is done; and
//! whoever led before a restart must be elected again, for others may have
//! entries of its term that its own disk has lost.

use super::message::{Answer, Ask};
use super::network::go_at_once;
use super::ways::Ways;
use crate::types::{LogEntry, LogId, TypeConfig, Vote};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// Messages under way to one member.
const SENT_MAX: usize = 3;

/// To all members that are reached.
pub struct Early {
    ways: Ways,
    own: u64,
    within: Duration,
    members: Mutex<Vec<Weak<Member>>>,
}

/// One member, as one leadership sends to it.
pub struct Member {
    to: u64,
    vote: Vote,
    inner: Mutex<Inner>,
}

struct Inner {
    /// The last entry that it has or was sent.
    tail: Option<LogId>,
    /// As openraft said last.
    committed: Option<LogId>,
    /// Openraft has not asked for them yet.
    sent: VecDeque<Sent>,
}

#[derive(Clone)]
struct Sent {
    prev: Option<LogId>,
    last: LogId,
    taken: watch::Receiver<Option<bool>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Early {
    pub fn new(ways: Ways, own: u64, within: Duration) -> Self {
        Self {
            ways,
            own,
            within,
            members: Mutex::default(),
        }
    }

    /// What this member appends, its own or a leader's.
    ///
    /// * `prev`: the entry before.
    pub fn append(&self, vote: Option<Vote>, prev: Option<LogId>, entries: &[LogEntry]) {
        let Some(vote) = vote.filter(|vote| self.is_own(vote)) else {
            return;
        };
        let Some(last) = entries.last().map(|entry| entry.log_id) else {
            return;
        };
        if !go_at_once(entries) {
            return;
        }
        lock(&self.members).retain(|member| {
            let Some(member) = member.upgrade() else {
                return false;
            };
            if member.vote == vote
                && let Some((committed, taken)) = member.begin(prev, last)
            {
                let ask = Ask::Append(AppendEntriesRequest {
                    vote,
                    prev_log_id: prev,
                    entries: entries.to_vec(),
                    leader_commit: committed,
                });
                let (ways, to, within) = (self.ways.clone(), member.to, self.within);
                tokio::spawn(async move {
                    let answer = ways.ask(to, &ask, within).await;
                    let is_taken =
                        matches!(answer, Ok(Answer::Append(AppendEntriesResponse::Success)));
                    taken.send_replace(Some(is_taken));
                });
            }
            true
        });
    }

    /// Whether it leads under it, and nobody else.
    fn is_own(&self, vote: &Vote) -> bool {
        vote.is_committed() && vote.leader_id().voted_for() == Some(self.own)
    }

    /// From now on it is sent what follows on `tail`, which it has.
    pub fn join(&self, to: u64, vote: Vote, tail: LogId) -> Arc<Member> {
        let member = Arc::new(Member {
            to,
            vote,
            inner: Mutex::new(Inner {
                tail: Some(tail),
                committed: None,
                sent: VecDeque::new(),
            }),
        });
        lock(&self.members).push(Arc::downgrade(&member));
        member
    }
}

impl Member {
    /// Whether a message may be sent that follows on `prev`; where its answer
    /// goes, and what it can say is committed.
    fn begin(
        &self,
        prev: Option<LogId>,
        last: LogId,
    ) -> Option<(Option<LogId>, watch::Sender<Option<bool>>)> {
        let mut inner = lock(&self.inner);
        if inner.tail != prev || inner.sent.len() >= SENT_MAX {
            return None;
        }
        let (answer, taken) = watch::channel(None);
        inner.tail = Some(last);
        inner.sent.push_back(Sent { prev, last, taken });
        Some((inner.committed, answer))
    }

    /// The answer to what openraft wants sent, if that was sent early; safe to
    /// drop.
    pub async fn answer(
        &self,
        ask: &AppendEntriesRequest<TypeConfig>,
    ) -> Option<AppendEntriesResponse<u64>> {
        let wanted = ask.entries.last()?.log_id;
        let Sent {
            last, mut taken, ..
        } = {
            let mut inner = lock(&self.inner);
            inner.committed = ask.leader_commit;
            let known = |sent: &Sent| Some(sent.last) <= ask.prev_log_id;
            while inner.sent.front().is_some_and(known) {
                inner.sent.pop_front();
            }
            let first = inner.sent.front();
            first.filter(|sent| sent.prev == ask.prev_log_id).cloned()?
        };
        let is_taken = taken.wait_for(Option::is_some).await;
        let is_taken = is_taken.is_ok_and(|taken| *taken == Some(true));
        is_taken.then(|| {
            if last < wanted {
                AppendEntriesResponse::PartialSuccess(Some(last))
            } else {
                AppendEntriesResponse::Success
            }
        })
    }

    /// Up to where it has all, after a message as openraft asked for it; none: who
    /// knows.
    pub fn sent(&self, tail: Option<LogId>) {
        let mut inner = lock(&self.inner);
        inner.sent.clear();
        inner.tail = tail;
    }
}
