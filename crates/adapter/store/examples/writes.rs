//! Durable writes per second of the embedded store.
//!
//! In: a directory, how many clients write at once, for how many seconds.
//! Out: one line: clients, writes per second, median and 99th percentile of the
//! time from call to acknowledgement in microseconds.
//! Holds: each client has one write under way; each write has a key of its own
//! client and 256 bytes; the file is removed afterwards.

use hdrhistogram::Histogram;
use kernel::NodeId;
use node::store::{Operation, Store, Transaction};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{EmbeddedStore, Options};

const VALUE_BYTES: usize = 256;
const KEYS_PER_CLIENT: u64 = 1_000;
const USAGE: &str = "usage: writes DIRECTORY CLIENTS SECONDS";

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn client(
    store: Arc<EmbeddedStore>,
    number: u64,
    until: Instant,
) -> Result<Vec<u64>, Failure> {
    let mut spans_us = Vec::new();
    for round in 0_u64.. {
        let since = Instant::now();
        if since >= until {
            break;
        }
        let key = format!("/bench/{number}/{}", round % KEYS_PER_CLIENT);
        let write = Transaction {
            then: vec![Operation::Put(key, vec![b'x'; VALUE_BYTES])],
            ..Transaction::default()
        };
        store.transact(write).await?;
        spans_us.push(u64::try_from(since.elapsed().as_micros())?);
    }
    Ok(spans_us)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or(USAGE)?);
    let clients: u64 = arguments.next().ok_or(USAGE)?.parse()?;
    let seconds: u64 = arguments.next().ok_or(USAGE)?.parse()?;
    let path = folder.join("writes.redb");
    let options = Options {
        path: path.clone(),
        node: NodeId(1),
    };
    let store = Arc::new(EmbeddedStore::open(options).await?);
    let since = Instant::now();
    let until = since + Duration::from_secs(seconds);
    let running: Vec<_> = (0..clients)
        .map(|number| tokio::spawn(client(Arc::clone(&store), number, until)))
        .collect();
    let mut spans_us = Histogram::<u64>::new(3)?;
    for client in running {
        for span_us in client.await?? {
            spans_us.record(span_us)?;
        }
    }
    let lasted = since.elapsed();
    store.shutdown().await;
    std::fs::remove_file(&path)?;
    #[expect(clippy::cast_precision_loss, reason = "a rate for people to read")]
    let rate = spans_us.len() as f64 / lasted.as_secs_f64();
    writeln!(
        std::io::stdout(),
        "clients {clients}, writes/s {rate:.0}, p50 {} us, p99 {} us",
        spans_us.value_at_quantile(0.5),
        spans_us.value_at_quantile(0.99),
    )?;
    Ok(())
}
