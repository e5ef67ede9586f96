//! Rows of telemetry as the edge appends them and the agent seals them.

use kernel::{Name, NodeId, ReplicaId, UnixMillis};
use serde::{Deserialize, Serialize};

/// 2: with the project, and what forwarding adds.
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
    /// Another node, whose edge answered.
    pub node: Option<NodeId>,
    /// The node whose edge sent it here. There its client is counted: such a
    /// row is left out where clients' requests are.
    pub forwarded_by: Option<NodeId>,
    /// Of a forwarded request: the same in the rows of all edges on its way.
    pub request: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record;

    fn row() -> AccessRow {
        AccessRow {
            at: UnixMillis(5),
            client: "192.0.2.0".to_owned(),
            method: "GET".to_owned(),
            host: "news.test".to_owned(),
            path: "/".to_owned(),
            protocol: "HTTP/1.1".to_owned(),
            tls: true,
            status: 200,
            bytes: 300,
            micros: 70,
            project: Some("news".parse().expect("a name")),
            site: None,
            service: Some("app".parse().expect("a name")),
            replica: Some("news.app-g1-0".parse().expect("a replica")),
            retries: 1,
            referer: String::new(),
            agent: "test".to_owned(),
            node: None,
            forwarded_by: None,
            request: None,
        }
    }

    fn hex(bytes: &[u8]) -> String {
        use std::fmt::Write;
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    #[test]
    fn golden_row_of_version_2() {
        let row = AccessRow {
            node: Some(NodeId(2)),
            request: Some(300),
            ..row()
        };
        let bytes = record::encode(ACCESS_ROW_VERSION, &row).expect("encodes");
        insta::assert_snapshot!(hex(&bytes), @"0205093139322e302e322e3003474554096e6577732e74657374012f08485454502f312e3101c801ac024601046e657773000103617070010d6e6577732e6170702d67312d300100047465737401020001ac02");
        let back: AccessRow = record::decode(ACCESS_ROW_VERSION, &bytes).expect("decodes");
        assert_eq!(back, row);
    }
}
