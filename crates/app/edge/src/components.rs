//! The components that this edge runs.
//!
//! In: a snapshot's components. Out: those that took, for the ingress; for each
//! one how it went.
//! Holds: what a snapshot still has stays loaded; what it has no more ends with
//! its last request; nothing of the engine is made before the first component.
//! Never: compiles while a request waits, unless the agent's code is gone.

use crate::outputs::Outputs;
use bytes::Bytes;
use content::Content;
use http_body_util::BodyExt;
use ingress::{
    BoxError, Component, ComponentAnswer, ComponentBody, ComponentError, Components, RequestBody,
};
use ipc::buckets::BucketClient;
use kernel::ReplicaId;
use node::buckets::BucketAccess;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use wasm::{AllowedCall, CompiledCache, GuestError, Host, HttpError, Limits};
use wire::edge::ComponentView;
use wire::layout::Layout;

pub struct Library {
    content: Content,
    layout: Layout,
    engine: OnceLock<Result<Engine, String>>,
    outputs: Outputs,
    /// One connection for all components, made by the first that needs it.
    bucket_client: OnceLock<Arc<BucketClient>>,
    loaded: RwLock<BTreeMap<ReplicaId, Loaded>>,
    /// One at a time: two snapshots must not load the same.
    loading: Mutex<()>,
}

struct Engine {
    host: Host,
    cache: CompiledCache,
}

struct Loaded {
    view: ComponentView,
    here: Arc<Here>,
}

struct Here {
    service: wasm::Service,
    concurrency: usize,
}

impl Library {
    pub fn new(content: Content, layout: Layout) -> Self {
        Self {
            content,
            outputs: Outputs::new(layout.replicas()),
            bucket_client: OnceLock::new(),
            layout,
            engine: OnceLock::new(),
            loaded: RwLock::default(),
            loading: Mutex::default(),
        }
    }

    fn engine(&self) -> Result<&Engine, String> {
        let made = self.engine.get_or_init(|| {
            let text = |error: wasm::WasmError| kernel::error_chain(&error);
            let host = Host::new().map_err(text)?;
            let cache = CompiledCache::open(&self.layout.compiled()).map_err(text)?;
            Ok(Engine { host, cache })
        });
        made.as_ref().map_err(Clone::clone)
    }

    /// Loads what is not loaded as it is described. Blocks.
    pub fn load(&self, replica: &ReplicaId, view: &ComponentView) -> Result<(), String> {
        let _one = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_as(replica, view) {
            return Ok(());
        }
        let here = Arc::new(self.make(replica, view)?);
        let view = view.clone();
        let mut all = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(replica.clone(), Loaded { view, here });
        Ok(())
    }

    /// Whether it is loaded as it is described.
    pub fn is_as(&self, replica: &ReplicaId, view: &ComponentView) -> bool {
        self.read(|all| all.get(replica).is_some_and(|loaded| loaded.view == *view))
    }

    pub fn has(&self, replica: &ReplicaId) -> bool {
        self.read(|all| all.contains_key(replica))
    }

    /// Lets go of all others.
    pub fn keep(&self, components: &BTreeMap<ReplicaId, ComponentView>) {
        let mut all = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|replica, _| components.contains_key(replica));
    }

    fn read<T>(&self, look: impl FnOnce(&BTreeMap<ReplicaId, Loaded>) -> T) -> T {
        look(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn make(&self, replica: &ReplicaId, view: &ComponentView) -> Result<Here, String> {
        let engine = self.engine()?;
        let bytes = self
            .content
            .read_verified(view.module)
            .map_err(|error| kernel::error_chain(&error))?;
        let default = Limits::default();
        let memory_bytes = view
            .memory
            .and_then(|memory| usize::try_from(memory.0).ok())
            .unwrap_or(default.memory_bytes);
        let concurrency = view
            .concurrency
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(default.concurrency);
        let mut environment = view.environment.clone();
        environment.extend(self.secrets(view)?);
        let spec = wasm::ServiceSpec {
            name: replica.to_string(),
            limits: Limits {
                memory_bytes,
                time: view.time,
                // The ingress counts requests; some guests go on after theirs.
                concurrency: concurrency.saturating_mul(2),
                reuse: view.reuse.unwrap_or(default.reuse),
                ..default
            },
            environment: environment.into_iter().collect(),
            output: self.outputs.of(replica),
            calls: view.calls.iter().map(AllowedCall::from).collect(),
            buckets: self.buckets(view)?,
        };
        let service = wasm::Service::new(&engine.host, &engine.cache, &bytes, spec);
        let service = service.map_err(|error| kernel::error_chain(&error))?;
        Ok(Here {
            service,
            concurrency,
        })
    }
}

impl Library {
    fn buckets(&self, view: &ComponentView) -> Result<Option<BucketAccess>, String> {
        let Some(capability) = &view.capability else {
            return Ok(None);
        };
        let client = if let Some(client) = self.bucket_client.get() {
            Arc::clone(client)
        } else {
            let client = BucketClient::new(&self.layout.buckets_socket());
            let client = Arc::new(client.map_err(|error| error.to_string())?);
            Arc::clone(self.bucket_client.get_or_init(|| client))
        };
        let access = BucketAccess::new(client, capability);
        access.map(Some).map_err(|error| error.to_string())
    }

    /// In the clear from here on only in this process's memory.
    fn secrets(&self, view: &ComponentView) -> Result<Vec<(String, String)>, String> {
        if view.secrets.is_empty() {
            return Ok(Vec::new());
        }
        let told = |error: vault::VaultError| kernel::error_chain(&error);
        let vault = vault::Vault::read(&self.layout.keys()).map_err(told)?;
        let open = |(variable, sealed): (&String, &String)| {
            let (path, sealed) = sealed.split_once(' ').unwrap_or_default();
            let value = vault.open_value(path, sealed).map_err(told)?;
            Ok((
                variable.clone(),
                String::from_utf8_lossy(&value).into_owned(),
            ))
        };
        view.secrets.iter().map(open).collect()
    }
}

impl Components for Library {
    fn find(&self, replica: &ReplicaId) -> Option<Arc<dyn Component>> {
        self.read(|all| Some(Arc::clone(&all.get(replica)?.here) as _))
    }
}

impl Component for Here {
    fn concurrency(&self) -> usize {
        self.concurrency
    }

    fn handle(&self, request: http::Request<RequestBody>) -> ComponentAnswer {
        let service = self.service.clone();
        let broken = |error: BoxError| HttpError::InternalError(Some(error.to_string()));
        let request = request.map(|body| body.map_err(broken));
        Box::pin(async move {
            match service.handle(request).await {
                Ok(answer) => Ok(answer.map(boxed)),
                Err(GuestError::Busy(_)) => Err(ComponentError::Busy),
                Err(GuestError::Time(_)) => Err(ComponentError::Late),
                Err(_) => Err(ComponentError::Broken),
            }
        })
    }
}

fn boxed<B>(body: B) -> ComponentBody
where
    B: http_body::Body<Data = Bytes, Error = HttpError> + Send + 'static,
{
    Box::pin(body.map_err(BoxError::from))
}
