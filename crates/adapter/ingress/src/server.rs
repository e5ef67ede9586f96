//! Accepts connections, reads requests, and sends each where its host and path
//! lead.
//!
//! Holds: a connection counts until the last of its requests ended; draining
//! stops accepting at once and cuts only what outlives its deadline.

use crate::body::Answer;
use crate::connection::{Connection, Verdict, Watched};
use crate::limits::Limits;
use crate::log::{Account, Counts};
use crate::proxy::{self, finish};
use crate::router::{Served, SnapshotError, Table};
use crate::static_files::{self, Asked};
use crate::tls::{self, Certificates, Resolver};
use crate::tunnel::Tunnel;
use crate::{AccessLog, Documents, Evidence};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use std::borrow::Cow;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use wire::edge::{EdgeReadings, EdgeSnapshot, ServiceReadings};

const HEALTH: &str = "/.well-known/homeostat/health";

#[derive(Clone, Debug)]
pub struct Options {
    pub limits: Limits,
    /// Whether the access log gets IPv4 /24 and IPv6 /48 only.
    pub truncate_clients: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            truncate_clients: true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Open,
    Draining,
    Cut,
}

pub struct Ingress {
    pub(crate) limits: Arc<Limits>,
    pub(crate) evidence: Arc<dyn Evidence>,
    pub(crate) dice: AtomicU64,
    truncate_clients: bool,
    documents: Arc<dyn Documents>,
    log: Arc<dyn AccessLog>,
    table: ArcSwap<Table>,
    /// One snapshot is built at a time.
    building: Mutex<()>,
    resolver: Arc<Resolver>,
    counts: Arc<Counts>,
    phase: watch::Sender<Phase>,
    connections: Arc<AtomicUsize>,
}

/// A connection's place, or a tunnel's.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Ingress {
    pub fn new(
        options: Options,
        documents: Arc<dyn Documents>,
        log: Arc<dyn AccessLog>,
        evidence: Arc<dyn Evidence>,
    ) -> Arc<Self> {
        Arc::new(Self {
            limits: Arc::new(options.limits),
            evidence,
            dice: AtomicU64::new(0),
            truncate_clients: options.truncate_clients,
            documents,
            log,
            table: ArcSwap::default(),
            building: Mutex::new(()),
            resolver: Arc::default(),
            counts: Arc::default(),
            phase: watch::Sender::new(Phase::Open),
            connections: Arc::default(),
        })
    }

    /// Puts a snapshot in force; one older than what is in force is ignored.
    ///
    /// # Errors
    /// [`SnapshotError`]; what was in force stays.
    pub fn set_snapshot(&self, snapshot: &EdgeSnapshot) -> Result<(), SnapshotError> {
        let _one = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.table.load_full();
        if old
            .version
            .is_some_and(|version| snapshot.version < version)
        {
            return Ok(());
        }
        let table = Arc::new(Table::build(snapshot, &old, &*self.documents)?);
        let certificates = Certificates::build(&snapshot.certificates)?;
        self.resolver.0.store(Arc::new(certificates));
        table.activate(snapshot, &old);
        self.table.store(table);
        Ok(())
    }

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
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = phase.wait_for(|phase| *phase != Phase::Open) => return,
            };
            match accepted {
                Ok((stream, peer))
                    if self.connections.load(Relaxed) < self.limits.connections_max =>
                {
                    let slot = Slot::take(&self.connections);
                    let ingress = Arc::clone(&self);
                    tokio::spawn(ingress.connection(stream, peer, acceptor.clone(), slot));
                }
                Ok(_) => tracing::warn!("a connection was refused: too many are open"),
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
        peer: std::net::SocketAddr,
        acceptor: Option<TlsAcceptor>,
        slot: Slot,
    ) {
        let _ = stream.set_nodelay(true);
        let connection = Connection::new(peer, acceptor.is_some(), self.truncate_clients);
        let connection = Arc::new(connection);
        match acceptor {
            None => self.speak(stream, connection).await,
            Some(acceptor) => {
                let handshake = acceptor.accept(stream);
                if let Ok(Ok(stream)) =
                    tokio::time::timeout(self.limits.tls_handshake_time, handshake).await
                {
                    self.speak(stream, connection).await;
                }
            }
        }
        drop(slot);
    }

    async fn speak<S>(self: Arc<Self>, stream: S, connection: Arc<Connection>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let builder = self.builder();
        let service = {
            let (ingress, connection) = (Arc::clone(&self), Arc::clone(&connection));
            service_fn(move |request| {
                let (ingress, connection) = (Arc::clone(&ingress), Arc::clone(&connection));
                async move { Ok::<_, Infallible>(ingress.handle(request, &connection).await) }
            })
        };
        let watched = Watched {
            inner: stream,
            connection: Arc::clone(&connection),
        };
        let mut serving =
            pin!(builder.serve_connection_with_upgrades(TokioIo::new(watched), service));
        let mut phase = self.phase.subscribe();
        let mut check = tokio::time::interval(self.limits.check_every);
        let mut closing = false;
        loop {
            tokio::select! {
                _ = serving.as_mut() => return,
                _ = check.tick() => match connection.verdict(&self.limits) {
                    Verdict::Keep => {}
                    // One that was asked to close and stays is dropped.
                    Verdict::Close if !closing => {
                        closing = true;
                        serving.as_mut().graceful_shutdown();
                    }
                    Verdict::Close | Verdict::Drop => return,
                },
                _ = phase.wait_for(|phase| *phase == Phase::Cut || (*phase == Phase::Draining && !closing)) => {
                    if *self.phase.borrow() == Phase::Cut {
                        return;
                    }
                    closing = true;
                    serving.as_mut().graceful_shutdown();
                }
            }
        }
    }

    fn builder(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .max_buf_size(self.limits.head_bytes_max.max(8192))
            .pipeline_flush(true);
        builder
            .http2()
            .max_concurrent_streams(self.limits.h2_streams_max)
            .max_pending_accept_reset_streams(self.limits.h2_resets_max)
            .max_header_list_size(u32::try_from(self.limits.head_bytes_max).unwrap_or(u32::MAX));
        builder
    }

    async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> Response<Answer> {
        let conflict = connection.request_starts(request.version() == Version::HTTP_2);
        let mut account = Account::open(&request, connection, &self.counts, &self.log);
        let authority = if conflict { None } else { authority(&request) };
        let Some(authority) = authority.map(Cow::into_owned) else {
            let mut response = plain(StatusCode::BAD_REQUEST);
            if request.version() != Version::HTTP_2 {
                response
                    .headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            return finish(response, account);
        };
        account.row.host.clone_from(&authority);
        if request.method() == Method::CONNECT {
            return finish(plain(StatusCode::NOT_IMPLEMENTED), account);
        }
        let path = request.uri().path();
        if path == HEALTH {
            return finish(plain(StatusCode::OK), account);
        }
        let table = self.table.load();
        let Some(route) = table.find(without_port(&authority), path) else {
            return finish(plain(StatusCode::NOT_FOUND), account);
        };
        match &route.served {
            Served::Site(site) => {
                account.row.site = Some(site.name.clone());
                let query = request.uri().query();
                let below = &path[route.path.len()..];
                let (method, headers) = (request.method(), request.headers());
                let asked = Asked {
                    method,
                    headers,
                    below,
                    path,
                    query,
                };
                finish(static_files::serve(site, &*self.documents, &asked), account)
            }
            Served::Service(service) => {
                let service = Arc::clone(service);
                drop(table);
                proxy::forward(&self, &service, request, &authority, account).await
            }
        }
    }

    pub(crate) fn spawn_tunnel(&self, tunnel: Tunnel) {
        let slot = Slot::take(&self.connections);
        let mut phase = self.phase.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                () = tunnel.run() => {}
                _ = phase.wait_for(|phase| *phase == Phase::Cut) => {}
            }
            drop(slot);
        });
    }

    /// Stops accepting, lets what is in flight finish, and cuts what is left
    /// when `deadline` has passed.
    pub async fn drain(&self, deadline: Duration) {
        self.phase.send_replace(Phase::Draining);
        let gone = async {
            while self.connections.load(Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(deadline, gone).await;
        self.phase.send_replace(Phase::Cut);
    }

    /// Counts since the start; `in_flight` is of this moment.
    pub fn readings(&self) -> EdgeReadings {
        let services = self
            .table
            .load()
            .services
            .iter()
            .map(|(name, state)| {
                let readings = ServiceReadings {
                    requests: state.requests.load(Relaxed),
                    errors: state.errors.load(Relaxed),
                    in_flight: state.in_flight.load(Relaxed),
                    held: state.held.load(Relaxed),
                    retried: state.retried.load(Relaxed),
                };
                (name.clone(), readings)
            })
            .collect();
        EdgeReadings {
            requests: self.counts.requests.load(Relaxed),
            errors: self.counts.errors.load(Relaxed),
            in_flight: self.counts.in_flight.load(Relaxed),
            services,
        }
    }
}

/// The host, in lower case, with its port if it has one. `None` when missing
/// (HTTP/1.0 may), repeated, contradicting or malformed.
fn authority(request: &Request<Incoming>) -> Option<Cow<'_, str>> {
    let mut fields = request.headers().get_all(header::HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return None;
    }
    let field = field
        .map(|value| value.to_str().map_err(|_| ()))
        .transpose()
        .ok()?;
    let target = request.uri().authority().map(http::uri::Authority::as_str);
    let host = match (target, field) {
        (Some(target), Some(field))
            if request.version() == Version::HTTP_2 && !target.eq_ignore_ascii_case(field) =>
        {
            return None;
        }
        (Some(target), _) if request.version() == Version::HTTP_2 || field.is_some() => target,
        (None, Some(field)) => field,
        (_, None) if request.version() == Version::HTTP_10 => "",
        _ => return None,
    };
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if !host.bytes().all(valid) || (host.is_empty() && request.version() != Version::HTTP_10) {
        return None;
    }
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some(Cow::Owned(host.to_ascii_lowercase()));
    }
    Some(Cow::Borrowed(host))
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// A small answer of our own.
pub fn plain(status: StatusCode) -> Response<Answer> {
    let text = match status {
        StatusCode::OK => "ok\n",
        StatusCode::BAD_REQUEST => "bad request\n",
        StatusCode::NOT_FOUND => "nothing is here\n",
        StatusCode::BAD_GATEWAY => "the service broke off before it answered\n",
        StatusCode::SERVICE_UNAVAILABLE => "the service is not available now\n",
        StatusCode::GATEWAY_TIMEOUT => "the service did not answer in time\n",
        other => other.canonical_reason().unwrap_or("error"),
    };
    let mut response = Response::new(Answer::memory(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
