//! What a person may write: the one definition of keys, types, ranges,
//! defaults and their explanations.
//!
//! In: a tree that [`crate::shape`] has freed of everything these types do not
//! know. Out: the same, typed, each value with its place. Holds: the editors'
//! schema, the shape check and `explain` are derived from here, so they cannot
//! disagree. Never: says more than shape; meaning is [`crate::check`]'s.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

pub const BACKOFF_DEFAULT: &str = "10s";
pub const BUCKET_QUOTA_DEFAULT: &str = "64 MiB";
pub const BUCKET_RATE_DEFAULT: u32 = 10_000;
pub const CACHE_MAX_AGE_DEFAULT: &str = "5m";
pub const CANARY_MAX_ERROR_RATE_DEFAULT: &str = "5%";
pub const CANARY_MIN_REQUESTS_DEFAULT: u32 = 50;
pub const CANARY_SHARE_DEFAULT: &str = "10%";
pub const CATCH_UP_DEFAULT: &str = "1h";
pub const DEADLINE_DEFAULT: &str = "30s";
pub const FAILURES_DEFAULT: u32 = 3;
pub const INDEX_DEFAULT: &str = "index.html";
pub const KEEP_DEFAULT: &str = "2m";
pub const KEEP_RUNS_DEFAULT: u32 = 10;
pub const OVERLAP_DEFAULT: &str = "skip";
pub const REACH_DEFAULT: &str = "allow";
pub const RETRIES_DEFAULT: u32 = 3;
pub const STOP_GRACE_DEFAULT: &str = "10s";
pub const STRATEGY_DEFAULT: &str = "rolling";
pub const TIMEOUT_DEFAULT: &str = "1s";
pub const TIME_ZONE_DEFAULT: &str = "UTC";

const LIST_ITEMS_MAX: u32 = 100;
const MAP_ENTRIES_MAX: u32 = 1000;

/// A value and its byte range in the text.
#[derive(Clone, Debug)]
pub struct At<T> {
    pub value: T,
    pub span: Range<usize>,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = toml::Spanned::<T>::deserialize(deserializer)?;
        let span = spanned.span();
        let value = spanned.into_inner();
        Ok(Self { value, span })
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

pub type Field<T> = Option<At<T>>;
/// Entries in the order of their names, each name with its place.
pub type Entries<T> = BTreeMap<Key, At<T>>;

/// A key a person chose.
#[derive(Clone, Debug)]
pub struct Key(pub At<String>);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.value == other.0.value
    }
}
impl Eq for Key {}
impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.value.cmp(&other.0.value)
    }
}
impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        At::deserialize(deserializer).map(Self)
    }
}
impl JsonSchema for Key {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Key".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// Texts with a unit. Their schema carries a title that messages quote.
macro_rules! text_with_title {
    ($name:ident, $title:literal) => {
        #[derive(Clone, Debug, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "title": $title })
            }
        }
    };
}
text_with_title!(DurationText, "a duration such as \"250ms\" or \"5m\"");
text_with_title!(SizeText, "a size such as \"256 MiB\"");
text_with_title!(PercentText, "a percentage such as \"99.9%\"");

/// A manifest: what should run, and how it should feel.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawManifest {
    /// The tenant that everything in this manifest belongs to.
    pub project: Field<RawProject>,
    /// Trees of web content, by name: `[site.news]`.
    #[schemars(extend("maxProperties" = MAP_ENTRIES_MAX))]
    pub site: Option<Entries<RawSite>>,
    /// Programs that run, by name: `[service.search]`.
    #[schemars(extend("maxProperties" = MAP_ENTRIES_MAX))]
    pub service: Option<Entries<RawService>>,
    /// Programs that run to their end, by name: `[job.backup]`. Without a `schedule` one
    /// runs once it is applied, and again when it is applied anew and has changed.
    #[schemars(extend("maxProperties" = MAP_ENTRIES_MAX))]
    pub job: Option<Entries<RawJob>>,
    /// Keys and values that services share, by name: `[bucket.comments]`. Each change
    /// is on disk before it is acknowledged, and seen by whoever reads after it.
    #[schemars(extend("maxProperties" = MAP_ENTRIES_MAX))]
    pub bucket: Option<Entries<RawBucket>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawProject {
    /// The project's name; without it, the name of the manifest's directory.
    pub name: Field<String>,
    /// Whom the project's services and jobs may call.
    pub network: Field<RawNetwork>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawNetwork {
    /// What they reach that they are not bound to: `allow`, all services of the project;
    /// `deny`, nothing.
    #[schemars(extend("default" = REACH_DEFAULT))]
    pub default: Field<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawSite {
    /// The directory that is served, relative to the manifest. Must be given.
    /// Hidden files (`.git`, `.env`) are left out, but not `.well-known`.
    pub root: Field<String>,
    /// Host names the site answers to: `news.example`, `*.news.example`, or `*` for any.
    #[schemars(extend("default" = ["*"], "minItems" = 1, "maxItems" = LIST_ITEMS_MAX))]
    pub hosts: Field<Vec<At<String>>>,
    /// The path under which the site appears on its hosts.
    #[schemars(extend("default" = "/"))]
    pub path: Field<String>,
    /// The document served for a path that ends in `/`.
    #[schemars(extend("default" = INDEX_DEFAULT))]
    pub index: Field<String>,
    /// The document served, with status 404, for a path that is not in the tree.
    pub not_found: Field<String>,
    /// What browsers and other caches are told.
    pub cache: Field<RawCache>,
    /// How the site should feel; the loops of the node work towards it.
    pub goals: Field<RawGoals>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawCache {
    /// How long a cache may keep a document before it asks again.
    #[schemars(extend("default" = CACHE_MAX_AGE_DEFAULT))]
    pub max_age: Field<DurationText>,
    /// Path prefixes whose documents never change under their name; kept for a year.
    #[schemars(extend("default" = [], "maxItems" = LIST_ITEMS_MAX))]
    pub immutable: Field<Vec<At<String>>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawGoals {
    /// The 99th percentile of the time a request takes at the edge.
    pub latency_p99: Field<DurationText>,
    /// The share of requests that are answered well.
    pub availability: Field<PercentText>,
    /// The oldest content a client may be given.
    pub freshness: Field<DurationText>,
    /// The spending limit, in the operator's currency per hour.
    #[schemars(extend("minimum" = 0, "maximum" = 1_000_000_000_u64))]
    pub cost: Field<f64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawService {
    /// What runs. Must be given.
    pub run: Field<RawRun>,
    /// How many copies run.
    #[schemars(extend("default" = 1, "minimum" = 1, "maximum" = 1000))]
    pub replicas: Field<u32>,
    /// The node that all copies run on, by its name; without it, copies are dealt out over
    /// the nodes in turn.
    pub node: Field<String>,
    /// Whether two of it must never run at once, not even for a moment: it runs only while
    /// its node is known to be the one, and elsewhere once that is over.
    #[schemars(extend("default" = false))]
    pub singleton: Field<bool>,
    /// Where requests come in: hosts and path prefixes.
    #[schemars(extend("default" = [], "maxItems" = LIST_ITEMS_MAX))]
    pub routes: Field<Vec<At<RawRoute>>>,
    /// The port at which other services find it under its name,
    /// `NAME.PROJECT.homeostat.internal`; TCP, whatever it speaks. Below 1024 the node
    /// needs the right to listen there.
    #[schemars(extend("default" = 7080, "minimum" = 1, "maximum" = 65535))]
    pub port: Field<u16>,
    /// Who of other projects may call it: `PROJECT`, or `PROJECT/SERVICE`. They must be
    /// bound to it.
    #[schemars(extend("default" = [], "maxItems" = LIST_ITEMS_MAX))]
    pub allow_from: Field<Vec<At<String>>>,
    /// How the service should feel; the loops of the node work towards it.
    pub goals: Field<RawGoals>,
    /// How the node finds out whether a copy works.
    pub probes: Field<RawProbes>,
    /// What one copy may use; unset means no limit.
    pub limits: Field<RawLimits>,
    /// Environment variables of each copy. `HOST` and `PORT` are set by the node.
    #[schemars(extend("maxProperties" = MAP_ENTRIES_MAX))]
    pub environment: Option<Entries<String>>,
    /// Secrets that each copy finds in its environment: the variable, and the secret's
    /// name as `homeostat secret set` gave it.
    #[schemars(extend("maxProperties" = LIST_ITEMS_MAX))]
    pub secrets: Option<Entries<String>>,
    /// Other objects that the service needs, each by a name of its own.
    #[schemars(extend("maxProperties" = MAP_ENTRIES_MAX))]
    pub bindings: Option<Entries<RawBinding>>,
    /// How long a request may take in all, holding and retries included.
    #[schemars(extend("default" = DEADLINE_DEFAULT))]
    pub deadline: Field<DurationText>,
    /// The time between the polite signal to stop and the kill.
    #[schemars(extend("default" = STOP_GRACE_DEFAULT))]
    pub stop_grace: Field<DurationText>,
    /// How a new version takes the place of the one before.
    pub rollout: Field<RawRollout>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRollout {
    /// `rolling`: each node goes over once its new copies are ready, or with `batch` so many
    /// of all copies at a time. `canary`: a few new copies take requests beside the old ones
    /// first. `blue-green`: all new copies come up beside the old ones, then take all requests
    /// at once.
    #[schemars(extend("default" = STRATEGY_DEFAULT))]
    pub strategy: Field<String>,
    /// Of rolling: how many of all copies are replaced at a time, at least one; unset means
    /// that each node replaces its own, all at once.
    pub batch: Field<PercentText>,
    /// Of a canary: how many of the copies are new at first, at least one.
    #[schemars(extend("default" = CANARY_SHARE_DEFAULT))]
    pub share: Field<PercentText>,
    /// Of a canary: how long it must be good before the rest follows by itself, such as
    /// `5m`; `manual`: it waits for `homeostat rollout promote`.
    #[serde(rename = "for")]
    #[schemars(extend("default" = "manual"))]
    pub good_for: Field<String>,
    /// Of a canary: by how much its share of failed requests may exceed that of the old
    /// copies, before it is taken back.
    #[schemars(extend("default" = CANARY_MAX_ERROR_RATE_DEFAULT))]
    pub max_error_rate: Field<PercentText>,
    /// Of a canary: by how much its 99th percentile of latency may exceed that of the old
    /// copies, before it is taken back; unset means it is not compared.
    pub max_latency: Field<DurationText>,
    /// Of a canary: with fewer requests than that it is not compared.
    #[schemars(extend("default" = CANARY_MIN_REQUESTS_DEFAULT, "minimum" = 1, "maximum" = 1_000_000))]
    pub min_requests: Field<u32>,
    /// Of blue-green: how long the old copies stay after the switch, so that `homeostat
    /// rollout abort` goes back at once.
    #[schemars(extend("default" = KEEP_DEFAULT))]
    pub keep: Field<DurationText>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRun {
    /// Program and arguments. A program with a `/` in it is relative to the
    /// manifest, one without is looked up in the path. It listens on `HOST` and `PORT`.
    #[schemars(extend("minItems" = 1, "maxItems" = MAP_ENTRIES_MAX))]
    pub process: Field<Vec<At<String>>>,
    /// A `wasi:http` component: its file, relative to the manifest. Requests go to
    /// instances of it, which have nothing but their bindings.
    pub wasm: Field<String>,
    /// A core module with the actor interface: its file, relative to the manifest. There is
    /// one of it, and its memory lives on between requests.
    pub actor: Field<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawJob {
    /// What runs: a `process`. Must be given. It has done its work when it ends with exit
    /// code 0.
    pub run: Field<RawRun>,
    /// When it runs, as cron has it: minute, hour, day of the month, month, day of the week;
    /// six fields begin with the second. Without it, it runs when it is applied and when
    /// somebody asks.
    pub schedule: Field<String>,
    /// Whose clock `schedule` means, such as `Europe/Vienna`.
    #[schemars(extend("default" = TIME_ZONE_DEFAULT))]
    pub time_zone: Field<String>,
    /// A run that was missed, because nobody led the cluster, still begins when it is no
    /// later than this; of several, the last one.
    #[schemars(extend("default" = CATCH_UP_DEFAULT))]
    pub catch_up: Field<DurationText>,
    /// What is done when a run is due and the one before goes on: `skip` the new one,
    /// `allow` both, or `replace` the old one.
    #[schemars(extend("default" = OVERLAP_DEFAULT))]
    pub overlap: Field<String>,
    /// How often an attempt that failed is followed by another one.
    #[schemars(extend("default" = RETRIES_DEFAULT, "minimum" = 0, "maximum" = 100))]
    pub retries: Field<u32>,
    /// The wait before the second attempt; each further wait is twice as long, up to 10 minutes.
    #[schemars(extend("default" = BACKOFF_DEFAULT))]
    pub backoff: Field<DurationText>,
    /// How long a whole run may take, its waits and retries included. Then it has failed.
    pub deadline: Field<DurationText>,
    /// How long one attempt may take. Then it is stopped, and has failed.
    pub attempt_timeout: Field<DurationText>,
    /// How many parts a run has: each must succeed, and finds its number, from 0, in
    /// `HOMEOSTAT_JOB_INDEX`.
    #[schemars(extend("default" = 1, "minimum" = 1, "maximum" = 1000))]
    pub indices: Field<u32>,
    /// How many parts run at the same time; all of them, unless set.
    #[schemars(extend("minimum" = 1, "maximum" = 1000))]
    pub parallel: Field<u32>,
    /// Whether a part must never run twice at the same time, and never again when it is not
    /// known how it ended: then the run is `unknown`, and a person decides.
    #[schemars(extend("default" = false))]
    pub once: Field<bool>,
    /// How many runs that have ended are remembered.
    #[schemars(extend("default" = KEEP_RUNS_DEFAULT, "minimum" = 1, "maximum" = 100))]
    pub keep_runs: Field<u32>,
    /// The node that it runs on, by its name; without it, where there is room.
    pub node: Field<String>,
    /// What one attempt may use; unset means no limit.
    pub limits: Field<RawLimits>,
    /// Environment variables of each attempt. Those that begin with `HOMEOSTAT_` are set by
    /// the node.
    #[schemars(extend("maxProperties" = MAP_ENTRIES_MAX))]
    pub environment: Option<Entries<String>>,
    /// Secrets that each attempt finds in its environment: the variable, and the secret's
    /// name as `homeostat secret set` gave it.
    #[schemars(extend("maxProperties" = LIST_ITEMS_MAX))]
    pub secrets: Option<Entries<String>>,
    /// Other objects that the job needs, each by a name of its own.
    #[schemars(extend("maxProperties" = MAP_ENTRIES_MAX))]
    pub bindings: Option<Entries<RawBinding>>,
    /// The time between the polite signal to stop and the kill.
    #[schemars(extend("default" = STOP_GRACE_DEFAULT))]
    pub stop_grace: Field<DurationText>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawBucket {
    /// What all its keys and values together may take; deleting is always possible.
    #[schemars(extend("default" = BUCKET_QUOTA_DEFAULT))]
    pub quota: Field<SizeText>,
    /// Calls a second, of all services together.
    #[schemars(extend("default" = BUCKET_RATE_DEFAULT, "minimum" = 1, "maximum" = 10_000_000))]
    pub rate: Field<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRoute {
    /// The host name: `news.example`, `*.news.example`, or `*` for any.
    #[schemars(extend("default" = "*"))]
    pub host: Field<String>,
    /// The path prefix: `/search` covers `/search` and what lies below it. Must be given.
    pub path: Field<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawProbes {
    /// Until it has succeeded once, the other probes wait; when it fails, the copy is restarted.
    /// Tried every 100ms, 50 times, unless set otherwise.
    pub startup: Field<RawProbe>,
    /// Decides whether the copy gets requests. Tried every second unless set otherwise.
    pub readiness: Field<RawProbe>,
    /// When it fails, the copy is restarted. Tried every 5 seconds unless set otherwise.
    pub liveness: Field<RawProbe>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawProbe {
    /// A path that is fetched from the copy; a status of 200 to 399 is success.
    pub http: Field<String>,
    /// `true`: success is a connection to the copy's port.
    pub tcp: Field<bool>,
    /// The time between two tries; the default depends on the probe.
    pub every: Field<DurationText>,
    /// How long one try may take.
    #[schemars(extend("default" = TIMEOUT_DEFAULT))]
    pub timeout: Field<DurationText>,
    /// Failures in a row before the probe counts as failed (50 for `startup`).
    #[schemars(extend("default" = FAILURES_DEFAULT, "minimum" = 1, "maximum" = 10_000))]
    pub failures: Field<u32>,
    /// Successes in a row before the probe counts as succeeded.
    #[schemars(extend("default" = 1, "minimum" = 1, "maximum" = 1000))]
    pub successes: Field<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawLimits {
    /// Memory of one copy.
    pub memory: Field<SizeText>,
    /// Cores; 0.5 is half of one.
    #[schemars(extend("minimum" = 0.01, "maximum" = 1024))]
    pub cpu: Field<f64>,
    /// Processes and threads of one copy.
    #[schemars(extend("minimum" = 1, "maximum" = 4_194_304))]
    pub processes: Field<u32>,
    /// Open files of each process of a copy.
    #[schemars(extend("minimum" = 16, "maximum" = 1_048_576))]
    pub open_files: Field<u64>,
    /// How long one request may keep a component or an actor busy; `deadline`, unless set.
    pub time: Field<DurationText>,
    /// Requests at once in one copy of a component, or waiting for an actor.
    #[schemars(extend("minimum" = 1, "maximum" = 10_000))]
    pub concurrency: Field<u32>,
    /// Requests that one instance of a component answers before another takes its
    /// place; 1, unless set: then nothing of a request is left for the next.
    #[schemars(extend("minimum" = 1, "maximum" = 1_000_000))]
    pub reuse: Field<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawBinding {
    /// What is needed: `site/NAME`, `service/NAME` or `bucket/NAME`; another project's
    /// service is `service/PROJECT/NAME`. Must be given.
    pub to: Field<String>,
    /// The variable in which the copy finds it: a service's URL at the local
    /// edge, the directory of a site's current tree. Must be given for a site. A bucket
    /// is opened by the binding's name, and a service's own address is in
    /// `HOMEOSTAT_SERVICE_NAME`.
    pub environment: Field<String>,
}

/// The JSON schema of `homeostat.toml`, for editors; everything inline.
pub fn schema() -> Value {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    let schema = settings
        .into_generator()
        .into_root_schema_for::<RawManifest>();
    let mut value = schema.to_value();
    tidy(&mut value);
    if let Some(root) = value.as_object_mut() {
        root.insert("title".to_owned(), "homeostat.toml".into());
    }
    value
}

/// TOML has no null, and the widths of Rust's integers are no reader's business.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("format").is_some_and(Value::is_string) {
                map.remove("format");
            }
            if let Some(Value::Array(kinds)) = map.get_mut("type") {
                kinds.retain(|kind| kind != "null");
                if let [only] = kinds.as_slice() {
                    let only = only.clone();
                    map.insert("type".to_owned(), only);
                }
            }
            unwrap_nullable(map);
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// `anyOf: [X, null]` is X, with the field's own words on top.
fn unwrap_nullable(map: &mut serde_json::Map<String, Value>) {
    let Some(Value::Array(choices)) = map.get_mut("anyOf") else {
        return;
    };
    choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
    if let [Value::Object(only)] = choices.as_slice() {
        let only = only.clone();
        map.remove("anyOf");
        for (key, value) in only {
            map.entry(key).or_insert(value);
        }
    }
}
