//! Jobs: what runs to its end, when, how often.

use super::Checker;
use super::binding::{Kind, Owner};
use super::service::node_name;
use crate::job::{Job, Overlap};
use crate::mistake::short;
use crate::model::Run;
use crate::raw::{
    At, BACKOFF_DEFAULT, CATCH_UP_DEFAULT, DurationText, Field, KEEP_RUNS_DEFAULT, RETRIES_DEFAULT,
    RawJob, RawRun, STOP_GRACE_DEFAULT, TIME_ZONE_DEFAULT,
};
use crate::schedule::{Schedule, ScheduleError};
use crate::text::{Wrong, duration, wrong};
use std::time::Duration;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// Of a run: longer ones are services.
const SPAN_MAX: Duration = Duration::from_hours(31 * 24);

const EXAMPLE: &str = "write `run = { process = [\"PROGRAM\", \"ARGUMENT\"] }`";

impl Checker<'_> {
    pub(super) fn job(&mut self, key: &At<String>, raw: RawJob) -> Job {
        if self.service_names.contains(&key.value) {
            let message = format!("`{}` is a service too", short(&key.value));
            let help = "give one of them another name";
            self.report(&key.span, wrong("name", message, help));
        }
        self.at_odds(&raw);
        let owner = Owner {
            name: format!("job/{}", key.value),
            run: Some(Kind::Process),
        };
        let environment = self.environment(raw.environment.unwrap_or_default());
        let secrets = self.secrets(&environment, raw.secrets.unwrap_or_default());
        let bindings = self.entries(raw.bindings.unwrap_or_default(), |checker, name, raw| {
            checker.binding(&owner, &(&environment, &secrets), name, raw)
        });
        self.check_binding_variables(&bindings, key);
        let indices = raw.indices.map_or(1, |indices| indices.value);
        Job {
            run: self.process_of_job(key, raw.run),
            schedule: self.schedule(raw.schedule.as_ref(), raw.time_zone.as_ref()),
            catch_up: self.duration(
                raw.catch_up.as_ref(),
                CATCH_UP_DEFAULT,
                Duration::ZERO..=SPAN_MAX,
            ),
            overlap: self.text(raw.overlap.as_ref(), overlap).unwrap_or_default(),
            retries: raw.retries.map_or(RETRIES_DEFAULT, |retries| retries.value),
            backoff: self.duration(
                raw.backoff.as_ref(),
                BACKOFF_DEFAULT,
                Duration::from_millis(100)..=DAY,
            ),
            deadline: self.span(raw.deadline.as_ref()),
            attempt_timeout: self.span(raw.attempt_timeout.as_ref()),
            parallel: raw.parallel.map_or(indices, |parallel| parallel.value),
            indices,
            once: raw.once.is_some_and(|once| once.value),
            keep_runs: raw.keep_runs.map_or(KEEP_RUNS_DEFAULT, |keep| keep.value),
            node: self.text(raw.node.as_ref(), node_name),
            limits: self.limits(raw.limits),
            environment,
            secrets,
            bindings,
            stop_grace: self.duration(
                raw.stop_grace.as_ref(),
                STOP_GRACE_DEFAULT,
                Duration::ZERO..=HOUR,
            ),
        }
    }

    fn process_of_job(&mut self, key: &At<String>, raw: Field<RawRun>) -> Run {
        let Some(raw) = raw else {
            self.missing(key, "run", EXAMPLE);
            return Run::Process(Vec::new());
        };
        let RawRun {
            process,
            wasm,
            actor,
        } = raw.value;
        if let Some(other) = wasm.or(actor) {
            let told = "a job is a `process`: a component and an actor answer requests";
            self.report(&other.span, wrong("conflict", told, EXAMPLE));
        } else if process.is_none() {
            self.missing_at(&raw.span, "`run` says nothing to run", EXAMPLE);
        }
        match process {
            Some(words) => self.process(&words.value, EXAMPLE),
            None => Run::Process(Vec::new()),
        }
    }

    fn span(&mut self, field: Option<&At<DurationText>>) -> Option<Duration> {
        let range = Duration::from_millis(100)..=SPAN_MAX;
        self.text_of(field, |text| duration(&text.0, &range))
    }

    fn schedule(
        &mut self,
        pattern: Option<&At<String>>,
        time_zone: Option<&At<String>>,
    ) -> Option<Schedule> {
        let pattern = pattern?;
        let zone = time_zone.map_or(TIME_ZONE_DEFAULT, |zone| zone.value.as_str());
        let error = match Schedule::new(&pattern.value, zone) {
            Ok(schedule) => return Some(schedule),
            Err(error) => error,
        };
        let (at, help) = match (&error, time_zone) {
            (ScheduleError::TimeZone, Some(zone)) => (
                zone,
                "write a name such as `Europe/Vienna`, or leave it out for UTC",
            ),
            _ => (
                pattern,
                "write minute, hour, day, month, weekday: `30 3 * * 1-5` is 3:30 from Monday to Friday",
            ),
        };
        let message = format!("`{}`: {error}", short(&at.value));
        self.report(&at.span, wrong("schedule", message, help));
        None
    }

    /// What cannot go together.
    fn at_odds(&mut self, raw: &RawJob) {
        let mut found = Vec::new();
        if raw.schedule.is_none() {
            let told = "`time_zone` is a schedule's, and there is none";
            let zone = raw.time_zone.as_ref().map(|it| &it.span);
            found.extend(zone.map(|span| (span, told, "write `schedule`, or leave it out")));
            let told = "`catch_up` is a schedule's, and there is none";
            let late = raw.catch_up.as_ref().map(|it| &it.span);
            found.extend(late.map(|span| (span, told, "write `schedule`, or leave it out")));
        }
        if let (Some(parallel), indices) = (&raw.parallel, raw.indices.as_ref())
            && parallel.value > indices.map_or(1, |indices| indices.value)
        {
            let told = "`parallel` is more than there are parts";
            let help = "lower it, or write more `indices`";
            found.push((&parallel.span, told, help));
        }
        let is_once = raw.once.as_ref().is_some_and(|once| once.value);
        let allows = raw.overlap.as_ref().filter(|it| it.value == "allow");
        if let (true, Some(allows)) = (is_once, allows) {
            let told = "what runs `once` allows no second run beside it";
            found.push((&allows.span, told, "write `skip` or `replace`"));
        }
        let spans = (raw.attempt_timeout.as_ref(), raw.deadline.as_ref());
        if let (Some(attempt), Some(run)) = spans {
            let read = |at: &At<DurationText>| kernel::parse_duration(&at.value.0).ok();
            if read(attempt)
                .zip(read(run))
                .is_some_and(|(one, all)| one > all)
            {
                let told = "one attempt may take longer than the whole run";
                let help = "lower it, or raise `deadline`";
                found.push((&attempt.span, told, help));
            }
        }
        for (span, message, help) in found {
            self.report(span, wrong("conflict", message, help));
        }
    }
}

fn overlap(text: &str) -> Result<Overlap, Wrong> {
    match text {
        "skip" => Ok(Overlap::Skip),
        "allow" => Ok(Overlap::Allow),
        "replace" => Ok(Overlap::Replace),
        other => {
            let message = format!("`{}` says nothing about runs that overlap", short(other));
            Err(wrong(
                "overlap",
                message,
                "write `skip`, `allow` or `replace`",
            ))
        }
    }
}
