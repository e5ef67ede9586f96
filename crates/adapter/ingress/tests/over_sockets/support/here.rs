//! A component of our own, which does what a request's path says.

use super::{World, name};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use ingress::{BoxError, Component, ComponentAnswer, ComponentError, Components, RequestBody};
use kernel::{ReplicaId, Revision};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use wire::edge::{Endpoint, ServiceView};

/// Every replica without an address is this one.
pub struct Here(Arc<Acting>, Arc<One>);

struct One(Arc<Acting>);

impl Default for Here {
    fn default() -> Self {
        let acting = Arc::new(Acting::default());
        Self(Arc::clone(&acting), Arc::new(One(acting)))
    }
}

#[derive(Default)]
pub struct Acting {
    /// Wakes `/wait`.
    pub go_on: Notify,
    /// Requests that it has, and those whose client left.
    pub inside: AtomicUsize,
    pub dropped: AtomicUsize,
}

pub const CONCURRENCY: usize = 2;

impl Components for Here {
    fn find(&self, _: &ReplicaId) -> Option<Arc<dyn Component>> {
        Some(Arc::clone(&self.1) as _)
    }
}

impl World {
    pub fn acting(&self) -> &Arc<Acting> {
        &self.here.0
    }

    /// The service `app` is the component.
    pub fn component(&mut self, deadline: Duration) {
        let replica = ReplicaId {
            service: name("app"),
            generation: Revision(1),
            index: 0,
        };
        let endpoint = Endpoint {
            replica,
            address: None,
            node: None,
        };
        self.snapshot.version += 1;
        let view = ServiceView {
            deadline,
            endpoints: vec![endpoint],
        };
        self.snapshot.services.insert(name("app"), view);
        self.ingress.set_snapshot(&self.snapshot).expect("taken");
    }
}

struct Inside(Arc<Acting>, bool);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Relaxed);
        if !self.1 {
            self.0.dropped.fetch_add(1, Relaxed);
        }
    }
}

impl Component for One {
    fn concurrency(&self) -> usize {
        CONCURRENCY
    }

    fn handle(&self, request: Request<RequestBody>) -> ComponentAnswer {
        let acting = Arc::clone(&self.0);
        Box::pin(async move {
            acting.inside.fetch_add(1, Relaxed);
            let mut inside = Inside(Arc::clone(&acting), false);
            let path = request.uri().path().to_owned();
            let answer = act(&acting, &path, request).await;
            inside.1 = true;
            answer
        })
    }
}

async fn act(
    acting: &Acting,
    path: &str,
    request: Request<RequestBody>,
) -> Result<Response<ingress::ComponentBody>, ComponentError> {
    let text = match path {
        "/wait" => {
            acting.go_on.notified().await;
            Bytes::from("waited")
        }
        "/echo" => match request.into_body().collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return Err(ComponentError::Broken),
        },
        "/host" => {
            let host = request.headers().get("host").expect("a host");
            Bytes::copy_from_slice(host.as_bytes())
        }
        "/broken" => return Err(ComponentError::Broken),
        "/late" => return Err(ComponentError::Late),
        "/cut" => return Ok(Response::new(cut())),
        _ => Bytes::from("hello"),
    };
    let body = Full::new(text).map_err(|never| match never {});
    Ok(Response::new(Box::pin(body)))
}

/// A body that breaks off after its first piece.
fn cut() -> ingress::ComponentBody {
    let (sender, mut pieces) = mpsc::channel::<Result<Frame<Bytes>, BoxError>>(2);
    let piece = Ok(Frame::data(Bytes::from("some of it")));
    sender.try_send(piece).expect("room");
    sender.try_send(Err("ended".into())).expect("room");
    let stream = futures_util::stream::poll_fn(move |cx| pieces.poll_recv(cx));
    Box::pin(StreamBody::new(stream))
}
