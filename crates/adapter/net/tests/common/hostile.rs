//! A peer that says what it likes: QUIC and TLS are right, the rest is not.

use net::Credentials;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use std::net::SocketAddr;
use std::sync::Arc;
use wire::net::frame::{Head, Hello};

#[derive(Debug)]
struct BelievesAll;

impl ServerCertVerifier for BelievesAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

pub fn endpoint() -> Endpoint {
    Endpoint::client(super::any_port()).expect("binds")
}

/// Asks for `protocol`, showing `credentials` or nothing.
pub fn config(credentials: Option<&Credentials>, protocol: &str) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(BelievesAll));
    let mut config = match credentials {
        None => builder.with_no_client_auth(),
        Some(credentials) => {
            let pkcs8 = credentials.key.to_pkcs8().to_vec();
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8));
            let chain = credentials.chain.iter().cloned().map(CertificateDer::from);
            builder
                .with_client_auth_cert(chain.collect(), key)
                .expect("a key")
        }
    };
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    ClientConfig::new(Arc::new(
        QuicClientConfig::try_from(config).expect("a suite"),
    ))
}

pub async fn connect(
    endpoint: &Endpoint,
    to: SocketAddr,
    credentials: Option<&Credentials>,
    protocol: &str,
) -> Result<Connection, quinn::ConnectionError> {
    let config = config(credentials, protocol);
    let connecting = endpoint.connect_with(config, to, "x").expect("an address");
    connecting.await
}

/// Greets as version 2 does, so that all else is heard.
pub async fn greet(connection: &Connection) {
    let hello = Head::Hello(Hello {
        instance: 1,
        sequence: 0,
        generation: 0,
        relays: false,
    });
    say_once(connection, &hello.encode(2).expect("encodes")).await;
}

pub async fn say_once(connection: &Connection, bytes: &[u8]) {
    let mut stream = connection.open_uni().await.expect("leave");
    stream.write_all(bytes).await.expect("writes");
    stream.finish().expect("ends");
}

/// Says `bytes` on a stream of their own, and waits until they were judged.
pub async fn say(connection: &Connection, bytes: &[u8]) {
    let Ok((mut send, mut recv)) = connection.open_bi().await else {
        return;
    };
    if send.write_all(bytes).await.is_ok() {
        // Turned away already, perhaps.
        let _ = send.finish();
    }
    let _ = recv.read_to_end(1 << 20).await;
}
