//! One component as a service: requests in, answers out.
//!
//! Holds: a request has an instance to itself, ended by the first of its
//! answer's end, its client's leave, a trap, or its time. An instance answers
//! more than one request only where the service's limits allow it.

use crate::answer::Answer;
use crate::beginning::{Beginning, Given};
use crate::compiled::CompiledCache;
use crate::engine::Host;
use crate::error::{GuestError, WasmError};
use crate::guest::{Guest, OutputSink};
use crate::import::unlinked;
use crate::instance::{Idle, Instance};
use crate::limits::{Limits, MEMORY_BYTES_MAX, TABLE_ELEMENTS_MAX};
use crate::outgoing::AllowedCall;
use crate::progress::Progress;
use crate::work::{Outcome, Work};
use bytes::Bytes;
use http_body::Body;
use node::buckets::BucketAccess;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::{Semaphore, oneshot};
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;

#[derive(Clone)]
pub struct ServiceSpec {
    /// Names it where something goes wrong.
    pub name: String,
    pub limits: Limits,
    pub environment: Vec<(String, String)>,
    pub output: OutputSink,
    /// Whom its guests may call; nobody else.
    pub calls: Arc<[AllowedCall]>,
    /// What its guests may open as `wasi:keyvalue` stores.
    pub buckets: Option<BucketAccess>,
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
    idle: Idle,
}

/// Compiles it into the cache and says whether it could run: all that it
/// imports is here, and it exports a handler.
pub fn check(host: &Host, cache: &CompiledCache, component: &[u8]) -> Result<(), WasmError> {
    link(host, cache, component).map(drop)
}

fn link(
    host: &Host,
    cache: &CompiledCache,
    component: &[u8],
) -> Result<ProxyPre<Guest>, WasmError> {
    let component = cache.load(host, component)?;
    let linked = host.linker.instantiate_pre(&component);
    let linked = linked.map_err(|error| unlinked(host, &component, &error))?;
    ProxyPre::new(linked).map_err(|error| WasmError::Export(format!("{error:#}")))
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
        let proxy = link(host, cache, component)?;
        Ok(Self {
            inner: Arc::new(Inner {
                host: host.clone(),
                places: Arc::new(Semaphore::new(spec.limits.concurrency)),
                idle: Idle::new(&host.room, &spec.limits),
                spec,
                proxy,
            }),
        })
    }

    /// Gives one request to an instance. The answer's body may go on after this
    /// returns; dropping it ends the guest.
    pub async fn handle<B>(&self, request: http::Request<B>) -> Result<Answer, GuestError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<wasmtime_wasi_http::Error>,
    {
        let inner = Arc::clone(&self.inner);
        let limits = inner.spec.limits;
        let place = Arc::clone(&inner.places).try_acquire_owned();
        let place = place.map_err(|_| GuestError::Busy(limits.concurrency))?;
        let progress = Arc::<Progress>::default();
        let (give, given) = oneshot::channel();
        let (host, known) = (inner.host.clone(), Arc::clone(&progress));
        let work = Box::pin(async move {
            let _place = place;
            inner.answer_in_time(request, give, known).await
        });
        let work = Work::new(work, host, Arc::clone(&progress));
        Beginning::new(work, given, progress).await
    }
}

impl Inner {
    async fn answer_in_time<B>(
        &self,
        request: http::Request<B>,
        give: oneshot::Sender<Given>,
        progress: Arc<Progress>,
    ) -> Outcome
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<wasmtime_wasi_http::Error>,
    {
        let limits = self.spec.limits;
        let answered = tokio::time::timeout(limits.time, self.answer(request, give, progress));
        let mut answered = pin!(answered);
        let outcome = poll_fn(|context| {
            // The clock goes only while the guest computes.
            let _running = self.host.clock.run();
            answered.as_mut().poll(context)
        });
        let outcome = outcome.await.unwrap_or(Err(GuestError::Time(limits.time)));
        if let Err(error) = &outcome {
            tracing::warn!(service = self.spec.name, %error, "a guest was ended");
        }
        outcome
    }

    async fn answer<B>(
        &self,
        request: http::Request<B>,
        give: oneshot::Sender<Given>,
        progress: Arc<Progress>,
    ) -> Outcome
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<wasmtime_wasi_http::Error>,
    {
        let limits = &self.spec.limits;
        let mut instance = match self.idle.take(limits) {
            Some(mut instance) => {
                instance.store.data_mut().begin(Arc::clone(&progress));
                instance
            }
            None => self.start(&progress).await?,
        };
        let store = &mut instance.store;
        store.set_epoch_deadline(1);
        let refused = |error: wasmtime::Error| GuestError::Request(format!("{error:#}"));
        let mut http = store.data_mut().http();
        let request = http
            .new_incoming_request(Scheme::Http, request)
            .map_err(refused)?;
        let answer = http.new_response_outparam(give).map_err(refused)?;
        let handler = instance.proxy.wasi_http_incoming_handler();
        let called = handler.call_handle(&mut *store, request, answer).await;
        called.map_err(|error| self.why(store, &error))?;
        progress.is_done();
        self.idle.put(instance, limits);
        Ok(())
    }

    async fn start(&self, progress: &Arc<Progress>) -> Result<Instance, GuestError> {
        let mut store = self.store(progress);
        let mut proxy = self.proxy.instantiate_async(&mut store).await;
        if proxy.as_ref().is_err_and(is_full) && !self.host.room.is_empty() {
            self.host.room.clear();
            store = self.store(progress);
            proxy = self.proxy.instantiate_async(&mut store).await;
        }
        match proxy {
            Ok(proxy) => Ok(Instance::new(store, proxy)),
            Err(error) => Err(self.why(&store, &error)),
        }
    }

    fn store(&self, progress: &Arc<Progress>) -> Store<Guest> {
        let guest = Guest::new(&self.spec, Arc::clone(progress));
        let mut store = Store::new(&self.host.engine, guest);
        store.limiter(|guest| guest);
        // At each tick others get their turn; the time limit ends it for good.
        store.epoch_deadline_callback(|guest| {
            guest.data().had_turn();
            Ok(UpdateDeadline::Yield(1))
        });
        store.set_epoch_deadline(1);
        store
    }

    fn why(&self, store: &Store<Guest>, error: &wasmtime::Error) -> GuestError {
        if let Some(exceeded) = store.data().exceeded {
            return exceeded.error(&self.spec.limits);
        }
        if is_full(error) {
            return GuestError::Room(error.to_string());
        }
        match error.downcast_ref::<wasmtime::Trap>() {
            Some(trap) => GuestError::Trap(trap.to_string()),
            None => GuestError::Trap(error.root_cause().to_string()),
        }
    }
}

fn is_full(error: &wasmtime::Error) -> bool {
    error.is::<wasmtime::PoolConcurrencyLimitError>()
}
