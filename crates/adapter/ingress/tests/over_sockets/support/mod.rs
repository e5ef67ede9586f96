//! An ingress on a real socket, with content in memory and replicas of our own.

pub mod h2;
pub mod here;
pub mod lines;
pub mod mortal;
pub mod puppet;
pub mod tls;

use bytes::Bytes;
use here::Here;
use ingress::{
    AccessLog, Document, Documents, Encoding, Evidence, Ingress, Limits, Options, Source,
};
use kernel::{Hash, NodeId, ReplicaId, Revision, ScopedName};
use lines::Lines;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wire::content::{Tree, TreeEntry};
use wire::edge::{
    EdgeSnapshot, Endpoint, RouteEntry, SNAPSHOT_VERSION, ServiceReadings, ServiceView, SiteView,
    Target,
};
use wire::rows::AccessRow;

pub const LARGE_BYTES: usize = 1_000_003;

pub struct World {
    pub ingress: Arc<Ingress>,
    pub address: SocketAddr,
    pub rows: Arc<Rows>,
    pub here: Arc<Here>,
    pub lines: Arc<Lines>,
    pub snapshot: EdgeSnapshot,
}

#[derive(Default)]
pub struct Rows {
    pub rows: Mutex<Vec<AccessRow>>,
    pub failed: Mutex<Vec<String>>,
}

impl AccessLog for Rows {
    fn record(&self, row: AccessRow) {
        self.rows.lock().expect("lock").push(row);
    }
}

impl Evidence for Rows {
    fn endpoint_failed(&self, replica: &ReplicaId, why: &str, others_answer: bool) {
        let others = if others_answer { ", others answer" } else { "" };
        let text = format!("{replica}: {why}{others}");
        self.failed.lock().expect("lock").push(text);
    }

    fn peer_failed(&self, node: NodeId, why: &str) {
        let text = format!("node {}: {why}", node.0);
        self.failed.lock().expect("lock").push(text);
    }
}

struct Content;

pub fn large() -> Vec<u8> {
    (0..LARGE_BYTES)
        .map(|at| u8::try_from(at % 251).expect("small"))
        .collect()
}

fn hash(byte: u8) -> Hash {
    Hash([byte; 32])
}

impl Documents for Content {
    fn tree(&self, wanted: Hash) -> Option<Arc<Tree>> {
        let entry = |byte: u8, bytes: u64, media_type: &str| TreeEntry {
            hash: hash(byte),
            bytes,
            modified_unix: 1_000_000_000,
            media_type: media_type.to_owned(),
        };
        let entries = BTreeMap::from([
            (
                "index.html".to_owned(),
                entry(1, 10, "text/html; charset=utf-8"),
            ),
            (
                "dir/index.html".to_owned(),
                entry(1, 10, "text/html; charset=utf-8"),
            ),
            (
                "404.html".to_owned(),
                entry(3, 5, "text/html; charset=utf-8"),
            ),
            (
                "assets/large.bin".to_owned(),
                entry(2, LARGE_BYTES as u64, "application/x-large"),
            ),
        ]);
        (wanted == hash(9)).then(|| Arc::new(Tree { entries }))
    }

    fn open(&self, wanted: Hash, encoding: Encoding) -> Option<Document> {
        let memory = |text: &'static [u8]| {
            let source = Source::Memory(Bytes::from_static(text));
            Some(Document {
                bytes: text.len() as u64,
                source,
            })
        };
        match (wanted.0[0], encoding) {
            (1, Encoding::Identity) => memory(b"0123456789"),
            (1, Encoding::Gzip) => memory(b"gzip!"),
            (3, Encoding::Identity) => memory(b"lost\n"),
            (2, Encoding::Identity) => {
                let mut file = tempfile::tempfile().ok()?;
                file.write_all(&large()).ok()?;
                Some(Document {
                    bytes: LARGE_BYTES as u64,
                    source: Source::Stored(Arc::new(file)),
                })
            }
            _ => None,
        }
    }
}

pub fn name(text: &str) -> ScopedName {
    format!("test/{text}").parse().expect("name")
}

pub fn site_snapshot() -> EdgeSnapshot {
    let site = SiteView {
        tree: hash(9),
        index: "index.html".to_owned(),
        not_found: Some("404.html".to_owned()),
        max_age: Duration::from_mins(1),
        immutable: vec!["/assets".to_owned()],
    };
    let route = |host: &str, path: &str, target| RouteEntry {
        host: host.to_owned(),
        path: path.to_owned(),
        target,
    };
    EdgeSnapshot {
        format: SNAPSHOT_VERSION,
        version: 1,
        routes: vec![
            route("site.test", "/", Target::Site(name("site"))),
            route("app.test", "/", Target::Service(name("app"))),
        ],
        sites: BTreeMap::from([(name("site"), site)]),
        services: BTreeMap::from([(
            name("app"),
            ServiceView {
                deadline: Duration::from_secs(5),
                endpoints: vec![],
            },
        )]),
        ..EdgeSnapshot::default()
    }
}

impl World {
    pub async fn start(limits: Limits, tls: bool) -> Self {
        let rows = Arc::new(Rows::default());
        let options = Options {
            limits,
            truncate_clients: true,
        };
        let here = Arc::new(Here::default());
        let lines = Arc::new(Lines::default());
        let ingress = Ingress::new(
            options,
            Arc::new(Content),
            Arc::clone(&here) as _,
            Arc::clone(&lines) as _,
            Arc::clone(&rows) as _,
            Arc::clone(&rows) as _,
        );
        let snapshot = site_snapshot();
        ingress.set_snapshot(&snapshot).expect("taken");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address");
        tokio::spawn(Arc::clone(&ingress).serve(listener, tls));
        Self {
            ingress,
            address,
            rows,
            here,
            lines,
            snapshot,
        }
    }

    pub async fn plain() -> Self {
        Self::start(Limits::default(), false).await
    }

    pub fn endpoints(&mut self, addresses: &[SocketAddr], deadline: Duration) {
        let endpoints = (0_u32..)
            .zip(addresses)
            .map(|(index, address)| Endpoint {
                replica: ReplicaId {
                    service: name("app"),
                    generation: Revision(1),
                    index,
                },
                address: Some(*address),
                node: None,
            })
            .collect();
        self.snapshot.version += 1;
        self.snapshot.services.insert(
            name("app"),
            ServiceView {
                deadline,
                endpoints,
            },
        );
        self.ingress.set_snapshot(&self.snapshot).expect("taken");
    }

    /// Sends raw bytes and reads until the ingress closes.
    pub async fn raw(&self, text: &str) -> String {
        exchange(self.address, text.to_owned()).await
    }

    /// The same beside what the test does meanwhile.
    pub fn send(&self, text: &str) -> tokio::task::JoinHandle<String> {
        tokio::spawn(exchange(self.address, text.to_owned()))
    }

    pub fn service(&self) -> ServiceReadings {
        self.ingress.readings().services[&name("app")].clone()
    }

    pub async fn get(&self, host: &str, path: &str, fields: &str) -> String {
        self.raw(&format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{fields}\r\n"
        ))
        .await
    }

    /// The first row that `wanted` accepts, once it is there.
    pub async fn row(&self, wanted: impl Fn(&AccessRow) -> bool) -> AccessRow {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let found = self
                .rows
                .rows
                .lock()
                .expect("lock")
                .iter()
                .find(|row| wanted(row))
                .cloned();
            if let Some(row) = found {
                return row;
            }
            assert!(Instant::now() < deadline, "no such row");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn exchange(address: SocketAddr, text: String) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    // What is refused early is not read to its end.
    let _ = stream.write_all(text.as_bytes()).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(30), read)
        .await
        .expect("closes");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A replica: reads each head (and a body of its `content-length`), and answers
/// with what `answer` makes of it; `None` closes the connection.
pub async fn replica(
    answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("address");
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut seen = String::new();
                let mut buffer = [0; 4096];
                loop {
                    if seen.contains("\r\n\r\n") {
                        let Some(text) = answer(&seen) else { return };
                        seen.clear();
                        if stream.write_all(text.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(read) => seen.push_str(&String::from_utf8_lossy(&buffer[..read])),
                    }
                }
            });
        }
    });
    address
}

/// An address at which nobody listens.
pub async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    listener.local_addr().expect("address")
}

pub fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
