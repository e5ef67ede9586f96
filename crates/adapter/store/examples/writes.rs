//! Durable writes per second: of the embedded store, or of an etcd member.
//!
//! In: a directory or `http://HOST:PORT` of etcd, how many clients write at
//! once, for how many seconds.
//! Out: one line: clients, writes per second, median and 99th percentile of the
//! time from call to acknowledgement in microseconds.
//! Holds: each client has one write under way, of 256 bytes, to keys of its own;
//! etcd is spoken to by gRPC over kept connections, as its own clients do.

use bytes::{Bytes, BytesMut};
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kernel::NodeId;
use node::store::{Operation, Store, Transaction};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{EmbeddedStore, Options};

const VALUE_BYTES: usize = 256;
const KEYS_PER_CLIENT: u64 = 1_000;
/// Its clients multiplex; this many are where it was fastest.
const ETCD_CONNECTIONS_MAX: u64 = 8;
const USAGE: &str = "usage: writes (DIRECTORY | http://HOST:PORT) CLIENTS SECONDS";

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone)]
enum Target {
    Embedded(Arc<EmbeddedStore>),
    Etcd(String, SendRequest<Full<Bytes>>),
}

impl Target {
    async fn put(&mut self, key: String) -> Result<(), Failure> {
        let value = vec![b'x'; VALUE_BYTES];
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

async fn etcd(address: &str, clients: u64) -> Result<Vec<Target>, Failure> {
    let host = address.trim_start_matches("http://");
    let mut connections = Vec::new();
    for _ in 0..clients.clamp(1, ETCD_CONNECTIONS_MAX) {
        let stream = tokio::net::TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        connections.push(Target::Etcd(address.to_owned(), sender));
    }
    Ok(connections)
}

async fn client(mut target: Target, number: u64, until: Instant) -> Result<Vec<u64>, Failure> {
    let mut spans_us = Vec::new();
    for round in 0_u64.. {
        let since = Instant::now();
        if since >= until {
            break;
        }
        let key = format!("/bench/{number}/{}", round % KEYS_PER_CLIENT);
        target.put(key).await?;
        spans_us.push(u64::try_from(since.elapsed().as_micros())?);
    }
    Ok(spans_us)
}

async fn measure(targets: Vec<Target>, clients: u64, seconds: u64) -> Result<(), Failure> {
    let mut spans_us = Histogram::<u64>::new(3)?;
    let since = Instant::now();
    let until = since + Duration::from_secs(seconds);
    let running: Vec<_> = (0..clients)
        .zip(targets.iter().cycle())
        .map(|(number, target)| tokio::spawn(client(target.clone(), number, until)))
        .collect();
    for client in running {
        for span_us in client.await?? {
            spans_us.record(span_us)?;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate for people to read")]
    let rate = spans_us.len() as f64 / since.elapsed().as_secs_f64();
    writeln!(
        std::io::stdout(),
        "clients {clients}, writes/s {rate:.0}, p50 {} us, p99 {} us",
        spans_us.value_at_quantile(0.5),
        spans_us.value_at_quantile(0.99),
    )?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let place = arguments.next().ok_or(USAGE)?;
    let clients: u64 = arguments.next().ok_or(USAGE)?.parse()?;
    let seconds: u64 = arguments.next().ok_or(USAGE)?.parse()?;
    if place.starts_with("http://") {
        return measure(etcd(&place, clients).await?, clients, seconds).await;
    }
    let path = PathBuf::from(place).join("writes.redb");
    let options = Options {
        path: path.clone(),
        node: NodeId(1),
    };
    let store = Arc::new(EmbeddedStore::open(options).await?);
    let targets = vec![Target::Embedded(Arc::clone(&store))];
    measure(targets, clients, seconds).await?;
    store.shutdown().await;
    std::fs::remove_file(&path)?;
    Ok(())
}
