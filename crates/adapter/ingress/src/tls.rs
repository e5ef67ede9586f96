//! Chooses the certificate of a TLS handshake by the server name.
//!
//! Holds: an exact name wins over `*.`; a name that none covers gets the first
//! certificate; a snapshot with an unusable certificate is refused whole.

use crate::router::SnapshotError;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::BTreeMap;
use std::sync::Arc;
use wire::edge::CertificateView;

#[derive(Debug, Default)]
pub struct Certificates {
    by_host: BTreeMap<String, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    pub fn build(views: &[CertificateView]) -> Result<Self, SnapshotError> {
        let mut certificates = Self::default();
        for view in views {
            let key = certified(view).map_err(|why| SnapshotError::Certificate {
                hosts: view.hosts.join(", "),
                why,
            })?;
            let key = Arc::new(key);
            for host in &view.hosts {
                let known = certificates.by_host.entry(host.to_ascii_lowercase());
                known.or_insert_with(|| Arc::clone(&key));
            }
            certificates.first.get_or_insert(key);
        }
        Ok(certificates)
    }

    fn choose(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let named = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            self.by_host.get(&name).or_else(|| {
                let (_, parent) = name.split_once('.')?;
                self.by_host.get(&format!("*.{parent}"))
            })
        });
        named.or(self.first.as_ref()).cloned()
    }
}

fn certified(view: &CertificateView) -> Result<CertifiedKey, String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(view.chain_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| format!("its chain: {error}"))?;
    if chain.is_empty() {
        return Err("its chain is empty".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(view.key_pem.as_bytes())
        .map_err(|error| format!("its key: {error}"))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| error.to_string())
}

#[derive(Debug, Default)]
pub struct Resolver(pub ArcSwap<Certificates>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().choose(hello.server_name())
    }
}

pub fn server_config(resolver: Arc<Resolver>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
