//! Services: what runs, its probes, limits, environment and secrets.

use super::Checker;
use super::binding::{Kind, Owner};
use crate::mistake::short;
use crate::model::{Check, Limits, Probe, Probes, Run, Service};
use crate::raw::{
    At, DEADLINE_DEFAULT, Entries, FAILURES_DEFAULT, Field, Key, RawLimits, RawProbe, RawRun,
    RawService, STOP_GRACE_DEFAULT, TIMEOUT_DEFAULT,
};
use crate::text::{Wrong, argument, decimal, duration, relative_path, url_path, variable, wrong};
use kernel::Name;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

const TIME: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(1);

impl Checker<'_> {
    pub(super) fn service(&mut self, key: &At<String>, raw: RawService) -> Service {
        self.misplaced(&raw);
        let rollout = self.rollout(&raw);
        let owner = Owner {
            name: format!("service/{}", key.value),
            run: raw.run.as_ref().map(|run| Kind::of(&run.value)),
        };
        let routes = raw.routes.map_or_else(Vec::new, |routes| routes.value);
        let environment = self.environment(raw.environment.unwrap_or_default());
        let secrets = self.secrets(&environment, raw.secrets.unwrap_or_default());
        let bindings = self.entries(raw.bindings.unwrap_or_default(), |checker, name, raw| {
            checker.binding(&owner, &(&environment, &secrets), name, raw)
        });
        self.check_binding_variables(&bindings, key);
        let probes = raw.probes.map(|probes| probes.value);
        let (startup, readiness, liveness) =
            probes.map_or((None, None, None), |p| (p.startup, p.readiness, p.liveness));
        let callers = raw
            .allow_from
            .map_or_else(Vec::new, |callers| callers.value);
        let hour = Duration::from_hours(1);
        Service {
            run: self.run(key, raw.run),
            replicas: raw.replicas.map_or(1, |replicas| replicas.value),
            node: self.text(raw.node.as_ref(), node_name),
            singleton: raw.singleton.is_some_and(|singleton| singleton.value),
            routes: routes
                .into_iter()
                .filter_map(|route| self.route(&owner.name, &route))
                .collect(),
            port: raw.port.map(|port| port.value),
            allow_from: callers
                .iter()
                .filter_map(|caller| self.text(Some(caller), foreign_caller))
                .collect(),
            goals: self.goals(raw.goals),
            probes: Probes {
                startup: startup.and_then(|probe| self.probe(&probe, "100ms", 50)),
                readiness: readiness.and_then(|probe| self.probe(&probe, "1s", FAILURES_DEFAULT)),
                liveness: liveness.and_then(|probe| self.probe(&probe, "5s", FAILURES_DEFAULT)),
            },
            limits: self.limits(raw.limits),
            environment,
            secrets,
            bindings,
            deadline: self.duration(
                raw.deadline.as_ref(),
                DEADLINE_DEFAULT,
                Duration::from_millis(1)..=hour,
            ),
            stop_grace: self.duration(
                raw.stop_grace.as_ref(),
                STOP_GRACE_DEFAULT,
                Duration::ZERO..=hour,
            ),
            rollout,
        }
    }

    fn run(&mut self, key: &At<String>, raw: Field<RawRun>) -> Run {
        let example = "write `run = { process = [\"PROGRAM\", \"ARGUMENT\"] }`, \
                       `{ wasm = \"FILE\" }` or `{ actor = \"FILE\" }`";
        let nothing = || Run::Process(Vec::new());
        let Some(raw) = raw else {
            self.missing(key, "run", example);
            return nothing();
        };
        let file = |checker: &mut Self, file: &At<String>| {
            checker.text(Some(file), relative_path).unwrap_or_default()
        };
        match raw.value {
            RawRun {
                process: Some(words),
                wasm: None,
                actor: None,
            } => self.process(&words.value, example),
            RawRun {
                process: None,
                wasm: Some(wasm),
                actor: None,
            } => Run::Wasm(file(self, &wasm)),
            RawRun {
                process: None,
                wasm: None,
                actor: Some(actor),
            } => Run::Actor(file(self, &actor)),
            RawRun {
                process: None,
                wasm: None,
                actor: None,
            } => {
                self.missing_at(&raw.span, "`run` says nothing to run", example);
                nothing()
            }
            _ => {
                let both = "a service is one of `process`, `wasm` and `actor`";
                self.report(&raw.span, wrong("conflict", both, "leave the others out"));
                nothing()
            }
        }
    }

    pub(super) fn process(&mut self, words: &[At<String>], example: &str) -> Run {
        if let Some(program) = words.first().filter(|program| program.value.is_empty()) {
            let empty = wrong("argument", "the program's name is empty", example);
            self.report(&program.span, empty);
        }
        Run::Process(
            words
                .iter()
                .filter_map(|word| self.text(Some(word), argument))
                .collect(),
        )
    }

    /// What a service of one kind has no use for.
    fn misplaced(&mut self, raw: &RawService) {
        let Some(run) = raw.run.as_ref().map(|run| &run.value) else {
            return;
        };
        let mut found: Vec<(&Range<usize>, &str, &str)> = Vec::new();
        if let Some(limits) = raw.limits.as_ref().map(|limits| &limits.value) {
            let (time, concurrency) = (limits.time.as_ref(), limits.concurrency.as_ref());
            if run.process.is_some() {
                let help = "set `deadline`; a process bounds its own requests";
                found.extend(time.map(|time| (&time.span, "`time` is not for a process", help)));
                let told = "`concurrency` is not for a process";
                found.extend(concurrency.map(|at| (&at.span, told, help)));
            }
            if run.wasm.is_none() {
                let help =
                    "instances are a component's; a process and an actor live on by themselves";
                let told = "`reuse` is for a component only";
                found.extend(limits.reuse.as_ref().map(|at| (&at.span, told, help)));
            }
            if run.wasm.is_some() {
                let help = "a component has `memory`, `time`, `concurrency` and `reuse`";
                let (cpu, processes) = (limits.cpu.as_ref(), limits.processes.as_ref());
                found.extend(cpu.map(|at| (&at.span, "`cpu` is not for a component", help)));
                let told = "`processes` is not for a component";
                found.extend(processes.map(|at| (&at.span, told, help)));
                let told = "`open_files` is not for a component";
                found.extend(limits.open_files.as_ref().map(|at| (&at.span, told, help)));
            }
        }
        if let (Some(probes), true) = (&raw.probes, run.wasm.is_some()) {
            let told = "a component has no probes";
            let help = "leave them out: the edge says when it can take requests";
            found.push((&probes.span, told, help));
        }
        if let Some(replicas) = raw.replicas.as_ref().filter(|count| count.value > 1)
            && run.actor.is_some()
        {
            let help = "leave `replicas` out: its memory is in one place";
            found.push((&replicas.span, "there is one of an actor", help));
        }
        if let Some(singleton) = raw.singleton.as_ref().filter(|one| one.value) {
            if run.process.is_none() {
                let told = "`singleton` is for a process";
                let help = "an actor is one by itself; a component answers wherever it is asked";
                found.push((&singleton.span, told, help));
            }
            let several = raw.replicas.as_ref().filter(|count| count.value > 1);
            let help = "leave `replicas` out, or `singleton`";
            found.extend(several.map(|it| (&it.span, "there is one of a singleton", help)));
        }
        for (span, message, help) in found {
            self.report(span, wrong("conflict", message, help));
        }
    }

    fn probe(&mut self, raw: &At<RawProbe>, every: &str, failures: u32) -> Option<Probe> {
        let RawProbe { http, tcp, .. } = &raw.value;
        let check = match (http, tcp) {
            (Some(path), None) => self.text(Some(path), url_path).map(Check::Http),
            (None, Some(At { value: true, .. })) => Some(Check::Tcp),
            (Some(_), Some(tcp)) => {
                let help = "leave one out";
                let both = wrong(
                    "conflict",
                    "a probe is either `http` or `tcp`, not both",
                    help,
                );
                self.report(&tcp.span, both);
                None
            }
            (None, Some(tcp)) => {
                let help = "write `tcp = true`, or leave the probe out";
                self.report(
                    &tcp.span,
                    wrong("conflict", "the probe checks nothing", help),
                );
                None
            }
            (None, None) => {
                let help = "write `http = \"/healthz\"` or `tcp = true`";
                self.missing_at(&raw.span, "the probe checks nothing", help);
                None
            }
        };
        let hour = Duration::from_hours(1);
        let (every_min, timeout_min) = (Duration::from_millis(10), Duration::from_millis(1));
        let timeout = raw.value.timeout.as_ref();
        let probe = Probe {
            check: Check::Tcp,
            every: self.duration(raw.value.every.as_ref(), every, every_min..=hour),
            timeout: self.duration(timeout, TIMEOUT_DEFAULT, timeout_min..=hour),
            failures: raw
                .value
                .failures
                .as_ref()
                .map_or(failures, |count| count.value),
            successes: raw.value.successes.as_ref().map_or(1, |count| count.value),
        };
        check.map(|check| Probe { check, ..probe })
    }

    pub(super) fn limits(&mut self, raw: Field<RawLimits>) -> Limits {
        let Some(raw) = raw.map(|raw| raw.value) else {
            return Limits::default();
        };
        Limits {
            memory: self.size(raw.memory.as_ref()),
            cpu: raw.cpu.map(|cpu| decimal(cpu.value)),
            processes: raw.processes.map(|count| count.value),
            open_files: raw.open_files.map(|count| count.value),
            time: self.text_of(raw.time.as_ref(), |text| duration(&text.0, &TIME)),
            concurrency: raw.concurrency.map(|count| count.value),
            reuse: raw.reuse.map(|count| count.value),
        }
    }

    pub(super) fn environment(&mut self, raw: Entries<String>) -> BTreeMap<String, String> {
        let mut checked = BTreeMap::new();
        for (Key(key), value) in raw {
            let name = self.text(Some(&key), variable);
            let value = self.text(Some(&value), argument);
            checked.extend(name.zip(value));
        }
        checked
    }

    pub(super) fn secrets(
        &mut self,
        environment: &BTreeMap<String, String>,
        raw: Entries<String>,
    ) -> BTreeMap<String, Name> {
        let mut checked = BTreeMap::new();
        for (Key(key), value) in raw {
            let name = self.text(Some(&key), |text| {
                if environment.contains_key(text) {
                    return Err(taken(text));
                }
                variable(text)
            });
            let secret = self.name(&value);
            checked.extend(name.zip(secret));
        }
        checked
    }
}

/// A variable that is set already.
pub(super) fn taken(variable: &str) -> Wrong {
    let message = format!("`{}` is already set in `environment`", short(variable));
    wrong("environment", message, "choose another name")
}

fn foreign_caller(text: &str) -> Result<String, Wrong> {
    let (project, service) = text.split_once('/').unwrap_or((text, text));
    if Name::new(project).is_ok() && Name::new(service).is_ok() {
        return Ok(text.to_owned());
    }
    let message = format!("`{}` names no caller", short(text));
    Err(wrong(
        "name",
        message,
        "write `PROJECT` or `PROJECT/SERVICE`",
    ))
}

pub(super) fn node_name(text: &str) -> Result<Name, Wrong> {
    Name::new(text).map_err(|error| {
        let help = "write a node's name, as `homeostat node ls` shows it";
        wrong("name", format!("`{text}` names no node: {error}"), help)
    })
}
