//! The handshake's configuration: TLS 1.3, Ed25519, no resumption.
//!
//! Holds: what a connection is for and its version are agreed on in the
//! handshake, by ALPN. Never: accepts early data or tickets, which could be
//! replayed and would leave the node table unasked.

use crate::identity::{Credentials, PeerVerifier};
use arc_swap::ArcSwap;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// The name that the handshake asks for; who answers is judged by certificate.
pub(crate) const SERVER_NAME: &str = "homeostat";

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Purpose {
    /// Datagrams, calls and streams that somebody waits for.
    Main,
    /// Much data, which gives way to everything else.
    Bulk,
    /// A stranger with a token.
    Join,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Main, Self::Bulk, Self::Join];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Main => "homeostat-main/",
            Self::Bulk => "homeostat-bulk/",
            Self::Join => "homeostat-join/",
        }
    }

    /// Newest first: the server takes the first of its own that is offered.
    fn protocols(self, versions: &RangeInclusive<u8>) -> Vec<Vec<u8>> {
        let newest_first = versions.clone().rev();
        newest_first
            .map(|version| format!("{}{version}", self.prefix()).into_bytes())
            .collect()
    }

    /// What was agreed on, and in which version.
    pub(crate) fn read(protocol: &[u8]) -> Option<(Self, u8)> {
        let text = std::str::from_utf8(protocol).ok()?;
        Self::ALL.into_iter().find_map(|purpose| {
            let version = text.strip_prefix(purpose.prefix())?.parse().ok()?;
            Some((purpose, version))
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the credentials' key cannot be used: {0}")]
pub struct ShownError(String);

/// What this side shows; swapped when a certificate is renewed.
#[derive(Debug)]
pub(crate) struct Shown(ArcSwap<CertifiedKey>);

impl Shown {
    pub(crate) fn new(credentials: &Credentials) -> Result<Self, ShownError> {
        Ok(Self(ArcSwap::from_pointee(certified(credentials)?)))
    }

    pub(crate) fn swap(&self, credentials: &Credentials) -> Result<(), ShownError> {
        self.0.store(Arc::new(certified(credentials)?));
        Ok(())
    }
}

fn certified(credentials: &Credentials) -> Result<CertifiedKey, ShownError> {
    let pkcs8 = credentials.key.to_pkcs8();
    let der = PrivatePkcs8KeyDer::from(pkcs8.as_slice());
    let key = rustls::crypto::ring::sign::any_eddsa_type(&der)
        .map_err(|why| ShownError(why.to_string()))?;
    let certified = CertifiedKey::new(credentials.shown(), key);
    certified
        .keys_match()
        .map_err(|why| ShownError(why.to_string()))?;
    Ok(certified)
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(crate) fn server(
    shown: Arc<Shown>,
    verifier: Arc<PeerVerifier>,
    purposes: &[Purpose],
    versions: &RangeInclusive<u8>,
) -> Result<Arc<QuicServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(shown);
    config.alpn_protocols = purposes
        .iter()
        .flat_map(|purpose| purpose.protocols(versions))
        .collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    // A suite for the first packets is always among those of TLS 1.3.
    QuicServerConfig::try_from(config)
        .map(Arc::new)
        .map_err(|_| rustls::Error::General("no suite for the first packets".to_owned()))
}

/// `shown` is nothing for one who joins.
pub(crate) fn client(
    shown: Option<Arc<Shown>>,
    verifier: Arc<PeerVerifier>,
    purpose: Purpose,
    versions: &RangeInclusive<u8>,
) -> Result<Arc<QuicClientConfig>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match shown {
        Some(shown) => builder.with_client_cert_resolver(shown),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = purpose.protocols(versions);
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    QuicClientConfig::try_from(config)
        .map(Arc::new)
        .map_err(|_| rustls::Error::General("no suite for the first packets".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn protocols_name_purpose_and_version_newest_first() {
        assert_eq!(
            Purpose::Main.protocols(&(1..=2)),
            [b"homeostat-main/2".to_vec(), b"homeostat-main/1".to_vec()]
        );
        assert_eq!(Purpose::read(b"homeostat-join/1"), Some((Purpose::Join, 1)));
        assert_eq!(Purpose::read(b"homeostat-join/"), None);
        assert_eq!(Purpose::read(b"h3"), None);
    }

    proptest! {
        #[test]
        fn hostile_protocols_never_panic(protocol: Vec<u8>) {
            prop_assert_eq!(Purpose::read(&protocol), None);
        }
    }
}
