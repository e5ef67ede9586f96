//! What one instance has around it: its context, its limits, its output.
//!
//! Never: a file, a socket, or a request to anybody.

use crate::Limits;
use crate::error::Exceeded;
use crate::progress::{Leaving, Progress};
use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::body::{HostFutureTrailers, HostIncomingBody, HostOutgoingBody};
use wasmtime_wasi_http::p2::types::{
    HostFutureIncomingResponse, HostIncomingRequest, HostIncomingResponse, HostOutgoingRequest,
    HostOutgoingResponse, HostResponseOutparam,
};
use wasmtime_wasi_http::{
    Error as HttpError, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks,
    WasiHttpView,
};

/// Which of its two outputs a guest wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Out,
    Error,
}

/// Takes what guests print, as they print it; called on a runtime's thread, so
/// it must not block.
pub type OutputSink = Arc<dyn Fn(Line, &[u8]) + Send + Sync>;

/// Streams, headers, timers and the like that a guest holds at once.
const RESOURCES_MAX: usize = 1_000;
/// What a guest may still hold when it has answered: its output's streams.
const RESOURCES_KEPT_MAX: usize = 16;

/// Whether somebody may still wait for it. A body's streams are its children:
/// they keep it here. What is left of a request that was answered is not read
/// any more, so that a guest may drop the request itself when it collects.
fn is_open(resource: &mut (dyn Any + Send)) -> bool {
    if let Some(request) = resource.downcast_mut::<HostIncomingRequest>() {
        request.body = None;
        return false;
    }
    resource.is::<HostIncomingBody>()
        || resource.is::<HostOutgoingBody>()
        || resource.is::<HostOutgoingResponse>()
        || resource.is::<HostResponseOutparam>()
        || resource.is::<HostFutureTrailers>()
        || resource.is::<HostOutgoingRequest>()
        || resource.is::<HostFutureIncomingResponse>()
        || resource.is::<HostIncomingResponse>()
}

pub(crate) struct Guest {
    /// First, so that it speaks before the answer's other end goes with `table`.
    leaving: Leaving,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    hooks: Denied,
    limits: Limits,
    /// Of all its linear memories.
    pub(crate) memory_bytes: usize,
    pub(crate) exceeded: Option<Exceeded>,
}

impl Guest {
    pub(crate) fn new(
        limits: Limits,
        environment: &[(String, String)],
        output: &OutputSink,
        progress: Arc<Progress>,
    ) -> Self {
        let mut wasi = WasiCtx::builder();
        wasi.envs(environment)
            .stdout(Output(Line::Out, Arc::clone(output)))
            .stderr(Output(Line::Error, Arc::clone(output)))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        Self {
            leaving: Leaving(progress),
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            table,
            hooks: Denied,
            limits,
            memory_bytes: 0,
            exceeded: None,
        }
    }
}

impl Guest {
    /// Another request: how it ends is of no concern to the last one's reader.
    pub(crate) fn begin(&mut self, progress: Arc<Progress>) {
        self.leaving = Leaving(progress);
    }

    pub(crate) fn had_turn(&self) {
        self.leaving.0.had_turn();
    }

    /// Whether nothing of its last request is open any more.
    pub(crate) fn is_clean(&mut self) -> bool {
        let mut left = 0;
        let open = self.table.iter_mut().any(|resource| {
            left += 1;
            is_open(resource)
        });
        !open && left <= RESOURCES_KEPT_MAX && self.exceeded.is_none()
    }

    /// Keeps which limit refused it: the guest's own end does not tell.
    fn allow(&mut self, desired: usize, limit: usize, exceeded: Exceeded) -> bool {
        let within = desired <= limit;
        if !within {
            self.exceeded = Some(exceeded);
        }
        within
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.hooks,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

impl wasmtime::ResourceLimiter for Guest {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let wanted = self.memory_bytes + desired.saturating_sub(current);
        let allowed = self.allow(wanted, self.limits.memory_bytes, Exceeded::Memory);
        if allowed {
            self.memory_bytes = wanted;
        }
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.allow(desired, self.limits.table_elements, Exceeded::Table))
    }
}

/// Requests of a guest's own need a binding; there are none yet.
struct Denied;

type Sent = Result<
    (
        http::Response<WasiBody>,
        Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ),
    HttpError,
>;

impl WasiHttpHooks for Denied {
    fn send_request(
        &mut self,
        _request: http::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _done: Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        Box::new(std::future::ready(Err(HttpError::HttpRequestDenied)))
    }
}

struct Output(Line, OutputSink);

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Self(self.0, Arc::clone(&self.1)))
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        (self.1)(self.0, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
