//! Where the load goes: an address, the name asked for, and how it is trusted.

use crate::{ReplayError, ReplayOptions};
use http::HeaderValue;
use http::uri::{Scheme, Uri};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsConnector;

pub struct Target {
    pub addresses: Vec<SocketAddr>,
    pub host: HeaderValue,
    pub tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    /// Resolves the target once, so that names cost nothing while sending.
    pub async fn find(options: &ReplayOptions) -> Result<Self, ReplayError> {
        let wrong = |what| ReplayError::Target {
            address: options.target.clone(),
            what,
        };
        let uri: Uri = options
            .target
            .parse()
            .map_err(|_| wrong("it is no address"))?;
        let secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(wrong("it begins with neither http:// nor https://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if uri.path_and_query().is_some_and(|path| path != "/") {
            return Err(wrong("the paths come from the load, so it can have none"));
        }
        let host = options.host.as_deref().unwrap_or(authority.as_str());
        let header = HeaderValue::from_str(host).map_err(|_| wrong("its host is no name"))?;
        let bare = authority.host().trim_matches(['[', ']']);
        let port = authority
            .port_u16()
            .unwrap_or(if secure { 443 } else { 80 });
        let failed = |source| ReplayError::Resolve {
            host: bare.to_owned(),
            source,
        };
        let addresses: Vec<_> = tokio::net::lookup_host((bare, port))
            .await
            .map_err(failed)?
            .collect();
        let tls = if secure {
            // The host asked for is the name that the certificate must have.
            let asked = host.parse::<http::uri::Authority>();
            let name = asked.as_ref().map_or(bare, |asked| asked.host());
            let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned())
                .map_err(|_| wrong("its host is no name"))?;
            let path = options
                .authority
                .as_deref()
                .ok_or_else(|| wrong("an https target needs the authority to trust"))?;
            Some((connector(path)?, name))
        } else {
            None
        };
        Ok(Self {
            addresses,
            host: header,
            tls,
        })
    }
}

fn connector(path: &Path) -> Result<TlsConnector, ReplayError> {
    let wrong = |what: String| ReplayError::Authority {
        path: path.to_owned(),
        what,
    };
    let mut roots = RootCertStore::empty();
    let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    for certificate in found {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
