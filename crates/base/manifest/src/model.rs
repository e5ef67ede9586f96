//! The checked object model: what the rest of the program sees of a manifest.
//!
//! Holds: a value that came out of the checker satisfies every rule of the
//! manifest; defaults are filled in. These types are also what the store keeps
//! and what `get -o json` shows, so a field added later needs a serde default.

use crate::job::Job;
use crate::rollout::Rollout;
use kernel::{Bytes, Name, ScopedName, duration_text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// One project: a person's manifest, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub project: Name,
    /// Whom its services and jobs may call without saying so.
    #[serde(default, skip_serializing_if = "Reach::is_allow")]
    pub network: Reach,
    pub sites: BTreeMap<Name, Site>,
    pub services: BTreeMap<Name, Service>,
    #[serde(default)]
    pub jobs: BTreeMap<Name, Job>,
    #[serde(default)]
    pub buckets: BTreeMap<Name, Bucket>,
}

/// What a project's replicas reach that they are not bound to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// All services of their project.
    #[default]
    Allow,
    /// Nothing.
    Deny,
}

impl Reach {
    /// As it is, unless a manifest says otherwise.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_allow(&self) -> bool {
        *self == Self::Allow
    }
}

/// Keys and values that services share, linearizable and durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Of all its keys and values.
    pub quota: Bytes,
    /// Calls per second.
    pub rate: u32,
}

/// A tree of web content served under hosts and a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// The directory as written, relative to the manifest.
    pub root: String,
    pub routes: Vec<Route>,
    /// Served for a path that ends in `/`.
    pub index: String,
    /// Document served, with status 404, for a path that is not in the tree.
    pub not_found: Option<String>,
    pub cache: CachePolicy,
    pub goals: Goals,
}

/// What the edge tells clients' caches about a site's documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CachePolicy {
    #[serde(with = "duration_text")]
    pub max_age: Duration,
    /// Path prefixes whose documents never change under their name
    /// (`immutable`, one year).
    pub immutable: Vec<PathPrefix>,
}

/// Something that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub run: Run,
    pub replicas: u32,
    /// The node that all replicas run on; without it they are dealt out.
    #[serde(default)]
    pub node: Option<Name>,
    /// Two of it never run at once: see `node::lease`.
    #[serde(default)]
    pub singleton: bool,
    pub routes: Vec<Route>,
    /// At which others find it under its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Of other projects: `PROJECT`, or `PROJECT/SERVICE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_from: Vec<String>,
    pub goals: Goals,
    pub probes: Probes,
    pub limits: Limits,
    pub environment: BTreeMap<String, String>,
    /// By the variable in which a replica finds it, the secret's name.
    #[serde(default)]
    pub secrets: BTreeMap<String, Name>,
    pub bindings: BTreeMap<Name, Binding>,
    /// How long a request may take in all, holding and retries included.
    #[serde(with = "duration_text")]
    pub deadline: Duration,
    /// Between the polite signal and the kill.
    #[serde(with = "duration_text")]
    pub stop_grace: Duration,
    #[serde(default, skip_serializing_if = "Rollout::is_rolling")]
    pub rollout: Rollout,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Run {
    /// Program and arguments. A program with a `/` in it is relative to the
    /// manifest; one without is looked up in the path. The replica finds its
    /// address in `HOST` and `PORT`.
    Process(Vec<String>),
    /// The file of a `wasi:http` component, relative to the manifest.
    Wasm(String),
    /// The file of a core module with the actor interface, relative to the manifest.
    Actor(String),
}

impl Run {
    /// The file beside the manifest that runs, if it is one.
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::Process(command) => command
                .first()
                .map(String::as_str)
                .filter(|program| program.contains('/')),
            Self::Wasm(file) | Self::Actor(file) => Some(file),
        }
    }
}

/// Where requests come in: a host (with an optional leading `*.`, or `*` for
/// any) and a path prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    pub host: HostPattern,
    pub path: PathPrefix,
}

/// `news.example`, `*.news.example` or `*`; lower case, no port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostPattern(pub String);

/// Starts with `/`; `/search` covers `/search` and `/search/…`, not `/searching`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PathPrefix(pub String);

/// How it should feel. Unset means no goal, and no loop acts on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Goals {
    /// 99th percentile of a request at the edge, milliseconds.
    pub latency_p99_ms: Option<f64>,
    /// Share of requests answered well, 0 to 1.
    pub availability: Option<f64>,
    /// Oldest content a client may be given, milliseconds.
    pub freshness_ms: Option<f64>,
    /// Spending limit, in the operator's currency per hour.
    pub cost_per_hour: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probes {
    /// Until it has succeeded once, the other probes wait; when it fails
    /// `failures` times, the replica is restarted.
    pub startup: Option<Probe>,
    /// Decides whether the replica is in the routes.
    pub readiness: Option<Probe>,
    /// When it fails `failures` times in a row, the replica is restarted.
    pub liveness: Option<Probe>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    pub check: Check,
    #[serde(with = "duration_text")]
    pub every: Duration,
    #[serde(with = "duration_text")]
    pub timeout: Duration,
    /// Consecutive failures before the probe counts as failed.
    pub failures: u32,
    /// Consecutive successes before it counts as succeeded.
    pub successes: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// GET on the replica's address; 200 to 399 is success.
    Http(String),
    /// A TCP connection to the replica's address.
    Tcp,
}

/// What one replica may use; unset means no limit of ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    pub memory: Option<Bytes>,
    /// Cores; 0.5 is half of one.
    pub cpu: Option<f64>,
    pub processes: Option<u32>,
    pub open_files: Option<u64>,
    /// Of one request to a component or an actor.
    #[serde(default, with = "optional_duration_text")]
    pub time: Option<Duration>,
    /// Requests at once in a component, or waiting for an actor.
    #[serde(default)]
    pub concurrency: Option<u32>,
    /// Requests that one instance of a component answers, one after the other.
    #[serde(default)]
    pub reuse: Option<u32>,
}

/// As [`duration_text`], where there may be none.
pub(crate) mod optional_duration_text {
    use kernel::duration_text;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::time::Duration;

    #[derive(Serialize, Deserialize)]
    struct Text(#[serde(with = "duration_text")] Duration);

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        duration.map(Text).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Text>::deserialize(deserializer)?.map(|text| text.0))
    }
}

/// A directed need of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    pub target: BindingTarget,
    /// The variable in which the replica finds the target: the URL of a
    /// service at the local edge, the directory of a site's current tree. None
    /// for a bucket, which is opened by the binding's name; a service is found
    /// by its own name too.
    pub environment: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BindingTarget {
    Service(Name),
    /// A service of another project, which must allow it.
    Foreign(ScopedName),
    Site(Name),
    Bucket(Name),
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl fmt::Display for BindingTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service/{name}"),
            Self::Foreign(name) => write!(f, "service/{name}"),
            Self::Site(name) => write!(f, "site/{name}"),
            Self::Bucket(name) => write!(f, "bucket/{name}"),
        }
    }
}

impl HostPattern {
    /// Whether the pattern covers `host` (lower case, no port).
    pub fn matches(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            None => self.0 == host,
            Some("") => true,
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        }
    }
}

impl PathPrefix {
    /// Whether `path` is the prefix itself or lies below it.
    pub fn covers(&self, path: &str) -> bool {
        let prefix = self.0.trim_end_matches('/');
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_what_they_say() {
        let any = |text: &str| HostPattern(text.to_owned());
        assert!(any("*").matches("a.b") && any("*.b").matches("a.b") && any("a.b").matches("a.b"));
        assert!(!any("*.b").matches("b") && !any("*.b").matches(".b") && !any("a.b").matches("b"));
        let path = |text: &str| PathPrefix(text.to_owned());
        assert!(path("/search").covers("/search") && path("/search").covers("/search/x"));
        assert!(!path("/search").covers("/searching"));
        assert!(path("/").covers("/") && path("/").covers("/x"));
    }
}
