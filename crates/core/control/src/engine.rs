//! Runs any controller: records each decision, follows what it expected, and
//! lets go when its actions stop having an effect.
//!
//! In: readings, and word that an expected effect came or failed.
//! Out: actions and journal entries.
//! Holds: each expectation ends in exactly one observation; a decision without
//! an action is not recorded (its state is in the next one that is); a loop
//! whose last `futile_max` actions had no effect does nothing until it has
//! rested.

use kernel::{DecisionId, ObjectRef, Time, UnixMillis};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use wire::decision::{Cause, Decision, Expectation, JournalEntry, Observation};

/// A pure decision: the same inputs give the same outputs, bit for bit.
pub trait Controller {
    /// What records call the loop.
    const NAME: &'static str;
    type Parameters: Clone + Serialize + DeserializeOwned;
    type State: Clone + Default + Serialize + DeserializeOwned;
    type Reading: Serialize + DeserializeOwned;
    type Action: Clone + Serialize + DeserializeOwned;

    fn decide(
        parameters: &Self::Parameters,
        state: &Self::State,
        reading: &Self::Reading,
        now: Time,
    ) -> Decided<Self::State, Self::Action>;
}

/// What came out of a decision. No `action`: nothing to do, nothing recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided<S, A> {
    pub next_state: S,
    pub action: Option<A>,
    pub seen: String,
    pub decided: String,
    /// Limits that held the output back; told after `decided`.
    pub clamps: Vec<String>,
    pub expected: Option<Expectation>,
}

impl<S, A> Decided<S, A> {
    pub fn nothing(next_state: S) -> Self {
        Self {
            next_state,
            action: None,
            seen: String::new(),
            decided: String::new(),
            clamps: Vec::new(),
            expected: None,
        }
    }

    pub fn act(next_state: S, action: A, seen: String, decided: String) -> Self {
        Self {
            next_state,
            action: Some(action),
            seen,
            decided,
            clamps: Vec::new(),
            expected: None,
        }
    }

    #[must_use]
    pub fn expecting(mut self, what: &str, by: Time) -> Self {
        self.expected = Some(Expectation {
            what: what.to_owned(),
            by,
        });
        self
    }

    /// The decision as one sentence, limits included.
    pub(crate) fn sentence(&self) -> String {
        if self.clamps.is_empty() {
            self.decided.clone()
        } else {
            format!("{} ({})", self.decided, self.clamps.join("; "))
        }
    }
}

/// Gives decisions their numbers.
#[derive(Clone, Debug)]
pub struct DecisionIds {
    next: DecisionId,
}

impl DecisionIds {
    pub const fn starting_at(next: DecisionId) -> Self {
        Self { next }
    }

    fn take(&mut self) -> DecisionId {
        let id = self.next;
        self.next = DecisionId(id.0.saturating_add(1));
        id
    }
}

/// When a loop lets go.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Actions in a row without effect before it disengages.
    pub futile_max: u32,
    /// How long it then rests before it tries once more.
    pub rest: Duration,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            futile_max: 20,
            rest: Duration::from_mins(5),
        }
    }
}

#[derive(Debug)]
pub struct Step<A> {
    pub action: Option<A>,
    /// The decision's number, if there was an action.
    pub id: Option<DecisionId>,
    pub entries: Vec<JournalEntry>,
}

pub struct Loop<C: Controller> {
    parameters: C::Parameters,
    state: C::State,
    subject: ObjectRef,
    effort: Effort,
    awaited: Option<(DecisionId, Expectation)>,
    futile: u32,
    resting_until: Option<Time>,
    last: Option<DecisionId>,
}

impl<C: Controller> Loop<C> {
    pub fn new(parameters: C::Parameters, subject: ObjectRef, effort: Effort) -> Self {
        Self {
            parameters,
            state: C::State::default(),
            subject,
            effort,
            awaited: None,
            futile: 0,
            resting_until: None,
            last: None,
        }
    }

    /// In place of the state that loops begin with.
    #[must_use]
    pub fn beginning_with(mut self, state: C::State) -> Self {
        self.state = state;
        self
    }

    pub fn state(&self) -> &C::State {
        &self.state
    }

    /// The newest recorded decision.
    pub fn last(&self) -> Option<DecisionId> {
        self.last
    }

    pub fn set_parameters(&mut self, parameters: C::Parameters) {
        self.parameters = parameters;
    }

    /// Set while the loop rests, its actions having had no effect.
    pub fn resting_until(&self) -> Option<Time> {
        self.resting_until
    }

    /// When an expectation runs out.
    pub fn next_wake(&self) -> Option<Time> {
        self.awaited.as_ref().map(|(_, expected)| expected.by)
    }

    /// One turn of the loop. While it rests, nothing is decided and the reading
    /// is lost: the caller asks again at [`Loop::resting_until`].
    pub fn step(
        &mut self,
        reading: &C::Reading,
        causes: Vec<Cause>,
        ids: &mut DecisionIds,
        now: Time,
    ) -> Step<C::Action> {
        let mut entries = Vec::new();
        if let Some(until) = self.resting_until {
            if now < until {
                return Step {
                    action: None,
                    id: None,
                    entries,
                };
            }
            // One trial: a single futile action sends it back to rest.
            self.resting_until = None;
            self.futile = self.effort.futile_max.saturating_sub(1);
        }
        let decided = C::decide(&self.parameters, &self.state, reading, now);
        let Some(action) = decided.action.clone() else {
            self.state = decided.next_state;
            return Step {
                action: None,
                id: None,
                entries,
            };
        };
        let id = ids.take();
        entries.push(JournalEntry::Decision(Decision {
            id,
            at: now,
            at_unix: UnixMillis(0),
            control_loop: C::NAME.to_owned(),
            seat: "local".to_owned(),
            subject: self.subject.clone(),
            about: Vec::new(),
            parameters: json(&self.parameters),
            state: json(&self.state),
            reading: json(reading),
            next_state: json(&decided.next_state),
            action: json(&action),
            decided: decided.sentence(),
            seen: decided.seen,
            causes,
            expected: decided.expected.clone(),
        }));
        if let Some(expected) = decided.expected {
            if let Some((earlier, _)) = self.awaited.take() {
                let what = format!("overtaken by {id}");
                entries.push(observation(earlier, what, false, now));
            }
            self.awaited = Some((id, expected));
        }
        self.state = decided.next_state;
        self.last = Some(id);
        Step {
            action: Some(action),
            id: Some(id),
            entries,
        }
    }

    /// The expected effect came.
    pub fn came(&mut self, what: &str, now: Time) -> Option<JournalEntry> {
        let (id, _) = self.awaited.take()?;
        self.futile = 0;
        Some(observation(id, what.to_owned(), true, now))
    }

    /// It is known already that the effect will not come.
    pub fn failed(&mut self, what: &str, now: Time) -> Option<JournalEntry> {
        let (id, _) = self.awaited.take()?;
        self.futile = self.futile.saturating_add(1);
        let mut what = what.to_owned();
        if self.futile >= self.effort.futile_max {
            let until = now + self.effort.rest;
            self.resting_until = Some(until);
            let rest = kernel::format_duration(self.effort.rest);
            what = format!(
                "{what}; the loop disengages for {rest}: {} actions in a row had no effect",
                self.futile
            );
        }
        Some(observation(id, what, false, now))
    }

    /// Closes an expectation whose time has passed.
    pub fn expire(&mut self, now: Time) -> Option<JournalEntry> {
        let (_, expected) = self.awaited.as_ref()?;
        if now < expected.by {
            return None;
        }
        let what = format!("did not come in time: {}", expected.what);
        self.failed(&what, now)
    }

    /// The thing acted on is gone, so its effect cannot be judged.
    pub fn abandon(&mut self, what: &str, now: Time) -> Option<JournalEntry> {
        let (id, _) = self.awaited.take()?;
        Some(observation(id, what.to_owned(), false, now))
    }
}

fn observation(decision: DecisionId, what: String, worked: bool, now: Time) -> JournalEntry {
    JournalEntry::Observation(Observation {
        decision,
        at: now,
        at_unix: UnixMillis(0),
        what,
        worked,
    })
}

/// Controllers' types are plain data: text keys, finite numbers.
pub(crate) fn json<T: Serialize>(value: &T) -> serde_json::Value {
    serde_json::to_value(value).expect("a controller's types are plain data")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restart::{Parameters, Reading, Restart};

    fn started(futile_max: u32) -> (Loop<Restart>, DecisionIds) {
        let effort = Effort {
            futile_max,
            rest: Duration::from_mins(1),
        };
        let subject = ObjectRef::new("replica", "news.search-g1-0");
        (
            Loop::new(Parameters::default(), subject, effort),
            DecisionIds::starting_at(DecisionId(1)),
        )
    }

    #[test]
    fn loop_without_effect_disengages_says_so_and_tries_again_later() {
        let (mut restart, mut ids) = started(2);
        for round in 0..2 {
            let step = restart.step(&Reading::Asked, vec![], &mut ids, Time(round));
            assert!(step.action.is_some());
            let told = restart.failed("no such program", Time(round));
            let Some(JournalEntry::Observation(told)) = told else {
                panic!("an observation");
            };
            assert_eq!(told.what.contains("disengages"), round == 1);
        }
        let until = restart.resting_until().expect("rests");
        let step = restart.step(&Reading::Asked, vec![], &mut ids, Time(5));
        assert!(step.action.is_none());
        let step = restart.step(&Reading::Asked, vec![], &mut ids, until);
        assert!(step.action.is_some());
        assert!(restart.came("ready", until).is_some());
        assert!(restart.came("ready", until).is_none(), "told once");
    }

    #[test]
    fn expectation_whose_time_passed_did_not_work() {
        let (mut restart, mut ids) = started(9);
        let _ = restart.step(&Reading::Asked, vec![], &mut ids, Time(0));
        assert!(restart.expire(Time(1)).is_none());
        let by = restart.next_wake().expect("awaits");
        let Some(JournalEntry::Observation(told)) = restart.expire(by) else {
            panic!("an observation");
        };
        assert!(!told.worked && restart.next_wake().is_none());
    }
}
