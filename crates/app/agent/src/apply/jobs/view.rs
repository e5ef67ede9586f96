//! Jobs as people see them.

use crate::machine::unix_now;
use crate::shared::Shared;
use ::jobs::{Attempt, Cause, End, Record, Run, Verdict};
use kernel::{ScopedName, UnixMillis};
use manifest::Job;
use node::attempts::{AttemptStatus, attempt_id};
use node::desired::Desired;
use serde_json::Value;
use wire::api::{AttemptView, JobView, Object, RunView};

/// Of the projects in `desired`.
pub fn list(shared: &Shared, desired: &Desired) -> Vec<Object> {
    let jobs = desired.manifest_jobs();
    jobs.map(|(name, job, _)| {
        let record = desired.jobs.get(&name);
        let view = view(shared, &name, job, record);
        Object {
            kind: "job".to_owned(),
            name: name.name.to_string(),
            project: Some(name.project.to_string()),
            reference: String::new(),
            state: state(job, &view),
            summary: summary(job, &view),
            desired: value(job),
            observed: value(&view),
        }
    })
    .collect()
}

fn view(shared: &Shared, name: &ScopedName, job: &Job, record: Option<&Record>) -> JobView {
    let next = job.schedule.as_ref().and_then(|it| it.next(unix_now()));
    let runs = record.map_or(&[][..], |record| &record.runs);
    JobView {
        next_unix_ms: next.map(|at| at.0),
        runs: runs
            .iter()
            .rev()
            .map(|run| of_run(shared, name, run))
            .collect(),
    }
}

fn state(job: &Job, view: &JobView) -> String {
    match view.runs.first() {
        Some(last) => last.state.clone(),
        None if job.schedule.is_some() => "scheduled".to_owned(),
        None => "waiting".to_owned(),
    }
}

fn summary(job: &Job, view: &JobView) -> String {
    let mut parts = Vec::new();
    if let Some(last) = view.runs.first() {
        let (number, done, all) = (last.number, last.succeeded, last.parts);
        parts.push(format!("run {number}, {done}/{all} done"));
        parts.extend(last.why.clone());
    }
    if let Some(schedule) = &job.schedule {
        parts.push(format!("due at {schedule}"));
    }
    parts.join("; ")
}

fn of_run(shared: &Shared, name: &ScopedName, run: &Run) -> RunView {
    let going = run.attempts().map(|(_, index, attempt)| AttemptView {
        index,
        attempt: attempt.number,
        replica: attempt_id(name, attempt).to_string(),
        node: shared.cluster.called(attempt.node),
        state: word(shared, name, attempt).to_owned(),
        why: None,
        at_unix_ms: attempt.started.unwrap_or(attempt.placed).0,
    });
    let ended = run.recent.iter().rev().map(|it| AttemptView {
        index: it.index,
        attempt: it.number,
        replica: attempt_id(name, &as_placed(it)).to_string(),
        node: shared.cluster.called(it.node),
        state: match it.end {
            End::Succeeded => "succeeded",
            End::Failed(_) => "failed",
            End::Unknown(_) => "unknown",
        }
        .to_owned(),
        why: match &it.end {
            End::Succeeded => None,
            End::Failed(why) | End::Unknown(why) => Some(why.clone()),
        },
        at_unix_ms: it.at.0,
    });
    let why = run.verdict.as_ref().and_then(Verdict::why);
    RunView {
        number: run.number,
        cause: match run.cause {
            Cause::Applied => "applied",
            Cause::Scheduled(_) => "scheduled",
            Cause::Asked => "asked",
        }
        .to_owned(),
        arguments: run.arguments.clone(),
        state: run.word().to_owned(),
        why: why.map(str::to_owned).or_else(|| run.waits.clone()),
        help: help(name, run),
        began_unix_ms: run.began.0,
        ended_unix_ms: run.ended.map(|at| at.0),
        parts: run.indices,
        succeeded: run.succeeded,
        attempts: going.chain(ended).collect(),
    }
}

fn help(name: &ScopedName, run: &Run) -> Option<String> {
    match run.verdict.as_ref()? {
        Verdict::Succeeded | Verdict::Cancelled(_) => None,
        Verdict::Failed(_) => Some(format!("homeostat job logs {name}")),
        Verdict::Unknown(_) => Some(format!(
            "see whether it did its work; if not: homeostat job run {name}"
        )),
    }
}

/// As far as its id goes.
fn as_placed(ended: &::jobs::EndedAttempt) -> Attempt {
    Attempt {
        serial: ended.serial,
        number: ended.number,
        node: ended.node,
        epoch: kernel::FencingEpoch::default(),
        placed: UnixMillis(0),
        started: None,
        stopping: None,
    }
}

fn word(shared: &Shared, name: &ScopedName, attempt: &Attempt) -> &'static str {
    if attempt.stopping.is_some() {
        return "stopping";
    }
    let reports = shared.cluster.reports.borrow();
    let report = reports.get(&attempt.node);
    let said = report.and_then(|it| it.status.attempts.get(&attempt_id(name, attempt)));
    match said {
        Some(AttemptStatus::Running { .. }) => "running",
        _ => "starting",
    }
}

fn value(of: &impl serde::Serialize) -> Value {
    serde_json::to_value(of).unwrap_or(Value::Null)
}
