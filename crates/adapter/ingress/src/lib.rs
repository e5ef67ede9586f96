//! The HTTP data plane: takes requests from clients and other edges, serves
//! sites from content and services from their replicas, be they components in
//! this process, on this node, or behind another node's edge.
//!
//! In: connections, [`EdgeSnapshot`]s. Out: answers, one access row for each
//! request, evidence about replicas, readings.
//! Holds: every wait and size is bounded by [`Limits`]; a snapshot takes force
//! whole or not at all, and never on the path of a request.
//! Never: reads configuration, or decides what should run.

mod accept;
mod body;
mod choose;
mod connection;
mod head;
mod latency;
mod limits;
mod log;
mod peer;
mod pool;
mod proxy;
mod router;
mod server;
mod site;
mod streams;
mod tls;
mod tunnel;
mod upstream;
mod watched;

use bytes::Bytes;
use kernel::{Hash, NodeId, ReplicaId};
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

pub use body::{BoxError, Outgoing as RequestBody};
pub use limits::Limits;
pub use peer::{Connecting, PeerConnector, PeerStream};
pub use router::SnapshotError;
pub use server::{Ingress, Options};
pub use wire::edge::{EdgeReadings, EdgeSnapshot};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
    Brotli,
}

#[derive(Debug)]
pub struct Document {
    /// Length of this encoding.
    pub bytes: u64,
    pub source: Source,
}

/// Small documents come from memory in one write; large ones are read in blocks
/// on the blocking pool.
#[derive(Debug)]
pub enum Source {
    Memory(Bytes),
    Stored(Arc<dyn Stored>),
}

/// A document on a disk. An answer whose read fails is cut off there.
pub trait Stored: std::fmt::Debug + Send + Sync {
    /// At least one byte from the span's start on, none beyond its end. Blocks.
    fn read(&self, span: &Range<u64>) -> io::Result<Bytes>;
}

impl Stored for std::fs::File {
    fn read(&self, span: &Range<u64>) -> io::Result<Bytes> {
        use std::os::unix::fs::FileExt;
        let length = span.end.saturating_sub(span.start).min(BLOCK_BYTES);
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.read_exact_at(&mut bytes, span.start)?;
        Ok(bytes.into())
    }
}

/// Bytes read from a file at once.
const BLOCK_BYTES: u64 = 128 * 1024;

/// Where sites' content comes from. Called on the path of a request: it must
/// not wait. An encoding exists only when it was made ahead.
pub trait Documents: Send + Sync + 'static {
    fn tree(&self, hash: Hash) -> Option<Arc<wire::content::Tree>>;
    fn open(&self, hash: Hash, encoding: Encoding) -> Option<Document>;
}

/// Takes the row of each request when its answer ended or was aborted.
pub trait AccessLog: Send + Sync + 'static {
    fn record(&self, row: wire::rows::AccessRow);
}

/// Runs components in this process. [`Components::find`] is not on the path of
/// a request.
pub trait Components: Send + Sync + 'static {
    fn find(&self, replica: &ReplicaId) -> Option<Arc<dyn Component>>;
}

pub trait Component: Send + Sync + 'static {
    /// Requests that it takes at once.
    fn concurrency(&self) -> usize;

    /// Drops what it does when the future or the answer's body is dropped.
    fn handle(&self, request: http::Request<RequestBody>) -> ComponentAnswer;
}

pub type ComponentAnswer =
    Pin<Box<dyn Future<Output = Result<http::Response<ComponentBody>, ComponentError>> + Send>>;
pub type ComponentBody = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>;

/// How a component ended without an answer; it has told its log why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComponentError {
    /// No room for the request: it was not acted on.
    Busy,
    Late,
    Broken,
}

/// Hears at once that a replica did not take or finish a request, or answers
/// with errors, or that another node's edge is not there.
pub trait Evidence: Send + Sync + 'static {
    /// * `others_answer`: others of its service do, well and lately.
    fn endpoint_failed(&self, replica: &ReplicaId, why: &str, others_answer: bool);
    fn peer_failed(&self, node: NodeId, why: &str);
}
