//! Decides how a service gets from one generation to the next.
//!
//! In: what is wanted, how the new replicas do. Out: begin, flip, give up.
//! Holds: the old generation stays in the routes until all new replicas are
//! ready; a change that fails leaves it running. With nothing before it, a
//! failed generation is told but kept trying: there is nothing better to run.

use crate::engine::{Controller, Decided};
use kernel::{Revision, Time};
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub struct Rollout;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    pub deadline_ms: u64,
    pub crashes_max: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            deadline_ms: 30_000,
            crashes_max: 3,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// In the routes.
    pub current: Option<Revision>,
    /// Coming up.
    pub to: Option<Revision>,
    pub began: Time,
    pub crashes: u32,
    /// Given up; not tried again until another one is wanted.
    pub failed: Option<Revision>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// A restarted agent found this generation running.
    Found {
        generation: Revision,
    },
    Wanted {
        generation: Revision,
        /// Replicas of the generation coming up that are ready: with nothing
        /// before it, clients are served by them already.
        #[serde(default)]
        ready: u32,
    },
    Progress {
        ready: u32,
        wanted: u32,
    },
    Crashed {
        replica: String,
        how: String,
    },
    /// Two generations run for as long as the whole cluster's rollout says, which
    /// decides about them: see [`crate::stage`]. `current`: what a node goes back to,
    /// or on from.
    Steered {
        current: Revision,
    },
    Tick,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Keep {
        generation: Revision,
    },
    Begin {
        generation: Revision,
    },
    Flip {
        generation: Revision,
    },
    /// `stop_new`: the generation before it is still there.
    Fail {
        generation: Revision,
        why: String,
        stop_new: bool,
    },
}

impl State {
    /// When a rollout in progress is given up.
    pub fn deadline(&self, parameters: &Parameters) -> Option<Time> {
        let waits = self.to.is_some() && self.failed != self.to;
        waits.then(|| self.began + Duration::from_millis(parameters.deadline_ms))
    }
}

impl Controller for Rollout {
    const NAME: &'static str = "rollout";
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
        match reading {
            Reading::Found { generation } => {
                let next = State {
                    current: Some(*generation),
                    ..State::default()
                };
                let seen = format!("generation {generation} is running");
                let action = Action::Keep {
                    generation: *generation,
                };
                Decided::act(next, action, seen, "keep it".to_owned())
            }
            Reading::Wanted { generation, ready } => {
                wanted(parameters, state, (*generation, *ready), now)
            }
            Reading::Progress { ready, wanted } => progress(state, *ready, *wanted),
            Reading::Crashed { replica, how } => {
                let mut next = state.clone();
                next.crashes = next.crashes.saturating_add(1);
                if next.crashes < parameters.crashes_max {
                    return Decided::nothing(next);
                }
                let why = format!("{replica} ended: {how} ({} ends so far)", next.crashes);
                fail(next, why)
            }
            Reading::Steered { current } => steered(state, *current),
            Reading::Tick => match state.deadline(parameters) {
                Some(deadline) if deadline <= now => {
                    let span = Duration::from_millis(parameters.deadline_ms);
                    let span = kernel::format_duration(span);
                    fail(state.clone(), format!("not ready within {span}"))
                }
                _ => Decided::nothing(state.clone()),
            },
        }
    }
}

fn wanted(
    parameters: &Parameters,
    state: &State,
    (generation, ready): (Revision, u32),
    now: Time,
) -> Decided<State, Action> {
    if state.to == Some(generation) || state.failed == Some(generation) {
        return Decided::nothing(state.clone());
    }
    if state.current == Some(generation) {
        let mut next = state.clone();
        next.failed = None;
        if next.to.take().is_none() {
            return Decided::nothing(next);
        }
        let seen = format!("generation {generation} is wanted again");
        let action = Action::Keep { generation };
        return Decided::act(next, action, seen, "keep it, stop the newer one".to_owned());
    }
    let coming = state.to.filter(|_| ready > 0);
    let next = State {
        current: state.current.or(coming),
        to: Some(generation),
        began: now,
        crashes: 0,
        failed: None,
    };
    let seen = match next.current {
        Some(current) => format!("generation {generation} is wanted, {current} is running"),
        None => format!("generation {generation} is wanted, none is running"),
    };
    let by = now + Duration::from_millis(parameters.deadline_ms);
    Decided::act(
        next,
        Action::Begin { generation },
        seen,
        "start its replicas".to_owned(),
    )
    .expecting("all its replicas ready", by)
}

fn steered(state: &State, current: Revision) -> Decided<State, Action> {
    let next = State {
        current: Some(current),
        ..State::default()
    };
    if next.current == state.current && state.to.is_none() && state.failed.is_none() {
        return Decided::nothing(state.clone());
    }
    let seen = "a rollout goes over the whole cluster".to_owned();
    let decided = format!("keep generation {current} until it is over");
    let action = Action::Keep {
        generation: current,
    };
    Decided::act(next, action, seen, decided)
}

fn progress(state: &State, ready: u32, wanted: u32) -> Decided<State, Action> {
    let Some(generation) = state.to else {
        return Decided::nothing(state.clone());
    };
    if ready < wanted {
        return Decided::nothing(state.clone());
    }
    let next = State {
        current: Some(generation),
        ..State::default()
    };
    let seen = format!("{ready} of {wanted} replicas of generation {generation} are ready");
    let decided = match state.current {
        Some(old) => format!("put them into the routes, drain generation {old}"),
        None => "the service is up".to_owned(),
    };
    Decided::act(next, Action::Flip { generation }, seen, decided)
}

fn fail(mut next: State, why: String) -> Decided<State, Action> {
    let Some(generation) = next.to else {
        return Decided::nothing(next);
    };
    if next.failed == Some(generation) {
        return Decided::nothing(next);
    }
    next.failed = Some(generation);
    let stop_new = next.current.is_some();
    let decided = match next.current {
        Some(old) => {
            next.to = None;
            format!("give generation {generation} up, leave generation {old} running")
        }
        None => format!("generation {generation} has failed; nothing ran before it, keep trying"),
    };
    let action = Action::Fail {
        generation,
        why: why.clone(),
        stop_new,
    };
    Decided::act(next, action, why, decided)
}
