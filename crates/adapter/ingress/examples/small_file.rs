//! Serves one small document on a loopback port until interrupted, for wrk,
//! strace and perf: what a request costs without the rest of the edge.
//!
//! `cargo run --release -p ingress --example small_file -- 127.0.0.1:8080`

use bytes::Bytes;
use ingress::{
    AccessLog, Component, Components, Connecting, Document, Documents, EdgeSnapshot, Encoding,
    Evidence, Ingress, Options, PeerConnector, Source,
};
use kernel::{Hash, NodeId, ReplicaId, ScopedName};
use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use wire::content::{Tree, TreeEntry};
use wire::edge::{RouteEntry, SNAPSHOT_VERSION, SiteView, Target};
use wire::rows::AccessRow;

const BODY: &[u8] = &[b'x'; 1024];

struct One;

impl Documents for One {
    fn tree(&self, hash: Hash) -> Option<Arc<Tree>> {
        let entry = TreeEntry {
            hash,
            bytes: BODY.len() as u64,
            modified_unix: 1_000_000_000,
            media_type: "text/html; charset=utf-8".to_owned(),
        };
        let entries = BTreeMap::from([("index.html".to_owned(), entry)]);
        Some(Arc::new(Tree { entries }))
    }

    fn open(&self, _: Hash, encoding: Encoding) -> Option<Document> {
        (encoding == Encoding::Identity).then(|| Document {
            bytes: BODY.len() as u64,
            source: Source::Memory(Bytes::from_static(BODY)),
        })
    }
}

#[derive(Default)]
struct Sum(AtomicU64);

impl AccessLog for Sum {
    fn record(&self, row: AccessRow) {
        self.0.fetch_add(row.bytes, Relaxed);
    }
}

impl Evidence for Sum {
    fn endpoint_failed(&self, _: &ReplicaId, _: &str, _: bool) {}
    fn peer_failed(&self, _: NodeId, _: &str) {}
}

impl PeerConnector for One {
    fn connect(&self, _: NodeId, _: Instant) -> Connecting {
        Box::pin(async { Err(std::io::ErrorKind::NotConnected.into()) })
    }

    fn link(&self, _: NodeId, _: &wire::peer::Link, _: Instant) -> Connecting {
        Box::pin(async { Err(std::io::ErrorKind::NotConnected.into()) })
    }

    fn round_trip(&self, _: NodeId) -> Option<Duration> {
        None
    }
}

impl Components for One {
    fn find(&self, _: &ReplicaId) -> Option<Arc<dyn Component>> {
        None
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:0");
    let listener = tokio::net::TcpListener::bind(address).await?;
    let sum = Arc::new(Sum::default());
    let ingress = Ingress::new(
        Options::default(),
        Arc::new(One),
        Arc::new(One),
        Arc::new(One),
        Arc::clone(&sum) as _,
        sum,
    );
    let name: ScopedName = "test/site".parse()?;
    let view = SiteView {
        tree: Hash([1; 32]),
        index: "index.html".to_owned(),
        not_found: None,
        max_age: Duration::from_mins(1),
        immutable: vec![],
    };
    ingress.set_snapshot(&EdgeSnapshot {
        format: SNAPSHOT_VERSION,
        version: 1,
        routes: vec![RouteEntry {
            host: "*".to_owned(),
            path: "/".to_owned(),
            target: Target::Site(name.clone()),
        }],
        sites: BTreeMap::from([(name, view)]),
        ..EdgeSnapshot::default()
    })?;
    writeln!(std::io::stdout(), "http://{}/", listener.local_addr()?)?;
    ingress.serve(listener, false).await;
    Ok(())
}
