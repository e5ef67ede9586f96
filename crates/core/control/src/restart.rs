//! Decides when a replica that ended runs again.
//!
//! In: wishes, ends, a wait that is over. Out: start, or wait until.
//! Holds: the first end after a stable run is answered at once; after that the
//! wait doubles up to a limit, spread by a seeded jitter.

use crate::engine::{Controller, Decided};
use kernel::{Rng, Time, format_duration};
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub struct Restart;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    pub first_ms: u64,
    pub longest_ms: u64,
    /// A run at least this long ends a row of crashes.
    pub stable_ms: u64,
    /// Each wait is lengthened by up to this share of itself.
    pub jitter_percent: u64,
    /// How soon a started replica should be ready.
    pub ready_within_ms: u64,
    pub seed: u64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            first_ms: 100,
            longest_ms: 30_000,
            stable_ms: 10_000,
            jitter_percent: 10,
            ready_within_ms: 30_000,
            seed: 0,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Ends since the last stable run.
    pub ends: u32,
    /// When the wait in force is over.
    pub due: Option<Time>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// It should run and has never run.
    Asked,
    Ended {
        how: String,
        ran_ms: u64,
    },
    Due,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Start,
    Wait { until: Time },
}

impl Controller for Restart {
    const NAME: &'static str = "restart";
    type Parameters = Parameters;
    type State = State;
    type Reading = Reading;
    type Action = Action;

    fn decide(
        parameters: &Parameters,
        state: &State,
        reading: &Reading,
        now: Time,
    ) -> Decided<State, Action> {
        let start = |ends: u32, seen: String, decided: &str| {
            let next = State { ends, due: None };
            let by = now + Duration::from_millis(parameters.ready_within_ms);
            Decided::act(next, Action::Start, seen, decided.to_owned()).expecting("ready", by)
        };
        match reading {
            Reading::Asked => start(state.ends, "a new replica is wanted".into(), "start it"),
            Reading::Due => match state.due {
                Some(due) if due <= now => {
                    start(state.ends, "the wait is over".into(), "start it again")
                }
                _ => Decided::nothing(state.clone()),
            },
            Reading::Ended { how, ran_ms } => {
                let stable = *ran_ms >= parameters.stable_ms;
                let earlier = if stable { 0 } else { state.ends };
                let ran = format_duration(Duration::from_millis(*ran_ms));
                let seen = format!("it ended: {how}, after {ran}");
                if earlier == 0 {
                    return start(1, seen, "start it again at once");
                }
                back_off(parameters, earlier, seen, now)
            }
        }
    }
}

fn back_off(parameters: &Parameters, ends: u32, seen: String, now: Time) -> Decided<State, Action> {
    let doubled = parameters.first_ms.saturating_mul(1 << (ends - 1).min(32));
    let held = doubled.min(parameters.longest_ms);
    let spread = held.saturating_mul(parameters.jitter_percent) / 100;
    let jitter = Rng::seeded(parameters.seed ^ u64::from(ends)).below(spread.saturating_add(1));
    let wait = Duration::from_millis(held.saturating_add(jitter));
    let until = now + wait;
    let next = State {
        ends: ends.saturating_add(1),
        due: Some(until),
    };
    let decided = format!("back off: start it again in {}", format_duration(wait));
    let mut decided = Decided::act(next, Action::Wait { until }, seen, decided);
    if doubled > held {
        decided.clamps.push("the longest wait".to_owned());
    }
    decided
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(state: &State, ran_ms: u64, now: Time) -> Decided<State, Action> {
        let how = "exit code 1".to_owned();
        let reading = Reading::Ended { how, ran_ms };
        Restart::decide(&Parameters::default(), state, &reading, now)
    }

    #[test]
    fn first_restart_is_at_once_then_waits_double_up_to_the_limit() {
        let first = ended(&State::default(), 5, Time(0));
        assert_eq!(first.action, Some(Action::Start));
        let mut state = first.next_state;
        let mut last = Duration::ZERO;
        for round in 0..20 {
            let decided = ended(&state, 5, Time(0));
            let Some(Action::Wait { until }) = decided.action else {
                panic!("waits");
            };
            let wait = until.since(Time(0));
            assert!(
                round >= 9 || wait > last,
                "{round}: {wait:?} after {last:?}"
            );
            assert!(wait <= Duration::from_secs(33));
            last = wait;
            state = decided.next_state;
        }
        assert!(last >= Duration::from_secs(30));
    }

    #[test]
    fn stable_run_is_forgiven() {
        let state = State { ends: 8, due: None };
        assert_eq!(ended(&state, 60_000, Time(0)).action, Some(Action::Start));
    }
}
