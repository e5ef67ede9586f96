//! HTTP/1.1 for the guest.
//!
//! Holds: connections are bounded; requests that come before the guest has
//! begun wait for it; after a stop nothing is accepted, what is in flight goes
//! on until it is answered.

use crate::guest::{Answer, Begun, plain};
use http::header::USER_AGENT;
use http::{HeaderMap, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

const CONNECTIONS_MAX: usize = 4_000;
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);
/// After a failed accept, for want of descriptors for instance.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// How the node's probes call themselves.
const PROBE: &[u8] = b"homeostat-probe";

pub type Given = watch::Receiver<Option<Begun>>;

/// * `drain_max`: for what is in flight at a stop.
pub async fn serve(
    listener: TcpListener,
    given: Given,
    stop: impl Future<Output = ()>,
    drain_max: Duration,
) {
    let mut connection = http1::Builder::new();
    connection
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (stream, place) = tokio::select! {
            () = &mut stop => break,
            (accepted, place) = accepted => match accepted {
                Ok((stream, _)) => (stream, place),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            },
        };
        // Events are small and wanted at once.
        let _ = stream.set_nodelay(true);
        let given = given.clone();
        let service = service_fn(move |request| answer(given.clone(), request));
        let serving = connection.serve_connection(TokioIo::new(stream), service);
        let serving = graceful.watch(serving);
        tokio::spawn(async move {
            // How a connection ends is its client's affair.
            let _ = serving.await;
            drop(place);
        });
    }
    drop(listener);
    let Some(begun) = given.borrow().clone() else {
        // What waits for a guest waits in vain.
        return;
    };
    begun.end_streams();
    let drained = tokio::time::timeout(drain_max, graceful.shutdown()).await;
    if drained.is_err() {
        tracing::warn!("requests in flight were left unanswered");
    }
}

async fn answer(mut given: Given, request: Request<Incoming>) -> Result<Answer, Infallible> {
    if given.borrow().is_none() && is_probe(request.headers()) {
        // This worker is well: what it waits for is the end of the one before
        // it, which waits for this one to be ready.
        return Ok(plain(StatusCode::OK));
    }
    let begun = match given.wait_for(Option::is_some).await {
        Ok(begun) => begun.clone(),
        Err(_) => None,
    };
    Ok(match begun {
        Some(begun) => begun.answer(request).await,
        None => plain(StatusCode::SERVICE_UNAVAILABLE),
    })
}

fn is_probe(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT);
    agent.is_some_and(|agent| agent.as_bytes() == PROBE)
}
