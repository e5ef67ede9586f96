//! The edge's state, and where each request goes by its host and path.
//!
//! Holds: a snapshot takes force whole; a request over the limits is shed at
//! once; draining stops accepting at once and cuts only what outlives its
//! deadline.

use crate::body::Answer;
use crate::choose::draw;
use crate::connection::Connection;
use crate::head::target;
use crate::limits::Limits;
use crate::log::{Account, Counts};
use crate::pool::tally;
use crate::proxy::{self, finish};
use crate::router::{Served, SnapshotError, Table};
use crate::site::{self, Asked};
use crate::streams::Pace;
use crate::tls::{Certificates, Resolver};
use crate::tunnel::Tunnel;
use crate::{AccessLog, Components, Documents, Evidence, PeerConnector};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use wire::edge::{EdgeReadings, EdgeSnapshot, ServiceReadings};
use wire::peer::{ANSWERED, Answered};

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
pub(crate) enum Phase {
    Open,
    Draining,
    Cut,
}

pub struct Ingress {
    pub(crate) limits: Arc<Limits>,
    pub(crate) evidence: Arc<dyn Evidence>,
    pub(crate) dice: AtomicU64,
    requests_seed: u64,
    pub(crate) truncate_clients: bool,
    documents: Arc<dyn Documents>,
    components: Arc<dyn Components>,
    pub(crate) peers: Arc<dyn PeerConnector>,
    pub(crate) log: Arc<dyn AccessLog>,
    pub(crate) table: ArcSwap<Table>,
    /// One snapshot is built at a time.
    building: Mutex<()>,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) connections: Arc<AtomicUsize>,
    /// Of other edges.
    pub(crate) peer_streams: Arc<AtomicUsize>,
    pub(crate) told: Arc<AtomicUsize>,
}

/// A connection's place, or a tunnel's.
pub(crate) struct Slot(Arc<AtomicUsize>);

impl Slot {
    pub(crate) fn take(count: &Arc<AtomicUsize>) -> Self {
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
        components: Arc<dyn Components>,
        peers: Arc<dyn PeerConnector>,
        log: Arc<dyn AccessLog>,
        evidence: Arc<dyn Evidence>,
    ) -> Arc<Self> {
        Arc::new(Self {
            limits: Arc::new(options.limits),
            evidence,
            dice: AtomicU64::new(0),
            requests_seed: RandomState::new().hash_one(0),
            truncate_clients: options.truncate_clients,
            documents,
            components,
            peers,
            log,
            table: ArcSwap::default(),
            building: Mutex::new(()),
            resolver: Arc::default(),
            counts: Arc::default(),
            phase: watch::Sender::new(Phase::Open),
            connections: Arc::default(),
            peer_streams: Arc::default(),
            told: Arc::default(),
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
        let table = Arc::new(Table::build(
            snapshot,
            &old,
            &*self.documents,
            &self.limits,
        )?);
        let certificates = Certificates::build(&snapshot.certificates)?;
        self.resolver.0.store(Arc::new(certificates));
        table.activate(snapshot, &old, &*self.components);
        self.table.store(table);
        Ok(())
    }

    pub(crate) async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> Response<Answer> {
        let h2 = request.version() == Version::HTTP_2;
        let conflict = connection.request_starts(h2);
        let mut account = Account::open(&request, connection, &self.counts, &self.log);
        let authority = if conflict {
            Err(StatusCode::BAD_REQUEST)
        } else if connection.from.is_some() && target::names_no_host(&request) {
            // A client of HTTP/1.0 need not, and was let in elsewhere.
            Ok(String::new())
        } else {
            target::authority(&request, self.limits.head_bytes_max).map(Cow::into_owned)
        };
        let mut response = match authority {
            Ok(authority) => {
                account.row.host.clone_from(&authority);
                match connection.from {
                    None => {
                        self.dispatch(request, &authority, connection, account)
                            .await
                    }
                    Some(from) => self.answer_peer(request, &authority, from, account).await,
                }
            }
            Err(status) => {
                let mut response = plain(status);
                if !h2 {
                    // What follows such a head cannot be told apart from it.
                    close_after(&mut response);
                }
                finish(response, account)
            }
        };
        if h2 {
            response.body_mut().pace = Pace::current();
        } else if connection.is_leaving() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            close_after(&mut response);
        }
        response
    }

    async fn dispatch(
        self: &Arc<Self>,
        request: Request<Incoming>,
        authority: &str,
        connection: &Connection,
        mut account: Box<Account>,
    ) -> Response<Answer> {
        let path = request.uri().path();
        if connection.callee.is_none() && (path == HEALTH || path == "*") {
            return finish(plain(StatusCode::OK), account);
        }
        if self.counts.in_flight.load(Relaxed) > self.limits.requests_max {
            return finish(unavailable(), account);
        }
        let table = self.table.load();
        if let Some(callee) = &connection.callee {
            let Some(service) = table.services.get(callee).cloned() else {
                return finish(unavailable(), account);
            };
            drop(table);
            return proxy::forward(self, &service, request, authority, account).await;
        }
        let Some(route) = table.find(target::without_port(authority), path) else {
            return finish(plain(StatusCode::NOT_FOUND), account);
        };
        match &route.served {
            Served::Site(site) => {
                account.row.project = Some(site.name.project.clone());
                account.row.site = Some(site.name.name.clone());
                let asked = Asked {
                    method: request.method(),
                    headers: request.headers(),
                    below: &path[route.path.len()..],
                    path,
                    query: request.uri().query(),
                };
                finish(site::serve(site, &*self.documents, &asked), account)
            }
            Served::Service(service) => {
                let service = Arc::clone(service);
                drop(table);
                proxy::forward(self, &service, request, authority, account).await
            }
        }
    }

    /// As good as unique among all edges' requests of some days.
    pub(crate) fn request_id(&self) -> u64 {
        self.requests_seed ^ draw(&self.dice)
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

    /// Streams of other edges that are being answered.
    pub fn peer_streams(&self) -> usize {
        self.peer_streams.load(Relaxed)
    }

    /// Of clients.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Stops accepting, lets what is in flight finish, and cuts what is left
    /// when `deadline` has passed.
    pub async fn drain(&self, deadline: Duration) {
        self.phase.send_replace(Phase::Draining);
        let gone = async {
            let open = || self.connections.load(Relaxed) + self.peer_streams.load(Relaxed);
            while open() > 0 {
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
                    forwarded: state.forwarded.load(Relaxed),
                    latency_ms: state.latencies.counts(),
                    generations: tally::generations(&state.config.load().endpoints),
                };
                (name.clone(), readings)
            })
            .collect();
        EdgeReadings {
            requests: self.counts.requests.load(Relaxed),
            errors: self.counts.errors.load(Relaxed),
            in_flight: self.counts.in_flight.load(Relaxed),
            forwarded: self.counts.forwarded.load(Relaxed),
            latency_ms: self.counts.latencies.counts(),
            services,
        }
    }
}

fn close_after(response: &mut Response<Answer>) {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
}

/// Shed: the client may come back soon.
pub fn unavailable() -> Response<Answer> {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE);
    let soon = HeaderValue::from_static("1");
    response.headers_mut().insert(header::RETRY_AFTER, soon);
    response
}

/// To an edge: no replica saw the request, it may go elsewhere.
pub fn refused(status: StatusCode) -> Response<Answer> {
    let mut response = plain(status);
    if let Ok(value) = HeaderValue::try_from(Answered::Refused.to_string()) {
        response.headers_mut().insert(ANSWERED, value);
    }
    response
}

/// A small answer of our own.
pub fn plain(status: StatusCode) -> Response<Answer> {
    let text = match status {
        StatusCode::OK => "ok\n",
        StatusCode::BAD_REQUEST => "bad request\n",
        StatusCode::NOT_FOUND => "nothing is here\n",
        StatusCode::BAD_GATEWAY => "the service broke off before it answered\n",
        StatusCode::SERVICE_UNAVAILABLE => "the service is not available now\n",
        StatusCode::REQUEST_TIMEOUT => "the request's body did not come in time\n",
        StatusCode::PAYLOAD_TOO_LARGE => "the request's body is too large\n",
        StatusCode::LOOP_DETECTED => "the request went around in a circle\n",
        StatusCode::MISDIRECTED_REQUEST => "the service is not on this node\n",
        StatusCode::NOT_IMPLEMENTED => "not implemented\n",
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
