//! Decides whether a replica is in the routes, and whether it must be restarted.
//!
//! In: its start and end, probes' answers, the edge's evidence. Out: in, out,
//! restart.
//! Holds: nothing enters the routes before its startup probe has succeeded;
//! evidence from the edge takes it out at once, until the next good probe.

use crate::engine::{Controller, Decided};
use kernel::Time;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The manifest's probes; this crate does not know the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Startup,
    Readiness,
    Liveness,
}

pub struct Readiness;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thresholds {
    pub failures: u32,
    pub successes: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    pub startup: Option<Thresholds>,
    pub readiness: Option<Thresholds>,
    pub liveness: Option<Thresholds>,
    /// How long a replica told to end may take.
    pub end_within_ms: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, recorded by name"
)]
pub struct State {
    pub running: bool,
    /// The startup probe has succeeded, or there is none.
    pub startup_done: bool,
    pub ready: bool,
    /// Taken out on the edge's evidence: one good probe brings it back.
    pub ejected: bool,
    pub startup: Streak,
    pub readiness: Streak,
    pub liveness: Streak,
}

/// Answers of one kind in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streak {
    pub good: u32,
    pub bad: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    Started,
    /// Found running and in service by a restarted agent.
    Adopted,
    Ended,
    Probed {
        kind: Kind,
        healthy: bool,
        detail: String,
    },
    EdgeFailed {
        why: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    In,
    Out,
    Restart,
}

impl Streak {
    fn add(&mut self, healthy: bool) {
        *self = if healthy {
            Self {
                good: self.good.saturating_add(1),
                bad: 0,
            }
        } else {
            Self {
                good: 0,
                bad: self.bad.saturating_add(1),
            }
        };
    }
}

impl Controller for Readiness {
    const NAME: &'static str = "readiness";
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
        let mut next = state.clone();
        match reading {
            Reading::Started => {
                next = State {
                    running: true,
                    startup_done: parameters.startup.is_none(),
                    ..State::default()
                };
                if next.startup_done && parameters.readiness.is_none() {
                    return enter(next, "it started, and has no probe to wait for".into());
                }
                Decided::nothing(next)
            }
            Reading::Adopted => {
                next.running = true;
                next.startup_done = true;
                enter(next, "it was found running, in the routes before".into())
            }
            Reading::Ended => {
                let seen = "it ended".to_owned();
                if state.ready {
                    return Decided::act(State::default(), Action::Out, seen, out_text());
                }
                Decided::nothing(State::default())
            }
            Reading::EdgeFailed { why } => {
                next.ejected = true;
                next.readiness.good = 0;
                leave(next, format!("the edge could not use it: {why}"))
            }
            Reading::Probed { .. } if !state.running => Decided::nothing(next),
            Reading::Probed {
                kind,
                healthy,
                detail,
            } => {
                let seen = format!("{} probe: {detail}", word(*kind));
                match kind {
                    Kind::Startup => on_startup(parameters, next, *healthy, seen, now),
                    Kind::Readiness => on_readiness(parameters, next, *healthy, seen),
                    Kind::Liveness => on_liveness(parameters, next, *healthy, seen, now),
                }
            }
        }
    }
}

fn on_startup(
    parameters: &Parameters,
    mut next: State,
    healthy: bool,
    seen: String,
    now: Time,
) -> Decided<State, Action> {
    let Some(limits) = parameters.startup else {
        return Decided::nothing(next);
    };
    if next.startup_done {
        return Decided::nothing(next);
    }
    next.startup.add(healthy);
    if next.startup.bad >= limits.failures.max(1) {
        return restart(parameters, &next, seen, now);
    }
    if next.startup.good >= limits.successes.max(1) {
        next.startup_done = true;
        if parameters.readiness.is_none() {
            return enter(next, seen);
        }
    }
    Decided::nothing(next)
}

fn on_readiness(
    parameters: &Parameters,
    mut next: State,
    healthy: bool,
    seen: String,
) -> Decided<State, Action> {
    // Without a probe of its own, a good answer only ends an ejection.
    let limits = parameters.readiness.unwrap_or(Thresholds {
        failures: u32::MAX,
        successes: 1,
    });
    if !next.startup_done {
        return Decided::nothing(next);
    }
    next.readiness.add(healthy);
    let back = next.ejected && healthy;
    if back || next.readiness.good >= limits.successes.max(1) {
        return enter(next, seen);
    }
    if next.readiness.bad >= limits.failures.max(1) {
        let times = next.readiness.bad;
        return leave(next, format!("{seen}, {times} times in a row"));
    }
    Decided::nothing(next)
}

fn on_liveness(
    parameters: &Parameters,
    mut next: State,
    healthy: bool,
    seen: String,
    now: Time,
) -> Decided<State, Action> {
    let Some(limits) = parameters.liveness else {
        return Decided::nothing(next);
    };
    if !next.startup_done {
        return Decided::nothing(next);
    }
    next.liveness.add(healthy);
    if next.liveness.bad >= limits.failures.max(1) {
        return restart(parameters, &next, seen, now);
    }
    Decided::nothing(next)
}

fn enter(mut next: State, seen: String) -> Decided<State, Action> {
    next.ejected = false;
    if std::mem::replace(&mut next.ready, true) {
        return Decided::nothing(next);
    }
    Decided::act(next, Action::In, seen, "put it into the routes".to_owned())
}

fn leave(mut next: State, seen: String) -> Decided<State, Action> {
    if !std::mem::replace(&mut next.ready, false) {
        return Decided::nothing(next);
    }
    Decided::act(next, Action::Out, seen, out_text())
}

fn restart(
    parameters: &Parameters,
    failed: &State,
    seen: String,
    now: Time,
) -> Decided<State, Action> {
    let by = now + Duration::from_millis(parameters.end_within_ms);
    let bad = failed.startup.bad.max(failed.liveness.bad);
    // Its next start begins afresh; until then nothing more is decided.
    let next = State::default();
    let seen = seen + &format!(", {bad} times in a row");
    let decided = "take it out of the routes and end it, so that it starts again".to_owned();
    Decided::act(next, Action::Restart, seen, decided).expecting("ended", by)
}

fn out_text() -> String {
    "take it out of the routes".to_owned()
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Startup => "startup",
        Kind::Readiness => "readiness",
        Kind::Liveness => "liveness",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWICE: Option<Thresholds> = Some(Thresholds {
        failures: 2,
        successes: 2,
    });

    fn run(parameters: &Parameters, readings: &[Reading]) -> Vec<Option<Action>> {
        let mut state = State::default();
        let turn = |reading| {
            let decided = Readiness::decide(parameters, &state, reading, Time(0));
            state = decided.next_state;
            decided.action
        };
        readings.iter().map(turn).collect()
    }

    fn probed(kind: Kind, healthy: bool) -> Reading {
        let detail = "answer".to_owned();
        Reading::Probed {
            kind,
            healthy,
            detail,
        }
    }

    #[test]
    fn edge_evidence_takes_it_out_until_one_good_probe() {
        let parameters = Parameters {
            readiness: TWICE,
            ..Parameters::default()
        };
        let good = || probed(Kind::Readiness, true);
        let why = "refused".to_owned();
        let readings = [
            Reading::Started,
            good(),
            good(),
            Reading::EdgeFailed { why },
            good(),
        ];
        let (into, out) = (Some(Action::In), Some(Action::Out));
        assert_eq!(run(&parameters, &readings), [None, None, into, out, into]);
    }

    #[test]
    fn failing_liveness_restarts_once_startup_has_passed() {
        let parameters = Parameters {
            startup: TWICE,
            liveness: TWICE,
            ..Parameters::default()
        };
        let bad = || probed(Kind::Liveness, false);
        let good = || probed(Kind::Startup, true);
        let readings = [Reading::Started, bad(), bad(), good(), good(), bad(), bad()];
        let (into, again) = (Some(Action::In), Some(Action::Restart));
        let expected = [None, None, None, None, into, None, again];
        assert_eq!(run(&parameters, &readings), expected);
    }
}
