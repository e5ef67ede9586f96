//! A TLS client that says which certificate it was shown, and authorities to
//! issue some.

use crate::{Answer, TestNode, exchange};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// An authority of the test's own.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
pub struct Issued {
    pub chain: String,
    pub key: String,
}

impl Issued {
    pub fn der(&self) -> Vec<u8> {
        let der = CertificateDer::from_pem_slice(self.chain.as_bytes()).expect("a certificate");
        der.to_vec()
    }
}

impl Default for Authority {
    fn default() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signs");
        Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }
}

impl Authority {
    pub fn issue(&self, hosts: &[&str], expired: bool) -> Issued {
        let names: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        if expired {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signs");
        Issued {
            chain: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub fn trusted(&self) -> Arc<ClientConfig> {
        trusting(&self.pem)
    }
}

/// A client that trusts the node's own authority.
pub fn trusting_node(node: &TestNode) -> Arc<ClientConfig> {
    trusting_file(&node.layout.authority())
}

fn trusting_file(path: &Path) -> Arc<ClientConfig> {
    trusting(&std::fs::read_to_string(path).expect("an authority"))
}

fn trusting(pem: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    roots.add(root).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocols")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// One GET over TLS: the certificate that was shown and accepted, and the answer.
pub fn get(
    node: &TestNode,
    config: &Arc<ClientConfig>,
    host: &str,
    path: &str,
) -> std::io::Result<(Vec<u8>, Answer)> {
    get_at(node.https, config, host, path)
}

/// The same of another server.
pub fn get_at(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    host: &str,
    path: &str,
) -> std::io::Result<(Vec<u8>, Answer)> {
    let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
    let connection =
        ClientConnection::new(Arc::clone(config), name).map_err(std::io::Error::other)?;
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    let mut stream = StreamOwned::new(connection, stream);
    let answer = exchange(&mut stream, "GET", host, path, b"")?;
    let shown = stream.conn.peer_certificates().and_then(<[_]>::first);
    let shown = shown.map(|certificate| certificate.to_vec());
    Ok((shown.unwrap_or_default(), answer))
}
