//! Gives a manifest of the right shape its meaning.
//!
//! In: the raw types, and which of them lost a part to the shape check. Out:
//! the checked model, and every mistake. Holds: without a mistake, the model
//! satisfies every rule; a default is filled in here and nowhere else.

use crate::mistake::{Mistake, list, nearest, short};
use crate::model::{
    Binding, BindingTarget, CachePolicy, Check, Goals, HostPattern, Limits, Manifest, PathPrefix,
    Probe, Probes, Route, Run, Service, Site,
};
use crate::parse::MISTAKES_MAX;
use crate::raw::{
    At, CACHE_MAX_AGE_DEFAULT, DEADLINE_DEFAULT, DurationText, Entries, FAILURES_DEFAULT, Field,
    INDEX_DEFAULT, Key, RawBinding, RawCache, RawGoals, RawLimits, RawManifest, RawProbe, RawRoute,
    RawRun, RawService, RawSite, STOP_GRACE_DEFAULT, TIMEOUT_DEFAULT,
};
use crate::shape::Findings;
use crate::text::{
    Wrong, argument, decimal, duration, file_name, host_pattern, path_prefix, relative_path, share,
    url_path, variable, wrong,
};
use kernel::{Bytes, Name};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

const MEMORY_MIN: Bytes = Bytes::mebibytes(1);
const MEMORY_MAX: Bytes = Bytes::mebibytes(16 << 20);

/// Checks the whole; the model is only worth anything if `findings` stay empty.
pub fn check(raw: RawManifest, default_project: &Name, findings: &mut Findings) -> Manifest {
    let sites = raw.site.unwrap_or_default();
    let services = raw.service.unwrap_or_default();
    let names = |keys: Vec<&Key>| keys.iter().map(|key| key.0.value.clone()).collect();
    let mut checker = Checker {
        site_names: names(sites.keys().collect()),
        service_names: names(services.keys().collect()),
        routes: BTreeMap::new(),
        findings,
    };
    let project = raw.project.and_then(|project| project.value.name);
    let project = project.and_then(|name| checker.name(&name));
    Manifest {
        project: project.unwrap_or_else(|| default_project.clone()),
        sites: checker.entries(sites, Checker::site),
        services: checker.entries(services, Checker::service),
    }
}

struct Checker<'f> {
    site_names: BTreeSet<String>,
    service_names: BTreeSet<String>,
    /// Who has each route.
    routes: BTreeMap<Route, String>,
    findings: &'f mut Findings,
}

impl Checker<'_> {
    fn entries<R, T>(
        &mut self,
        raw: Entries<R>,
        mut each: impl FnMut(&mut Self, &At<String>, R) -> T,
    ) -> BTreeMap<Name, T> {
        let mut checked = BTreeMap::new();
        for (Key(key), value) in raw {
            let name = self.name(&key);
            let value = each(self, &key, value.value);
            checked.extend(name.map(|name| (name, value)));
        }
        checked
    }

    fn site(&mut self, key: &At<String>, raw: RawSite) -> Site {
        if raw.root.is_none() {
            self.missing(key, "root", "write `root = \"DIRECTORY\"`");
        }
        let any = At {
            value: "*".to_owned(),
            span: key.span.clone(),
        };
        let hosts = raw.hosts.map_or_else(|| vec![any], |hosts| hosts.value);
        let path = self.text(raw.path.as_ref(), path_prefix);
        let path = path.unwrap_or_else(|| PathPrefix("/".to_owned()));
        let owner = format!("site/{}", key.value);
        let mut routes = Vec::new();
        for host in &hosts {
            let pattern = self.text(Some(host), host_pattern);
            routes.extend(pattern.and_then(|host_pattern| {
                self.claim(&owner, host_pattern, path.clone(), &host.span)
            }));
        }
        Site {
            root: self
                .text(raw.root.as_ref(), relative_path)
                .unwrap_or_default(),
            routes,
            index: self
                .text(raw.index.as_ref(), file_name)
                .unwrap_or_else(|| INDEX_DEFAULT.to_owned()),
            not_found: self.text(raw.not_found.as_ref(), relative_path),
            cache: self.cache(raw.cache),
            goals: self.goals(raw.goals),
        }
    }

    fn cache(&mut self, raw: Field<RawCache>) -> CachePolicy {
        let (max_age, immutable) =
            raw.map_or((None, None), |raw| (raw.value.max_age, raw.value.immutable));
        let immutable = immutable.map_or_else(Vec::new, |list| list.value);
        let year = Duration::from_hours(366 * 24);
        CachePolicy {
            max_age: self.duration(
                max_age.as_ref(),
                CACHE_MAX_AGE_DEFAULT,
                Duration::ZERO..=year,
            ),
            immutable: immutable
                .iter()
                .filter_map(|prefix| self.text(Some(prefix), |text| url_path(text).map(PathPrefix)))
                .collect(),
        }
    }

    fn goals(&mut self, raw: Field<RawGoals>) -> Goals {
        let Some(raw) = raw.map(|raw| raw.value) else {
            return Goals::default();
        };
        let mut milliseconds = |field: Field<DurationText>, max: Duration| {
            let range = Duration::from_micros(1)..=max;
            let span = self.text_of(field.as_ref(), |text| duration(&text.0, &range));
            span.map(|span| decimal(span.as_secs_f64() * 1e3))
        };
        Goals {
            latency_p99_ms: milliseconds(raw.latency_p99, Duration::from_hours(1)),
            freshness_ms: milliseconds(raw.freshness, Duration::from_hours(366 * 24)),
            availability: self.text_of(raw.availability.as_ref(), |text| share(&text.0)),
            cost_per_hour: raw.cost.map(|cost| decimal(cost.value)),
        }
    }

    fn service(&mut self, key: &At<String>, raw: RawService) -> Service {
        let owner = format!("service/{}", key.value);
        let routes = raw.routes.map_or_else(Vec::new, |routes| routes.value);
        let environment = self.environment(raw.environment.unwrap_or_default());
        let bindings = self.entries(raw.bindings.unwrap_or_default(), |checker, name, raw| {
            checker.binding(&owner, &environment, name, raw)
        });
        self.check_binding_variables(&bindings, key);
        let probes = raw.probes.map(|probes| probes.value);
        let (startup, readiness, liveness) =
            probes.map_or((None, None, None), |p| (p.startup, p.readiness, p.liveness));
        let hour = Duration::from_hours(1);
        Service {
            run: self.run(key, raw.run),
            replicas: raw.replicas.map_or(1, |replicas| replicas.value),
            routes: routes
                .into_iter()
                .filter_map(|route| self.route(&owner, &route))
                .collect(),
            goals: self.goals(raw.goals),
            probes: Probes {
                startup: startup.and_then(|probe| self.probe(&probe, "100ms", 50)),
                readiness: readiness.and_then(|probe| self.probe(&probe, "1s", FAILURES_DEFAULT)),
                liveness: liveness.and_then(|probe| self.probe(&probe, "5s", FAILURES_DEFAULT)),
            },
            limits: self.limits(raw.limits),
            environment,
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
        }
    }

    fn run(&mut self, key: &At<String>, raw: Field<RawRun>) -> Run {
        let example = "write `run = { process = [\"PROGRAM\", \"ARGUMENT\"] }`";
        let Some(raw) = raw else {
            self.missing(key, "run", example);
            return Run::Process(Vec::new());
        };
        let Some(words) = raw.value.process else {
            self.missing_at(&raw.span, "`run` says nothing to run", example);
            return Run::Process(Vec::new());
        };
        if let Some(program) = words
            .value
            .first()
            .filter(|program| program.value.is_empty())
        {
            let empty = wrong("argument", "the program's name is empty", example);
            self.report(&program.span, empty);
        }
        let words = words.value.iter();
        Run::Process(
            words
                .filter_map(|word| self.text(Some(word), argument))
                .collect(),
        )
    }

    fn route(&mut self, owner: &str, raw: &At<RawRoute>) -> Option<Route> {
        let any = HostPattern("*".to_owned());
        let host = match &raw.value.host {
            None => Some(any),
            host => self.text(host.as_ref(), host_pattern),
        };
        let Some(path) = &raw.value.path else {
            self.missing_at(&raw.span, "the route has no `path`", "write `path = \"/\"`");
            return None;
        };
        let prefix = self.text(Some(path), path_prefix)?;
        self.claim(owner, host?, prefix, &raw.span)
    }

    /// Gives the route to `owner`, unless somebody has it.
    fn claim(
        &mut self,
        owner: &str,
        host: HostPattern,
        path: PathPrefix,
        span: &Range<usize>,
    ) -> Option<Route> {
        let route = Route { host, path };
        if let Some(holder) = self.routes.get(&route) {
            let (host, path) = (&route.host, short(&route.path.0));
            let asks = format!("`{owner}` asks for host `{host}` and path `{path}`");
            let (message, help) = if holder == owner {
                (format!("{asks} twice"), "leave one out")
            } else {
                let help = "give one of them another `host` or `path`";
                (format!("{asks}, which `{holder}` has"), help)
            };
            self.report(span, wrong("duplicate-route", message, help));
            return None;
        }
        self.routes.insert(route.clone(), owner.to_owned());
        Some(route)
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

    fn limits(&mut self, raw: Field<RawLimits>) -> Limits {
        let Some(raw) = raw.map(|raw| raw.value) else {
            return Limits::default();
        };
        let memory = |text: &str| {
            let example = "write a number with a unit, such as `256 MiB`";
            let size: Bytes = text
                .parse()
                .map_err(|_| wrong("size", format!("`{}` is not a size", short(text)), example))?;
            if (MEMORY_MIN..=MEMORY_MAX).contains(&size) {
                return Ok(size);
            }
            let message = format!("`{}` is out of range", short(text));
            let help = format!("write a size from `{MEMORY_MIN}` to `{MEMORY_MAX}`");
            Err(wrong("range", message, help))
        };
        Limits {
            memory: self.text_of(raw.memory.as_ref(), |text| memory(&text.0)),
            cpu: raw.cpu.map(|cpu| decimal(cpu.value)),
            processes: raw.processes.map(|count| count.value),
            open_files: raw.open_files.map(|count| count.value),
        }
    }

    fn environment(&mut self, raw: Entries<String>) -> BTreeMap<String, String> {
        let mut checked = BTreeMap::new();
        for (Key(key), value) in raw {
            let name = self.text(Some(&key), variable);
            let value = self.text(Some(&value), argument);
            checked.extend(name.zip(value));
        }
        checked
    }

    fn binding(
        &mut self,
        owner: &str,
        environment: &BTreeMap<String, String>,
        key: &At<String>,
        raw: RawBinding,
    ) -> Binding {
        let RawBinding {
            to,
            environment: sets,
        } = raw;
        if to.is_none() {
            self.missing(
                key,
                "to",
                "write `to = \"site/NAME\"` or `to = \"service/NAME\"`",
            );
        }
        if sets.is_none() {
            self.missing(key, "environment", "write `environment = \"VARIABLE\"`");
        }
        let target = to.as_ref().and_then(|to| self.target(owner, to));
        let variable = self.text(sets.as_ref(), |text| {
            if environment.contains_key(text) {
                let message = format!("`{}` is already set in `environment`", short(text));
                return Err(wrong("environment", message, "choose another name"));
            }
            variable(text)
        });
        // Only seen when there was a mistake, and then nobody sees the model.
        let nothing = || BindingTarget::Site(Name::new("none").expect("a name"));
        Binding {
            target: target.unwrap_or_else(nothing),
            environment: variable.unwrap_or_default(),
        }
    }

    fn check_binding_variables(&mut self, bindings: &BTreeMap<Name, Binding>, key: &At<String>) {
        let mut seen = BTreeSet::new();
        for binding in bindings
            .values()
            .filter(|binding| !binding.environment.is_empty())
        {
            if !seen.insert(&binding.environment) {
                let message = format!(
                    "two bindings of `{}` set `{}`",
                    key.value, binding.environment
                );
                self.report(
                    &key.span,
                    wrong("environment", message, "choose another name"),
                );
            }
        }
    }

    fn target(&mut self, owner: &str, to: &At<String>) -> Option<BindingTarget> {
        let text = &to.value;
        if text == owner {
            let help = "bind to another object";
            self.report(
                &to.span,
                wrong("unknown-target", "the service is bound to itself", help),
            );
            return None;
        }
        let known = text.split_once('/').and_then(|(kind, name)| {
            let name_checked = Name::new(name).ok()?;
            match kind {
                "site" if self.site_names.contains(name) => Some(BindingTarget::Site(name_checked)),
                "service" if self.service_names.contains(name) => {
                    Some(BindingTarget::Service(name_checked))
                }
                _ => None,
            }
        });
        if known.is_some() {
            return known;
        }
        let message = format!("nothing is called `{}`", short(text));
        let help = self.suggest_target(owner, text);
        self.report(&to.span, wrong("unknown-target", message, help));
        None
    }

    fn suggest_target(&self, owner: &str, text: &str) -> String {
        // Comparing all with all would let a hostile text buy minutes.
        if self.findings.mistakes.len() > MISTAKES_MAX {
            return "write `site/NAME` or `service/NAME`".to_owned();
        }
        let sites = self.site_names.iter().map(|name| format!("site/{name}"));
        let services = self
            .service_names
            .iter()
            .map(|name| format!("service/{name}"));
        let all: Vec<String> = sites.chain(services).filter(|name| name != owner).collect();
        let names = || all.iter().map(String::as_str);
        // A bare name, or one under the wrong kind, is as good as a slip of the keys.
        let bare = text.rsplit('/').next().unwrap_or(text);
        let same = names().find(|name| name.rsplit('/').next() == Some(bare));
        same.or_else(|| nearest(text, names())).map_or_else(
            || format!("there is {}", list(names().take(10))),
            |near| format!("did you mean `{}`?", short(near)),
        )
    }

    fn name(&mut self, text: &At<String>) -> Option<Name> {
        self.text(Some(text), |text| {
            Name::new(text).map_err(|error| {
                let help = "1 to 63 of a-z, 0-9 and `-`, with no `-` at either end";
                wrong(
                    "name",
                    format!("`{}` is not a name: {error}", short(text)),
                    help,
                )
            })
        })
    }

    fn duration(
        &mut self,
        field: Option<&At<DurationText>>,
        default: &str,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        self.text_of(field, |text| duration(&text.0, &range))
            .or_else(|| duration(default, &range).ok())
            .unwrap_or(*range.start())
    }

    fn text<T>(
        &mut self,
        field: Option<&At<String>>,
        read: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        self.text_of(field, |text| read(text))
    }

    fn text_of<V, T>(
        &mut self,
        field: Option<&At<V>>,
        read: impl FnOnce(&V) -> Result<T, Wrong>,
    ) -> Option<T> {
        let field = field?;
        read(&field.value)
            .map_err(|wrong| self.report(&field.span, wrong))
            .ok()
    }

    fn missing(&mut self, owner: &At<String>, what: &str, help: &str) {
        let message = format!("`{}` has no `{what}`", short(&owner.value));
        self.missing_at(&owner.span, &message, help);
    }

    /// Silent where the shape check dropped something: it may have been this.
    fn missing_at(&mut self, span: &Range<usize>, message: &str, help: &str) {
        if !self.findings.flawed.contains(&span.start) {
            self.report(span, wrong("missing", message, help));
        }
    }

    fn report(&mut self, span: &Range<usize>, wrong: Wrong) {
        let mistake = Mistake::new(wrong.code, span.clone(), wrong.message);
        let help = wrong.help;
        self.findings.mistakes.push(Mistake { help, ..mistake });
    }
}
