//! One member of a store of several, over QUIC with mutual TLS, for benchmarks.
//!
//! In: a directory with `authority`, how many members there are, which this is,
//! their first UDP port; then lines: `join`, by the first, and `write CLIENTS
//! SECONDS`. Out: `ready`, `joined`, and the line of `writing`.
//! Holds: writes are called in the process of the member that leads, as its agent
//! calls them.

mod writing;

use kernel::NodeId;
use net::identity::wall_clock;
use net::{Authority, Credentials, Identity, Incoming, Kind, NodeKey, Options, Transport};
use node::BoxFuture;
use node::store::{Operation, Store, Transaction};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use store::{Carry, CarryError, EmbeddedStore, Group};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use writing::{Failure, measure};

const METHOD: u16 = 1;
const USAGE: &str = "usage: member DIRECTORY MEMBERS NUMBER FIRST_PORT";

struct Line(Transport);

impl Carry for Line {
    fn call(
        &self,
        to: NodeId,
        body: Vec<u8>,
        within: Duration,
    ) -> BoxFuture<'_, Result<Vec<u8>, CarryError>> {
        Box::pin(async move {
            let answer = self.0.call(to, METHOD, body, within).await;
            let answer = answer.map(|answer| answer.to_vec());
            answer.map_err(|error| CarryError {
                node: to,
                why: error.to_string(),
            })
        })
    }
}

#[derive(Clone)]
struct Target(Arc<EmbeddedStore>);

impl writing::Target for Target {
    async fn write(&mut self, key: &str, value: Vec<u8>) -> Result<(), Failure> {
        let write = Transaction {
            then: vec![Operation::Put(format!("/bench/{key}"), value)],
            ..Transaction::default()
        };
        self.0.transact(write).await?;
        Ok(())
    }
}

struct Place {
    directory: PathBuf,
    members: u16,
    own: u16,
    first_port: u16,
}

impl Place {
    fn read() -> Result<Self, Failure> {
        let mut words = std::env::args().skip(1);
        let mut next = || words.next().ok_or(USAGE);
        Ok(Self {
            directory: next()?.into(),
            members: next()?.parse()?,
            own: next()?.parse()?,
            first_port: next()?.parse()?,
        })
    }

    fn address(&self, member: u16) -> SocketAddr {
        ([127, 0, 0, 1], self.first_port + member - 1).into()
    }

    fn transport(&self) -> Result<(Transport, Incoming), Failure> {
        let authority = std::fs::read(self.directory.join("authority"))?;
        let authority = Authority::from_bytes(&authority)?;
        let key = Arc::new(NodeKey::generate()?);
        let id = NodeId(self.own.into());
        let identity = authority.identity(Kind::Agent, id, "/bench".parse()?, &key.public());
        let issued = authority.issue(&identity, &key.public(), wall_clock()())?;
        let credentials = Credentials {
            key,
            chain: issued.chain,
            root: authority.root().to_vec(),
        };
        let any = |_: &Identity| Ok(());
        let options = Options::new(self.address(self.own), credentials, Arc::new(any));
        let (transport, incoming) = Transport::bind(options)?;
        for other in (1..=self.members).filter(|other| *other != self.own) {
            transport.set_peer(NodeId(other.into()), vec![self.address(other).into()]);
        }
        Ok((transport, incoming))
    }
}

/// Each call in a task of its own, as the agent has it.
fn answer(store: &Arc<EmbeddedStore>, mut incoming: Incoming) {
    let store = Arc::clone(store);
    tokio::spawn(async move {
        while let Some(call) = incoming.calls.recv().await {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let answer = store.answer(call.from.node, &call.body).await;
                call.done(answer);
            });
        }
    });
}

fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let place = Place::read()?;
    let (transport, incoming) = place.transport()?;
    let line: Arc<dyn Carry> = Arc::new(Line(transport));
    let group = if place.own == 1 {
        Group::First(line)
    } else {
        Group::Joining(line)
    };
    let options = store::Options {
        path: place.directory.join(format!("{}.redb", place.own)),
        node: NodeId(place.own.into()),
        group,
    };
    let store = Arc::new(EmbeddedStore::open(options).await?);
    answer(&store, incoming);
    say("ready")?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["join"] => {
                let all: BTreeSet<NodeId> = (1..=place.members)
                    .map(|node| NodeId(node.into()))
                    .collect();
                store.set_members(all, BTreeSet::new()).await?;
                say("joined")?;
            }
            ["write", clients, seconds] => {
                let targets = vec![Target(Arc::clone(&store)); clients.parse()?];
                measure(targets, seconds.parse()?).await?;
            }
            _ => return Err(USAGE.into()),
        }
    }
    store.shutdown().await;
    Ok(())
}
