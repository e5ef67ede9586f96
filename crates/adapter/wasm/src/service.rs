//! One component as a service: requests in, answers out.
//!
//! Holds: each request has an instance of its own, ended by the first of its
//! answer's end, its client's leave, a trap, or its time. Nothing of it is left
//! for the next one.

use crate::compiled::CompiledCache;
use crate::engine::{Host, Running};
use crate::error::{GuestError, WasmError};
use crate::guest::{Ending, Guest, OutputSink};
use crate::limits::{Limits, MEMORY_BYTES_MAX, TABLE_ELEMENTS_MAX};
use bytes::Bytes;
use http_body::{Body, Frame};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;
use wasmtime::Store;
use wasmtime::component::Component;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

/// What of the wasi world is provided, for whoever imports something else.
const PROVIDED: [&str; 9] = [
    "wasi:cli/environment",
    "wasi:cli/stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:http/outgoing-handler",
    "wasi:http/types",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/random",
];

/// Of two names, from which on one may be meant by the other.
const LIKENESS_MIN: f64 = 0.6;

pub type Answer = http::Response<AnswerBody>;

#[derive(Clone)]
pub struct ServiceSpec {
    /// Names it where something goes wrong.
    pub name: String,
    pub limits: Limits,
    pub environment: Vec<(String, String)>,
    pub output: OutputSink,
}

/// A component ready to take requests. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    host: Host,
    spec: ServiceSpec,
    proxy: ProxyPre<Guest>,
    places: Arc<Semaphore>,
}

impl Service {
    /// Checks and links; compiles first when the cache has nothing.
    pub fn new(
        host: &Host,
        cache: &CompiledCache,
        component: &[u8],
        mut spec: ServiceSpec,
    ) -> Result<Self, WasmError> {
        spec.limits.memory_bytes = spec.limits.memory_bytes.min(MEMORY_BYTES_MAX);
        spec.limits.table_elements = spec.limits.table_elements.min(TABLE_ELEMENTS_MAX);
        let component = cache.load(host, component)?;
        let linked = host.linker.instantiate_pre(&component);
        let linked = linked.map_err(|error| unlinked(host, &component, &error))?;
        let proxy =
            ProxyPre::new(linked).map_err(|error| WasmError::Export(format!("{error:#}")))?;
        let places = Arc::new(Semaphore::new(spec.limits.concurrency));
        Ok(Self {
            inner: Arc::new(Inner {
                host: host.clone(),
                spec,
                proxy,
                places,
            }),
        })
    }

    /// Gives one request to an instance of its own. The answer's body may go on
    /// after this returns; dropping it ends the guest.
    pub async fn handle<B>(&self, request: http::Request<B>) -> Result<Answer, GuestError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<wasmtime_wasi_http::Error>,
    {
        let inner = &self.inner;
        let limits = inner.spec.limits;
        let place = Arc::clone(&inner.places).try_acquire_owned();
        let place = place.map_err(|_| GuestError::Busy(limits.concurrency))?;
        let ending = Ending::default();
        let mut store = inner.store(ending.clone());
        let (give, given) = oneshot::channel();
        let refused = |error: wasmtime::Error| GuestError::Request(format!("{error:#}"));
        let mut http = store.data_mut().http();
        let request = http
            .new_incoming_request(Scheme::Http, request)
            .map_err(refused)?;
        let answer = http.new_response_outparam(give).map_err(refused)?;
        let turn = Turn {
            inner: Arc::clone(inner),
            ending: ending.clone(),
            _running: inner.host.clock.run(),
            _place: place,
        };
        let work = async move {
            let outcome = tokio::time::timeout(limits.time, turn.run(store, request, answer));
            let outcome = outcome.await.unwrap_or(Err(GuestError::Time(limits.time)));
            if let Err(error) = &outcome {
                tracing::warn!(service = turn.inner.spec.name, %error, "a guest was ended");
            }
            outcome
        };
        let mut work = Work(Some(tokio::spawn(work)));
        match given.await {
            Ok(Ok(answer)) => Ok(answer.map(|body| AnswerBody { body, ending, work })),
            Ok(Err(code)) => Err(GuestError::Trap(code_name(&code))),
            Err(_) => Err(work.outcome().await),
        }
    }
}

fn code_name(code: &ErrorCode) -> String {
    format!("it answered with the error {code:?}")
}

impl Inner {
    fn store(&self, ending: Ending) -> Store<Guest> {
        let spec = &self.spec;
        let guest = Guest::new(spec.limits, &spec.environment, &spec.output, ending);
        let mut store = Store::new(&self.host.engine, guest);
        store.limiter(|guest| guest);
        // At each tick others get their turn; the time limit ends it for good.
        store.epoch_deadline_async_yield_and_update(1);
        store.set_epoch_deadline(1);
        store
    }
}

/// One request under way: what it holds is free again when it ends.
struct Turn {
    inner: Arc<Inner>,
    ending: Ending,
    _running: Running,
    _place: OwnedSemaphorePermit,
}

type Given<T> = wasmtime::component::Resource<T>;

impl Turn {
    async fn run(
        &self,
        mut store: Store<Guest>,
        request: Given<wasmtime_wasi_http::p2::types::HostIncomingRequest>,
        answer: Given<wasmtime_wasi_http::p2::types::HostResponseOutparam>,
    ) -> Result<(), GuestError> {
        let ended = match self.inner.proxy.instantiate_async(&mut store).await {
            Ok(proxy) => {
                let handler = proxy.wasi_http_incoming_handler();
                handler.call_handle(&mut store, request, answer).await
            }
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => {
                self.ending.is_done();
                Ok(())
            }
            Err(error) => Err(self.why(&store, &error)),
        }
    }

    fn why(&self, store: &Store<Guest>, error: &wasmtime::Error) -> GuestError {
        if let Some(exceeded) = store.data().exceeded {
            return exceeded.error(&self.inner.spec.limits);
        }
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return GuestError::Room(error.to_string());
        }
        match error.downcast_ref::<wasmtime::Trap>() {
            Some(trap) => GuestError::Trap(trap.to_string()),
            None => GuestError::Trap(error.root_cause().to_string()),
        }
    }
}

/// Ends the guest when nobody wants its answer any more.
struct Work(Option<JoinHandle<Result<(), GuestError>>>);

impl Work {
    async fn outcome(&mut self) -> GuestError {
        let Some(work) = &mut self.0 else {
            return GuestError::NoAnswer;
        };
        match work.await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => GuestError::NoAnswer,
            Err(error) => GuestError::Trap(error.to_string()),
        }
    }

    /// The answer is whole: what the guest does after it is bounded by its time.
    fn go_on(&mut self) {
        self.0 = None;
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(work) = &self.0 {
            work.abort();
        }
    }
}

/// An answer's body, as the guest writes it.
pub struct AnswerBody {
    body: HyperOutgoingBody,
    ending: Ending,
    work: Work,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) {
            if self.ending.was_cut() {
                return Poll::Ready(Some(Err(Self::Error::HttpResponseIncomplete)));
            }
            self.work.go_on();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// Names the import that nothing here provides.
fn unlinked(host: &Host, component: &Component, error: &wasmtime::Error) -> WasmError {
    let text = format!("{error:#}");
    let kind = component.component_type();
    let missing = kind
        .imports(&host.engine)
        .map(|(import, _)| import)
        .find(|import| text.contains(&format!("`{import}`")));
    let Some(import) = missing else {
        return WasmError::Invalid(text);
    };
    let interface = import.split('@').next().unwrap_or(import);
    let nearest = PROVIDED
        .iter()
        .map(|provided| {
            (
                strsim::normalized_levenshtein(interface, provided),
                provided,
            )
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > LIKENESS_MIN)
        .map(|(_, provided)| (*provided).to_owned());
    WasmError::Import {
        import: import.to_owned(),
        nearest,
    }
}
