//! Answers those who call, and hears nobody before it is known who they are.
//!
//! Holds: handshakes are bounded in number and time, and in rate by address;
//! past half the bound an address must first show that it gets our answers.
//! One without a certificate may join, in bounded number, or is sent away.

use super::link::{Fault, Link};
use super::stats::{Counters, Refused};
use super::{BindError, Inner, Options, code, dial, frames, transport_config};
use crate::congestion;
use crate::identity::{PeerVerifier, Requirement, Trust};
use crate::join;
use crate::socket::is_tunnelled;
use crate::tls::{self, Purpose, Shown};
use quinn::{Connection, ServerConfig, VarInt};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Semaphore;
use wire::net::frame::Head;

/// Addresses whose rate is remembered; past it the idle ones are forgotten.
const ADDRESSES_MAX: usize = 4_096;

/// How connections are accepted.
pub(super) struct Served {
    pub(super) direct: ServerConfig,
    /// Those that come through a relay.
    pub(super) tunnelled: Arc<ServerConfig>,
}

pub(super) fn server_config(
    options: &Options,
    trust: &Arc<Trust>,
    shown: &Arc<Shown>,
    counters: &Arc<Counters>,
) -> Result<Served, BindError> {
    let mut purposes = vec![Purpose::Main, Purpose::Bulk];
    if options.doorkeeper.is_some() {
        purposes.push(Purpose::Join);
    }
    let requirement = Requirement {
        kind: options.peers,
        node: None,
    };
    let counters = counters.clone();
    let verifier = PeerVerifier::new(
        trust.clone(),
        requirement,
        options.doorkeeper.is_some(),
        Arc::new(move |refusal| counters.refuse(Refused::Peer(refusal))),
    );
    let crypto = tls::server(
        shown.clone(),
        Arc::new(verifier),
        &purposes,
        &options.versions,
    )
    .map_err(BindError::Tls)?;
    let mut config = ServerConfig::with_crypto(crypto);
    let limits = &options.limits;
    config
        .transport_config(Arc::new(transport_config(limits, None, false)))
        .max_incoming(limits.handshakes_max)
        .incoming_buffer_size(16 << 10)
        .incoming_buffer_size_total(4 << 20);
    let mut tunnelled = config.clone();
    tunnelled.transport_config(Arc::new(transport_config(limits, None, true)));
    Ok(Served {
        direct: config,
        tunnelled: Arc::new(tunnelled),
    })
}

/// Until the endpoint is closed.
pub(super) async fn run(inner: Arc<Inner>) {
    let limits = &inner.options.limits;
    let handshakes = Arc::new(Semaphore::new(limits.handshakes_max));
    let strangers = Arc::new(Semaphore::new(limits.strangers_max));
    let mut rates = Rates::default();
    while let Some(incoming) = inner.endpoint.accept().await {
        let address = incoming.remote_address().ip();
        let permit = handshakes.clone().try_acquire_owned();
        let rate = rates.allow(address, limits.handshakes_per_address, Instant::now());
        // An address that is not forged stands for itself when there are too
        // many to remember.
        let forged = !incoming.remote_address_validated();
        let busy = handshakes.available_permits() < limits.handshakes_max / 2;
        let doubtful = busy || rate == Rate::Unknown;
        if rate != Rate::TooFast && doubtful && forged && incoming.may_retry() {
            // Costs no memory here.
            let _ = incoming.retry();
            continue;
        }
        let (Ok(permit), Rate::Fine | Rate::Unknown) = (permit, rate) else {
            inner.counters.refuse(Refused::HandshakeRate);
            // An answer would be work done for whoever forges addresses.
            incoming.ignore();
            continue;
        };
        let inner = inner.clone();
        let strangers = strangers.clone();
        tokio::spawn(async move {
            let within = inner.options.limits.handshake_time;
            let outcome = tokio::time::timeout(within, welcome(&inner, incoming)).await;
            drop(permit);
            if let Ok(Some(stranger)) = outcome {
                visit(&inner, &strangers, stranger).await;
            }
        });
    }
}

/// A handshake and the greeting after it. Returns one who wants to join.
async fn welcome(inner: &Arc<Inner>, incoming: quinn::Incoming) -> Option<(Connection, u8)> {
    let accepted = if is_tunnelled(incoming.remote_address()) {
        incoming.accept_with(inner.tunnelled.clone())
    } else {
        incoming.accept()
    };
    let connected = match accepted {
        Ok(connecting) => connecting.await,
        // The very first packet was refused.
        Err(error) => Err(error),
    };
    let connection = match connected {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(%error, "handshake refused");
            inner.counters.refuse(Refused::Handshake);
            return None;
        }
    };
    let known = connection.peer_identity().is_some();
    match dial::spoken(&connection) {
        Some((Purpose::Join, version)) if !known => return Some((connection, version)),
        Some((Purpose::Main | Purpose::Bulk, _)) if known => {}
        _ => {
            inner.counters.refuse(Refused::Stranger);
            connection.close(code::STRANGER, b"only to join");
            return None;
        }
    }
    let (spoken, view) = dial::agreed(&connection)?;
    let limits = &inner.options.limits;
    let own = inner.own();
    if spoken.0 == Purpose::Bulk {
        congestion::yield_from_now_on(&connection);
    }
    // Known now: leave for the greeting and, once greeted, for the rest.
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(1));
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(limits.streams_max));
    dial::greet(&connection, spoken.1, &own.hello).await.ok()?;
    let mut greeting = connection.accept_uni().await.ok()?;
    match frames::read_head(&mut greeting, spoken.1, limits.handshake_time).await {
        Ok(Head::Hello(hello)) => {
            connection.set_max_concurrent_uni_streams(VarInt::from_u32(0));
            let address = inner.as_address(connection.remote_address());
            let link = Link::new(connection, view, spoken, false, &own, hello, address);
            let _ = inner.adopt(link);
        }
        Ok(_) => refuse(inner, &connection, Refused::FrameKind),
        Err(Fault::Refused(what)) => refuse(inner, &connection, what),
        Err(Fault::Ended) => {}
    }
    None
}

fn refuse(inner: &Inner, connection: &Connection, what: Refused) {
    inner.counters.refuse(what);
    connection.close(code::PROTOCOL, b"greeting");
}

/// A stranger's visit: one request, one answer, in bounded time.
async fn visit(inner: &Arc<Inner>, strangers: &Arc<Semaphore>, stranger: (Connection, u8)) {
    let (connection, version) = stranger;
    let (Some(doorkeeper), Ok(_permit)) = (&inner.options.doorkeeper, strangers.try_acquire())
    else {
        inner.counters.refuse(Refused::Stranger);
        connection.close(code::BUSY, b"busy");
        return;
    };
    let within = inner.options.limits.handshake_time;
    let visit = join::serve(&connection, version, doorkeeper, &inner.counters, within);
    if tokio::time::timeout(within * 2, visit).await.is_err() {
        inner.counters.refuse(Refused::Join);
    }
    connection.close(code::DONE, b"done");
}

/// Handshakes by address: a bucket of a second's worth for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rate {
    Fine,
    TooFast,
    /// Too many addresses at once to remember this one's.
    Unknown,
}

#[derive(Default)]
struct Rates {
    seen: BTreeMap<IpAddr, (Instant, f64)>,
}

impl Rates {
    fn allow(&mut self, address: IpAddr, per_second: u32, now: Instant) -> Rate {
        let most = f64::from(per_second);
        if self.seen.len() >= ADDRESSES_MAX && !self.seen.contains_key(&address) {
            // A bucket that is a second old is full, and as good as forgotten.
            self.seen
                .retain(|_, (at, _)| now.saturating_duration_since(*at).as_secs_f64() < 1.0);
            if self.seen.len() >= ADDRESSES_MAX {
                return Rate::Unknown;
            }
        }
        let (at, left) = self.seen.entry(address).or_insert((now, most));
        let gained = now.saturating_duration_since(*at).as_secs_f64() * most;
        *left = (*left + gained).min(most);
        *at = now;
        if *left < 1.0 {
            return Rate::TooFast;
        }
        *left -= 1.0;
        Rate::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;
    use std::time::Duration;

    #[test]
    fn an_address_gets_its_rate_and_others_theirs() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let ip = |n: u128| IpAddr::V6(Ipv6Addr::from(n));
        let mut fine = |of, at| {
            let allowed = (0..10).map(|_| rates.allow(ip(of), 4, at));
            allowed.filter(|rate| *rate == Rate::Fine).count()
        };
        assert_eq!(fine(1, now), 4);
        assert_eq!(fine(2, now), 4);
        assert_eq!(fine(1, now + Duration::from_millis(500)), 2);
    }

    #[test]
    fn forged_addresses_cost_bounded_memory() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let ip = |n: u128| IpAddr::V6(Ipv6Addr::from(n));
        for n in 0..3 * ADDRESSES_MAX as u128 {
            rates.allow(ip(n), 4, now);
        }
        assert_eq!(rates.seen.len(), ADDRESSES_MAX);
        assert_eq!(rates.allow(ip(u128::MAX), 4, now), Rate::Unknown);
        let later = now + Duration::from_secs(2);
        assert_eq!(rates.allow(ip(u128::MAX), 4, later), Rate::Fine);
    }
}
