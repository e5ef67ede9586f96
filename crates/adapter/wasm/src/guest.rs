//! What one instance has around it: its context, its limits, its output.
//!
//! Never: a file, a socket, or a request to anybody whom it is not bound to.

use crate::Limits;
use crate::error::Exceeded;
use crate::keyvalue::KeyValue;
use crate::outgoing::Calls;
use crate::progress::{Leaving, Progress};
use crate::service::ServiceSpec;
use node::buckets::BucketAccess;
use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

/// Which of its two outputs a guest wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Out,
    Error,
}

/// Takes what guests print, as they print it; called on a runtime's thread, so
/// it must not block.
pub type OutputSink = Arc<dyn Fn(Line, &[u8]) + Send + Sync>;

/// Of one request; an endless one must not drown what others print.
const OUTPUT_BYTES_MAX: usize = 256 << 10;
const TOO_MUCH: &[u8] = b"\n(it printed more than a request may; the rest is not kept)\n";
/// Of one set of headers, as it is kept here.
const FIELD_BYTES_MAX: usize = 32 << 10;
/// Of one call for randomness.
const RANDOM_BYTES_MAX: u64 = 1 << 20;
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
    calls: Calls,
    buckets: Option<BucketAccess>,
    /// Bytes that its request may still print.
    printable: Arc<AtomicUsize>,
    limits: Limits,
    /// Of all its linear memories.
    pub(crate) memory_bytes: usize,
    pub(crate) exceeded: Option<Exceeded>,
}

impl Guest {
    pub(crate) fn new(spec: &ServiceSpec, progress: Arc<Progress>) -> Self {
        let printable = Arc::new(AtomicUsize::new(OUTPUT_BYTES_MAX));
        let output = |line| Output {
            line,
            sink: Arc::clone(&spec.output),
            left: Arc::clone(&printable),
        };
        let mut wasi = WasiCtx::builder();
        wasi.envs(&spec.environment)
            .stdout(output(Line::Out))
            .stderr(output(Line::Error))
            .max_random_size(RANDOM_BYTES_MAX)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(FIELD_BYTES_MAX);
        Self {
            leaving: Leaving(progress),
            wasi: wasi.build(),
            http,
            table,
            calls: Calls::new(Arc::clone(&spec.calls)),
            buckets: spec.buckets.clone(),
            printable,
            limits: spec.limits,
            memory_bytes: 0,
            exceeded: None,
        }
    }
}

impl Guest {
    pub(crate) fn key_value(&mut self) -> KeyValue<'_> {
        KeyValue {
            access: self.buckets.as_ref(),
            table: &mut self.table,
        }
    }

    /// Another request: how it ends is of no concern to the last one's reader.
    pub(crate) fn begin(&mut self, progress: Arc<Progress>) {
        self.leaving = Leaving(progress);
        self.calls.begin();
        self.printable.store(OUTPUT_BYTES_MAX, Ordering::Relaxed);
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
            hooks: &mut self.calls,
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

/// One of a guest's outputs, as far as its request may print.
struct Output {
    line: Line,
    sink: OutputSink,
    left: Arc<AtomicUsize>,
}

impl Output {
    /// All is taken, so that a guest never waits for it or fails; what is too
    /// much is not kept, and that is said once.
    fn take(&self, bytes: &[u8]) {
        let left = self.left.load(Ordering::Relaxed);
        let kept = bytes.len().min(left);
        if kept > 0 {
            (self.sink)(self.line, &bytes[..kept]);
        }
        if left > 0 && kept < bytes.len() {
            (self.sink)(self.line, TOO_MUCH);
        }
        // A guest writes to one of its outputs at a time.
        self.left
            .store(left.saturating_sub(bytes.len()), Ordering::Relaxed);
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Self {
            line: self.line,
            sink: Arc::clone(&self.sink),
            left: Arc::clone(&self.left),
        })
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.take(bytes);
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
