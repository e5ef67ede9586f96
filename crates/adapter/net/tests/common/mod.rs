//! A small cluster on the loopback device: an authority, a table, nodes.

#![allow(dead_code, reason = "each test uses a part of it")]

pub mod hostile;

use kernel::{NodeId, UnixMillis};
use net::identity::{Refusal, wall_clock};
use net::transport::{IncomingCall, Stats};
use net::{
    Authority, Credentials, Identity, Incoming, Kind, NodeKey, Options, PublicKey, Transport,
};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

pub const SOON: Duration = Duration::from_secs(20);

/// The node table.
#[derive(Clone, Default)]
pub struct Table(Arc<Mutex<Rows>>);

/// Key, and whether it is not revoked.
type Rows = BTreeMap<(Kind, NodeId), (kernel::Hash, bool)>;

impl Table {
    pub fn admit(&self, identity: &Identity) {
        let mut rows = self.0.lock().expect("unpoisoned");
        rows.insert((identity.kind, identity.node), (identity.key, true));
    }

    pub fn revoke(&self, node: NodeId) {
        let mut rows = self.0.lock().expect("unpoisoned");
        for ((_, id), row) in rows.iter_mut() {
            row.1 &= *id != node;
        }
    }

    pub fn ask(&self, identity: &Identity) -> Result<(), Refusal> {
        let rows = self.0.lock().expect("unpoisoned");
        match rows.get(&(identity.kind, identity.node)) {
            None => Err(Refusal::Unknown),
            Some((_, false)) => Err(Refusal::Revoked),
            Some((key, true)) if *key != identity.key => Err(Refusal::OtherKey),
            Some(_) => Ok(()),
        }
    }

    pub fn hook(&self) -> Arc<dyn net::identity::Authorise> {
        let table = self.clone();
        Arc::new(move |identity: &Identity| table.ask(identity))
    }
}

pub struct Cluster {
    pub authority: Authority,
    pub table: Table,
}

pub struct Node {
    pub id: NodeId,
    pub transport: Transport,
    pub incoming: Incoming,
}

impl Node {
    pub fn address(&self) -> SocketAddr {
        self.transport.local_addr().expect("bound")
    }

    pub fn knows(&self, other: &Node) {
        self.transport
            .set_peer(other.id, vec![other.address().into()]);
    }

    pub fn stats(&self) -> Stats {
        self.transport.stats()
    }
}

pub fn now() -> UnixMillis {
    wall_clock()()
}

impl Cluster {
    pub fn new() -> Self {
        Self {
            authority: Authority::create(now()).expect("an authority").0,
            table: Table::default(),
        }
    }

    pub fn credentials(&self, kind: Kind, id: u64, key: &Arc<NodeKey>) -> Credentials {
        self.credentials_at(kind, id, key, now())
    }

    pub fn credentials_at(
        &self,
        kind: Kind,
        id: u64,
        key: &Arc<NodeKey>,
        at: UnixMillis,
    ) -> Credentials {
        let zone = "/eu/1".parse().expect("a zone");
        let public: PublicKey = key.public();
        let identity = self.authority.identity(kind, NodeId(id), zone, &public);
        let issued = self
            .authority
            .issue(&identity, &public, at)
            .expect("issues");
        Credentials {
            key: key.clone(),
            chain: issued.chain,
            root: self.authority.root().to_vec(),
        }
    }

    /// An agent that belongs.
    pub fn options(&self, id: u64) -> Options {
        let key = Arc::new(NodeKey::generate().expect("a key"));
        let credentials = self.credentials(Kind::Agent, id, &key);
        self.table
            .admit(&credentials.view().expect("reads").identity);
        Options::new(any_port(), credentials, self.table.hook())
    }

    pub fn edge_options(&self, id: u64) -> Options {
        let key = Arc::new(NodeKey::generate().expect("a key"));
        let credentials = self.credentials(Kind::Edge, id, &key);
        self.table
            .admit(&credentials.view().expect("reads").identity);
        Options::edge(any_port(), credentials, self.table.hook())
    }

    pub fn node(&self, id: u64) -> Node {
        node(self.options(id))
    }

    /// Two that know each other.
    pub fn pair(&self) -> (Node, Node) {
        let (a, b) = (self.node(1), self.node(2));
        a.knows(&b);
        b.knows(&a);
        (a, b)
    }
}

pub fn node(options: Options) -> Node {
    let (transport, incoming) = Transport::bind(options).expect("binds");
    Node {
        id: transport.identity().node,
        transport,
        incoming,
    }
}

pub fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Answers each call with its own body.
pub fn echo(calls: &mut mpsc::Receiver<IncomingCall>) {
    let (_, empty) = mpsc::channel(1);
    let mut calls = std::mem::replace(calls, empty);
    tokio::spawn(async move {
        while let Some(call) = calls.recv().await {
            let body = call.body.clone();
            call.done(body);
        }
    });
}

/// Looks again and again until it is so.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let so = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, so)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"));
}
