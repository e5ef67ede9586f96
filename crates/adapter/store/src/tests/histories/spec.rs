//! What a store is when it is asked one call after the other.
//!
//! Holds: of a write whose outcome is not known, what is known all the same is
//! used: no value is written twice, so who has read it says at which revision it
//! was done; one that nobody has read can only be at a revision that no other
//! write has. Without that, the checker would try each at any time.

use super::record::Rows;
use kernel::Revision;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Read,
    Put {
        key: String,
        value: Vec<u8>,
    },
    /// Puts it if the key was last changed at that revision, or is not there.
    Swap {
        key: String,
        expected: Option<Revision>,
        value: Vec<u8>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Wrote {
        succeeded: bool,
        revision: Revision,
    },
    Found {
        revision: Revision,
        rows: Rows,
    },
    /// Perhaps it was done: then at any time since it began.
    Unknown,
}

#[derive(Clone, Debug)]
pub struct Done {
    pub call: Call,
    pub answer: Answer,
    pub began: u64,
    pub ended: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    revision: Revision,
    rows: Rows,
}

/// Where writes of unknown outcome may have been done.
struct Free {
    revisions: BTreeSet<Revision>,
    /// After the last that anybody knows, nobody sees it.
    last: Revision,
}

impl Free {
    fn has(&self, revision: Revision) -> bool {
        revision > self.last || self.revisions.contains(&revision)
    }
}

#[derive(Clone)]
struct Operation(Call, Answer, Arc<Free>);

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {:?}", self.0, self.1)
    }
}

struct Sequential;

impl Specification for Sequential {
    type State = State;
    type Operation = Operation;

    fn init() -> State {
        State::default()
    }

    fn apply(Operation(call, answer, free): &Operation, state: &State) -> (bool, State) {
        let mut next = state.clone();
        let succeeded = match call {
            Call::Read => {
                let found = Answer::Found {
                    revision: state.revision,
                    rows: state.rows.clone(),
                };
                return (*answer == found, next);
            }
            Call::Put { .. } => true,
            Call::Swap { key, expected, .. } => state.rows.get(key).map(|(_, at)| *at) == *expected,
        };
        if let (Call::Put { key, value } | Call::Swap { key, value, .. }, true) = (call, succeeded)
        {
            next.revision.0 += 1;
            let row = (value.clone(), next.revision);
            next.rows.insert(key.clone(), row);
        }
        let expected = Answer::Wrote {
            succeeded,
            revision: next.revision,
        };
        let may_be = match answer {
            Answer::Unknown => !succeeded || free.has(next.revision),
            known => *known == expected,
        };
        (may_be, next)
    }
}

/// Of values that were read: at which revisions they were written.
fn read(done: &[Done]) -> BTreeMap<Vec<u8>, Revision> {
    let found = done.iter().filter_map(|done| match &done.answer {
        Answer::Found { rows, .. } => Some(rows.values().cloned()),
        Answer::Wrote { .. } | Answer::Unknown => None,
    });
    found.flatten().collect()
}

/// What is known of it.
fn outcome(done: &Done, read: &BTreeMap<Vec<u8>, Revision>) -> Answer {
    match (&done.call, &done.answer) {
        (Call::Put { value, .. } | Call::Swap { value, .. }, Answer::Unknown) => {
            let revision = read.get(value).copied();
            revision.map_or(Answer::Unknown, |revision| Answer::Wrote {
                succeeded: true,
                revision,
            })
        }
        (_, answer) => answer.clone(),
    }
}

pub fn is_linearizable(done: &[Done]) -> bool {
    let read = read(done);
    let outcomes: Vec<Answer> = done.iter().map(|done| outcome(done, &read)).collect();
    let revisions = outcomes.iter().filter_map(|answer| match answer {
        Answer::Wrote { revision, .. } | Answer::Found { revision, .. } => Some(*revision),
        Answer::Unknown => None,
    });
    let last = revisions.max().unwrap_or_default();
    let mut revisions: BTreeSet<Revision> = (1..=last.0).map(Revision).collect();
    for answer in &outcomes {
        if let Answer::Wrote {
            succeeded: true,
            revision,
        } = answer
        {
            revisions.remove(revision);
        }
    }
    let free = Arc::new(Free { revisions, last });
    let mut events = Vec::new();
    for (number, (done, answer)) in done.iter().zip(outcomes).enumerate() {
        // Nobody waits for its end, also where it was done.
        let ended = match done.answer {
            Answer::Unknown => u64::MAX,
            Answer::Wrote { .. } | Answer::Found { .. } => done.ended,
        };
        let operation = Operation(done.call.clone(), answer, Arc::clone(&free));
        events.push((done.began, number, Action::Call(operation.clone())));
        events.push((ended, number, Action::Response(operation)));
    }
    events.sort_by_key(|(at, ..)| *at);
    let events = events.into_iter();
    let actions = events.map(|(_, number, action)| (number, action)).collect();
    WGLChecker::<Sequential>::is_linearizable(History::from_actions(actions))
}
