//! Answers the requests that other edges forward.
//!
//! In: one stream, and the node whose edge opened it, which the caller has
//! proven. Out: a greeting, then the answer of a replica here, or of one yet
//! elsewhere while hops are left.
//! Holds: what the other edge says of the request is believed only in the one
//! field, and only as far as it fits; whatever comes over a stream ends at most
//! that stream; a refusal says that no replica saw the request.

use super::PeerStream;
use crate::body::Answer;
use crate::connection::Connection;
use crate::log::Account;
use crate::proxy::{self, finish};
use crate::server::{Ingress, Phase, Slot, plain, refused};
use crate::watched::Abort;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use kernel::NodeId;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use wire::peer::{FORWARDED, Forwarded, Greeting};

impl Abort for Box<dyn PeerStream> {
    /// Clients of HTTP/1.0, for which this is, are never on such a stream.
    fn abort(&self) {}
}

impl Ingress {
    /// Answers what comes over one stream, until it ends.
    ///
    /// * `from`: whose edge it is, as its certificate says.
    pub async fn serve_peer_stream(self: Arc<Self>, mut stream: Box<dyn PeerStream>, from: NodeId) {
        let (slot, welcome) = self.greet(&mut stream).await;
        if welcome {
            let connection = Arc::new(Connection::of_peer(from, &self.limits));
            self.speak(stream, connection).await;
        }
        drop(slot);
    }

    /// Says whether a stream is welcome.
    pub(super) async fn greet(&self, stream: &mut Box<dyn PeerStream>) -> (Slot, bool) {
        let greeting = if *self.phase.borrow() != Phase::Open {
            Greeting::Leaving
        } else if self.peer_streams.load(Relaxed) >= self.limits.peer_streams_max {
            Greeting::Full
        } else {
            Greeting::Welcome
        };
        let slot = Slot::take(&self.peer_streams);
        let greeted = async {
            stream.write_all(&greeting.encode()).await?;
            stream.flush().await?;
            if greeting == Greeting::Welcome {
                return Ok(true);
            }
            stream.shutdown().await?;
            let mut scratch = [0; 1024];
            while stream.read(&mut scratch).await? > 0 {}
            Ok::<_, std::io::Error>(false)
        };
        let greeted = timeout(self.limits.linger_time, greeted).await;
        (slot, matches!(greeted, Ok(Ok(true))))
    }

    pub(crate) async fn answer_peer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        host: &str,
        from: NodeId,
        mut account: Box<Account>,
    ) -> Response<Answer> {
        let told = request.headers().get(FORWARDED);
        let told = told.and_then(|told| told.to_str().ok()?.parse::<Forwarded>().ok());
        let table = self.table.load();
        let (Some(told), Some(own)) = (told, table.own) else {
            return finish(plain(StatusCode::BAD_REQUEST), account);
        };
        if told.via.last() != Some(&from) {
            tracing::warn!(%from, "an edge forwards as another one: refused");
            return finish(plain(StatusCode::BAD_REQUEST), account);
        }
        let loops = told.via.contains(&own) || told.via.len() > self.limits.hops_max;
        let service = table.services.get(&told.replica.service).cloned();
        drop(table);
        account.arrived(told, own, self.truncate_clients);
        if loops {
            return finish(refused(StatusCode::LOOP_DETECTED), account);
        }
        if self.counts.in_flight.load(Relaxed) > self.limits.requests_max {
            return finish(refused(StatusCode::SERVICE_UNAVAILABLE), account);
        }
        let Some(service) = service else {
            return finish(refused(StatusCode::MISDIRECTED_REQUEST), account);
        };
        proxy::forward(self, &service, request, host, account).await
    }
}
