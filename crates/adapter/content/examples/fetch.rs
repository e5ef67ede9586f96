//! How fast a file comes from several holders, each behind a line of its own:
//! `fetch MIB HOLDERS MBIT_PER_S ROUND_TRIP_MS`. A smoke, not a benchmark: the
//! lines are imposed in this process.

use content::{Content, FetchOptions, Fetcher, Holder, HolderStream, ServeOptions, Server, Wanted};
use futures_util::future::BoxFuture;
use std::error::Error;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::time::{Instant, sleep_until};

const PACKET: usize = 16 << 10;
const CATCH_UP: Duration = Duration::from_millis(30);

/// One holder's line: packets leave one after another, and arrive later.
#[derive(Clone)]
struct Line {
    bytes_per_second: f64,
    one_way: Duration,
    free_at: Arc<Mutex<Instant>>,
}

struct Behind {
    name: String,
    server: Server,
    line: Line,
}

impl Line {
    /// When a packet that is sent now has left.
    fn leaves(&self, bytes: usize) -> Instant {
        let taken = u32::try_from(bytes).map_or(f64::MAX, f64::from) / self.bytes_per_second;
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        // A task that wakes up late catches up, as a real line's queue would.
        let earliest = Instant::now().checked_sub(CATCH_UP);
        let from = earliest.map_or(*free_at, |earliest| earliest.max(*free_at));
        *free_at = from + Duration::from_secs_f64(taken);
        *free_at
    }

    async fn carry(self, client: DuplexStream, server: DuplexStream) {
        let (mut from_client, to_client) = split(client);
        let (mut from_server, mut to_server) = split(server);
        let one_way = self.one_way;
        let asking = tokio::spawn(async move {
            let mut request = Vec::new();
            let _ = from_client.read_to_end(&mut request).await;
            tokio::time::sleep(one_way).await;
            let _ = to_server.write_all(&request).await;
            let _ = to_server.shutdown().await;
        });
        let (queue, mut arriving) = tokio::sync::mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
        let arrival = tokio::spawn(async move {
            let mut to_client = to_client;
            while let Some((at, packet)) = arriving.recv().await {
                sleep_until(at).await;
                if to_client.write_all(&packet).await.is_err() {
                    return;
                }
            }
            let _ = to_client.shutdown().await;
        });
        let mut packet = vec![0; PACKET];
        while let Ok(read @ 1..) = from_server.read(&mut packet).await {
            let leaves = self.leaves(read);
            if queue
                .send((leaves + one_way, packet[..read].to_vec()))
                .is_err()
            {
                break;
            }
            sleep_until(leaves).await;
        }
        drop(queue);
        let _ = (asking.await, arrival.await);
    }
}

impl Holder for Behind {
    fn name(&self) -> &str {
        &self.name
    }

    fn distance(&self) -> Duration {
        2 * self.line.one_way
    }

    fn open(&self) -> BoxFuture<'_, io::Result<HolderStream>> {
        let (client, ours) = duplex(1 << 20);
        let (theirs, far_end) = duplex(64 << 10);
        let server = self.server.clone();
        tokio::spawn(async move {
            let (reader, mut writer) = split(far_end);
            // What goes wrong is seen at the other end.
            let _ = server.serve(reader, &mut writer).await;
            let _ = writer.shutdown().await;
        });
        tokio::spawn(self.line.clone().carry(ours, theirs));
        let (reader, writer) = split(client);
        let stream = HolderStream {
            reader: Box::new(reader),
            writer: Box::new(writer),
        };
        Box::pin(std::future::ready(Ok(stream)))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let numbers: Result<Vec<u32>, _> = std::env::args().skip(1).map(|word| word.parse()).collect();
    let [mebibytes, count, megabits, round_trip_ms] = numbers?[..] else {
        return Err("say MIB HOLDERS MBIT_PER_S ROUND_TRIP_MS".into());
    };
    let place = std::env::temp_dir().join(format!("content-fetch-{}", std::process::id()));
    let theirs = Content::open(place.join("theirs"))?;
    let path = place.join("file");
    let mut bytes = vec![0; (mebibytes as usize) << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    std::fs::write(&path, &bytes)?;
    let hash = theirs.ingest_file(&path, false)?;
    let holder = |at: u32| -> Arc<dyn Holder> {
        Arc::new(Behind {
            name: format!("holder-{at}"),
            server: Server::new(theirs.clone(), ServeOptions::default()),
            line: Line {
                bytes_per_second: f64::from(megabits) * 125_000.0,
                one_way: Duration::from_millis(u64::from(round_trip_ms)) / 2,
                free_at: Arc::new(Mutex::new(Instant::now())),
            },
        })
    };
    let holders: Vec<_> = (0..count).map(holder).collect();
    let ours = Content::open(place.join("ours"))?;
    let client = Fetcher::new(ours.clone(), FetchOptions::default());
    let began = Instant::now();
    let fetched = client
        .fetch(Wanted::new(hash), &holders, &mut |_| {})
        .await?;
    let seconds = began.elapsed().as_secs_f64();
    let right = ours.read_verified(hash)? == bytes;
    let rate = f64::from(mebibytes) * 8.388_608 / seconds;
    let line = f64::from(megabits);
    writeln!(
        io::stdout(),
        "{mebibytes} MiB in {seconds:.2} s: {rate:.0} Mbit/s, {:.2} lines; right: {right}; {:?}",
        rate / line,
        fetched.from
    )?;
    std::fs::remove_dir_all(&place)?;
    Ok(())
}
