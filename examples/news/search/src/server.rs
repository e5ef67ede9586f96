//! Takes connections and answers their requests until told to stop.
//!
//! In: a listener, the index when it comes, the word to stop. Holds: at most
//! [`CONNECTIONS_MAX`] connections at once, each with bounded heads and waits;
//! once stopping, no connection is taken, and those with a request in hand get
//! [`DRAIN`] to end. Every answer carries the version.

use crate::answer::answer;
use crate::index::Index;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use socket2::SockRef;
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

const CONNECTIONS_MAX: usize = 512;
const HEAD_BYTES_MAX: usize = 16 * 1024;
const FIELDS_MAX: usize = 64;
/// For a request's head, and between requests: longer than an edge keeps its
/// idle connections, so that it is not the service that closes first.
const HEAD_TIME: Duration = Duration::from_mins(1);
/// A client that takes nothing of an answer is dropped after this.
const WRITE_STALL: Duration = Duration::from_secs(30);
/// Shorter than the manifest's `stop_grace`.
const DRAIN: Duration = Duration::from_secs(4);
/// After the machine refused a connection, for want of descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub struct Service {
    pub version: HeaderValue,
    pub index: OnceLock<Index>,
}

/// Serves until `stop` is done; returns how many connections were cut.
pub async fn serve(
    listener: TcpListener,
    service: Arc<Service>,
    stop: impl Future<Output = ()>,
) -> usize {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut stop = std::pin::pin!(stop);
    loop {
        let taken = async {
            // The semaphore is never closed; without a place we must wait.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = &mut stop => break,
            taken = taken => taken,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let connection = connection(stream, Arc::clone(&service));
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            // A client's broken connection is its own affair.
            let _ = watched.await;
            drop(place);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    CONNECTIONS_MAX - places.available_permits()
}

fn connection(
    stream: TcpStream,
    service: Arc<Service>,
) -> http1::Connection<TokioIo<TcpStream>, Handler> {
    // Without these a connection is slower or longer-lived, nothing worse.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(WRITE_STALL));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(FIELDS_MAX)
        .serve_connection(TokioIo::new(stream), Handler(service))
}

struct Handler(Arc<Service>);

impl hyper::service::Service<Request<Incoming>> for Handler {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut response = answer(&request, self.0.index.get());
        let name = HeaderName::from_static("version");
        let fields = response.headers_mut();
        fields.insert(name, self.0.version.clone());
        ready(Ok(response.map(|body| Full::new(Bytes::from(body)))))
    }
}
