//! Decides whether a replica is in the routes, and whether it must be restarted.
//!
//! In: its start and end, probes' answers, the edge's evidence. Out: in, out,
//! restart.
//! Holds: nothing enters the routes before its startup probe has succeeded;
//! evidence from the edge takes it out at once, until the next good probe. Where
//! the probe says again and again that it is well, and the edge that it is not
//! while others are, the probe is believed later each time, and once it is
//! restarted.

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

/// From the second time on that a probe was wrong, the replica stays out for so
/// long, twice as long each time.
const OUT_FIRST: Duration = Duration::from_secs(2);
const OUT_MAX: Duration = Duration::from_secs(32);
/// A probe that was wrong so often has the replica restarted.
const WRONG_MAX: u32 = 4;
/// After so long in the routes, a probe was never wrong.
const FORGOTTEN: Duration = Duration::from_mins(1);

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
    /// Whether, and how often, probes were good while the edge could not use it
    /// and could use others.
    #[serde(default)]
    pub wrong: Wrong,
    pub startup: Streak,
    pub readiness: Streak,
    pub liveness: Streak,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrong {
    pub times: u32,
    /// No probe brings it back before.
    pub out_until: Time,
    /// When it came into the routes last.
    pub back: Time,
    /// It was restarted for this.
    pub restarted: bool,
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
        /// The edge has had good answers from other replicas meanwhile.
        #[serde(default)]
        others_answer: bool,
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
                    wrong: state.wrong,
                    ..State::default()
                };
                if next.startup_done && parameters.readiness.is_none() {
                    return enter(next, "it started, and has no probe to wait for".into(), now);
                }
                Decided::nothing(next)
            }
            Reading::Adopted => {
                next.running = true;
                next.startup_done = true;
                enter(
                    next,
                    "it was found running, in the routes before".into(),
                    now,
                )
            }
            Reading::Ended => {
                let seen = "it ended".to_owned();
                if state.ready {
                    return Decided::act(state.ended(), Action::Out, seen, out_text());
                }
                Decided::nothing(state.ended())
            }
            Reading::EdgeFailed { why, others_answer } => {
                on_evidence(parameters, next, why, *others_answer, now)
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
                    Kind::Readiness => on_readiness(parameters, next, *healthy, seen, now),
                    Kind::Liveness => on_liveness(parameters, next, *healthy, seen, now),
                }
            }
        }
    }
}

impl State {
    /// Its next start begins afresh; that its probe was wrong is not forgotten.
    fn ended(&self) -> Self {
        Self {
            wrong: self.wrong,
            ..Self::default()
        }
    }
}

fn on_evidence(
    parameters: &Parameters,
    mut next: State,
    why: &str,
    others_answer: bool,
    now: Time,
) -> Decided<State, Action> {
    next.ejected = true;
    next.readiness.good = 0;
    let seen = format!("the edge could not use it: {why}");
    if !next.ready || !others_answer {
        return leave(next, seen);
    }
    if now.since(next.wrong.back) >= FORGOTTEN {
        next.wrong = Wrong::default();
    }
    next.wrong.times = next.wrong.times.saturating_add(1);
    let times = next.wrong.times;
    if times < 2 {
        return leave(next, seen);
    }
    let doubled = 2_u32.saturating_pow(times - 2);
    let out = OUT_FIRST.saturating_mul(doubled).min(OUT_MAX);
    next.wrong.out_until = now + out;
    let seen = seen + &format!(", {times} times, and its probe says that it is well");
    if times >= WRONG_MAX && !next.wrong.restarted {
        next.wrong.restarted = true;
        next.wrong.out_until = Time(0);
        return restart(parameters, &next, seen, now);
    }
    leave(next, seen)
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
        let times = next.startup.bad;
        return restart(parameters, &next, in_a_row(seen, times), now);
    }
    if next.startup.good >= limits.successes.max(1) {
        next.startup_done = true;
        if parameters.readiness.is_none() {
            return enter(next, seen, now);
        }
    }
    Decided::nothing(next)
}

fn on_readiness(
    parameters: &Parameters,
    mut next: State,
    healthy: bool,
    seen: String,
    now: Time,
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
        if now < next.wrong.out_until {
            return Decided::nothing(next);
        }
        return enter(next, seen, now);
    }
    if next.readiness.bad >= limits.failures.max(1) {
        let times = next.readiness.bad;
        return leave(next, in_a_row(seen, times));
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
        let times = next.liveness.bad;
        return restart(parameters, &next, in_a_row(seen, times), now);
    }
    Decided::nothing(next)
}

fn enter(mut next: State, seen: String, now: Time) -> Decided<State, Action> {
    next.ejected = false;
    if std::mem::replace(&mut next.ready, true) {
        return Decided::nothing(next);
    }
    next.wrong.back = now;
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
    let decided = "take it out of the routes and end it, so that it starts again".to_owned();
    // Until its next start nothing more is decided.
    Decided::act(failed.ended(), Action::Restart, seen, decided).expecting("ended", by)
}

fn in_a_row(seen: String, times: u32) -> String {
    seen + &format!(", {times} times in a row")
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
            Reading::EdgeFailed {
                why,
                others_answer: false,
            },
            good(),
        ];
        let (into, out) = (Some(Action::In), Some(Action::Out));
        assert_eq!(run(&parameters, &readings), [None, None, into, out, into]);
    }

    /// A probe each second, and the edge's evidence half a second after each time
    /// that it came back; when it went out and came back, seconds.
    fn lied(others_answer: bool, seconds: u64) -> Vec<(u64, Action)> {
        let parameters = Parameters {
            readiness: TWICE,
            ..Parameters::default()
        };
        let mut state = State::default();
        let mut acts = Vec::new();
        let mut tell = |reading: Reading, now: Time| {
            let decided = Readiness::decide(&parameters, &state, &reading, now);
            state = decided.next_state;
            acts.extend(decided.action.map(|act| (now.0 / 1_000_000_000, act)));
            if decided.action == Some(Action::Restart) {
                let decided = Readiness::decide(&parameters, &state, &Reading::Started, now);
                state = decided.next_state;
            }
            state.ready
        };
        tell(Reading::Started, Time(0));
        for second in 0..seconds {
            let now = Time(0) + Duration::from_secs(second);
            if tell(probed(Kind::Readiness, true), now) {
                let why = "five answers in a row were errors".to_owned();
                let evidence = Reading::EdgeFailed { why, others_answer };
                tell(evidence, now + Duration::from_millis(500));
            }
        }
        acts
    }

    #[test]
    fn a_probe_that_lies_is_believed_later_each_time_and_the_replica_restarted_once() {
        use Action::{In, Out, Restart};
        let acts = lied(true, 80);
        let expected = [
            (1, In),
            (1, Out),
            (2, In),
            (2, Out),
            (5, In),
            (5, Out),
            (10, In),
            (10, Restart),
            // Two good probes after its start.
            (12, In),
            (12, Out),
            (29, In),
            (29, Out),
            (62, In),
            (62, Out),
        ];
        assert_eq!(acts, expected);
        // Where no other answers, it is better than nothing.
        let acts = lied(false, 20);
        assert_eq!(acts.iter().filter(|(_, act)| *act == In).count(), 19);
        assert!(acts.iter().all(|(_, act)| *act != Restart), "{acts:?}");
    }

    #[test]
    fn a_probe_that_was_wrong_long_ago_was_not() {
        let parameters = Parameters::default();
        let evidence = Reading::EdgeFailed {
            why: "refused".to_owned(),
            others_answer: true,
        };
        let mut state = State {
            running: true,
            startup_done: true,
            ready: true,
            ..State::default()
        };
        for minute in 1..6 {
            let now = Time(0) + Duration::from_secs(61 * minute);
            let decided = Readiness::decide(&parameters, &state, &evidence, now);
            assert_eq!(decided.action, Some(Action::Out));
            let good = probed(Kind::Readiness, true);
            let decided = Readiness::decide(&parameters, &decided.next_state, &good, now);
            assert_eq!(decided.action, Some(Action::In), "minute {minute}");
            state = decided.next_state;
        }
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
