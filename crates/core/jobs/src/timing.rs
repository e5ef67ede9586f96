//! Spans on the clock of records: back-off, time-outs, the next wake.

use crate::BACKOFF_MAX;
use crate::event::Now;
use crate::record::{Part, Record, Run};
use kernel::UnixMillis;
use manifest::Job;
use std::time::Duration;

/// A clock that was further ahead than that was wrong, and no summer time.
const JUMP_MAX: Duration = Duration::from_hours(25);

pub(crate) fn after(at: UnixMillis, span: Duration) -> UnixMillis {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    UnixMillis(at.0.saturating_add(millis))
}

pub(crate) fn between(from: UnixMillis, to: UnixMillis) -> Duration {
    Duration::from_millis(to.0.saturating_sub(from.0))
}

/// Before the attempt that comes after so many.
pub(crate) fn backoff(job: &Job, attempts: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(attempts.saturating_sub(1));
    let most = BACKOFF_MAX.max(job.backoff);
    job.backoff.saturating_mul(doubled).min(most)
}

pub(crate) fn is_past_deadline(job: &Job, run: &Run, now: Now) -> bool {
    let deadline = job.deadline.map(|span| after(run.began, span));
    deadline.is_some_and(|at| at <= now.steady)
}

/// Whoever led before may have had a clock that was ahead: what lies in the
/// future then begins now.
pub(crate) fn settle(record: &mut Record, job: Option<&Job>, now: Now) {
    let wait = job.map_or(BACKOFF_MAX, |job| BACKOFF_MAX.max(job.backoff));
    let latest = after(now.steady, wait);
    for run in record.runs.iter_mut().filter(|run| run.ended.is_none()) {
        run.began = run.began.min(now.steady);
        for part in run.parts.values_mut() {
            match part {
                Part::Waiting { due, .. } => *due = (*due).min(latest),
                Part::Going(attempt) => {
                    attempt.placed = attempt.placed.min(now.steady);
                    attempt.started = attempt.started.map(|at| at.min(now.steady));
                }
            }
        }
    }
    if record.dealt_until > after(now.wall, JUMP_MAX) {
        record.dealt_until = now.wall;
    }
}

/// How long from now until something is due by itself.
pub(crate) fn wake(record: &Record, job: Option<&Job>, now: Now) -> Option<Duration> {
    let job = job?;
    let mut spans = Vec::new();
    if let Some(schedule) = &job.schedule {
        let from = now.wall.max(record.dealt_until);
        spans.extend(schedule.next(from).map(|next| between(now.wall, next)));
    }
    for run in record.going().filter(|run| run.verdict.is_none()) {
        let deadline = job.deadline.map(|span| after(run.began, span));
        spans.extend(deadline.map(|at| between(now.steady, at)));
        for part in run.parts.values() {
            let at = match part {
                Part::Waiting { due, .. } => Some(*due).filter(|due| *due > now.steady),
                Part::Going(attempt) => {
                    let timeout = job.attempt_timeout.filter(|_| attempt.stopping.is_none());
                    timeout.map(|span| after(attempt.started.unwrap_or(attempt.placed), span))
                }
            };
            spans.extend(at.map(|at| between(now.steady, at)));
        }
    }
    spans.into_iter().min()
}
