//! Takes a request to a replica of its service and the answer back.
//!
//! Holds: a request is sent again only when the replica cannot have acted on it
//! (it was never sent) or when repeating it is safe (no body, and a method that
//! may be repeated); while no replica takes it, it waits within the service's
//! deadline, at most `held_max` of them; each failure is reported once per pause
//! as evidence.

use crate::body::{Answer, Fault, Outgoing, Timed};
use crate::choose::{Way, choose};
use crate::head::fields::{prepare, remove_hop_by_hop, remove_internal, upgrade_of};
use crate::log::Account;
use crate::peer;
use crate::pool::answers::{ERRORS_IN_A_ROW, others_answer, try_others};
use crate::pool::{EndpointState, Lease, Place};
use crate::router::ServiceState;
use crate::server::{Ingress, plain, refused, unavailable};
use crate::tunnel::Tunnel;
use crate::{Component, ComponentBody, ComponentError};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Replicas that may break on one request before it gets up: what kills three
/// would kill them all.
const BROKEN_MAX: u32 = 3;
const WAIT_FIRST: Duration = Duration::from_millis(10);
const WAIT_LONGEST: Duration = Duration::from_millis(200);

/// A request as it can be sent more than once.
pub struct Flight {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    pub body: Option<Timed>,
    pub repeatable: bool,
}

pub enum Tried {
    Answered(Response<Given>, Lease),
    /// It takes no more requests now.
    Busy,
    /// It was never sent, or may be repeated however often.
    Refused(String),
    /// It may have been acted on.
    Broken(String),
    /// It ended on this request, which is its own doing: nothing is wrong with
    /// the replica.
    Ended,
    Shed,
    /// A pooled connection had gone stale under it.
    Stale,
    /// The client's own body failed.
    Client(Fault),
    TooLate,
}

pub enum Given {
    Replica(Incoming),
    Component(ComponentBody),
}

pub async fn forward(
    ingress: &Arc<Ingress>,
    service: &Arc<ServiceState>,
    mut request: Request<Incoming>,
    host: &str,
    mut account: Box<Account>,
) -> Response<Answer> {
    account.attach(service);
    let whole = service.config.load().deadline;
    let whole = account.forwarded().map_or(whole, |one| whole.min(one.left));
    let deadline = Instant::from_std(account.started()) + whole;
    let upgrade = upgrade_of(&request);
    let client = upgrade.as_ref().map(|_| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    if body.size_hint().lower() > ingress.limits.body_bytes_max {
        return finish(plain(StatusCode::PAYLOAD_TOO_LARGE), account);
    }
    let body = (!body.is_end_stream()).then(|| {
        Timed::new(
            body,
            ingress.limits.request_body_idle,
            ingress.limits.body_bytes_max,
        )
    });
    let repeatable = body.is_none()
        && upgrade.is_none()
        && matches!(
            parts.method,
            Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
        );
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = Uri::try_from(path) else {
        return finish(plain(StatusCode::BAD_REQUEST), account);
    };
    let mut headers = parts.headers;
    prepare(&mut headers, host, &account, upgrade);
    let mut flight = Flight {
        method: parts.method,
        uri,
        headers,
        body,
        repeatable,
    };
    match deliver(ingress, service, &mut flight, &mut account, deadline).await {
        Ok((response, lease)) => answer(ingress, response, lease, client, account),
        Err(response) => finish(*response, account),
    }
}

impl Flight {
    /// Takes the body along.
    pub fn request(&mut self) -> Request<Outgoing> {
        let body = self.body.take().map_or(Outgoing::Empty, Outgoing::Stream);
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// Tries replicas until one answers, waiting while none takes the request.
async fn deliver(
    ingress: &Arc<Ingress>,
    service: &Arc<ServiceState>,
    flight: &mut Flight,
    account: &mut Account,
    deadline: Instant,
) -> Result<(Response<Given>, Lease), Box<Response<Answer>>> {
    let refuse = |status| Err(Box::new(plain(status)));
    let mut way = account.way(ingress);
    let mut broken = 0;
    let mut fresh = false;
    let mut held: Option<Held<'_>> = None;
    let mut wait = WAIT_FIRST;
    loop {
        let Some(endpoint) = choose(ingress, &service.config.load().endpoints, &way) else {
            if account.forwarded().is_some() && leads_nowhere(service, &way) {
                return Err(Box::new(refused(StatusCode::MISDIRECTED_REQUEST)));
            }
            held = held.or_else(|| Held::enter(service, ingress.limits.held_max));
            if held.is_none() {
                return Err(Box::new(unavailable()));
            }
            // Subscribed before the look, so that no change is missed.
            let mut changed = service.changed.subscribe();
            if choose(ingress, &service.config.load().endpoints, &way).is_none() {
                let pause = timeout(wait, changed.changed());
                if timeout_at(deadline, pause).await.is_err() {
                    return refuse(StatusCode::GATEWAY_TIMEOUT);
                }
            }
            wait = (wait * 2).min(WAIT_LONGEST);
            way.tried.clear();
            continue;
        };
        account.row.replica = Some(endpoint.replica.clone());
        account.row.node = None;
        account.given_to(&endpoint);
        let outcome = match &endpoint.place {
            Place::Peer(peer) => {
                peer::attempt(ingress, &endpoint, peer, flight, account, deadline).await
            }
            _ => attempt(ingress, &endpoint, flight, deadline, fresh).await,
        };
        witness(ingress, service, flight, &endpoint, &outcome);
        match outcome {
            Tried::Answered(response, lease) => return Ok((response, lease)),
            Tried::Busy => {
                way.tried.push(endpoint);
                continue;
            }
            Tried::TooLate => return refuse(StatusCode::GATEWAY_TIMEOUT),
            Tried::Ended => return refuse(StatusCode::BAD_GATEWAY),
            Tried::Shed => return Err(Box::new(unavailable())),
            Tried::Client(fault) => return refuse(status_of(fault)),
            Tried::Stale => {
                fresh = true;
                continue;
            }
            Tried::Refused(_) => {}
            Tried::Broken(_) => {
                broken += 1;
                if !flight.repeatable || broken >= BROKEN_MAX {
                    return refuse(StatusCode::BAD_GATEWAY);
                }
            }
        }
        account.row.retries += 1;
        service.retried.fetch_add(1, Relaxed);
        way.tried.push(endpoint);
        fresh = false;
    }
}

fn status_of(fault: Fault) -> StatusCode {
    match fault {
        Fault::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Fault::TooSlow => StatusCode::REQUEST_TIMEOUT,
        Fault::Broken => StatusCode::BAD_REQUEST,
    }
}

async fn attempt(
    ingress: &Arc<Ingress>,
    endpoint: &Arc<EndpointState>,
    flight: &mut Flight,
    deadline: Instant,
    fresh: bool,
) -> Tried {
    let address = match &endpoint.place {
        Place::Address(address) => *address,
        Place::Here(component) => {
            let lease = endpoint.lease(&ingress.limits);
            return attempt_here(component, lease, flight, deadline).await;
        }
        // Asked in its own way.
        Place::Peer(_) => return Tried::Busy,
    };
    let (mut lease, reused) =
        match timeout_at(deadline, endpoint.connect(address, &ingress.limits, fresh)).await {
            Err(_) => return Tried::TooLate,
            Ok(Err(error)) => return Tried::Refused(format!("connecting failed: {error}")),
            Ok(Ok(connected)) => connected,
        };
    let Some(sender) = lease.sender.as_mut() else {
        return Tried::Stale;
    };
    let request = flight.request();
    match timeout_at(deadline, sender.try_send_request(request)).await {
        Err(_) => Tried::TooLate,
        Ok(Ok(response)) => Tried::Answered(response.map(Given::Replica), lease),
        Ok(Err(mut error)) => {
            if let Some(request) = error.take_message() {
                if let Outgoing::Stream(body) = request.into_body() {
                    flight.body = Some(body);
                }
                if reused {
                    return Tried::Stale;
                }
                return Tried::Refused("the connection closed before the request".to_owned());
            }
            let error = error.into_error();
            if error.is_user() {
                return Tried::Client(Fault::of(&error));
            }
            // A replica may close an idle connection just as we use it; that
            // is no fault, but whether it read the request is unknown.
            if reused && flight.repeatable {
                return Tried::Stale;
            }
            Tried::Broken(format!("the connection broke before the answer: {error}"))
        }
    }
}

async fn attempt_here(
    component: &Arc<dyn Component>,
    lease: Lease,
    flight: &mut Flight,
    deadline: Instant,
) -> Tried {
    let has_body = flight.body.is_some();
    match timeout_at(deadline, component.handle(flight.request())).await {
        Ok(Ok(response)) => Tried::Answered(response.map(Given::Component), lease),
        // A body that was given away is not there for another try.
        Ok(Err(ComponentError::Busy)) if !has_body => Tried::Busy,
        Ok(Err(ComponentError::Busy)) => Tried::Shed,
        Err(_) | Ok(Err(ComponentError::Late)) => Tried::TooLate,
        Ok(Err(ComponentError::Broken)) => Tried::Ended,
    }
}

/// Evidence for and against a replica.
fn witness(
    ingress: &Ingress,
    service: &ServiceState,
    flight: &Flight,
    endpoint: &Arc<EndpointState>,
    outcome: &Tried,
) {
    match outcome {
        Tried::Answered(response, _) => answered(ingress, service, endpoint, response.status()),
        // Otherwise it may be the client's own body that is late.
        Tried::TooLate if flight.repeatable => {
            answered(ingress, service, endpoint, StatusCode::GATEWAY_TIMEOUT);
        }
        Tried::Refused(why) | Tried::Broken(why) => {
            let others = others_answer(&service.config.load().endpoints, endpoint);
            failed(ingress, endpoint, why, others);
        }
        _ => {}
    }
}

fn answered(
    ingress: &Ingress,
    service: &ServiceState,
    endpoint: &Arc<EndpointState>,
    status: StatusCode,
) {
    if !status.is_server_error() {
        endpoint.answers.good(endpoint.age());
        return;
    }
    let errors = endpoint.answers.error();
    if errors < ERRORS_IN_A_ROW {
        return;
    }
    let endpoints = &service.config.load().endpoints;
    // What runs in this edge has no probe that could bring it back.
    let is_probed = matches!(endpoint.place, Place::Address(_));
    if is_probed && others_answer(endpoints, endpoint) {
        let why = format!("{errors} errors in a row, the last one {status}");
        failed(ingress, endpoint, &why, true);
    } else {
        try_others(endpoints, endpoint, &ingress.limits);
    }
}

/// Another node's replicas are its own edge's to tell of.
pub fn failed(ingress: &Ingress, endpoint: &EndpointState, why: &str, others_answer: bool) {
    let news = !endpoint.is_paused();
    endpoint.pause(ingress.limits.endpoint_pause);
    if news && endpoint.is_local() {
        let evidence = &ingress.evidence;
        evidence.endpoint_failed(&endpoint.replica, why, others_answer);
    }
}

/// Whether no change of health, only one of the snapshot, could help.
fn leads_nowhere(service: &ServiceState, way: &Way) -> bool {
    let config = service.config.load();
    !config.endpoints.iter().any(|one| way.leads_to(one))
}

/// A place among the requests of a service that wait.
struct Held<'a>(&'a ServiceState);

impl<'a> Held<'a> {
    fn enter(service: &'a ServiceState, most: usize) -> Option<Self> {
        if service.waiting.fetch_add(1, Relaxed) >= most {
            service.waiting.fetch_sub(1, Relaxed);
            return None;
        }
        service.held.fetch_add(1, Relaxed);
        Some(Self(service))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

fn answer(
    ingress: &Arc<Ingress>,
    response: Response<Given>,
    lease: Lease,
    client: Option<OnUpgrade>,
    mut account: Box<Account>,
) -> Response<Answer> {
    let (mut parts, given) = response.into_parts();
    parts.version = Version::HTTP_11;
    if account.forwarded().is_some() {
        // A replica does not speak for the edge.
        remove_internal(&mut parts.headers);
    }
    let incoming = match given {
        Given::Replica(incoming) => incoming,
        Given::Component(body) => {
            if parts.status.is_informational() {
                return finish(plain(StatusCode::BAD_GATEWAY), account);
            }
            remove_hop_by_hop(&mut parts.headers);
            let body = Answer::component(body, lease);
            return finish(Response::from_parts(parts, body), account);
        }
    };
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client else {
            return finish(plain(StatusCode::BAD_GATEWAY), account);
        };
        account.row.status = parts.status.as_u16();
        account.sign(&mut parts.headers);
        account.connection().settle();
        let replica = hyper::upgrade::on(Response::from_parts(parts.clone(), incoming));
        ingress.spawn_tunnel(Tunnel {
            client,
            replica,
            idle: ingress.limits.tunnel_idle,
            stall: ingress.limits.write_stall,
            account,
            lease,
        });
        return Response::from_parts(parts, Answer::empty());
    }
    remove_hop_by_hop(&mut parts.headers);
    let body = Answer::replica(incoming, ingress, lease);
    finish(Response::from_parts(parts, body), account)
}

/// Gives the answer its account: the row is written when the body goes.
pub fn finish(mut response: Response<Answer>, mut account: Box<Account>) -> Response<Answer> {
    account.row.status = response.status().as_u16();
    account.sign(response.headers_mut());
    response.body_mut().account = Some(account);
    response
}
