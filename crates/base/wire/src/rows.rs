//! Rows of telemetry as the edge appends them and the agent seals them.

use kernel::{Name, ReplicaId, UnixMillis};
use serde::{Deserialize, Serialize};

/// 2: with the project.
pub const ACCESS_ROW_VERSION: u8 = 2;

/// One request. Client addresses are truncated (IPv4 /24, IPv6 /48) unless the
/// operator says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccessRow {
    pub at: UnixMillis,
    pub client: String,
    pub method: String,
    pub host: String,
    /// Path and query, at most 2 KiB of it.
    pub path: String,
    /// `HTTP/1.1`, `HTTP/2.0`.
    pub protocol: String,
    pub tls: bool,
    pub status: u16,
    /// Body bytes sent.
    pub bytes: u64,
    /// From the request's head read to the answer's end.
    pub micros: u64,
    /// Whose site or service answered; none where no route was found.
    pub project: Option<Name>,
    /// By its name within the project, like `service`.
    pub site: Option<Name>,
    pub service: Option<Name>,
    pub replica: Option<ReplicaId>,
    /// How many replicas were tried beyond the first.
    pub retries: u32,
    pub referer: String,
    pub agent: String,
}
