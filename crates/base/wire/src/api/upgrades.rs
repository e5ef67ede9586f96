//! Upgrades, as the admin API shows them.

use super::Follows;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Body of `POST /v1/nodes/{node}/upgrade`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpgradeRequest {
    /// A file on that node; none: the one that it was started from.
    #[serde(default)]
    pub program: Option<String>,
}

/// What a node runs, what it could run, and how its last upgrade went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpgradeView {
    pub node: String,
    /// Of its supervisor.
    pub version: String,
    /// What was asked about.
    pub offered: Option<OfferedView>,
    /// Of the last upgrade: `edge`, `agent`, `supervisor`, `back`, `done`, `failed`.
    pub stage: Option<String>,
    /// The program that it was, or is, to go over to.
    pub program: Option<String>,
    /// Of a failed one.
    pub why: Option<String>,
    pub edge_connected: bool,
    /// None: the node leads.
    pub follows: Option<Follows>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OfferedView {
    pub program: String,
    pub version: Option<String>,
    /// It is what the node runs.
    pub same: bool,
    /// Why the node would not go over to it.
    pub refused: Option<String>,
    pub help: Option<String>,
}
