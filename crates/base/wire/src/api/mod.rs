//! The admin API's objects (HTTP with JSON on `run/admin.sock`, paths under
//! `/v1`). Command line, console and SDK use these and nothing else.

mod jobs;
mod rollouts;
mod store;
mod upgrades;

pub use jobs::{AttemptView, JobCancelReply, JobRunReply, JobRunRequest, JobView, RunView};
pub use rollouts::{GenerationView, RolloutView};
pub use store::{ForceLeaderReply, ForceLeaderRequest, GroupView, SeatView, StoreView};
pub use upgrades::{OfferedView, UpgradeRequest, UpgradeView};

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use utoipa::ToSchema;

/// An error's body, with every status of 400 and above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiError {
    /// Stable: `not_found`, `conflict`, `invalid_manifest`,
    /// `invalid_certificate`, `deadline`, `ambiguous`, `unreachable`,
    /// `denied`, `files`, `storage`, `internal`, `invalid_attribute`.
    pub code: String,
    pub message: String,
    /// The next command to try.
    pub help: Option<String>,
    /// Places in the manifest, for `invalid_manifest`.
    #[serde(default)]
    pub diagnostics: Vec<Diagnostic>,
}

/// One mistake in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Diagnostic {
    pub message: String,
    /// Byte range in the manifest's text.
    pub start: usize,
    pub end: usize,
    pub line: usize,
    pub column: usize,
    pub help: Option<String>,
}

/// Body of `POST /v1/plan` and `POST /v1/apply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApplyRequest {
    /// The text of `homeostat.toml`.
    pub manifest: String,
    /// The directory it lies in; relative paths start here.
    #[schema(value_type = String)]
    pub directory: PathBuf,
    /// What the directory has, where it is on the node that passes this on.
    #[serde(default)]
    pub resolved: Option<Resolved>,
}

/// Content that was taken in on the node that asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resolved {
    /// Sites' trees, by name, in hex.
    pub trees: BTreeMap<String, String>,
    /// Services' programs, by name, in hex.
    pub programs: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanReply {
    /// Empty: nothing would change.
    pub changes: Vec<Change>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// `create`, `update`, `remove`.
    pub action: String,
    /// `service/search`.
    pub object: String,
    /// One line a field: `replicas: 1 -> 2`.
    pub details: Vec<String>,
}

/// A line of the JSON-lines stream that answers `apply`, `rollback` and
/// `restart`. The last is `Done` or `Failed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Progress {
    Step {
        what: String,
    },
    Content {
        site: String,
        files: u64,
        files_total: u64,
        bytes: u64,
    },
    Done {
        revision: u64,
        changes: Vec<Change>,
        addresses: Vec<String>,
    },
    Failed {
        error: ApiError,
    },
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    pub node: String,
    pub version: String,
    pub agent_pid: u32,
    pub revision: u64,
    pub http: Option<String>,
    pub https: Option<String>,
    pub edge_connected: bool,
    /// Set while the store has stopped for an error.
    pub store_fault: Option<String>,
    /// Where the node is.
    #[serde(default)]
    pub zone: String,
    /// None: this node holds the store.
    #[serde(default)]
    pub follows: Option<Follows>,
    /// Given certificates that clients refuse, or will soon.
    #[serde(default)]
    pub certificate_warnings: Vec<String>,
    /// Why replicas do not get their secrets.
    #[serde(default)]
    pub secrets_fault: Option<Fault>,
    /// Where this API listens beside its Unix socket, if it was asked to.
    #[serde(default)]
    pub admin_port: Option<AdminPort>,
    /// What this node holds; none for who may know of one project only.
    #[serde(default)]
    pub content: Option<ContentStatus>,
}

/// How a node's content is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContentStatus {
    /// How much there is, and when it was last read through.
    pub summary: String,
    /// What is damaged or missing.
    pub faults: Vec<Fault>,
    /// What went wrong and is well again.
    pub notes: Vec<String>,
}

/// What is wrong, and what a person can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    pub found: String,
    pub mend: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdminPort {
    pub address: String,
    /// Why nothing listens there yet.
    pub fault: Option<String>,
}

/// Body of `POST /v1/certificates`: a chain, the host's own certificate first,
/// and its key, both PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateRequest {
    pub chain_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateRequest").finish_non_exhaustive()
    }
}

/// Body of `POST /v1/secrets/{project}/{name}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretRequest {
    pub value: String,
}

impl std::fmt::Debug for SecretRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretRequest").finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretReply {
    /// What names it, `service/api`: its replicas are replaced one by one.
    pub services: Vec<String>,
}

/// What is told of a secret: everything but its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretView {
    pub project: String,
    pub name: String,
    pub set_unix_ms: u64,
    /// What names it, `service/api`.
    pub services: Vec<String>,
}

/// Body of `POST /v1/projects/{project}`. Unset: no limit of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Whether it may run processes, and its wasm in the edge.
    pub trusted: bool,
    pub services: Option<u32>,
    /// Of all its services together.
    pub replicas: Option<u32>,
    /// Of all its replicas together.
    pub memory_bytes: Option<u64>,
    /// Of its buckets' quotas together.
    pub bucket_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProjectView {
    pub name: String,
    pub policy: Policy,
    pub services: u64,
    pub replicas: u64,
    /// What of it goes beyond the policy: it runs on, and is refused when it is
    /// applied again.
    pub over: Vec<String>,
}

/// What somebody may do; each may what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    Viewer,
    /// Change what runs, and secrets.
    Operator,
    /// Everything: tokens, projects, certificates, the node.
    Admin,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}

/// How a node stands with the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Follows {
    pub node: String,
    /// What it says comes in.
    pub connected: bool,
    /// It has been connected at some time before this start.
    pub before: bool,
    /// What it said last is served here.
    #[serde(default)]
    pub current: bool,
}

/// Body of `POST /v1/nodes/{node}/drain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeDrainRequest {
    /// False ends it.
    pub draining: bool,
}

/// What would come of the loss of a node, or of a zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WithoutReply {
    pub without: String,
    /// Replicas that would run elsewhere.
    pub moves: Vec<WithoutMove>,
    /// Services of which replicas would run nowhere, and why.
    pub lost: BTreeMap<String, String>,
    /// Services whose replicas there would wait for it to come back: a person put
    /// them there, or they keep what they have on its disk.
    pub wait: Vec<String>,
    /// Of the cluster's state: how many of how many voters would be left.
    pub voters: u32,
    pub voters_left: u32,
}

impl WithoutReply {
    /// Whether the cluster could still be changed.
    pub fn has_majority(&self) -> bool {
        self.voters_left > self.voters / 2
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WithoutMove {
    pub service: String,
    pub to: String,
    /// What spoke for that place.
    pub why: String,
}

/// Why a service has no replica on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhyNotReply {
    pub service: String,
    pub node: String,
    /// Replicas that it has there all the same.
    pub runs: u32,
    /// Everything for want of which it could take none.
    pub lacks: Vec<String>,
    /// It could take one: another place was better.
    pub behind: Option<WhyNotBehind>,
}

/// Two places, as if the replica on one of them were to be placed again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhyNotBehind {
    /// Of the node that was asked about: the greater, the better.
    pub score: i32,
    /// The score's terms.
    pub why: String,
    /// The node that has the replica.
    pub than: String,
    pub its_score: i32,
    pub its_why: String,
}

/// Body of `POST /v1/nodes/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenRequest {
    /// Where the new node will be: `/eu/vienna`.
    pub zone: String,
    /// What its machine's owner may do in the cluster without a token.
    pub owner: Role,
    /// None: 15 minutes.
    pub life_seconds: Option<u64>,
    /// The new node never keeps the cluster's state, and with it its authority and
    /// its secrets' key: for a machine of somebody else's.
    #[serde(default)]
    pub no_vote: bool,
    /// The new node votes, and runs no replicas.
    #[serde(default)]
    pub witness: bool,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenReply {
    pub id: String,
    /// The line to paste; good for one machine.
    pub token: String,
    pub zone: String,
    pub expires_unix_ms: u64,
}

impl std::fmt::Debug for JoinTokenReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinTokenReply")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// How often a node was found down. What is long ago counts less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeFailures {
    pub times: u32,
    pub down_seconds: u64,
    /// Of so many in all.
    pub watched_seconds: u64,
}

/// A node as the one that was asked sees it.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a question that people ask of a node"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    pub id: String,
    pub name: String,
    pub zone: String,
    /// `alive`, `suspect`, `dead`, `left`, `unheard` or `revoked`; of the node
    /// that was asked also `superseded`: another process has its key, and prevails.
    pub state: String,
    /// Two processes were found to have its key: its disk was copied.
    #[serde(default)]
    pub cloned: bool,
    /// The node that was asked.
    pub this: bool,
    /// It leads the control group.
    #[serde(default)]
    pub leader: bool,
    /// It is being emptied.
    #[serde(default)]
    pub draining: bool,
    /// It votes, and runs no replicas.
    #[serde(default)]
    pub witness: bool,
    /// It is one of those that keep the cluster's state.
    #[serde(default)]
    pub votes: bool,
    /// Of its agent; none of a node that can only call out.
    pub addresses: Vec<String>,
    /// Nobody can call it: the others reach it through `relays`.
    #[serde(default)]
    pub outbound_only: bool,
    /// Names of nodes.
    #[serde(default)]
    pub relays: Vec<String>,
    pub http: Option<String>,
    pub https: Option<String>,
    pub joined_unix_ms: u64,
    /// As the leader has seen it, where that is who was asked; placement counts
    /// with it.
    #[serde(default)]
    pub failures: Option<NodeFailures>,
    /// To its agent and back, where there is a connection.
    pub round_trip_us: Option<u64>,
    /// Of its program, as it last said.
    pub version: Option<String>,
    /// Version of the frames that it and the node that was asked agreed on, where
    /// there is a connection.
    #[serde(default)]
    pub wire: Option<u8>,
    /// Replicas on it that take requests.
    pub ready: u64,
    /// What it publishes of itself, as the node that was asked heard it last.
    pub attributes: BTreeMap<String, serde_json::Value>,
    /// How long ago the node that was asked heard of their last change; none
    /// before it heard of any.
    pub attributes_changed_ms: Option<u64>,
    /// What it published that the node that was asked could not read.
    pub attributes_unreadable: u64,
}

/// Body of `POST /v1/attributes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    /// Booleans, numbers, texts or lists of texts, by name.
    #[serde(default)]
    pub set: BTreeMap<String, serde_json::Value>,
    /// Names that are published no more.
    #[serde(default)]
    pub remove: BTreeSet<String>,
}

/// What is published of this node by hand, after the change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishReply {
    pub attributes: BTreeMap<String, serde_json::Value>,
    pub bytes: u64,
    pub bytes_max: u64,
}

/// Body of `POST /v1/nodes/{node}/name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeNameRequest {
    pub name: String,
}

/// Body of `POST /v1/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenRequest {
    pub role: Role,
    /// None: all projects, and the node.
    pub project: Option<String>,
    /// None: 30 days.
    pub life_seconds: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenReply {
    pub id: String,
    /// Shown this once: only a hash of it is kept.
    pub token: String,
    pub expires_unix_ms: u64,
}

impl std::fmt::Debug for TokenReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenReply")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    pub id: String,
    pub role: Role,
    pub project: Option<String>,
    pub created_unix_ms: u64,
    pub expires_unix_ms: u64,
    pub expired: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateReply {
    /// For which it is shown from now on; `*.` stands for one label.
    pub hosts: Vec<String>,
    pub expires_unix: i64,
    /// Such as that it has expired.
    pub warning: Option<String>,
}

/// `GET /v1/objects/{kind}` answers a list of these, `…/{kind}/{name}` one.
/// Kinds: `site`, `service`, `replica`, `node`, `revision`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Object {
    pub kind: String,
    /// Within its project; a replica's is whole: `news.search-g12-0`.
    pub name: String,
    /// None: the node's.
    #[serde(default)]
    pub project: Option<String>,
    /// What a person calls it: `service/search`, or `service/news/search` where
    /// whoever asks sees another project's of that name.
    #[serde(default)]
    pub reference: String,
    /// One word: `ready`, `starting`, `backing-off`, `stopped`, …
    pub state: String,
    /// One line for the table.
    pub summary: String,
    #[schema(value_type = Object)]
    pub desired: serde_json::Value,
    #[schema(value_type = Object)]
    pub observed: serde_json::Value,
}

/// `GET /v1/why/{kind}/{name}`: newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WhyReply {
    #[schema(value_type = Vec<Object>)]
    pub chain: Vec<WhyStep>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhyStep {
    /// The node that decided it, where that is not the one asked.
    #[serde(default)]
    pub node: Option<String>,
    pub decision: crate::decision::Decision,
    pub observation: Option<crate::decision::Observation>,
}

/// A line of `GET /v1/logs/{service}?follow=true` (JSON lines).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    pub replica: String,
    /// `out` or `err`.
    pub stream: String,
    pub at_unix_ms: u64,
    pub text: String,
}

/// The zone tree, from where the node that was asked stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ZonesReply {
    /// The leaf zone of the node that was asked.
    pub zone: String,
    /// The root, that node's zones, and those beside them.
    pub zones: Vec<ZoneView>,
    pub nodes: Vec<NodeInZone>,
    /// Nodes that said of a zone what its rows do not give, with the zone.
    #[serde(default)]
    pub liars: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ZoneView {
    pub zone: String,
    /// Nodes that belong there.
    pub expected: u64,
    /// Of these, those whose rows are in what is shown; none of a zone of which
    /// nothing is heard.
    pub reporting: u64,
    /// How old the oldest of it may be.
    pub oldest_ms: u64,
    /// Nothing has confirmed the zone for so long: it was so then.
    pub unknown_since_ms: Option<u64>,
    /// The node that was asked has computed it.
    pub own: bool,
    /// The node whose signature it has.
    pub issuer: Option<String>,
    /// Grows with each row of the zone: whoever asks another node for at least
    /// this one never sees an older one. Rows that a node computes have none.
    #[serde(default)]
    pub stamp: Option<String>,
    /// Nodes that speak for the zone.
    pub representatives: Vec<String>,
    #[schema(value_type = Object)]
    pub attributes: BTreeMap<String, serde_json::Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeInZone {
    pub node: String,
    /// Its leaf zone.
    pub zone: String,
    pub reachable: bool,
}

/// A question to all nodes of a zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AskRequest {
    /// `SELECT …`; `FROM children` may be left out.
    pub text: String,
    /// All there are, when it is left out.
    #[serde(default)]
    pub zone: Option<String>,
    /// Nodes that were not heard for longer do not count.
    #[serde(default)]
    pub fresh_ms: Option<u64>,
    /// How many of the rows behind the number to show, at most 500.
    #[serde(default)]
    pub rows: u32,
    /// An answer comes within this, with what is missing said.
    #[serde(default)]
    pub within_ms: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AskReply {
    pub zone: String,
    /// In the order of the question.
    pub values: Vec<NamedValue>,
    /// Nodes that belong to the zone; of these, those that are in the values; of
    /// these, those that `WHERE` let through.
    pub expected: u64,
    pub reporting: u64,
    pub matched: u64,
    /// How old the oldest of it may be.
    pub oldest_ms: u64,
    /// Values of a type that the question could not use.
    pub ignored: u64,
    /// Zones that did not answer; further ones are counted.
    pub silent: Vec<SilentZone>,
    pub silent_more: u64,
    /// What the question read of nodes; further ones are counted.
    pub rows: Vec<AskedRow>,
    pub rows_more: u64,
    /// Nodes were being moved between zones while it was counted: one may be in
    /// it twice, or not at all. Ask again.
    pub moving: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NamedValue {
    pub name: String,
    #[schema(value_type = Value)]
    pub value: serde_json::Value,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SilentZone {
    pub zone: String,
    pub nodes: u64,
    /// Since it was last heard of.
    pub unknown_since_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AskedRow {
    pub node: String,
    pub zone: String,
    #[schema(value_type = Object)]
    pub attributes: BTreeMap<String, serde_json::Value>,
}

/// Puts a node into a zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeZoneRequest {
    pub zone: String,
}

/// Gives a zone and all below it another name, or another zone's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ZoneMoveRequest {
    pub from: String,
    pub to: String,
}

/// A program that computes zones' attributes from their nodes'.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AggregateRequest {
    pub name: String,
    /// `SELECT …`
    pub text: String,
    /// Where it runs, and all below; everywhere, when it is left out.
    #[serde(default)]
    pub zone: Option<String>,
    /// How long it runs; a year, when it is left out.
    #[serde(default)]
    pub life_ms: Option<u64>,
    /// How long it is tried in one zone before it runs in all.
    #[serde(default)]
    pub trial_ms: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AggregateView {
    pub name: String,
    pub zone: String,
    pub version: u64,
    /// `runs`, `is tried`, `in quarantine`; `said` or `removed` of one that
    /// just was.
    pub state: String,
    /// Why it gives nothing.
    pub why: Option<String>,
    pub text: String,
    /// When its time is over.
    pub ends_ms: u64,
}

/// A question that is asked again and again, and who is told of its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AlertRequest {
    pub name: String,
    /// A condition, or a `SELECT …` whose first value is one; its other values
    /// are told with it.
    pub when: String,
    /// Whose nodes; all, when it is left out.
    #[serde(default)]
    pub zone: Option<String>,
    /// How long it must hold, and then not hold; at once, when it is left out.
    #[serde(default)]
    pub for_ms: Option<u64>,
    /// Told whenever the first value is another one.
    #[serde(default)]
    pub on_change: bool,
    /// Between two questions.
    #[serde(default)]
    pub every_ms: Option<u64>,
    /// Of these two, one: a URL that notices are posted to …
    #[serde(default)]
    pub webhook: Option<String>,
    /// … or a program with its arguments, which reads a notice from its standard
    /// input, where the store is held.
    #[serde(default)]
    pub command: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AlertView {
    pub name: String,
    pub zone: String,
    /// What is asked.
    pub question: String,
    /// `for 10s`, `on change`
    pub condition: String,
    pub every_ms: u64,
    /// `webhook HOST`, `command PROGRAM`: what follows them may be secret.
    pub tells: String,
    /// `quiet`, `pending`, `firing`, `ending`, `watching`, `unknown`
    pub state: String,
    /// How long `state` is so, where that is known.
    pub since_ms: Option<u64>,
    #[schema(value_type = Object)]
    pub value: Option<serde_json::Value>,
    /// Why the newest question gave nothing.
    pub trouble: Option<String>,
    /// Why the last delivery failed, until one works.
    pub failed: Option<String>,
}

/// What a webhook is posted and a command reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AlertNotice {
    pub alert: String,
    /// `firing`, `resolved`, `changed`, `test`
    pub state: String,
    /// For people, in one line.
    pub text: String,
    pub zone: String,
    pub question: String,
    /// Of the newest answer.
    pub values: Vec<NamedValue>,
    pub expected: u64,
    pub reporting: u64,
    /// Some of the rows behind the numbers.
    pub rows: Vec<AskedRow>,
    /// Who tells it.
    pub node: String,
    pub at_unix_ms: u64,
}
