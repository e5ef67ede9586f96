//! Why something could not be sent, and what the caller may conclude.

use super::options::Address;
use crate::identity::{CertificateError, Refusal};
use crate::tls::ShownError;
use kernel::{NodeId, format_duration};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use wire::net::frame::FrameError;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    #[error("cannot listen on {address} over UDP")]
    Socket {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("the own certificate cannot be used")]
    Certificate(#[source] CertificateError),
    #[error("the own key cannot be used")]
    Key(#[source] ShownError),
    #[error("the handshake cannot be configured")]
    Tls(#[source] rustls::Error),
}

/// No connection: nothing was sent, nothing done.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReachError {
    #[error("no address of node {node} is known, and it has not called")]
    NoAddress { node: NodeId },
    #[error("node {node} is not called again before {}{}", format_duration(*retry_in), because(last.as_deref()))]
    BackOff {
        node: NodeId,
        retry_in: Duration,
        last: Option<Arc<ReachError>>,
    },
    #[error("node {node} is not reached at {}", tried(attempts))]
    Failed {
        node: NodeId,
        attempts: Vec<(Address, Failure)>,
    },
    #[error("a node does not call itself")]
    Own,
}

/// Why one address did not lead to the node.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    #[error("no answer in time")]
    Silent,
    /// We refused who answered.
    #[error("{0}")]
    Refused(Refusal),
    /// It refused us.
    #[error("it refused this node: {0}")]
    RefusedBy(String),
    #[error("it speaks no version of ours")]
    Version,
    #[error("{0}")]
    Other(String),
}

impl ReachError {
    /// Whether an answer came, so that the node's machine lives: the refusal
    /// of a peer rather than silence.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Failed { attempts, .. } => attempts.iter().any(|(_, why)| {
                matches!(
                    why,
                    Failure::Refused(_) | Failure::RefusedBy(_) | Failure::Version
                )
            }),
            Self::BackOff { last, .. } => last.as_ref().is_some_and(|last| last.is_refusal()),
            Self::NoAddress { .. } | Self::Own => false,
        }
    }
}

fn because(last: Option<&ReachError>) -> String {
    last.map_or_else(String::new, |last| format!(": {last}"))
}

fn tried(attempts: &[(Address, Failure)]) -> String {
    let each = attempts.iter().map(|(address, why)| match address {
        Address::Direct(address) => format!("{address} ({why})"),
        Address::Via(relay) => format!("relay {relay} ({why})"),
    });
    each.collect::<Vec<_>>().join(", ")
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    #[error("a datagram of {bytes} bytes is over the limit of {limit}")]
    TooLong { bytes: usize, limit: usize },
    #[error(transparent)]
    Unreachable(#[from] ReachError),
    #[error("a datagram cannot be framed")]
    Frame(#[source] FrameError),
    #[error("the connection does not take a datagram: {0}")]
    Lost(String),
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error(transparent)]
    Unreachable(#[from] ReachError),
    #[error("the stream's head cannot be framed")]
    Frame(#[source] FrameError),
    #[error("the connection was lost: {0}")]
    Lost(String),
    #[error("the stream was not opened in time")]
    Late,
}
