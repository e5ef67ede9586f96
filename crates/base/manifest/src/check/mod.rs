//! Gives a manifest of the right shape its meaning.
//!
//! In: the raw types, and which of them lost a part to the shape check. Out:
//! the checked model, and every mistake. Holds: without a mistake, the model
//! satisfies every rule; a default is filled in here and nowhere else.

mod binding;
mod job;
mod rollout;
mod service;

use crate::mistake::{Mistake, short};
use crate::model::{
    Bucket, CachePolicy, Goals, HostPattern, Manifest, PathPrefix, Reach, Route, Site,
};
use crate::raw::{
    At, BUCKET_RATE_DEFAULT, CACHE_MAX_AGE_DEFAULT, DurationText, Entries, Field, INDEX_DEFAULT,
    Key, RawBucket, RawCache, RawGoals, RawManifest, RawNetwork, RawRoute, RawSite, SizeText,
};
use crate::shape::Findings;
use crate::text::{
    Wrong, decimal, duration, file_name, host_pattern, path_prefix, relative_path, share, url_path,
    wrong,
};
use kernel::{Bytes, Name};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

const SIZE_MIN: Bytes = Bytes::mebibytes(1);
const SIZE_MAX: Bytes = Bytes::mebibytes(16 << 20);
/// What `BUCKET_QUOTA_DEFAULT` says.
const BUCKET_QUOTA: Bytes = Bytes::mebibytes(64);

/// Checks the whole; the model is only worth anything if `findings` stay empty.
pub fn check(raw: RawManifest, default_project: &Name, findings: &mut Findings) -> Manifest {
    let sites = raw.site.unwrap_or_default();
    let services = raw.service.unwrap_or_default();
    let jobs = raw.job.unwrap_or_default();
    let buckets = raw.bucket.unwrap_or_default();
    let names = |keys: Vec<&Key>| keys.iter().map(|key| key.0.value.clone()).collect();
    let mut checker = Checker {
        site_names: names(sites.keys().collect()),
        service_names: names(services.keys().collect()),
        bucket_names: names(buckets.keys().collect()),
        project: None,
        routes: BTreeMap::new(),
        findings,
    };
    let (project, network) = raw.project.map_or((None, None), |project| {
        (project.value.name, project.value.network)
    });
    let project = project.and_then(|name| checker.name(&name));
    let project = project.unwrap_or_else(|| default_project.clone());
    checker.project = Some(project.clone());
    Manifest {
        project,
        network: checker.network(network),
        sites: checker.entries(sites, Checker::site),
        services: checker.entries(services, Checker::service),
        jobs: checker.entries(jobs, Checker::job),
        buckets: checker.entries(buckets, Checker::bucket),
    }
}

struct Checker<'f> {
    site_names: BTreeSet<String>,
    service_names: BTreeSet<String>,
    bucket_names: BTreeSet<String>,
    /// Once it is known.
    project: Option<Name>,
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

    fn network(&mut self, raw: Field<RawNetwork>) -> Reach {
        let default = raw.and_then(|raw| raw.value.default);
        let reach = self.text(default.as_ref(), |text| match text {
            "allow" => Ok(Reach::Allow),
            "deny" => Ok(Reach::Deny),
            _ => {
                let message = format!("`{}` is neither `allow` nor `deny`", short(text));
                Err(wrong("network", message, "write `default = \"deny\"`"))
            }
        });
        reach.unwrap_or_default()
    }

    fn bucket(&mut self, _: &At<String>, raw: RawBucket) -> Bucket {
        let quota = self.size(raw.quota.as_ref());
        Bucket {
            quota: quota.unwrap_or(BUCKET_QUOTA),
            rate: raw.rate.map_or(BUCKET_RATE_DEFAULT, |rate| rate.value),
        }
    }

    fn size(&mut self, field: Option<&At<SizeText>>) -> Option<Bytes> {
        self.text_of(field, |text| {
            let text = &text.0;
            let example = "write a number with a unit, such as `256 MiB`";
            let size: Bytes = text
                .parse()
                .map_err(|_| wrong("size", format!("`{}` is not a size", short(text)), example))?;
            if (SIZE_MIN..=SIZE_MAX).contains(&size) {
                return Ok(size);
            }
            let message = format!("`{}` is out of range", short(text));
            let help = format!("write a size from `{SIZE_MIN}` to `{SIZE_MAX}`");
            Err(wrong("range", message, help))
        })
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
