//! One job: its version, its schedule, its runs and their parts.
//!
//! In: [`Event`]s. Out: [`Effect`]s, the changed [`Record`].
//! Holds: an event that concerns nothing (any more) changes nothing, so reports
//! may come late, twice and in any order.

use crate::event::{Effect, Event, Now};
use crate::record::{Attempt, Cause, End, EndedAttempt, Part, Record, Run, Stopping, Verdict, cut};
use crate::timing::{after, backoff, between, is_past_deadline, settle, wake};
use crate::{ARGUMENTS_BYTES_MAX, PARTS_MAX, RECENT_MAX};
use kernel::{FencingEpoch, NodeId, Revision, format_duration};
use manifest::{Job, Overlap};
use std::time::Duration;

pub struct Machine<'a> {
    /// None: it is in no manifest any more.
    job: Option<&'a Job>,
    generation: Revision,
    record: Record,
}

impl<'a> Machine<'a> {
    /// * `generation`: of the version that `job` is.
    pub fn new(job: Option<&'a Job>, generation: Revision, record: Record) -> Self {
        Self {
            job,
            generation,
            record,
        }
    }

    pub fn record(&self) -> &Record {
        &self.record
    }

    pub fn into_record(self) -> Record {
        self.record
    }

    /// How long from now [`Event::Tick`] is due, if nothing comes before.
    pub fn wake(&self, now: Now) -> Option<Duration> {
        wake(&self.record, self.job, now)
    }

    #[must_use = "effects must be carried out"]
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        settle(&mut self.record, self.job, now);
        match event {
            Event::Tick => {}
            Event::Asked { arguments } => self.on_asked(arguments, now, &mut effects),
            Event::Cancelled { run } => self.on_cancelled(run, &mut effects),
            Event::Placed {
                run,
                index,
                node,
                epoch,
            } => self.on_placed((run, index), node, epoch, now),
            Event::Refused { run, why, .. } => self.on_refused(run, &why),
            Event::Running { attempt } => self.on_running(attempt, now),
            Event::Ended { attempt, end } => self.on_ended(attempt, end, now, &mut effects),
            Event::Lost {
                attempt,
                why,
                may_have_run,
            } => {
                let end = if may_have_run {
                    End::Unknown(why)
                } else {
                    End::Failed(why)
                };
                self.on_ended(attempt, end, now, &mut effects);
            }
        }
        self.advance(now, &mut effects);
        effects
    }

    /// What is due after any event.
    fn advance(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if let Some(job) = self.job {
            self.see_version(job, now, effects);
            self.see_schedule(job, now, effects);
            self.see_time(job, now);
        } else {
            self.end_all("it is in no manifest any more");
            self.record.generation = Revision(0);
            self.record.schedule = None;
        }
        self.wind_up(now, effects);
        if let Some(job) = self.job {
            self.want_places(job, now, effects);
        }
        self.forget();
    }

    fn see_version(&mut self, job: &Job, now: Now, effects: &mut Vec<Effect>) {
        let record = &mut self.record;
        let is_new = record.generation != self.generation;
        let was_scheduled = record.schedule.is_some();
        record.generation = self.generation;
        if record.schedule != job.schedule {
            record.schedule.clone_from(&job.schedule);
            // What another schedule would have begun before is not missed.
            record.dealt_until = record.dealt_until.max(now.wall);
        }
        if job.schedule.is_none() && (is_new || was_scheduled) {
            self.end_all("another version was applied");
            self.begin(job, Cause::Applied, Vec::new(), now, effects);
        }
    }

    fn see_schedule(&mut self, job: &Job, now: Now, effects: &mut Vec<Effect>) {
        let Some(schedule) = &job.schedule else {
            return;
        };
        let last = schedule.last(now.wall);
        let Some(due) = last.filter(|due| *due > self.record.dealt_until) else {
            return;
        };
        self.record.dealt_until = due;
        let late = between(due, now.wall);
        // What nobody looked at for less than a moment was not missed.
        if late > job.catch_up.max(Duration::from_secs(5)) {
            let why = format!("nobody led when it was due, {} ago", whole(late));
            effects.push(Effect::Skipped { due, why });
            return;
        }
        if let Err(why) = self.make_room(job) {
            effects.push(Effect::Skipped { due, why });
            return;
        }
        self.begin(job, Cause::Scheduled(due), Vec::new(), now, effects);
    }

    /// So that another run may begin.
    fn make_room(&mut self, job: &Job) -> Result<(), String> {
        let going: Vec<u64> = self.record.going().map(|run| run.number).collect();
        let Some(last) = going.last() else {
            return Ok(());
        };
        let overlap = if job.once && job.overlap == Overlap::Allow {
            Overlap::Skip
        } else {
            job.overlap
        };
        match overlap {
            Overlap::Skip => Err(format!("run {last} goes on")),
            Overlap::Allow => {
                let parts = self.record.going().map(|run| run.indices);
                let parts = parts.fold(job.indices, u32::saturating_add);
                if parts > PARTS_MAX {
                    return Err(format!(
                        "{} runs go on, with {PARTS_MAX} parts at most",
                        going.len()
                    ));
                }
                Ok(())
            }
            Overlap::Replace => {
                self.end_all("another run took its place");
                Ok(())
            }
        }
    }

    fn begin(
        &mut self,
        job: &Job,
        cause: Cause,
        arguments: Vec<String>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.record.runs_begun = self.record.runs_begun.saturating_add(1);
        let number = self.record.runs_begun;
        let waiting = Part::Waiting {
            attempts: 0,
            due: now.steady,
        };
        self.record.runs.push(Run {
            number,
            cause,
            arguments,
            began: now.steady,
            indices: job.indices,
            once: job.once,
            succeeded: 0,
            parts: (0..job.indices)
                .map(|index| (index, waiting.clone()))
                .collect(),
            verdict: None,
            ended: None,
            recent: Vec::new(),
            waits: None,
        });
        effects.push(Effect::Began { run: number, cause });
    }

    fn on_asked(&mut self, arguments: Vec<String>, now: Now, effects: &mut Vec<Effect>) {
        let bytes: usize = arguments.iter().map(String::len).sum();
        let began = match self.job {
            None => Err("it is in no manifest any more".to_owned()),
            Some(_) if bytes > ARGUMENTS_BYTES_MAX => Err(format!(
                "its arguments have {bytes} bytes, {ARGUMENTS_BYTES_MAX} at most"
            )),
            Some(job) => self.make_room(job).map(|()| job),
        };
        match began {
            Ok(job) => self.begin(job, Cause::Asked, arguments, now, effects),
            Err(why) => effects.push(Effect::Declined { why }),
        }
    }

    fn on_cancelled(&mut self, number: Option<u64>, effects: &mut Vec<Effect>) {
        let mut found = false;
        for run in &mut self.record.runs {
            let is_meant = number.is_none_or(|number| run.number == number);
            if is_meant && run.ended.is_none() {
                found = true;
                conclude(run, Verdict::Cancelled("somebody asked for it".to_owned()));
            }
        }
        if !found {
            let why = match number {
                Some(number) => format!("no run {number} of it goes on"),
                None => "no run of it goes on".to_owned(),
            };
            effects.push(Effect::Declined { why });
        }
    }

    fn on_placed(&mut self, part: (u64, u32), node: NodeId, epoch: FencingEpoch, now: Now) {
        let Some(job) = self.job else { return };
        let (number, index) = part;
        let serial = self.record.attempts_begun.saturating_add(1);
        let Some(at) = self.startable(job, number, now) else {
            return;
        };
        let run = &mut self.record.runs[at];
        let attempts = match run.parts.get(&index) {
            Some(Part::Waiting { attempts, due }) if *due <= now.steady => *attempts,
            _ => return,
        };
        let attempt = Attempt {
            serial,
            number: attempts.saturating_add(1),
            node,
            epoch,
            placed: now.steady,
            started: None,
            stopping: None,
        };
        run.waits = None;
        run.parts.insert(index, Part::Going(attempt));
        self.record.attempts_begun = serial;
    }

    fn on_refused(&mut self, number: u64, why: &str) {
        let mut runs = self.record.runs.iter_mut();
        if let Some(run) = runs.find(|run| run.number == number && run.verdict.is_none()) {
            // Told once: what is free changes each second.
            run.waits.get_or_insert_with(|| cut(why));
        }
    }

    fn on_running(&mut self, serial: u64, now: Now) {
        if let Some((at, index)) = self.find(serial)
            && let Some(Part::Going(attempt)) = self.record.runs[at].parts.get_mut(&index)
        {
            attempt.started.get_or_insert(now.steady);
        }
    }

    fn on_ended(&mut self, serial: u64, end: End, now: Now, effects: &mut Vec<Effect>) {
        let Some((at, index)) = self.find(serial) else {
            return;
        };
        let run = &mut self.record.runs[at];
        let Some(Part::Going(attempt)) = run.parts.remove(&index) else {
            return;
        };
        let took_too_long = attempt.stopping == Some(Stopping::TookTooLong);
        let end = match end {
            End::Succeeded if took_too_long => End::Failed("it took too long".to_owned()),
            End::Failed(why) if took_too_long => {
                End::Failed(cut(&format!("it took too long ({why})")))
            }
            End::Failed(why) => End::Failed(cut(&why)),
            End::Unknown(why) => End::Unknown(cut(&why)),
            End::Succeeded => End::Succeeded,
        };
        remember(run, index, &attempt, &end, now);
        let why = end.to_string();
        match (end, self.job) {
            (End::Succeeded, _) => run.succeeded = run.succeeded.saturating_add(1),
            _ if run.verdict.is_some() => {}
            (End::Unknown(_), _) if run.once => {
                let why = format!("part {index}, attempt {}: {why}", attempt.number);
                conclude(run, Verdict::Unknown(cut(&why)));
            }
            (_, Some(job)) if attempt.number <= job.retries => {
                let wait = backoff(job, attempt.number);
                let waiting = Part::Waiting {
                    attempts: attempt.number,
                    due: after(now.steady, wait),
                };
                run.parts.insert(index, waiting);
                effects.push(Effect::Retried {
                    run: run.number,
                    index,
                    after: wait,
                    why,
                });
            }
            _ => {
                let why = format!("part {index}, attempt {}: {why}", attempt.number);
                conclude(run, Verdict::Failed(cut(&why)));
            }
        }
    }

    fn see_time(&mut self, job: &Job, now: Now) {
        let going = self.record.runs.iter_mut();
        for run in going.filter(|run| run.verdict.is_none()) {
            if is_past_deadline(job, run, now) {
                let span = job.deadline.map_or_else(String::new, format_duration);
                let mut why = format!("it is not done after {span}");
                if let Some(waits) = &run.waits {
                    why = cut(&format!("{why}; {waits}"));
                }
                conclude(run, Verdict::Failed(why));
                continue;
            }
            let Some(span) = job.attempt_timeout else {
                continue;
            };
            for part in run.parts.values_mut() {
                if let Part::Going(attempt) = part
                    && after(attempt.started.unwrap_or(attempt.placed), span) <= now.steady
                {
                    attempt.stopping.get_or_insert(Stopping::TookTooLong);
                }
            }
        }
    }

    fn end_all(&mut self, why: &str) {
        let going = self.record.runs.iter_mut();
        for run in going.filter(|run| run.verdict.is_none()) {
            conclude(run, Verdict::Cancelled(why.to_owned()));
        }
    }

    /// A run is over once none of its attempts is left.
    fn wind_up(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let going = self.record.runs.iter_mut();
        for run in going.filter(|run| run.ended.is_none() && run.parts.is_empty()) {
            let verdict = run.verdict.get_or_insert(Verdict::Succeeded).clone();
            run.ended = Some(now.steady);
            run.waits = None;
            effects.push(Effect::Finished {
                run: run.number,
                verdict,
            });
        }
    }

    /// Where a run is of which parts may start now.
    fn startable(&self, job: &Job, number: u64, now: Now) -> Option<usize> {
        let runs = &self.record.runs;
        let at = runs.iter().position(|run| run.number == number)?;
        let run = &runs[at];
        let alone = job.overlap != Overlap::Allow || run.once;
        let waits = alone && runs[..at].iter().any(|earlier| earlier.ended.is_none());
        let going = u32::try_from(run.attempts().count()).unwrap_or(u32::MAX);
        let may = run.verdict.is_none()
            && !waits
            && going < job.parallel
            && !is_past_deadline(job, run, now);
        may.then_some(at)
    }

    fn want_places(&self, job: &Job, now: Now, effects: &mut Vec<Effect>) {
        for run in &self.record.runs {
            if self.startable(job, run.number, now).is_none() {
                continue;
            }
            let room = u64::from(job.parallel).saturating_sub(run.attempts().count() as u64);
            let due = run.parts.iter().filter(
                |(_, part)| matches!(part, Part::Waiting { due, .. } if *due <= now.steady),
            );
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            effects.extend(due.take(room).map(|(index, _)| Effect::Place {
                run: run.number,
                index: *index,
            }));
        }
    }

    fn find(&self, serial: u64) -> Option<(usize, u32)> {
        let mut runs = self.record.runs.iter().enumerate();
        runs.find_map(|(at, run)| {
            let mut attempts = run.attempts();
            let (_, index, _) = attempts.find(|(.., attempt)| attempt.serial == serial)?;
            Some((at, index))
        })
    }

    /// The oldest of those that are over.
    fn forget(&mut self) {
        let keep = self.job.map_or(1, |job| job.keep_runs);
        let over = self.record.runs.iter().filter(|run| run.ended.is_some());
        let keep = usize::try_from(keep).unwrap_or(usize::MAX);
        let mut surplus = over.count().saturating_sub(keep);
        self.record.runs.retain(|run| {
            let goes = surplus > 0 && run.ended.is_some();
            surplus -= usize::from(goes);
            !goes
        });
    }
}

/// Decides how a run ends: what waits does not start, what goes on is stopped.
fn conclude(run: &mut Run, verdict: Verdict) {
    run.verdict.get_or_insert(verdict);
    run.parts.retain(|_, part| match part {
        Part::Waiting { .. } => false,
        Part::Going(attempt) => {
            attempt.stopping.get_or_insert(Stopping::RunIsOver);
            true
        }
    });
}

fn remember(run: &mut Run, index: u32, attempt: &Attempt, end: &End, now: Now) {
    run.recent.push(EndedAttempt {
        index,
        number: attempt.number,
        serial: attempt.serial,
        node: attempt.node,
        end: end.clone(),
        at: now.steady,
    });
    let surplus = run.recent.len().saturating_sub(RECENT_MAX);
    run.recent.drain(..surplus);
}

/// To the second: nobody reads more of it.
fn whole(span: Duration) -> String {
    format_duration(Duration::from_secs(span.as_secs()))
}
