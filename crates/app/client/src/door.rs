//! How a node is reached: its Unix socket, or TLS to its admin port.
//!
//! Holds: over TLS only a certificate of the authority that was given is
//! accepted, for the name that was asked for; no other authority counts.

use crate::ClientError;
use http::Uri;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

const CONNECT_MAX: Duration = Duration::from_secs(10);

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

#[derive(Clone, Debug)]
pub enum Door {
    Socket(PathBuf),
    Port(Arc<Port>),
}

pub struct Port {
    /// `node.example:9443`.
    authority: String,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Port").field(&self.authority).finish()
    }
}

impl Port {
    pub fn new(node: &str, authority_pem: &[u8]) -> Result<Self, ClientError> {
        let address = |why: &str| ClientError::Address {
            node: node.to_owned(),
            why: why.to_owned(),
        };
        let uri: Uri = node.parse().map_err(|_| address("it is no URL"))?;
        if uri.scheme_str() != Some("https") {
            return Err(address("it does not begin with https://"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(address("it has a path"));
        }
        let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else {
            return Err(address("it names no port"));
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned());
        let name = name.map_err(|_| address("its host is no name and no address"))?;
        Ok(Self {
            authority: format!("{host}:{port}"),
            name,
            config: Arc::new(trusting(authority_pem)?),
        })
    }
}

fn trusting(pem: &[u8]) -> Result<ClientConfig, ClientError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| ClientError::Authority(error.to_string()))?;
        let added = roots.add(certificate);
        added.map_err(|error| ClientError::Authority(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(ClientError::Authority("it has no certificate".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Authority(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

impl Door {
    /// As a person names it.
    pub fn named(&self) -> String {
        match self {
            Self::Socket(path) => path.display().to_string(),
            Self::Port(port) => format!("https://{}", port.authority),
        }
    }

    /// The `Host` of requests.
    pub fn host(&self) -> &str {
        match self {
            Self::Socket(_) => "node",
            Self::Port(port) => &port.authority,
        }
    }

    pub async fn open(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Socket(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Self::Port(port) => tokio::time::timeout(CONNECT_MAX, port.open()).await?,
        }
    }
}

impl Port {
    async fn open(&self) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(self.name.clone(), stream).await?;
        Ok(Box::new(stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_with_a_port_and_nothing_after_it() {
        for (node, words) in [
            ("http://localhost:1", "https://"),
            ("localhost:1", "https://"),
            ("https://localhost", "port"),
            ("https://localhost:1/v1", "path"),
            ("https://", "no URL"),
        ] {
            let error = Port::new(node, b"").expect_err("refused").to_string();
            assert!(error.contains(words), "{node}: {error}");
        }
        for node in ["https://node.example:9443", "https://[::1]:9443/"] {
            let error = Port::new(node, b"nothing").expect_err("no authority");
            assert!(matches!(error, ClientError::Authority(_)), "{error}");
        }
    }
}
