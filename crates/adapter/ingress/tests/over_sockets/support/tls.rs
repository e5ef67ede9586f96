//! Certificates made for a test, and clients that trust only them.

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wire::edge::CertificateView;

/// For the hosts, signed by its own key.
pub fn certificate(hosts: &[&str]) -> CertificateView {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(hosts.clone()).expect("certificate");
    CertificateView {
        hosts,
        chain_pem: made.cert.pem(),
        key_pem: made.signing_key.serialize_pem(),
    }
}

/// Fails when the server's certificate is not `trusted` or not for the name.
pub async fn connect(
    address: SocketAddr,
    server_name: &str,
    trusted: &CertificateView,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(trusted.chain_pem.as_bytes()).expect("pem");
    roots.add(root).expect("root");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(server_name.to_owned()).expect("name");
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}
