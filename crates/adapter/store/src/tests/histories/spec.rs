//! What a store is when it is asked one call after the other.

use super::record::Rows;
use kernel::Revision;
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

struct Sequential;

impl Specification for Sequential {
    type State = State;
    type Operation = (Call, Answer);

    fn init() -> State {
        State::default()
    }

    fn apply((call, answer): &(Call, Answer), state: &State) -> (bool, State) {
        let mut next = state.clone();
        let succeeded = match call {
            Call::Read => {
                let Answer::Found { revision, rows } = answer else {
                    return (false, next);
                };
                let is_so = *revision == state.revision && *rows == state.rows;
                return (is_so, next);
            }
            Call::Put { .. } => true,
            Call::Swap { key, expected, .. } => state.rows.get(key).map(|(_, at)| *at) == *expected,
        };
        if let (Call::Put { key, value } | Call::Swap { key, value, .. }, true) = (call, succeeded)
        {
            next.revision.0 += 1;
            next.rows
                .insert(key.clone(), (value.clone(), next.revision));
        }
        let expected = Answer::Wrote {
            succeeded,
            revision: next.revision,
        };
        (*answer == expected || *answer == Answer::Unknown, next)
    }
}

pub fn is_linearizable(done: &[Done]) -> bool {
    let mut events = Vec::new();
    for (number, done) in done.iter().enumerate() {
        let operation = (done.call.clone(), done.answer.clone());
        // What is not known to be done may be done after all else.
        let ended = match done.answer {
            Answer::Unknown => u64::MAX,
            Answer::Wrote { .. } | Answer::Found { .. } => done.ended,
        };
        events.push((done.began, number, Action::Call(operation.clone())));
        events.push((ended, number, Action::Response(operation)));
    }
    events.sort_by_key(|(at, ..)| *at);
    let events = events.into_iter();
    let actions = events.map(|(_, number, action)| (number, action)).collect();
    WGLChecker::<Sequential>::is_linearizable(History::from_actions(actions))
}
