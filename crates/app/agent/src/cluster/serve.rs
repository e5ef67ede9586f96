//! What other agents ask of this one: each call and stream to its place.
//!
//! Holds: only the leader answers what concerns the cluster; a peer's
//! streams and calls are bounded by the transport.

use super::{ClusterError, admin, content, follow, give, group, join, renew, seats, sites, zones};
use crate::shared::Shared;
use net::transport::{IncomingCall, IncomingStream, Received};
use net::{Identity, Incoming, Limits, Options};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use wire::cluster::{
    ADMIN, ASK, BUCKETS, CERTIFY, CONTENT, CertifyRequest, ENTRUST, FOLLOW, GIVE, GiveRequest,
    ISSUE, IssueRequest, KEY, MOVE, ROW, SEAT, STANDING, STORE, TREE,
};
use wire::net::Kind;

/// A connection without a word for so long is lost. Between two nodes there is
/// mostly little to say, and each word costs; who must know sooner has beats of
/// its own, and gossip ends the connections of those it finds dead.
const IDLE: Duration = Duration::from_secs(15);
const KEEP_ALIVE: Duration = Duration::from_secs(6);
/// Together with [`follow::SILENCE_MAX`] and [`follow::RETRY_MAX`] it bounds how
/// long a node that can be reached again goes by an old node table, a revoked
/// node in it.
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

/// The largest change of a store in one entry goes to other members in a call.
const CALL_BYTES_MAX: usize = store::TRANSACTION_BYTES_MAX + (2 << 20);

pub fn options(shared: &Arc<Shared>) -> Result<Options, ClusterError> {
    let cluster = &shared.cluster;
    let credentials = cluster.kept.credentials(Kind::Agent)?;
    let table = Arc::downgrade(shared);
    let authorise = move |identity: &Identity| match table.upgrade() {
        Some(shared) => shared.cluster.authorise(identity),
        None => Err(net::identity::Refusal::Unknown),
    };
    let mut options = Options::new(cluster.listen.agent, credentials, Arc::new(authorise));
    if let Some(path) = std::env::var_os(wire::lab::IMPAIRMENTS) {
        let own = cluster.listen.agent.ip();
        options.impairments = Some(net::impairments_from(path.into(), own));
    }
    options.limits = Limits {
        keep_alive: KEEP_ALIVE,
        idle: IDLE,
        back_off_max: BACK_OFF_MAX,
        call_bytes_max: CALL_BYTES_MAX,
        calls_bytes_max: 4 * CALL_BYTES_MAX,
        ..options.limits
    };
    // Whoever calls nobody in is of no use as a relay.
    options.relays = !cluster.outbound_only();
    options.doorkeeper = Some(Arc::new(join::Keeper(Arc::downgrade(shared))));
    Ok(options)
}

/// What comes in: datagrams for gossip, and the rest answered until the
/// transport ends.
pub fn run(
    shared: &Arc<Shared>,
    incoming: Incoming,
) -> (mpsc::Receiver<Received>, impl Future<Output = ()> + use<>) {
    let Incoming {
        datagrams,
        mut calls,
        mut streams,
        mut events,
    } = incoming;
    let shared = Arc::clone(shared);
    let answering = async move {
        loop {
            tokio::select! {
                Some(call) = calls.recv() => {
                    tokio::spawn(answer(Arc::clone(&shared), call));
                }
                Some(stream) = streams.recv() => {
                    tokio::spawn(take(Arc::clone(&shared), stream));
                }
                Some(event) = events.recv() => notice(&shared, event).await,
                else => return,
            }
        }
    };
    (datagrams, answering)
}

async fn notice(shared: &Shared, event: net::transport::Event) {
    match event {
        net::transport::Event::Connected { identity, address } => {
            tracing::debug!(node = %identity.node, ?address, "connected");
        }
        net::transport::Event::Disconnected { node, why } => {
            shared.cluster.doubt(node, &why).await;
        }
        net::transport::Event::Clones { node, address } => {
            tracing::error!(%node, ?address, "two processes have the key of one node");
        }
        _ => {}
    }
}

async fn take(shared: Arc<Shared>, incoming: IncomingStream) {
    let from = incoming.from.node;
    if !shared.cluster.generation.is(from, incoming.generation) {
        // It finds out why by asking how this node stands.
        return incoming.busy();
    }
    match incoming.method {
        FOLLOW => follow::lead(shared, from, incoming.stream).await,
        ADMIN => {
            let Some(record) = shared.cluster.record(from) else {
                return;
            };
            admin::answer(shared, &record, incoming.stream).await;
        }
        BUCKETS => give::buckets(&shared, incoming.stream).await,
        CONTENT => content::serve(&shared, incoming.stream).await,
        _ => incoming.unknown_method(),
    }
}

async fn answer(shared: Arc<Shared>, call: IncomingCall) {
    let from = call.from.node;
    let generation = &shared.cluster.generation;
    if !generation.is(from, call.generation) && call.method != STANDING {
        let number = generation.number();
        let why = format!(
            "this node is of generation {number}, not {}",
            call.generation
        );
        return call.refuse(why.into_bytes());
    }
    match call.method {
        STANDING => reply(call, Ok(group::generation::standing(&shared))),
        STORE => match group::answer(&shared, from, &call.body).await {
            Ok(answer) => call.done(answer),
            Err(why) => call.refuse(why.into_bytes()),
        },
        ENTRUST => {
            let given = group::give(&shared, from).await;
            reply(call, given);
        }
        GIVE => {
            let given = match read::<GiveRequest>(&call) {
                Ok(request) => give::give(&shared, from, &request.replica).await,
                Err(why) => Err(why),
            };
            reply(call, given);
        }
        SEAT | MOVE => of_a_seat(&shared, call).await,
        CERTIFY => {
            let certified = read::<CertifyRequest>(&call)
                .and_then(|request| renew::certify(&shared.cluster, from, &request));
            reply(call, certified);
        }
        ISSUE => {
            let issued = match read::<IssueRequest>(&call) {
                Ok(request) => sites::issue(&shared, from, &request).await,
                Err(why) => Err(why),
            };
            reply(call, issued);
        }
        TREE => {
            shared.cluster.zones.packet(from, call.body.to_vec());
            call.done(Vec::new());
        }
        KEY => match zones::key(&shared, &call.body) {
            Some(key) => call.done(key.0.to_vec()),
            None => call.refuse(b"the key is not known here".to_vec()),
        },
        ROW => call.done(shared.cluster.rows.told(shared.cluster.own.id)),
        ASK => {
            let replied = zones::ask::answer(&shared, &call.body).await;
            match replied.encode() {
                Ok(reply) => call.done(reply),
                Err(error) => call.refuse(error.to_string().into_bytes()),
            }
        }
        _ => call.unknown_method(),
    }
}

async fn of_a_seat(shared: &Arc<Shared>, call: IncomingCall) {
    let from = call.from.node;
    if call.method == SEAT {
        let answered = match read(&call) {
            Ok(ask) => seats::answer(shared, from, &ask).await,
            Err(why) => Err(why),
        };
        return reply(call, answered);
    }
    let written = match read(&call) {
        Ok(moves) => seats::write(shared, from, &moves).await,
        Err(why) => Err(why),
    };
    reply(call, written);
}

fn read<T: DeserializeOwned>(call: &IncomingCall) -> Result<T, String> {
    serde_json::from_slice(&call.body).map_err(|error| error.to_string())
}

fn reply<T: Serialize>(call: IncomingCall, outcome: Result<T, String>) {
    let body = outcome.and_then(|it| serde_json::to_vec(&it).map_err(|error| error.to_string()));
    match body {
        Ok(body) => call.done(body),
        Err(why) => call.refuse(why.into_bytes()),
    }
}
