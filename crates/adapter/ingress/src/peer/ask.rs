//! Sends a request to the edge of the node that has the replica.
//!
//! Holds: a request that must not be repeated is sent only once the other edge
//! has said that it is there, so that a dead one loses none; one that may be
//! repeated is sent at once, and goes elsewhere as soon as the greeting is late
//! or others find the node dead.

use super::stream::{Greeted, Heard};
use super::{PeerState, is_loss};
use crate::body::{Fault, Outgoing};
use crate::head::fields::remove_internal;
use crate::log::Account;
use crate::pool::{EndpointState, Lease};
use crate::proxy::{Flight, Given, Tried};
use crate::server::Ingress;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout_at};
use wire::peer::{ANSWERED, Answered, FORWARDED, Greeting};

/// What one try is made with.
struct Try<'a> {
    ingress: &'a Arc<Ingress>,
    endpoint: &'a Arc<EndpointState>,
    peer: &'a PeerState,
    begun: Instant,
    /// When the other edge must have said something.
    greet_by: Instant,
    deadline: Instant,
}

pub async fn attempt(
    ingress: &Arc<Ingress>,
    endpoint: &Arc<EndpointState>,
    peer: &PeerState,
    flight: &mut Flight,
    account: &mut Account,
    deadline: tokio::time::Instant,
) -> Tried {
    let begun = Instant::now();
    if !peer.health(|health| health.admit(begun)) {
        return Tried::Busy;
    }
    let way = ingress.peers.round_trip(peer.node).unwrap_or_default();
    let deadline = deadline.into_std();
    let greet_by = begun + ingress.limits.peer_greeting_time + way * 2;
    let this = Try {
        ingress,
        endpoint,
        peer,
        begun,
        greet_by: greet_by.min(deadline),
        deadline,
    };
    account.row.node = Some(peer.node);
    let told = account.forward(ingress, peer, &endpoint.replica, deadline);
    let Ok(told) = HeaderValue::try_from(told.to_string()) else {
        return Tried::Busy;
    };
    let mut lease = endpoint.lease(&ingress.limits);
    lease.begun = Some(begun);
    let connecting = ingress.peers.connect(peer.node, this.greet_by);
    let mut greeted = match timeout_at(this.greet_by.into(), connecting).await {
        Err(_) => return this.silent("connecting took too long"),
        Ok(Err(error)) => return this.dead(&format!("connecting failed: {error}")),
        Ok(Ok(stream)) => Greeted::new(stream),
    };
    if !flight.repeatable
        && let Err(outcome) = this.await_greeting(&mut greeted).await
    {
        return outcome;
    }
    let (stream, heard) = greeted;
    let opened = Builder::new()
        .max_buf_size(ingress.limits.head_bytes_max.max(64 * 1024))
        .handshake(TokioIo::new(stream))
        .await;
    let Ok((sender, connection)) = opened else {
        return this.dead("the stream broke at once");
    };
    tokio::spawn(async move {
        // Its error reaches the request that is on it.
        let _ = connection.with_upgrades().await;
    });
    let mut request = flight.request();
    request.headers_mut().insert(FORWARDED, told);
    let had_body = matches!(request.body(), Outgoing::Stream(_));
    match this.send(sender, request, flight, heard).await {
        Ok(response) => answered(response, lease, account, had_body),
        Err(outcome) => outcome,
    }
}

impl Try<'_> {
    /// The node is given up, which says nothing of the request: it was not sent,
    /// or may be repeated.
    fn dead(&self, why: &str) -> Tried {
        self.peer.failed(self.ingress, self.begun, why);
        Tried::Refused(why.to_owned())
    }

    /// Nothing came in time: of the request's own, or the node's.
    fn silent(&self, why: &str) -> Tried {
        if self.greet_by >= self.deadline {
            return Tried::TooLate;
        }
        self.dead(why)
    }

    async fn await_greeting(
        &self,
        (stream, heard): &mut (Greeted, watch::Receiver<Heard>),
    ) -> Result<(), Tried> {
        let greeting = poll_fn(|cx| stream.poll_greeting(cx));
        let Ok(outcome) = timeout_at(self.greet_by.into(), greeting).await else {
            return Err(self.silent("it said nothing in time"));
        };
        let heard = heard.borrow().clone();
        match (self.turned_away(heard.as_ref()), outcome) {
            (Some(outcome), _) => Err(outcome),
            (None, Ok(())) => Ok(()),
            (None, Err(error)) => Err(self.dead(&format!("it broke off: {error}"))),
        }
    }

    /// What a greeting other than a welcome comes to.
    fn turned_away(
        &self,
        heard: Option<&Result<Greeting, wire::peer::PeerError>>,
    ) -> Option<Tried> {
        match heard? {
            Ok(Greeting::Welcome) => {
                self.peer.health(|health| health.heard(Instant::now()));
                None
            }
            Ok(Greeting::Leaving) => {
                self.peer
                    .health(|health| health.steps_aside(Instant::now()));
                Some(Tried::Busy)
            }
            Ok(Greeting::Full) => {
                self.peer.health(|health| health.heard(Instant::now()));
                self.endpoint.pause(self.ingress.limits.endpoint_pause);
                Some(Tried::Busy)
            }
            Err(error) => Some(self.dead(&error.to_string())),
        }
    }

    async fn send(
        &self,
        mut sender: SendRequest<Outgoing>,
        request: Request<Outgoing>,
        flight: &mut Flight,
        mut heard: watch::Receiver<Heard>,
    ) -> Result<Response<Incoming>, Tried> {
        let mut lost = self.peer.lost.subscribe();
        let mut sending = pin!(sender.try_send_request(request));
        let mut greeted = heard.borrow().is_some();
        let outcome = loop {
            let until = if greeted {
                self.deadline
            } else {
                self.greet_by
            };
            tokio::select! {
                biased;
                outcome = &mut sending => break outcome,
                said = said(&mut heard), if !greeted => {
                    greeted = true;
                    if let Some(outcome) = self.turned_away(said.as_ref()) {
                        return Err(outcome);
                    }
                }
                _ = lost.changed(), if flight.repeatable => {
                    return Err(Tried::Refused("others found its node dead".to_owned()));
                }
                () = sleep_until(until.into()) => {
                    return Err(if greeted {
                        Tried::TooLate
                    } else {
                        self.silent("it said nothing in time")
                    });
                }
            }
        };
        let said = heard.borrow().clone();
        let mut error = match outcome {
            Ok(response) => {
                self.turned_away(said.as_ref());
                return Ok(response);
            }
            Err(error) => error,
        };
        if let Some(request) = error.take_message()
            && let Outgoing::Stream(body) = request.into_body()
        {
            flight.body = Some(body);
        }
        let error = error.into_error();
        if said.is_none() {
            return Err(self.dead(&format!("it broke off: {}", chain(&error))));
        }
        if let Some(outcome) = self.turned_away(said.as_ref()) {
            return Err(outcome);
        }
        if error.is_user() {
            return Err(Tried::Client(Fault::of(&error)));
        }
        let why = format!("the stream broke before the answer: {}", chain(&error));
        if is_loss(&error) {
            self.peer.failed(self.ingress, self.begun, &why);
        }
        Err(Tried::Broken(why))
    }
}

fn answered(
    mut response: Response<Incoming>,
    lease: Lease,
    account: &mut Account,
    had_body: bool,
) -> Tried {
    let said = response.headers().get(ANSWERED);
    let said = said.and_then(|said| said.to_str().ok()?.parse().ok());
    remove_internal(response.headers_mut());
    match said {
        Some(Answered::By { node, replica }) => {
            account.row.node = Some(node);
            account.row.replica = replica;
            Tried::Answered(response.map(Given::Replica), lease)
        }
        // A body that was given away is not there for another try.
        Some(Answered::Refused) if had_body => Tried::Shed,
        Some(Answered::Refused) => Tried::Busy,
        None => Tried::Broken("an answer that does not say whose it is".to_owned()),
    }
}

/// An answer broke off in its middle.
pub fn broke_off(
    ingress: &Ingress,
    peer: &PeerState,
    lease: &Lease,
    error: &(dyn std::error::Error + 'static),
) {
    if let Some(begun) = lease.begun
        && is_loss(error)
    {
        let why = "it was lost in the middle of an answer";
        peer.failed(ingress, begun, why);
    }
}

async fn said(heard: &mut watch::Receiver<Heard>) -> Heard {
    heard.wait_for(Option::is_some).await.ok()?.clone()
}

fn chain(error: &hyper::Error) -> String {
    kernel::error_chain(error)
}
