//! What one instance has around it: its context, its limits, its output.
//!
//! Never: a file, a socket, or a request to anybody.

use crate::Limits;
use crate::error::Exceeded;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
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

/// How a guest's turn ended, for whoever reads its answer: a body that breaks
/// off ends for its reader as a whole one does.
#[derive(Clone, Default)]
pub(crate) struct Ending(Arc<AtomicU8>);

const DONE: u8 = 1;
const CUT: u8 = 2;

impl Ending {
    /// The guest returned by itself.
    pub(crate) fn is_done(&self) {
        self.0.store(DONE, Ordering::Release);
    }

    pub(crate) fn was_cut(&self) -> bool {
        self.0.load(Ordering::Acquire) == CUT
    }
}

/// Says so when a guest goes before it is done.
struct Leaving(Ending);

impl Drop for Leaving {
    fn drop(&mut self) {
        let state = &self.0.0;
        let _ = state.compare_exchange(0, CUT, Ordering::AcqRel, Ordering::Acquire);
    }
}

pub(crate) struct Guest {
    /// First, so that it speaks before the answer's other end goes with `table`.
    _leaving: Leaving,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    hooks: Denied,
    limits: Limits,
    pub(crate) exceeded: Option<Exceeded>,
}

impl Guest {
    pub(crate) fn new(
        limits: Limits,
        environment: &[(String, String)],
        output: &OutputSink,
        ending: Ending,
    ) -> Self {
        let mut wasi = WasiCtx::builder();
        wasi.envs(environment)
            .stdout(Output(Line::Out, Arc::clone(output)))
            .stderr(Output(Line::Error, Arc::clone(output)))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        Self {
            _leaving: Leaving(ending),
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            table: ResourceTable::new(),
            hooks: Denied,
            limits,
            exceeded: None,
        }
    }
}

impl Guest {
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
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.allow(desired, self.limits.memory_bytes, Exceeded::Memory))
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
