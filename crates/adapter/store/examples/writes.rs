//! Durable writes per second: of the embedded store, or of an etcd member.
//!
//! In: a directory, or `http://HOST:PORT` or `https://HOST:PORT` of etcd, how many
//! clients write at once, for how many seconds; with TLS, a directory with
//! `ca.pem`, `client.pem` and `client.key`.
//! Out: the line of `writing`.
//! Holds: etcd is spoken to by gRPC over kept connections, as its own clients do.

mod writing;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kernel::NodeId;
use node::store::{Operation, Store, Transaction};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::{EmbeddedStore, Options};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use writing::{Failure, measure};

/// Its clients multiplex; this many are where it was fastest.
const ETCD_CONNECTIONS_MAX: usize = 8;
const USAGE: &str = "usage: writes (DIRECTORY | http[s]://HOST:PORT) CLIENTS SECONDS [KEYS]";

#[derive(Clone)]
enum Target {
    Embedded(Arc<EmbeddedStore>),
    Etcd(String, SendRequest<Full<Bytes>>),
}

impl writing::Target for Target {
    async fn write(&mut self, key: &str, value: Vec<u8>) -> Result<(), Failure> {
        let key = format!("/bench/{key}");
        match self {
            Self::Embedded(store) => {
                let then = vec![Operation::Put(key, value)];
                let write = Transaction {
                    then,
                    ..Transaction::default()
                };
                store.transact(write).await?;
                Ok(())
            }
            Self::Etcd(address, connection) => {
                let request = hyper::Request::post(format!("{address}/etcdserverpb.KV/Put"))
                    .header("content-type", "application/grpc")
                    .header("te", "trailers")
                    .body(Full::new(put_request(&key, &value)?))?;
                connection.ready().await?;
                let response = connection.send_request(request).await?;
                let refused = response.headers().get("grpc-status").cloned();
                let body = response.into_body().collect().await?;
                let ended = body.trailers().and_then(|t| t.get("grpc-status")).cloned();
                match ended.or(refused) {
                    Some(status) if status == "0" => Ok(()),
                    status => Err(format!("etcd answered {status:?}").into()),
                }
            }
        }
    }
}

/// `PutRequest { key = 1, value = 2 }` in a gRPC frame.
fn put_request(key: &str, value: &[u8]) -> Result<Bytes, Failure> {
    let mut message = BytesMut::new();
    for (tag, field) in [(0x0a, key.as_bytes()), (0x12, value)] {
        message.extend_from_slice(&[tag]);
        let mut left = field.len();
        while left >= 0x80 {
            message.extend_from_slice(&[u8::try_from(left & 0x7f)? | 0x80]);
            left >>= 7;
        }
        message.extend_from_slice(&[u8::try_from(left)?]);
        message.extend_from_slice(field);
    }
    let mut frame = BytesMut::from(&[0_u8][..]);
    frame.extend_from_slice(&u32::try_from(message.len())?.to_be_bytes());
    frame.extend_from_slice(&message);
    Ok(frame.freeze())
}

/// What TLS needs, if it is spoken.
fn secured(address: &str, keys: Option<&Path>) -> Result<Option<TlsConnector>, Failure> {
    if !address.starts_with("https://") {
        return Ok(None);
    }
    let keys = keys.ok_or(USAGE)?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(keys.join("ca.pem"))?)?;
    let own = CertificateDer::from_pem_file(keys.join("client.pem"))?;
    let key = PrivateKeyDer::from_pem_file(keys.join("client.key"))?;
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![own], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Some(TlsConnector::from(Arc::new(config))))
}

async fn connect(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn etcd(address: &str, clients: usize, keys: Option<&Path>) -> Result<Vec<Target>, Failure> {
    let (_, host) = address.split_once("://").ok_or(USAGE)?;
    let secured = secured(address, keys)?;
    let mut connections = Vec::new();
    for _ in 0..clients.clamp(1, ETCD_CONNECTIONS_MAX) {
        let stream = tokio::net::TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let sender = match &secured {
            None => connect(stream).await?,
            Some(secured) => {
                let name = IpAddr::from(Ipv4Addr::LOCALHOST).into();
                connect(secured.connect(name, stream).await?).await?
            }
        };
        connections.push(Target::Etcd(address.to_owned(), sender));
    }
    Ok(connections)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let place = arguments.next().ok_or(USAGE)?;
    let clients: usize = arguments.next().ok_or(USAGE)?.parse()?;
    let seconds: u64 = arguments.next().ok_or(USAGE)?.parse()?;
    let keys = arguments.next().map(PathBuf::from);
    if place.starts_with("http") {
        let connections = etcd(&place, clients, keys.as_deref()).await?;
        let targets = connections.into_iter().cycle().take(clients).collect();
        return measure(targets, seconds).await;
    }
    let path = PathBuf::from(place).join("writes.redb");
    let options = Options {
        path: path.clone(),
        node: NodeId(1),
        group: store::Group::Alone,
    };
    let store = Arc::new(EmbeddedStore::open(options).await?);
    let targets = vec![Target::Embedded(Arc::clone(&store)); clients];
    measure(targets, seconds).await?;
    store.shutdown().await;
    std::fs::remove_file(&path)?;
    Ok(())
}
