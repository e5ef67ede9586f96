//! The guest of this worker: an actor or a component, prepared, begun, stopped.

use crate::error::WorkerError;
use crate::place::Place;
use crate::{Kind, Options};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use ipc::buckets::BucketClient;
use node::buckets::BucketAccess;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use vault::Vault;
use wasm::{
    Actor, ActorError, ActorHost, ActorSpec, AllowedCall, CompiledCache, GuestError, Host,
    OutputSink, REQUEST_BYTES_MAX, Seal, Service, ServiceSpec,
};

/// Clients that have an actor's events at once.
const SUBSCRIBERS_MAX: usize = 1_000;
/// For a request's body to come whole; an actor is not given half of one.
const BODY_TIME_MAX: Duration = Duration::from_mins(1);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// Compiled, not yet begun.
pub struct Guest {
    options: Options,
    output: OutputSink,
    engine: Engine,
    cache: CompiledCache,
    module: Vec<u8>,
    place: Place,
    seal: Option<Arc<dyn Seal>>,
}

enum Engine {
    Actor(ActorHost),
    Component(Host),
}

impl Guest {
    pub fn prepare(options: Options, output: OutputSink) -> Result<Self, WorkerError> {
        let module = std::fs::read(&options.module).map_err(|source| WorkerError::Module {
            path: options.module.clone(),
            source,
        })?;
        let cache = CompiledCache::open(&options.cache)?;
        let seal = options.keys.as_deref();
        let seal = seal.map(|keys| Sealed::new(keys, &options.service));
        let seal = seal
            .transpose()?
            .map(|seal| Arc::new(seal) as Arc<dyn Seal>);
        let (engine, place) = match options.kind {
            Kind::Actor => {
                let host = ActorHost::new()?;
                host.prepare(&cache, &module)?;
                (Engine::Actor(host), Place::open(&options.state)?)
            }
            Kind::Component => {
                let host = Host::new()?;
                cache.prepare(&host, &module)?;
                (Engine::Component(host), Place::none())
            }
        };
        Ok(Self {
            options,
            output,
            engine,
            cache,
            module,
            place,
            seal,
        })
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    fn buckets(&self) -> Result<Option<BucketAccess>, WorkerError> {
        let bound = self.options.environment.buckets.as_ref();
        bound.map(open).transpose()
    }

    pub fn begin(&self) -> Result<Begun, WorkerError> {
        let options = &self.options;
        match &self.engine {
            Engine::Actor(host) => {
                let spec = ActorSpec {
                    name: options.service.clone(),
                    limits: options.limits,
                    environment: options.environment.guest.clone(),
                    output: OutputSink::clone(&self.output),
                    buckets: self.buckets()?,
                    state: Some(options.state.clone()),
                    seal: self.seal.clone(),
                    idle: options.idle,
                    subscribers_max: SUBSCRIBERS_MAX,
                };
                let actor = Actor::new(host, &self.cache, &self.module, spec)?;
                Ok(Begun::Actor(actor))
            }
            Engine::Component(host) => {
                let spec = ServiceSpec {
                    name: options.service.clone(),
                    limits: options.limits,
                    environment: options.environment.guest.clone(),
                    output: OutputSink::clone(&self.output),
                    calls: options.calls.iter().map(AllowedCall::from).collect(),
                    buckets: self.buckets()?,
                };
                let service = Service::new(host, &self.cache, &self.module, spec)?;
                Ok(Begun::Component(service))
            }
        }
    }
}

/// Within the runtime: its client connects as soon as the agent is there.
fn open((socket, capability): &(PathBuf, String)) -> Result<BucketAccess, WorkerError> {
    let client = BucketClient::new(socket).map_err(WorkerError::Buckets)?;
    Ok(BucketAccess::new(Arc::new(client), capability)?)
}

/// With the node's key, under the service's name.
struct Sealed {
    vault: Vault,
    name: String,
}

impl Sealed {
    fn new(keys: &Path, service: &str) -> Result<Self, WorkerError> {
        Ok(Self {
            vault: Vault::read(keys)?,
            name: format!("actor/{service}"),
        })
    }
}

impl Seal for Sealed {
    fn seal(&self, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let sealed = self.vault.seal_bytes(&self.name, bytes);
        sealed.map_err(io::Error::other)
    }

    fn open(&self, sealed: &[u8]) -> io::Result<Vec<u8>> {
        let opened = self.vault.open_bytes(&self.name, sealed);
        opened.map(|bytes| bytes.to_vec()).map_err(io::Error::other)
    }
}

/// Takes requests.
#[derive(Clone)]
pub enum Begun {
    Actor(Actor),
    Component(Service),
}

impl Begun {
    pub async fn answer(&self, request: Request<Incoming>) -> Answer {
        match self {
            Self::Actor(actor) => match whole(request).await {
                Ok(request) => match actor.handle(request).await {
                    Ok(answer) => answer.map(|body| body.map_err(Into::into).boxed_unsync()),
                    Err(error) => refusal(status_of_actor(&error), &error),
                },
                Err(status) => plain(status),
            },
            Self::Component(service) => match service.handle(request).await {
                Ok(answer) => answer.map(|body| body.map_err(Into::into).boxed_unsync()),
                Err(error) => refusal(status_of_guest(&error), &error),
            },
        }
    }

    /// So that connections which would never end by themselves do.
    pub fn end_streams(&self) {
        if let Self::Actor(actor) = self {
            actor.end_streams();
        }
    }

    pub async fn stop(&self) {
        if let Self::Actor(actor) = self
            && let Ok(true) = actor.stop().await
        {
            tracing::info!("the actor was put away");
        }
    }
}

async fn whole(request: Request<Incoming>) -> Result<Request<Bytes>, StatusCode> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, REQUEST_BYTES_MAX).collect();
    let body = tokio::time::timeout(BODY_TIME_MAX, body).await;
    let body = body.map_err(|_| StatusCode::REQUEST_TIMEOUT)?;
    let body = body.map_err(|error| {
        if error.is::<LengthLimitError>() {
            StatusCode::PAYLOAD_TOO_LARGE
        } else {
            StatusCode::BAD_REQUEST
        }
    })?;
    Ok(Request::from_parts(head, body.to_bytes()))
}

fn status_of_actor(error: &ActorError) -> StatusCode {
    match error {
        ActorError::Busy(_) | ActorError::Subscribers(_) | ActorError::Stopped => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ActorError::Request { .. } | ActorError::NoRoom(_) => StatusCode::PAYLOAD_TOO_LARGE,
        ActorError::Time(_) => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    }
}

fn status_of_guest(error: &GuestError) -> StatusCode {
    match error {
        GuestError::Busy(_) | GuestError::Room(_) => StatusCode::SERVICE_UNAVAILABLE,
        GuestError::Request(_) => StatusCode::BAD_REQUEST,
        GuestError::Time(_) => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    }
}

/// Why is for the log: a client is told no more than the status.
fn refusal(status: StatusCode, error: &dyn std::error::Error) -> Answer {
    tracing::warn!(status = status.as_u16(), %error, "no answer");
    plain(status)
}

pub fn plain(status: StatusCode) -> Answer {
    let reason = status.canonical_reason().unwrap_or_default();
    let text = Full::new(Bytes::from(format!("{reason}\n")));
    let mut answer = Response::new(text.map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = status;
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let soon = http::HeaderValue::from_static("1");
        answer.headers_mut().insert(http::header::RETRY_AFTER, soon);
    }
    answer
}
