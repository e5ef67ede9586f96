//! Actors: core modules that are called with one message at a time, and whose
//! memory lives on between them. `docs/actors.md` is their ABI.
//!
//! In: requests. Out: answers, streams of events, or what ended the actor.
//! Holds: one call at a time; a call that has begun is carried out; put away to
//! disk and woken, an actor answers as if it never was; an actor that failed is
//! gone with its memory, and the next request starts it afresh.
//! Never: gives an actor a file, a socket, or anything it could not be put away
//! with.

mod buckets;
mod channels;
mod error;
mod host;
mod http;
mod imports;
mod instance;
mod keep;
mod module;
mod preview1;
mod run;

pub use self::http::{ActorBody, REQUEST_BYTES_MAX};
pub use channels::Events;
pub use error::{ActorError, ActorModuleError, WakeError};
pub use host::ActorHost;
pub use keep::Seal;

use crate::compiled::CompiledCache;
use crate::error::WasmError;
use crate::guest::OutputSink;
use crate::limits::{Limits, MEMORY_BYTES_MAX, TABLE_ELEMENTS_MAX};
use ::http::{Request, Response};
use bytes::Bytes;
use channels::Hub;
use node::buckets::BucketAccess;
use run::{Ask, Runner};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

#[derive(Clone)]
pub struct ActorSpec {
    /// Names it where something goes wrong.
    pub name: String,
    /// `time` is of one call, `concurrency` how many requests may wait.
    pub limits: Limits,
    pub environment: Vec<(String, String)>,
    pub output: OutputSink,
    /// What it may open, by its bindings' names.
    pub buckets: Option<BucketAccess>,
    /// Where it is kept while it is put away; it never is without.
    pub state: Option<PathBuf>,
    /// With what it is sealed there.
    pub seal: Option<Arc<dyn Seal>>,
    /// How long it may have had nothing to do before it is put away.
    pub idle: Duration,
    /// Clients that have its events at once.
    pub subscribers_max: usize,
}

/// One actor that takes requests. Cheap to clone; it ends with its last clone.
#[derive(Clone)]
pub struct Actor {
    asks: mpsc::Sender<Ask>,
    hub: Arc<Hub>,
    waiting_max: usize,
}

impl Actor {
    /// Checks, compiles where the cache has nothing, links. Nothing of the
    /// actor runs before its first request. Must be called within a runtime.
    pub fn new(
        host: &ActorHost,
        cache: &CompiledCache,
        module: &[u8],
        mut spec: ActorSpec,
    ) -> Result<Self, ActorModuleError> {
        spec.limits.memory_bytes = spec.limits.memory_bytes.min(MEMORY_BYTES_MAX);
        spec.limits.table_elements = spec.limits.table_elements.min(TABLE_ELEMENTS_MAX);
        let waiting_max = spec.limits.concurrency.max(1);
        let module = host.load(cache, module)?;
        let (asks, came) = mpsc::channel(waiting_max);
        let runner = Runner::new(module, spec).map_err(|error| {
            ActorModuleError::Wasm(WasmError::Engine(format!("no place to keep it: {error}")))
        })?;
        let hub = Arc::clone(runner.hub());
        tokio::spawn(runner.run(came));
        Ok(Self {
            asks,
            hub,
            waiting_max,
        })
    }

    pub async fn handle(&self, request: Request<Bytes>) -> Result<Response<ActorBody>, ActorError> {
        let request = http::request(request)?;
        let (give, given) = oneshot::channel();
        let ask = Ask::Request(request, give);
        self.asks.try_send(ask).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ActorError::Busy(self.waiting_max),
            mpsc::error::TrySendError::Closed(_) => ActorError::Stopped,
        })?;
        given.await.unwrap_or(Err(ActorError::Stopped))
    }

    /// Puts it away now, after the requests that wait; the next one wakes it.
    /// Says whether it was written down: it is not when it has not run since,
    /// or has no place.
    pub async fn put_away(&self) -> std::io::Result<bool> {
        self.ask(Ask::PutAway).await
    }

    /// Ends its clients' streams; nobody gets one any more.
    pub fn end_streams(&self) {
        self.hub.close();
    }

    /// Ends its streams, tells it so, and puts it away for good.
    pub async fn stop(&self) -> std::io::Result<bool> {
        self.ask(Ask::Stop).await
    }

    async fn ask(
        &self,
        ask: impl FnOnce(oneshot::Sender<std::io::Result<bool>>) -> Ask,
    ) -> std::io::Result<bool> {
        let (give, given) = oneshot::channel();
        // Stopped already: there is nothing left to put away.
        if self.asks.send(ask(give)).await.is_err() {
            return Ok(false);
        }
        given.await.unwrap_or(Ok(false))
    }
}
