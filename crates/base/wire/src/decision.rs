//! What a loop writes down: each decision with its inputs, so that it can be
//! told (`why`), checked against what happened, and replayed bit for bit.

use kernel::{DecisionId, ObjectRef, Time, UnixMillis};
use serde::{Deserialize, Serialize};

/// A journal entry. Records are only ever appended; an observation refers to
/// an earlier decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "entries are few and short-lived")]
pub enum JournalEntry {
    Decision(Decision),
    Observation(Observation),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub id: DecisionId,
    pub at: Time,
    /// Wall clock, filled in by whoever writes the journal; zero in cores.
    pub at_unix: UnixMillis,
    /// The loop: `restart`, `readiness`, `rollout`, `holding`.
    pub control_loop: String,
    pub seat: String,
    pub subject: ObjectRef,
    /// Further objects that it concerns, to be found by them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub about: Vec<ObjectRef>,
    /// Everything `decide` was given, as JSON: parameters, state, reading.
    pub parameters: serde_json::Value,
    pub state: serde_json::Value,
    pub reading: serde_json::Value,
    /// What came out: the next state and the action, as JSON.
    pub next_state: serde_json::Value,
    pub action: serde_json::Value,
    /// The same for people, one sentence each.
    pub seen: String,
    pub decided: String,
    pub causes: Vec<Cause>,
    pub expected: Option<Expectation>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Decision(DecisionId),
    /// Something outside the loops: an exit, a probe's answer, a person.
    Event {
        what: String,
        at: Time,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expectation {
    pub what: String,
    pub by: Time,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    pub decision: DecisionId,
    pub at: Time,
    pub at_unix: UnixMillis,
    pub what: String,
    /// Whether what was expected came, in time.
    pub worked: bool,
}
