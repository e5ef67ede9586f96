//! Durable sets per second: of a bucket over the agent's socket, or of Redis.
//!
//! In: `serve DIRECTORY`, which serves a bucket there until it is killed; or
//! where to write (that directory, or `redis://HOST:PORT`), how many clients
//! write at once, for how many seconds.
//! Out: of a server, a line when it serves; of a client, the line of `writing`.
//! Holds: all sets are acknowledged only when they are synced.

#[path = "../../../adapter/store/examples/writing/mod.rs"]
mod writing;

use agent::buckets::{BucketServer, ProjectLimits};
use ipc::buckets::BucketClient;
use kernel::{Bytes, Name, ReplicaId, Revision, ScopedName};
use node::buckets::{Bucket, BucketAccess};
use node::desired::FIRST_NODE;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use wire::bucket::BucketGrant;
use wire::layout::Layout;
use writing::{Failure, VALUE_BYTES};

const QUOTA: Bytes = Bytes(1 << 30);
const USAGE: &str =
    "usage: sets serve DIRECTORY | sets (DIRECTORY | redis://HOST:PORT) CLIENTS SECONDS";
const CAPABILITY: &str = "capability";

async fn serve(directory: &Path) -> Result<(), Failure> {
    let layout = Layout::new(directory);
    for path in [
        layout.buckets(),
        layout.buckets_socket(),
        layout.buckets_key(),
    ] {
        std::fs::create_dir_all(path.parent().ok_or(USAGE)?)?;
    }
    let server = Arc::new(BucketServer::open(&layout, FIRST_NODE, store::Group::Alone).await?);
    let (project, name) = (Name::new("bench")?, Name::new("sets")?);
    let stated = manifest::Bucket {
        quota: QUOTA,
        rate: u32::MAX,
    };
    let limits = ProjectLimits {
        quota: QUOTA,
        rate: u32::MAX,
    };
    server.define(&project, BTreeMap::from([(name.clone(), stated)]), limits);
    let replica = ReplicaId {
        service: ScopedName::new(project, name.clone()),
        generation: Revision(1),
        index: 0,
    };
    let grant = BucketGrant {
        bucket: name.clone(),
        quota: QUOTA,
        rate: u32::MAX,
    };
    let bindings = BTreeMap::from([(name, grant)]);
    let capability = server.grant(&replica, &bindings, None);
    std::fs::write(directory.join(CAPABILITY), capability)?;
    writeln!(std::io::stdout(), "serving")?;
    server.run(&layout).await?;
    Ok(())
}

enum Target {
    Bucket(Bucket),
    Redis(BufReader<TcpStream>),
}

impl writing::Target for Target {
    async fn write(&mut self, key: &str, value: Vec<u8>) -> Result<(), Failure> {
        match self {
            Self::Bucket(bucket) => {
                bucket.set(key, value).await?;
            }
            Self::Redis(stream) => {
                let head = format!(
                    "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${VALUE_BYTES}\r\n",
                    key.len()
                );
                let mut request = head.into_bytes();
                request.extend_from_slice(&value);
                request.extend_from_slice(b"\r\n");
                stream.get_mut().write_all(&request).await?;
                let mut answer = [0; 5];
                stream.read_exact(&mut answer).await?;
                if &answer != b"+OK\r\n" {
                    return Err("redis did not answer OK".into());
                }
            }
        }
        Ok(())
    }
}

async fn target(place: &str, bucket: Option<&Bucket>) -> Result<Target, Failure> {
    if let Some(bucket) = bucket {
        return Ok(Target::Bucket(bucket.clone()));
    }
    let stream = TcpStream::connect(place.trim_start_matches("redis://")).await?;
    stream.set_nodelay(true)?;
    Ok(Target::Redis(BufReader::new(stream)))
}

async fn sets(place: &str, clients: usize, seconds: u64) -> Result<(), Failure> {
    let bucket = if place.starts_with("redis://") {
        None
    } else {
        let layout = Layout::new(place);
        let capability = std::fs::read_to_string(layout.root.join(CAPABILITY))?;
        let client = Arc::new(BucketClient::new(&layout.buckets_socket())?);
        Some(BucketAccess::new(client, &capability)?.open("sets")?)
    };
    let mut targets = Vec::new();
    for _ in 0..clients {
        targets.push(target(place, bucket.as_ref()).await?);
    }
    writing::measure(targets, seconds).await
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.as_slice() {
        [serving, directory] if serving == "serve" => serve(Path::new(directory)).await,
        [place, clients, seconds] => sets(place, clients.parse()?, seconds.parse()?).await,
        _ => Err(USAGE.into()),
    }
}
