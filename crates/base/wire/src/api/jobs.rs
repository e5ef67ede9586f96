//! Jobs and their runs, as the admin API shows them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Body of `POST /v1/jobs/{job}/runs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobRunRequest {
    /// After those of the manifest.
    #[serde(default)]
    pub arguments: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobRunReply {
    /// `PROJECT/JOB`
    pub job: String,
    pub run: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobCancelReply {
    /// `PROJECT/JOB`
    pub job: String,
    /// That end now.
    pub runs: Vec<u64>,
}

/// What is observed of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    /// When it is due next.
    pub next_unix_ms: Option<u64>,
    /// The newest first.
    pub runs: Vec<RunView>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunView {
    pub number: u64,
    /// `applied`, `scheduled`, `asked`
    pub cause: String,
    pub arguments: Vec<String>,
    /// `going`, `stopping`, `succeeded`, `failed`, `unknown`, `cancelled`
    pub state: String,
    /// Why it ended so, or what it waits for.
    pub why: Option<String>,
    /// The next step.
    pub help: Option<String>,
    pub began_unix_ms: u64,
    pub ended_unix_ms: Option<u64>,
    pub parts: u32,
    /// Parts that have succeeded.
    pub succeeded: u32,
    /// The newest first; of those that have ended, the last ones.
    pub attempts: Vec<AttemptView>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttemptView {
    /// Which part, from 0.
    pub index: u32,
    /// Of this part, from 1.
    pub attempt: u32,
    /// As logs name it.
    pub replica: String,
    /// The node's name.
    pub node: String,
    /// `starting`, `running`, `stopping`, `succeeded`, `failed`, `unknown`
    pub state: String,
    pub why: Option<String>,
    /// Of its end, or of its start.
    pub at_unix_ms: u64,
}
