//! Accepts connections and speaks HTTP on them until they end.
//!
//! Holds: a connection counts until the last of its requests ended; one over
//! the limit is told so, or dropped when too many are being told; a head that
//! cannot be read, or does not end in time, has its row all the same.

use crate::body::BoxError;
use crate::connection::{Connection, Verdict};
use crate::log::Account;
use crate::server::{Ingress, Phase, Slot};
use crate::streams::Streams;
use crate::tls;
use crate::watched::{Abort, Watched};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::{Builder, UpgradeableConnection};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

/// Connections being told that there are too many.
const TOLD_MAX: usize = 128;
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-length: 0\r\n\r\n";

impl Ingress {
    /// Serves the listener's connections until [`Ingress::drain`].
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tls: bool) {
        let acceptor = if tls {
            match tls::server_config(Arc::clone(&self.resolver)) {
                Ok(config) => Some(TlsAcceptor::from(Arc::new(config))),
                Err(error) => {
                    tracing::error!(%error, "TLS cannot be set up");
                    return;
                }
            }
        } else {
            None
        };
        let mut phase = self.phase.subscribe();
        let mut full = false;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = phase.wait_for(|phase| *phase != Phase::Open) => return,
            };
            match accepted {
                Ok((stream, peer))
                    if self.connections.load(Relaxed) < self.limits.connections_max =>
                {
                    full = false;
                    let slot = Slot::take(&self.connections);
                    let ingress = Arc::clone(&self);
                    tokio::spawn(ingress.connection(stream, peer, acceptor.clone(), slot));
                }
                Ok((stream, _)) => {
                    if !full {
                        tracing::warn!("connections are refused: too many are open");
                    }
                    full = true;
                    if acceptor.is_none() && self.told.load(Relaxed) < TOLD_MAX {
                        let slot = Slot::take(&self.told);
                        tokio::spawn(tell_too_many(stream, self.limits.linger_time, slot));
                    }
                }
                Err(error) => {
                    // Out of descriptors, as a rule: wait for some to close.
                    tracing::warn!(%error, "accepting failed");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        acceptor: Option<TlsAcceptor>,
        slot: Slot,
    ) {
        let _ = stream.set_nodelay(true);
        let (tls, truncate) = (acceptor.is_some(), self.truncate_clients);
        let connection = Arc::new(Connection::new(peer, tls, truncate, &self.limits));
        match acceptor {
            None => self.speak(stream, connection).await,
            Some(acceptor) => {
                let handshake = acceptor.accept(stream);
                if let Ok(Ok(stream)) = timeout(self.limits.tls_handshake_time, handshake).await {
                    self.speak(stream, connection).await;
                }
            }
        }
        drop(slot);
    }

    /// Until it ends.
    pub(crate) async fn speak<S>(self: Arc<Self>, stream: S, connection: Arc<Connection>)
    where
        S: AsyncRead + AsyncWrite + Abort + Unpin + Send + 'static,
    {
        let service = {
            let (ingress, connection) = (Arc::clone(&self), Arc::clone(&connection));
            service_fn(move |request| {
                let (ingress, connection) = (Arc::clone(&ingress), Arc::clone(&connection));
                async move { Ok::<_, Infallible>(ingress.handle(request, &connection).await) }
            })
        };
        let watched = Watched::new(stream, Arc::clone(&connection), self.limits.linger_time);
        let stream = TokioIo::new(watched);
        if connection.from.is_some() {
            // The builder for either protocol lets a stream change over.
            let serving = http1::Builder::new()
                .max_buf_size(self.head_buffer())
                .serve_connection(stream, service)
                .with_upgrades();
            let close =
                |serving: Pin<&mut _>| http1::UpgradeableConnection::graceful_shutdown(serving);
            self.watch(pin!(serving), close, &connection).await;
        } else {
            let builder = self.builder();
            let serving = builder.serve_connection_with_upgrades(stream, service);
            let close = |serving: Pin<&mut _>| UpgradeableConnection::graceful_shutdown(serving);
            self.watch(pin!(serving), close, &connection).await;
        }
    }

    async fn watch<C, E>(
        &self,
        mut serving: Pin<&mut C>,
        graceful_shutdown: impl Fn(Pin<&mut C>),
        connection: &Arc<Connection>,
    ) where
        C: Future<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        let mut phase = self.phase.subscribe();
        let mut check = pin!(sleep_until(Instant::now()));
        let mut closing = false;
        loop {
            let told = closing || connection.is_leaving();
            let cut = phase
                .wait_for(|phase| *phase == Phase::Cut || (*phase == Phase::Draining && !told));
            let mut close = false;
            tokio::select! {
                biased;
                ended = serving.as_mut() => {
                    if let Err(error) = ended {
                        self.ended_badly(&*error.into(), connection);
                    }
                    return;
                }
                phase = cut => match phase.map(|phase| *phase) {
                    Ok(Phase::Draining) => {
                        connection.leave();
                        check.as_mut().reset(Instant::now());
                    }
                    _ => return,
                },
                () = check.as_mut() => {
                    let close_time = self.limits.close_time;
                    let next = match connection.verdict(&self.limits) {
                        Verdict::Drop => {
                            self.head_row(408, connection);
                            return;
                        }
                        _ if closing && connection.is_done(close_time) => return,
                        Verdict::Keep(next) if closing => next.min(close_time),
                        Verdict::Keep(next) => next,
                        Verdict::Close => {
                            close = !closing;
                            close_time
                        }
                    };
                    check.as_mut().reset(Instant::now() + next.max(Duration::from_millis(1)));
                }
            }
            if close {
                closing = true;
                connection.leaves();
                if connection.is_idle() {
                    connection.settle();
                }
                check
                    .as_mut()
                    .reset(Instant::now() + self.limits.close_time);
                graceful_shutdown(serving.as_mut());
            }
        }
    }

    fn ended_badly(&self, error: &(dyn std::error::Error + 'static), connection: &Arc<Connection>) {
        match error.downcast_ref::<hyper::Error>() {
            Some(error) if error.is_parse_too_large() => self.head_row(431, connection),
            Some(error) if error.is_parse() => self.head_row(400, connection),
            _ => tracing::debug!(error, "a connection ended"),
        }
    }

    /// The row of a head that did not become a request, if one had begun.
    fn head_row(&self, status: u16, connection: &Arc<Connection>) {
        if connection.is_idle()
            && let Some((method, target)) = connection.unfinished_head()
        {
            Account::unread(connection, &self.counts, &self.log, method, &target, status);
        }
    }

    fn head_buffer(&self) -> usize {
        self.limits.head_bytes_max.max(8192)
    }

    fn builder(&self) -> Builder<Streams> {
        let mut builder = Builder::new(Streams {
            stall: self.limits.write_stall,
        });
        builder.http1().max_buf_size(self.head_buffer());
        builder
            .http2()
            .max_concurrent_streams(self.limits.h2_streams_max)
            .max_pending_accept_reset_streams(self.limits.h2_resets_max)
            .max_send_buf_size(self.limits.h2_send_bytes_max)
            // Twice, so that one a little over the limit gets its answer and row.
            .max_header_list_size(
                u32::try_from(self.limits.head_bytes_max * 2).unwrap_or(u32::MAX),
            );
        builder
    }
}

async fn tell_too_many(mut stream: TcpStream, linger: Duration, slot: Slot) {
    let telling = async {
        stream.write_all(TOO_MANY).await?;
        stream.shutdown().await?;
        let mut scratch = [0; 1024];
        while stream.read(&mut scratch).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    let _ = timeout(linger, telling).await;
    drop(slot);
}
