//! A rollout under way, as the admin API shows it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RolloutView {
    /// `PROJECT/SERVICE`
    pub service: String,
    /// `rolling`, `canary`, `blue-green`
    pub strategy: String,
    /// `rolling`, `canary`, `coming` (up beside the old one), `switched`
    pub stage: String,
    pub paused: bool,
    /// When the stage began.
    pub since_unix_ms: u64,
    /// When it goes on by itself, if nothing is wrong; none where it waits for something else.
    pub goes_on_unix_ms: Option<u64>,
    pub old: GenerationView,
    pub new: GenerationView,
    /// What it waits for.
    pub waits_for: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GenerationView {
    pub generation: u64,
    pub wanted: u32,
    pub ready: u32,
    /// Whether it is given requests.
    pub routed: bool,
    /// Since the stage began, or since the leader did.
    pub requests: u64,
    pub errors: u64,
    pub latency_p99_ms: Option<f64>,
}
