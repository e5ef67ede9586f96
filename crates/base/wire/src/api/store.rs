//! How the stores stand, one node that is made to lead them, and who holds the seats.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// How a node's members of the stores' groups stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreView {
    /// The node that was asked.
    pub node: String,
    /// Nodes that are to keep the stores, as far as it was told.
    pub wanted_voters: Vec<String>,
    pub wanted_learners: Vec<String>,
    pub groups: Vec<GroupView>,
    /// Raised by `force-leader`.
    #[serde(default)]
    pub generation: u16,
}

/// Body of `POST /v1/store/force-leader`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForceLeaderRequest {
    /// Do it; else only say what it would mean.
    pub confirmed: bool,
}

/// What it means that this node leads without the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForceLeaderReply {
    pub node: String,
    /// The cluster's from then on.
    pub generation: u16,
    /// Entries of the control group's log that this node has: all that it knows.
    pub entries: u64,
    /// How long ago somebody was last known to lead; none: not since this agent
    /// started.
    pub leaderless_ms: Option<u64>,
    /// Members that do not answer: what they acknowledged and this node has not
    /// heard of is lost.
    pub unreached: Vec<String>,
    /// Members that answer; they follow.
    pub reached: Vec<String>,
    /// Whether it is done: the agent starts anew and leads.
    pub done: bool,
}

/// Where loops run that are no node's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SeatView {
    /// `root`, or the leaf zone.
    pub seat: String,
    /// None: it is free, and the root does its work.
    pub holder: Option<String>,
    /// Grows with each holder: what an earlier one writes is refused.
    pub epoch: Option<u64>,
    pub since_unix_ms: Option<u64>,
    /// The leader hears of its holder; else the root does its work.
    pub at_work: bool,
    /// Who may hold it.
    pub candidates: Vec<String>,
    /// What runs there.
    pub loops: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupView {
    /// `control` or `buckets`.
    pub group: String,
    /// None: no majority is heard.
    pub leader: Option<String>,
    /// Counts elections.
    pub term: u64,
    pub voters: Vec<String>,
    pub learners: Vec<String>,
    /// Of the log, as far as they are known here; and of them, applied.
    pub entries: u64,
    pub applied: u64,
    /// By the leader: entries that another member does not have yet.
    pub behind: BTreeMap<String, u64>,
    /// What is acknowledged is on one node alone, although there are two.
    #[serde(default)]
    pub degraded: bool,
    /// Where it is, if its members do not keep it themselves: it has no voters and
    /// no log then.
    #[serde(default)]
    pub kept_in: Option<String>,
    /// Why it has stopped, or is not reached, if so.
    pub fault: Option<String>,
}
