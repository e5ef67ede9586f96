//! The admin API on a port: TLS with a certificate of the node's authority.
//!
//! In: connections. Out: the answers of the Unix socket's API, each request by
//! its token; `/health` tells anybody that the agent answers, and nothing else.
//! Holds: connections are bounded, handshakes and heads in time; an address that
//! cannot be had is said and tried again, and keeps the agent from nothing.
//! Never: writes a key to disk on the node that holds the authority, where it is
//! made anew with each agent.

use super::{Door, router};
use crate::cluster::{Use, own_names};
use crate::shared::Shared;
use crate::tls::TlsError;
use axum::Router;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use wire::api::AdminPort;

/// Tells whoever balances or watches that the agent answers.
const HEALTH: &str = "/health";
const CONNECTIONS_MAX: usize = 256;
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
const HEAD_MAX: Duration = Duration::from_secs(10);
/// After a failed accept, for want of descriptors for instance.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
const BIND_AGAIN: Duration = Duration::from_secs(1);
/// A day out of the ninety that a certificate lives.
const RENEW_AFTER: Duration = Duration::from_hours(24);
/// Addresses of this machine with a certificate at once; 127.0.0.0/8 has more.
const ADDRESSES_MAX: usize = 32;

/// Serves for ever. Returns once the address is listened on, or was refused for
/// the first time.
pub async fn open(shared: &Arc<Shared>, address: SocketAddr) {
    match TcpListener::bind(address).await {
        Ok(listener) => {
            tell(shared, address, &listener);
            tokio::spawn(serve(Arc::clone(shared), listener));
        }
        Err(error) => {
            refused(shared, address, &error);
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                let listener = patiently(&shared, address).await;
                serve(shared, listener).await;
            });
        }
    }
}

async fn patiently(shared: &Shared, address: SocketAddr) -> TcpListener {
    loop {
        tokio::time::sleep(BIND_AGAIN).await;
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tell(shared, address, &listener);
                return listener;
            }
            Err(error) => refused(shared, address, &error),
        }
    }
}

fn tell(shared: &Shared, asked: SocketAddr, listener: &TcpListener) {
    let address = listener.local_addr().unwrap_or(asked);
    tracing::info!(%address, "the admin API has a port");
    shared.admin_port.send_replace(Some(AdminPort {
        address: address.to_string(),
        fault: None,
    }));
}

fn refused(shared: &Shared, address: SocketAddr, error: &io::Error) {
    let port = AdminPort {
        address: address.to_string(),
        fault: Some(error.to_string()),
    };
    let is_new = shared.admin_port.send_if_modified(|known| {
        let is_new = known.as_ref() != Some(&port);
        *known = Some(port);
        is_new
    });
    if is_new {
        tracing::error!(%address, %error, "the admin API has no port");
    }
}

async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let health = get(|| async { "well\n" });
    let router = router(Arc::clone(&shared), Door::Port).route(HEALTH, health);
    let mut shown = Shown::default();
    // On a node that follows, this asks for a certificate before anybody comes.
    if let Ok(here) = listener.local_addr() {
        let _ = shown.at(&shared, here.ip());
    }
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let config = stream
            .local_addr()
            .map_err(|error| error.to_string())
            .and_then(|here| {
                let config = shown.at(&shared, here.ip());
                config.map_err(|error| kernel::error_chain(&error))
            });
        let router = router.clone();
        match config {
            Ok(config) => {
                tokio::spawn(async move {
                    // How a connection ends is its client's affair.
                    let _ = connection(stream, config, router).await;
                    drop(place);
                });
            }
            Err(error) => tracing::warn!(error, "no certificate to show"),
        }
    }
}

async fn connection(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    router: Router,
) -> Result<(), io::Error> {
    let _ = stream.set_nodelay(true);
    let handshake = TlsAcceptor::from(config).accept(stream);
    let stream = tokio::time::timeout(HANDSHAKE_MAX, handshake).await??;
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
        .map_err(io::Error::other)
}

/// What is shown, by the address under which the node was reached: a client
/// that asks for an address names it in no handshake.
#[derive(Default)]
struct Shown {
    by_address: BTreeMap<IpAddr, (Instant, Arc<ServerConfig>)>,
}

impl Shown {
    fn at(&mut self, shared: &Shared, here: IpAddr) -> Result<Arc<ServerConfig>, PortError> {
        if let Some((made, config)) = self.by_address.get(&here)
            && made.elapsed() < RENEW_AFTER
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(config(shared, &names(shared, here))?);
        if self.by_address.len() >= ADDRESSES_MAX {
            self.by_address.clear();
        }
        let made = (Instant::now(), Arc::clone(&config));
        self.by_address.insert(here, made);
        Ok(config)
    }
}

/// A node without the authority asks for one certificate, for all addresses that the
/// others know of it.
fn names(shared: &Shared, here: IpAddr) -> BTreeSet<String> {
    let cluster = &shared.cluster;
    if !cluster.is_entrusted() {
        return own_names(shared, cluster.own.id);
    }
    let here = here.to_canonical().to_string();
    [cluster.name().to_string(), here].into()
}

#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error("the authority does not certify it")]
    Authority(#[source] TlsError),
    #[error("no other node has certified it yet")]
    NotYet,
    #[error("the certificate made for it cannot be read")]
    Pem(#[source] rustls::pki_types::pem::Error),
    #[error("the certificate made for it cannot be used")]
    Use(#[source] rustls::Error),
}

fn config(shared: &Shared, names: &BTreeSet<String>) -> Result<ServerConfig, PortError> {
    let leaf = shared.certificates.show(Use::Admin, names);
    let leaf = leaf.map_err(PortError::Authority)?;
    let leaf = leaf.ok_or(PortError::NotYet)?;
    let chain = CertificateDer::pem_slice_iter(leaf.chain_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(PortError::Pem)?;
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).map_err(PortError::Pem)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(PortError::Use)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(PortError::Use)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
