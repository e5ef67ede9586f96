//! Decides again what a record says was decided, and compares bit for bit.

use crate::engine::{Controller, json};
use crate::{alert, holding, job, readiness, repair, restart, rollout, singleton, stage, upgrade};
use wire::decision::Decision;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayMismatch {
    #[error("no loop is called `{0}` here")]
    UnknownLoop(String),
    #[error("the record's `{field}` cannot be read")]
    Unreadable {
        field: &'static str,
        source: serde_json::Error,
    },
    #[error("`{field}` differs: recorded {recorded}, decided again {again}")]
    Differs {
        field: &'static str,
        recorded: String,
        again: String,
    },
}

/// Replays a record of any loop of this crate.
pub fn replay(decision: &Decision) -> Result<(), ReplayMismatch> {
    match decision.control_loop.as_str() {
        restart::Restart::NAME => replay_as::<restart::Restart>(decision),
        readiness::Readiness::NAME => replay_as::<readiness::Readiness>(decision),
        holding::Holding::NAME => replay_as::<holding::Holding>(decision),
        repair::Repair::NAME => replay_as::<repair::Repair>(decision),
        alert::Alert::NAME => replay_as::<alert::Alert>(decision),
        singleton::Singleton::NAME => replay_as::<singleton::Singleton>(decision),
        stage::Stages::NAME => replay_as::<stage::Stages>(decision),
        rollout::Rollout::NAME => replay_as::<rollout::Rollout>(decision),
        job::Job::NAME => replay_as::<job::Job>(decision),
        upgrade::Upgrade::NAME => replay_as::<upgrade::Upgrade>(decision),
        other => Err(ReplayMismatch::UnknownLoop(other.to_owned())),
    }
}

pub fn replay_as<C: Controller>(decision: &Decision) -> Result<(), ReplayMismatch> {
    let parameters: C::Parameters = read("parameters", &decision.parameters)?;
    let state: C::State = read("state", &decision.state)?;
    let reading: C::Reading = read("reading", &decision.reading)?;
    let again = C::decide(&parameters, &state, &reading, decision.at);
    same("next_state", &decision.next_state, &json(&again.next_state))?;
    same("action", &decision.action, &json(&again.action))?;
    same("seen", &decision.seen, &again.seen)?;
    same("decided", &decision.decided, &again.sentence())?;
    same("expected", &decision.expected, &again.expected)
}

fn read<T: serde::de::DeserializeOwned>(
    field: &'static str,
    value: &serde_json::Value,
) -> Result<T, ReplayMismatch> {
    T::deserialize(value).map_err(|source| ReplayMismatch::Unreadable { field, source })
}

fn same<T: PartialEq + std::fmt::Debug>(
    field: &'static str,
    recorded: &T,
    again: &T,
) -> Result<(), ReplayMismatch> {
    if recorded == again {
        return Ok(());
    }
    Err(ReplayMismatch::Differs {
        field,
        recorded: format!("{recorded:?}"),
        again: format!("{again:?}"),
    })
}
