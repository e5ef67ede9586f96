//! Decides when somebody is told that something holds, or changed.
//!
//! In: answers to the alert's question, each a value or none; the ends of
//! deliveries. Out: notices to deliver.
//! Holds: what was delivered last and what is so by now are compared, so that
//! a notice that was lost, or an agent that was restarted, delays a notice and
//! never loses the last one; one is under way at a time; of what came and went
//! while deliveries failed, only how it is now is told; what is not known
//! changes nothing.

use crate::engine::{Controller, Decided};
use kernel::{Time, format_duration};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const DOUBLINGS_MAX: u32 = 16;

pub struct Alert;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    pub condition: Condition,
    /// After the first delivery that failed; then it doubles …
    pub retry_first_ms: u64,
    /// … up to this.
    pub retry_longest_ms: u64,
    pub deliver_within_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// The value is true, or a number other than 0, for so long; it is over
    /// once it is not for as long.
    Holds { for_ms: u64 },
    /// The value is another one than was told last.
    Changes,
}

/// How things stand, as told, or to be told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Nothing holds, or nothing is known yet.
    #[default]
    Quiet,
    Firing,
    Is(serde_json::Value),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// What was delivered last.
    pub told: Standing,
    /// Whether it holds, and since when; of the newest answer that said so.
    pub seen: Option<Seen>,
    /// Under way.
    pub sending: Option<Standing>,
    pub failed: Option<Failed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    pub holds: bool,
    pub since: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    pub times: u32,
    pub rests_until: Time,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// `None`: nobody answered, or nothing could be said.
    Answered {
        value: Option<serde_json::Value>,
    },
    Delivered,
    DeliveryFailed {
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Notify {
    pub standing: Standing,
}

impl Controller for Alert {
    const NAME: &'static str = "alert";
    type Parameters = Parameters;
    type State = State;
    type Reading = Reading;
    type Action = Notify;

    fn decide(
        parameters: &Parameters,
        state: &State,
        reading: &Reading,
        now: Time,
    ) -> Decided<State, Notify> {
        let mut next = state.clone();
        match reading {
            Reading::Delivered => {
                if let Some(sent) = next.sending.take() {
                    next.told = sent;
                }
                next.failed = None;
                Decided::nothing(next)
            }
            Reading::DeliveryFailed { .. } => {
                next.sending = None;
                let times = state.failed.map_or(0, |failed| failed.times);
                next.failed = Some(Failed {
                    times: times.saturating_add(1),
                    rests_until: now + rest(parameters, times),
                });
                Decided::nothing(next)
            }
            Reading::Answered { value } => answered(parameters, next, value.as_ref(), now),
        }
    }
}

fn rest(parameters: &Parameters, failures: u32) -> Duration {
    let doublings = 1 << failures.min(DOUBLINGS_MAX);
    let doubled = parameters.retry_first_ms.saturating_mul(doublings);
    Duration::from_millis(doubled.min(parameters.retry_longest_ms))
}

fn answered(
    parameters: &Parameters,
    mut next: State,
    value: Option<&serde_json::Value>,
    now: Time,
) -> Decided<State, Notify> {
    let known = value.filter(|value| !value.is_null());
    let wanted = match parameters.condition {
        Condition::Changes => known.map(|value| Standing::Is(value.clone())),
        Condition::Holds { for_ms } => holds(&mut next, known, for_ms, now),
    };
    let Some(wanted) = wanted.filter(|wanted| *wanted != next.told) else {
        return Decided::nothing(next);
    };
    if matches!(wanted, Standing::Is(_)) && next.told == Standing::Quiet {
        // The first value is what later ones differ from.
        next.told = wanted;
        return Decided::nothing(next);
    }
    let rests = next.failed.is_some_and(|failed| now < failed.rests_until);
    if rests || next.sending.is_some() {
        return Decided::nothing(next);
    }
    let seen = sentence(&next, &wanted, now);
    let decided = match next.failed {
        Some(failed) => format!("tell it; {} deliveries failed before", failed.times),
        None => "tell it".to_owned(),
    };
    next.sending = Some(wanted.clone());
    let by = now + Duration::from_millis(parameters.deliver_within_ms);
    Decided::act(next, Notify { standing: wanted }, seen, decided).expecting("delivered", by)
}

/// How it stands once it was so for long enough.
fn holds(
    next: &mut State,
    value: Option<&serde_json::Value>,
    for_ms: u64,
    now: Time,
) -> Option<Standing> {
    let holds = is_true(value?);
    let Some(holds) = holds else {
        next.seen = None;
        return None;
    };
    let seen = next.seen.filter(|seen| seen.holds == holds);
    let seen = seen.unwrap_or(Seen { holds, since: now });
    next.seen = Some(seen);
    let is_long = now.since(seen.since) >= Duration::from_millis(for_ms);
    let standing = if holds {
        Standing::Firing
    } else {
        Standing::Quiet
    };
    is_long.then_some(standing)
}

/// Of what is neither true nor false, nothing.
fn is_true(value: &serde_json::Value) -> Option<bool> {
    match value {
        serde_json::Value::Bool(truth) => Some(*truth),
        serde_json::Value::Number(number) => number.as_f64().map(|number| number != 0.0),
        _ => None,
    }
}

fn sentence(state: &State, wanted: &Standing, now: Time) -> String {
    let long = state.seen.map(|seen| now.since(seen.since));
    let long = format_duration(long.unwrap_or_default());
    match wanted {
        Standing::Firing => format!("it holds for {long}"),
        Standing::Quiet => format!("it does not hold for {long}"),
        Standing::Is(value) => format!("it is {value} now"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const SECOND: Duration = Duration::from_secs(1);

    fn parameters(condition: Condition) -> Parameters {
        Parameters {
            condition,
            retry_first_ms: 1_000,
            retry_longest_ms: 60_000,
            deliver_within_ms: 10_000,
        }
    }

    struct World {
        parameters: Parameters,
        state: State,
        now: Time,
    }

    impl World {
        fn new(condition: Condition) -> Self {
            Self {
                parameters: parameters(condition),
                state: State::default(),
                now: Time(0),
            }
        }

        fn read(&mut self, reading: &Reading) -> Option<Standing> {
            let decided = Alert::decide(&self.parameters, &self.state, reading, self.now);
            self.state = decided.next_state;
            decided.action.map(|action| action.standing)
        }

        /// A second later.
        fn answer(&mut self, value: Value) -> Option<Standing> {
            self.now = self.now + SECOND;
            self.read(&Reading::Answered { value: Some(value) })
        }
    }

    #[test]
    fn what_holds_is_told_after_its_time_and_so_is_its_end() {
        let mut world = World::new(Condition::Holds { for_ms: 3_000 });
        let holds = [true, false, true, true, true];
        assert!(holds.iter().all(|it| world.answer(json!(it)).is_none()));
        assert_eq!(world.answer(json!(true)), Some(Standing::Firing));
        assert_eq!(world.answer(json!(1)), None, "it is under way");
        assert_eq!(world.read(&Reading::Delivered), None);
        let over = [false, true, false, false, false];
        assert!(over.iter().all(|it| world.answer(json!(it)).is_none()));
        assert_eq!(world.answer(json!(0.0)), Some(Standing::Quiet));
    }

    #[test]
    fn what_is_not_known_changes_nothing_and_begins_the_wait_anew() {
        let mut world = World::new(Condition::Holds { for_ms: 2_000 });
        for _ in 0..3 {
            assert_eq!(world.answer(json!(true)), None);
            assert_eq!(world.answer(json!(true)), None);
            assert_eq!(world.answer(json!("what")), None);
        }
        world.answer(json!(true));
        world.answer(json!(true));
        assert_eq!(world.answer(json!(true)), Some(Standing::Firing));
        world.read(&Reading::Delivered);
        for _ in 0..9 {
            assert_eq!(world.answer(Value::Null), None);
            assert_eq!(world.read(&Reading::Answered { value: None }), None);
        }
        assert_eq!(world.state.told, Standing::Firing);
    }

    #[test]
    fn changes_are_told_from_the_second_value_on() {
        let mut world = World::new(Condition::Changes);
        assert_eq!(world.answer(json!("a")), None);
        assert_eq!(world.answer(json!("a")), None);
        assert_eq!(world.answer(json!("b")), Some(Standing::Is(json!("b"))));
        assert_eq!(world.answer(json!("c")), None, "one at a time");
        world.read(&Reading::Delivered);
        assert_eq!(world.answer(json!("c")), Some(Standing::Is(json!("c"))));
    }

    #[test]
    fn failed_deliveries_wait_longer_and_longer_and_tell_how_it_is_by_then() {
        let mut world = World::new(Condition::Holds { for_ms: 0 });
        let why = "refused".to_owned();
        let failed = Reading::DeliveryFailed { why };
        let mut tries = Vec::new();
        for second in 0..40 {
            if world.answer(json!(true)).is_some() {
                tries.push(second);
                world.read(&failed);
            }
        }
        assert_eq!(tries, [0, 1, 3, 7, 15, 31]);
        while world
            .state
            .failed
            .is_some_and(|it| world.now < it.rests_until)
        {
            assert_eq!(world.answer(json!(false)), None);
        }
        assert_eq!(world.answer(json!(false)), None, "as was told");
    }

    proptest! {
        /// However deliveries end, the last thing delivered is what holds,
        /// once it has held for long enough.
        #[test]
        fn who_listens_knows_in_the_end(
            steps in prop::collection::vec((any::<bool>(), any::<bool>()), 0..200),
            last: bool,
        ) {
            let mut world = World::new(Condition::Holds { for_ms: 2_000 });
            let mut heard = Standing::Quiet;
            let calm = std::iter::repeat_n((last, true), 90);
            for (holds, works) in steps.into_iter().chain(calm) {
                let Some(told) = world.answer(json!(holds)) else {
                    continue;
                };
                prop_assert_ne!(&told, &heard, "nothing is told twice");
                if works {
                    heard = told;
                    world.read(&Reading::Delivered);
                } else {
                    world.read(&Reading::DeliveryFailed { why: String::new() });
                }
            }
            prop_assert_eq!(heard == Standing::Firing, last);
        }
    }
}
