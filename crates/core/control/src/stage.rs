//! Decides when a rollout over the whole cluster goes on, and when it is given up.
//!
//! In: which stage it is in, how the replicas of both generations do and what they
//! answered. Out: switch, finish, abort.
//! Holds: what is paused does not go on by itself, but a new generation that does harm
//! is given up all the same; spans count from when this loop first saw the stage, so
//! that no clock but its own matters, and another leader's loop begins them anew.
//! Never: gives up what has taken over for good.

use crate::engine::{Controller, Decided};
use kernel::{Revision, Time, format_duration};
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub struct Stages;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    pub plan: Plan,
    /// For all of the new replicas to be ready.
    pub deadline_ms: u64,
    pub restarts_max: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    /// So many at a time.
    Batches,
    Canary {
        /// None: a person says when.
        good_for_ms: Option<u64>,
        /// Above the old one's, 0 to 1.
        max_error_rate: f64,
        /// Above the old one's 99th percentile.
        max_latency_ms: Option<f64>,
        min_requests: u64,
    },
    BlueGreen {
        keep_ms: u64,
    },
}

impl Parameters {
    pub fn of(plan: Plan) -> Self {
        Self {
            plan,
            deadline_ms: 60_000,
            restarts_max: 3,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// New replicas take the places of old ones, a batch at a time.
    Rolling,
    /// A few new replicas take requests beside all old ones.
    Canary,
    /// All new replicas come up beside the old ones, which take all requests.
    Coming,
    /// The new ones take all requests; the old ones are still there.
    Switched,
}

/// How far a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// The new one.
    pub generation: Revision,
    pub stage: Stage,
    /// Of [`Stage::Rolling`], the batches before this one.
    #[serde(default)]
    pub batches: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub at: Option<At>,
    pub entered: Time,
    /// Since when all new replicas are ready.
    pub good_since: Option<Time>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    pub at: At,
    /// New replicas of the batches after this one.
    #[serde(default)]
    pub to_come: u32,
    pub paused: bool,
    pub old: Side,
    pub new: Side,
}

/// One generation on all nodes together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Side {
    pub wanted: u32,
    pub ready: u32,
    /// Of the replica that was restarted most.
    pub restarts: u32,
    /// Since the stage is looked at.
    pub requests: u64,
    pub errors: u64,
    pub latency_p99_ms: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The next batch.
    Step,
    Switch,
    Finish,
    Abort,
}

impl Side {
    fn is_ready(&self) -> bool {
        self.ready >= self.wanted
    }

    #[expect(clippy::cast_precision_loss, reason = "a share")]
    fn error_rate(&self) -> f64 {
        self.errors as f64 / self.requests.max(1) as f64
    }
}

impl Controller for Stages {
    const NAME: &'static str = "stages";
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
        let at = Some(reading.at);
        let mut next = if state.at == at {
            state.clone()
        } else {
            State {
                at,
                entered: now,
                good_since: None,
            }
        };
        next.good_since = if reading.new.is_ready() {
            next.good_since.or(Some(now))
        } else {
            None
        };
        if let Some(why) = harm(parameters, &next, reading, now) {
            let decided = format!("abort: give generation {} up", reading.at.generation);
            return Decided::act(next, Action::Abort, why, decided);
        }
        if reading.paused {
            return Decided::nothing(next);
        }
        go_on(parameters, next, reading, now)
    }
}

/// Why the new generation must go.
fn harm(parameters: &Parameters, state: &State, reading: &Reading, now: Time) -> Option<String> {
    let Reading { new, old, .. } = reading;
    if new.restarts >= parameters.restarts_max {
        let times = new.restarts;
        return Some(format!("a new replica ended {times} times"));
    }
    let deadline = Duration::from_millis(parameters.deadline_ms);
    let is_late = now.since(state.entered) >= deadline;
    if reading.at.stage != Stage::Switched && state.good_since.is_none() && is_late {
        let (ready, wanted, span) = (new.ready, new.wanted, format_duration(deadline));
        return Some(format!(
            "{ready} of {wanted} new replicas are ready after {span}"
        ));
    }
    let Plan::Canary {
        max_error_rate,
        max_latency_ms,
        min_requests,
        ..
    } = parameters.plan
    else {
        return None;
    };
    if new.requests < min_requests {
        return None;
    }
    let (errs, erred) = (new.error_rate(), old.error_rate());
    if errs > erred + max_error_rate {
        return Some(format!(
            "{:.1}% of {} requests failed at the new generation, {:.1}% of {} at the old one; \
             {:.1}% more are allowed",
            errs * 100.0,
            new.requests,
            erred * 100.0,
            old.requests,
            max_error_rate * 100.0,
        ));
    }
    let (max, took, before) = (max_latency_ms?, new.latency_p99_ms?, old.latency_p99_ms?);
    (took > before + max).then(|| {
        format!(
            "the 99th percentile is {took:.1} ms at the new generation, {before:.1} ms at the \
             old one; {max:.1} ms more are allowed"
        )
    })
}

fn go_on(
    parameters: &Parameters,
    next: State,
    reading: &Reading,
    now: Time,
) -> Decided<State, Action> {
    let generation = reading.at.generation;
    let passed = |since: Time, ms: u64| now.since(since) >= Duration::from_millis(ms);
    let text = |ms: u64| format_duration(Duration::from_millis(ms));
    match (&parameters.plan, reading.at.stage, next.good_since) {
        (
            Plan::Canary {
                good_for_ms: Some(ms),
                ..
            },
            Stage::Canary,
            Some(since),
        ) if passed(since, *ms) => {
            let Side {
                requests, errors, ..
            } = reading.new;
            let seen = format!(
                "the canary was good for {}: {errors} of {requests} requests failed",
                text(*ms)
            );
            let decided = format!("promote generation {generation}");
            Decided::act(next, Action::Finish, seen, decided)
        }
        (_, Stage::Rolling, Some(_)) => {
            let (wanted, left) = (reading.new.wanted, reading.to_come);
            let seen = format!(
                "{wanted} replicas of generation {generation} are ready, {left} are to come"
            );
            let (action, decided) = match left {
                0 => (
                    Action::Finish,
                    format!("finish: generation {generation} stays"),
                ),
                _ => (
                    Action::Step,
                    "the next ones take the places of old ones".to_owned(),
                ),
            };
            Decided::act(next, action, seen, decided)
        }
        (_, Stage::Coming, Some(_)) => {
            let wanted = reading.new.wanted;
            let seen = format!("all {wanted} replicas of generation {generation} are ready");
            let decided = "switch all requests to them, keep the old ones".to_owned();
            Decided::act(next, Action::Switch, seen, decided)
        }
        (Plan::BlueGreen { keep_ms }, Stage::Switched, _) if passed(next.entered, *keep_ms) => {
            let seen = format!("the old ones were kept for {}", text(*keep_ms));
            let decided = format!("finish: generation {generation} stays, the old one goes");
            Decided::act(next, Action::Finish, seen, decided)
        }
        _ => Decided::nothing(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canary(good_for_ms: Option<u64>) -> Parameters {
        Parameters::of(Plan::Canary {
            good_for_ms,
            max_error_rate: 0.05,
            max_latency_ms: Some(50.0),
            min_requests: 50,
        })
    }

    fn seconds(count: u64) -> Time {
        Time(count * 1_000_000_000)
    }

    fn side(ready: u32, requests: u64, errors: u64, p99: f64) -> Side {
        Side {
            wanted: 1,
            ready,
            restarts: 0,
            requests,
            errors,
            latency_p99_ms: Some(p99),
        }
    }

    fn reading(stage: Stage, old: Side, new: Side) -> Reading {
        Reading {
            at: At {
                generation: Revision(2),
                stage,
                batches: 0,
            },
            to_come: 0,
            paused: false,
            old,
            new,
        }
    }

    /// What was done at each second, one reading a second.
    fn play(parameters: &Parameters, readings: &[Reading]) -> Vec<Option<Action>> {
        let mut state = State::default();
        let each = readings.iter().zip(0..).map(|(reading, second)| {
            let decided = Stages::decide(parameters, &state, reading, seconds(second));
            state = decided.next_state;
            decided.action
        });
        each.collect()
    }

    #[test]
    fn canary_that_is_good_for_long_enough_is_promoted() {
        let fine = reading(Stage::Canary, side(1, 400, 0, 10.0), side(1, 100, 1, 10.0));
        let done = play(&canary(Some(3_000)), &vec![fine.clone(); 4]);
        assert_eq!(done, [None, None, None, Some(Action::Finish)]);
        assert_eq!(play(&canary(None), &vec![fine.clone(); 100]), [None; 100]);
        let paused = Reading {
            paused: true,
            ..fine
        };
        assert_eq!(play(&canary(Some(3_000)), &vec![paused; 9]), [None; 9]);
    }

    #[test]
    fn canary_that_is_worse_is_given_up_also_while_paused() {
        for paused in [false, true] {
            let bad = Reading {
                paused,
                ..reading(Stage::Canary, side(1, 400, 0, 10.0), side(1, 50, 3, 10.0))
            };
            assert_eq!(play(&canary(None), &[bad]), [Some(Action::Abort)]);
        }
        let slow = reading(Stage::Canary, side(1, 400, 0, 10.0), side(1, 50, 0, 61.0));
        assert_eq!(play(&canary(None), &[slow]), [Some(Action::Abort)]);
        let few = reading(Stage::Canary, side(1, 400, 0, 10.0), side(1, 49, 49, 900.0));
        assert_eq!(play(&canary(None), &[few]), [None], "too few to tell");
        let both = reading(
            Stage::Canary,
            side(1, 400, 200, 10.0),
            side(1, 90, 45, 10.0),
        );
        assert_eq!(
            play(&canary(None), &[both]),
            [None],
            "the old one fails alike"
        );
    }

    #[test]
    fn what_does_not_come_up_is_given_up() {
        let down = reading(Stage::Coming, side(1, 0, 0, 1.0), side(0, 0, 0, 1.0));
        let plan = Parameters::of(Plan::BlueGreen { keep_ms: 2_000 });
        let done = play(&plan, &vec![down.clone(); 61]);
        assert_eq!(done[..60], [None; 60]);
        assert_eq!(done[60], Some(Action::Abort));
        let mut crashed = down;
        crashed.new.restarts = 3;
        assert_eq!(play(&plan, &[crashed]), [Some(Action::Abort)]);
    }

    #[test]
    fn batches_follow_each_other_and_each_has_its_own_time() {
        let plan = Parameters::of(Plan::Batches);
        let at = |batches, ready, to_come| {
            let mut told = reading(Stage::Rolling, side(1, 0, 0, 1.0), side(ready, 0, 0, 1.0));
            told.at.batches = batches;
            told.to_come = to_come;
            told
        };
        let told = [
            at(0, 0, 2),
            at(0, 1, 2),
            at(1, 0, 1),
            at(1, 1, 1),
            at(2, 1, 0),
        ];
        let step = Some(Action::Step);
        let expected = [None, step, None, step, Some(Action::Finish)];
        assert_eq!(play(&plan, &told), expected);
        let held = Reading {
            paused: true,
            ..at(0, 1, 2)
        };
        assert_eq!(play(&plan, &vec![held; 90]), [None; 90]);
        // The second one does not come up, however long the first one took.
        let late = [vec![at(0, 0, 1); 50], vec![at(1, 0, 0); 61]].concat();
        let done = play(&plan, &late);
        assert_eq!(done[..110], [None; 110]);
        assert_eq!(done[110], Some(Action::Abort));
    }

    #[test]
    fn blue_green_switches_when_all_are_ready_and_keeps_the_old_for_a_while() {
        let plan = Parameters::of(Plan::BlueGreen { keep_ms: 2_000 });
        let at = |stage, ready| reading(stage, side(1, 0, 0, 1.0), side(ready, 0, 0, 1.0));
        let told = [
            at(Stage::Coming, 0),
            at(Stage::Coming, 1),
            at(Stage::Switched, 1),
            at(Stage::Switched, 1),
            at(Stage::Switched, 1),
        ];
        let done = play(&plan, &told);
        let expected = [None, Some(Action::Switch), None, None, Some(Action::Finish)];
        assert_eq!(done, expected);
    }
}
