//! How writers are measured, for each example that writes durably.
//!
//! In: what each client writes to, how long. Out: one line: clients, writes per
//! second, median and 99th percentile in microseconds.
//! Holds: each client has one write under way, to keys of its own.

use hdrhistogram::Histogram;
use std::io::Write;
use std::time::{Duration, Instant};

pub const VALUE_BYTES: usize = 256;
const KEYS_PER_CLIENT: u64 = 1_000;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

pub trait Target: Send + 'static {
    /// Returns once it is acknowledged.
    fn write(
        &mut self,
        key: &str,
        value: Vec<u8>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

async fn client(
    mut target: impl Target,
    number: usize,
    until: Instant,
) -> Result<Vec<u64>, Failure> {
    let mut spans_us = Vec::new();
    for round in 0_u64.. {
        let since = Instant::now();
        if since >= until {
            break;
        }
        let key = format!("{number}/{}", round % KEYS_PER_CLIENT);
        target.write(&key, vec![b'x'; VALUE_BYTES]).await?;
        spans_us.push(u64::try_from(since.elapsed().as_micros())?);
    }
    Ok(spans_us)
}

/// * `targets`: one for each client.
pub async fn measure(targets: Vec<impl Target>, seconds: u64) -> Result<(), Failure> {
    let clients = targets.len();
    let since = Instant::now();
    let until = since + Duration::from_secs(seconds);
    let running: Vec<_> = targets
        .into_iter()
        .enumerate()
        .map(|(number, target)| tokio::spawn(client(target, number, until)))
        .collect();
    let mut spans_us = Histogram::<u64>::new(3)?;
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
