//! One request's account: opened with its head, closed when its answer's body
//! ends or is dropped, which writes the access row and the counts.
//!
//! Holds: exactly one row for each request, however it ends. Its status is what
//! the request came to: 499 when the client left before its answer ended, 502
//! or 504 when a replica broke off or stalled in the middle, whatever the
//! answer's head had said. A request that another edge forwarded counts as a
//! client's there, not here.

use crate::AccessLog;
use crate::choose::Way;
use crate::connection::{Connection, client_text};
use crate::latency::Latencies;
use crate::peer::PeerState;
use crate::pool::{EndpointState, Place};
use crate::router::ServiceState;
use crate::server::Ingress;
use http::{HeaderMap, HeaderValue};
use kernel::{NodeId, ReplicaId, UnixMillis};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use wire::peer::{ANSWERED, Answered, Forwarded};
use wire::rows::AccessRow;

/// Bytes of path and query, referer and agent that a row keeps.
const TEXT_MAX: usize = 2048;
/// Of the method, which a client may make up.
const METHOD_MAX: usize = 32;

#[derive(Debug, Default)]
pub struct Counts {
    pub requests: AtomicU64,
    pub errors: AtomicU64,
    pub in_flight: AtomicU64,
    /// Requests of other edges, which are in none of the first two.
    pub forwarded: AtomicU64,
    /// Of clients' requests that were answered.
    pub latencies: Latencies,
}

pub struct Account {
    pub row: AccessRow,
    pub service: Option<Arc<ServiceState>>,
    /// The replica here that it was given to last.
    given_to: Option<Arc<EndpointState>>,
    started: Instant,
    pub http_10: bool,
    /// The client left before its answer ended.
    left: bool,
    arrived: Option<Box<Arrived>>,
    connection: Arc<Connection>,
    counts: Arc<Counts>,
    log: Arc<dyn AccessLog>,
}

/// What is known of a request that another edge forwarded.
struct Arrived {
    told: Forwarded,
    own: NodeId,
    client_text: String,
}

impl Account {
    pub fn open<B>(
        request: &http::Request<B>,
        connection: &Arc<Connection>,
        counts: &Arc<Counts>,
        log: &Arc<dyn AccessLog>,
    ) -> Box<Self> {
        counts.entered(connection).fetch_add(1, Relaxed);
        counts.in_flight.fetch_add(1, Relaxed);
        let text = |name: http::HeaderName| {
            request
                .headers()
                .get(name)
                .map_or_else(String::new, |value| {
                    clipped(&String::from_utf8_lossy(value.as_bytes()))
                })
        };
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        Box::new(Self {
            row: AccessRow {
                method: clipped_to(request.method().as_str(), METHOD_MAX),
                path: clipped(path),
                protocol: protocol(request.version()).to_owned(),
                referer: text(http::header::REFERER),
                agent: text(http::header::USER_AGENT),
                ..new_row(connection)
            },
            service: None,
            given_to: None,
            started: Instant::now(),
            http_10: request.version() == http::Version::HTTP_10,
            left: false,
            arrived: None,
            connection: Arc::clone(connection),
            counts: Arc::clone(counts),
            log: Arc::clone(log),
        })
    }

    /// Writes the row of a head that could not be made a request.
    pub fn unread(
        connection: &Connection,
        counts: &Counts,
        log: &Arc<dyn AccessLog>,
        method: String,
        target: &str,
        status: u16,
    ) {
        counts.entered(connection).fetch_add(1, Relaxed);
        log.record(AccessRow {
            method,
            path: clipped(target),
            protocol: protocol(http::Version::HTTP_11).to_owned(),
            status,
            ..new_row(connection)
        });
    }

    /// The answer was given up before its end because its client left.
    pub fn client_left(&mut self) {
        self.left = true;
    }

    pub fn attach(&mut self, service: &Arc<ServiceState>) {
        let entered = match self.connection.from {
            None => &service.requests,
            Some(_) => &service.forwarded,
        };
        entered.fetch_add(1, Relaxed);
        service.in_flight.fetch_add(1, Relaxed);
        self.row.project = Some(service.name.project.clone());
        self.row.service = Some(service.name.name.clone());
        self.service = Some(Arc::clone(service));
    }

    pub fn given_to(&mut self, endpoint: &Arc<EndpointState>) {
        let is_here = !matches!(endpoint.place, Place::Peer(_));
        self.given_to = is_here.then(|| Arc::clone(endpoint));
    }

    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Another edge sent it.
    pub fn arrived(&mut self, told: Forwarded, own: NodeId, truncate: bool) {
        let client = told.client.to_canonical();
        self.row.client = client_text(client, truncate);
        self.row.tls = told.tls;
        self.row.request = Some(told.request);
        self.arrived = Some(Box::new(Arrived {
            client_text: client.to_string(),
            told,
            own,
        }));
    }

    pub fn forwarded(&self) -> Option<&Forwarded> {
        self.arrived.as_ref().map(|arrived| &arrived.told)
    }

    /// The client's address, whole.
    pub fn peer_text(&self) -> &str {
        match &self.arrived {
            Some(arrived) => &arrived.client_text,
            None => &self.connection.peer_text,
        }
    }

    pub fn way(&self, ingress: &Ingress) -> Way {
        let Some(told) = self.forwarded() else {
            return Way::default();
        };
        Way {
            tried: Vec::new(),
            wanted: Some(told.replica.clone()),
            ends_here: told.via.len() >= ingress.limits.hops_max,
            via: told.via.clone(),
        }
    }

    /// What the next edge is told.
    pub fn forward(
        &mut self,
        ingress: &Ingress,
        peer: &PeerState,
        replica: &ReplicaId,
        deadline: Instant,
    ) -> Forwarded {
        let request = *self.row.request.get_or_insert_with(|| ingress.request_id());
        let told = self.forwarded();
        let mut via = told.map_or_else(Vec::new, |told| told.via.clone());
        via.push(peer.own);
        let here = || self.connection.peer.ip().to_canonical();
        Forwarded {
            via,
            left: deadline.saturating_duration_since(Instant::now()),
            replica: replica.clone(),
            client: told.map_or_else(here, |told| told.client),
            tls: self.row.tls,
            request,
        }
    }

    /// Says to the edge that asked where the answer comes from; a refusal has
    /// said so already.
    pub fn sign(&self, headers: &mut HeaderMap) {
        let Some(arrived) = &self.arrived else { return };
        let answered = Answered::By {
            node: self.row.node.unwrap_or(arrived.own),
            replica: self.row.replica.clone(),
        };
        if !headers.contains_key(ANSWERED)
            && let Ok(value) = HeaderValue::try_from(answered.to_string())
        {
            headers.insert(ANSWERED, value);
        }
    }

    pub fn started(&self) -> Instant {
        self.started
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let unanswered = self.row.status == 0;
        self.connection.request_ends(!self.left && !unanswered);
        self.counts.in_flight.fetch_sub(1, Relaxed);
        let client = self.connection.from.is_none();
        let refused = self.row.status >= 500 || unanswered;
        let failed = client && refused;
        if self.left || unanswered {
            // As nginx has it.
            self.row.status = 499;
        }
        if failed {
            self.counts.errors.fetch_add(1, Relaxed);
        }
        let took = self.started.elapsed();
        if let (Some(endpoint), false) = (&self.given_to, self.left) {
            endpoint.tally.add(refused, took);
        }
        let answered = client && !self.left && !unanswered;
        if answered {
            self.counts.latencies.add(took);
        }
        if let Some(service) = &self.service {
            service.in_flight.fetch_sub(1, Relaxed);
            if failed {
                service.errors.fetch_add(1, Relaxed);
            }
            if answered {
                service.latencies.add(took);
            }
        }
        self.row.micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let empty = empty_row(self.row.at, String::new(), false);
        self.log.record(std::mem::replace(&mut self.row, empty));
    }
}

fn new_row(connection: &Connection) -> AccessRow {
    let at = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let at = UnixMillis(u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
    AccessRow {
        forwarded_by: connection.from,
        ..empty_row(at, connection.client_text.clone(), connection.tls)
    }
}

impl Counts {
    fn entered(&self, connection: &Connection) -> &AtomicU64 {
        match connection.from {
            None => &self.requests,
            Some(_) => &self.forwarded,
        }
    }
}

fn empty_row(at: UnixMillis, client: String, tls: bool) -> AccessRow {
    AccessRow {
        at,
        client,
        method: String::new(),
        host: String::new(),
        path: String::new(),
        protocol: String::new(),
        tls,
        status: 0,
        bytes: 0,
        micros: 0,
        project: None,
        site: None,
        service: None,
        replica: None,
        retries: 0,
        referer: String::new(),
        agent: String::new(),
        node: None,
        forwarded_by: None,
        request: None,
    }
}

fn clipped(text: &str) -> String {
    clipped_to(text, TEXT_MAX)
}

fn clipped_to(text: &str, most: usize) -> String {
    text[..text.floor_char_boundary(most)].to_owned()
}

fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}
