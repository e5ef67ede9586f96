//! Calls a peer at its addresses, one beside the other, until one leads to it.
//!
//! Holds: whoever answers is the node that was called, or is refused; the first
//! connection that stands is kept, the others are given up.

use super::error::{Failure, ReachError};
use super::link::{Fault, Link};
use super::options::Address;
use super::{Inner, code, frames, reverse, transport_config};
use crate::identity::{CertificateView, PeerVerifier};
use crate::tls::{self, Purpose, SERVER_NAME};
use kernel::NodeId;
use quinn::{ClientConfig, Connection, ConnectionError, VarInt};
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;
use wire::net::frame::{Head, Hello};

/// Until one address leads to `node` or none does.
pub(super) async fn run(
    inner: Arc<Inner>,
    node: NodeId,
    purpose: Purpose,
    addresses: Vec<Address>,
) {
    // Much data through a relay would stand in the way of what it is for: who
    // cannot be dialled is asked to dial, over the connection that there is.
    let behind = !addresses.iter().any(Address::is_direct);
    if behind && purpose == Purpose::Bulk && reverse::ask_and_wait(&inner, node, purpose).await {
        return;
    }
    let failed = match first_of(&inner, node, purpose, addresses).await {
        Ok(link) => {
            let address = link.address;
            if inner.adopt(link).is_ok() {
                if !address.is_direct() {
                    reverse::ask(inner, node, purpose).await;
                }
                return;
            }
            let unheard = Failure::Other("it is not heard for a while".to_owned());
            vec![(address, unheard)]
        }
        Err(attempts) => attempts,
    };
    let error = if failed.is_empty() {
        ReachError::NoAddress { node }
    } else {
        ReachError::Failed {
            node,
            attempts: failed,
        }
    };
    tracing::debug!(%node, %error, "not reached");
    let limits = &inner.options.limits;
    let now = Instant::now();
    inner.peers().dial_failed(node, purpose, error, limits, now);
}

/// Starts one attempt after another, each when the one before failed or has
/// kept us waiting.
async fn first_of(
    inner: &Arc<Inner>,
    node: NodeId,
    purpose: Purpose,
    addresses: Vec<Address>,
) -> Result<Link, Vec<(Address, Failure)>> {
    let mut left = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut failed = Vec::new();
    loop {
        if let Some(address) = left.next() {
            let inner = inner.clone();
            attempts.spawn(async move {
                let link = attempt(&inner, node, purpose, address).await;
                link.map_err(|why| (address, why))
            });
        } else if attempts.is_empty() {
            return Err(failed);
        }
        let stagger = tokio::time::sleep(inner.options.limits.stagger);
        tokio::select! {
            Some(ended) = attempts.join_next() => match ended {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(why)) => failed.push(why),
                Err(_) => {}
            },
            () = stagger, if left.len() > 0 => {}
        }
    }
}

async fn attempt(
    inner: &Arc<Inner>,
    node: NodeId,
    purpose: Purpose,
    address: Address,
) -> Result<Link, Failure> {
    let verifier = inner.verifier(node);
    let within = inner.options.limits.handshake_time;
    tokio::time::timeout(within, connect(inner, &verifier, node, purpose, address))
        .await
        .unwrap_or(Err(Failure::Silent))
}

async fn connect(
    inner: &Arc<Inner>,
    verifier: &Arc<PeerVerifier>,
    node: NodeId,
    purpose: Purpose,
    address: Address,
) -> Result<Link, Failure> {
    let other = |why: &dyn std::fmt::Display| Failure::Other(why.to_string());
    let crypto = tls::client(
        Some(inner.shown.clone()),
        verifier.clone(),
        purpose,
        &inner.options.versions,
    )
    .map_err(|why| other(&why))?;
    let (remote, tunnelled) = match address {
        Address::Direct(remote) => (remote, false),
        Address::Via(relay) => {
            let way = inner.link(relay, Purpose::Main).await;
            way.map_err(|why| other(&why))?;
            let now = Instant::now();
            (inner.socket.tunnels.address(relay, node, now), true)
        }
    };
    let mut config = ClientConfig::new(crypto);
    let transport = transport_config(&inner.options.limits, Some(purpose), tunnelled);
    config.transport_config(Arc::new(transport));
    let own = inner.own();
    let connection = inner
        .endpoint
        .connect_with(config, remote, SERVER_NAME)
        .map_err(|why| other(&why))?
        .await
        .map_err(|why| failure(&why, verifier))?;
    let (spoken, view) = agreed(&connection).ok_or(Failure::Version)?;
    let limits = &inner.options.limits;
    let mut greeting = connection
        .accept_uni()
        .await
        .map_err(|why| failure(&why, verifier))?;
    let hello = frames::read_head(&mut greeting, spoken.1, limits.handshake_time)
        .await
        .map_err(|fault| greeted_wrong(inner, &connection, &fault))?;
    let Head::Hello(hello) = hello else {
        return Err(Failure::Other("it did not greet".to_owned()));
    };
    greet(&connection, spoken.1, &own.hello)
        .await
        .map_err(|why| other(&why))?;
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(0));
    Ok(Link::new(
        connection, view, spoken, true, &own, hello, address,
    ))
}

fn greeted_wrong(inner: &Inner, connection: &Connection, fault: &Fault) -> Failure {
    match fault {
        Fault::Refused(what) => {
            inner.counters.refuse(*what);
            connection.close(code::PROTOCOL, b"greeting");
            Failure::Other("its greeting cannot be read".to_owned())
        }
        Fault::Ended => match connection.close_reason() {
            Some(ConnectionError::ApplicationClosed(close)) => {
                Failure::RefusedBy(code::name(close.error_code).to_owned())
            }
            Some(why) => Failure::Other(why.to_string()),
            None => Failure::Other("its greeting ended early".to_owned()),
        },
    }
}

/// What the handshake settled: purpose and version, and who the peer is.
pub(crate) fn agreed(connection: &Connection) -> Option<((Purpose, u8), CertificateView)> {
    let spoken = spoken(connection)?;
    let shown = connection.peer_identity()?;
    let chain = shown.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let view = CertificateView::read(chain.first()?).ok()?;
    Some((spoken, view))
}

pub(crate) fn spoken(connection: &Connection) -> Option<(Purpose, u8)> {
    let data = connection.handshake_data()?;
    let data = data
        .downcast::<quinn::crypto::rustls::HandshakeData>()
        .ok()?;
    Purpose::read(&data.protocol?)
}

pub(super) async fn greet(
    connection: &Connection,
    version: u8,
    hello: &Hello,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let frame = Head::Hello(hello.clone()).encode(version)?;
    let mut stream = connection.open_uni().await?;
    stream.write_all(&frame).await?;
    stream.finish()?;
    Ok(())
}

fn failure(error: &ConnectionError, verifier: &PeerVerifier) -> Failure {
    if let Some(refusal) = verifier.refused() {
        return Failure::Refused(refusal);
    }
    match error {
        ConnectionError::TimedOut => Failure::Silent,
        ConnectionError::VersionMismatch => Failure::Version,
        ConnectionError::ApplicationClosed(close) => {
            Failure::RefusedBy(code::name(close.error_code).to_owned())
        }
        // TLS alerts come as numbers from 0x100 on; 120 is an unknown protocol.
        ConnectionError::ConnectionClosed(close) => match u64::from(close.error_code) {
            0x178 => Failure::Version,
            0x100..=0x1ff => {
                Failure::RefusedBy("its handshake did not accept the certificate".to_owned())
            }
            _ => Failure::RefusedBy(close.to_string()),
        },
        other => Failure::Other(other.to_string()),
    }
}
