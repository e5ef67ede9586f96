//! An instance's start, and a call to a warm one, in this process.
//!
//! Holds: a start is the whole of a request that has an instance of its own; a
//! warm call is the whole of a request to an instance that answered before,
//! less the same request to a handler that is no guest.

use crate::idle::{answered, service};
use crate::{Bench, Report, goals};
use bench_common::figure::{Figure, median, quantile};
use bench_common::{Failure, say};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use std::time::Instant;
use wasm::{CompiledCache, Host, Limits};

pub fn measure(bench: &Bench, report: Report) -> Result<(), Failure> {
    let host = Host::new()?;
    let cache = CompiledCache::open(&bench.directory("c")?)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let fresh = service(&host, &cache, guests::PROBE, Limits::default())?;
    let reused = Limits {
        reuse: u32::MAX,
        ..Limits::default()
    };
    let reused = service(&host, &cache, guests::PROBE, reused)?;
    let calls = bench.lengths.calls;
    let start = timed(&runtime, calls, || answered(&fresh))?;
    let warm = timed(&runtime, calls, || answered(&reused))?;
    let bare = timed(&runtime, calls, handled)?;
    for (name, spans) in [
        ("fresh instance", &start),
        ("warm instance", &warm),
        ("bare handler", &bare),
    ] {
        say(&format!(
            "    request to a {name}, us: median {:.2}, p99 {:.2}",
            median(spans),
            quantile(spans, 0.99)
        ));
    }
    report(Figure::alone(goals::START, median(&start)));
    report(Figure::alone(goals::CALL, median(&warm) - median(&bare)));
    Ok(())
}

/// The same answer without a guest.
async fn handled() -> Result<(), Failure> {
    let answer = http::Response::new(Full::new(Bytes::from_static(b"hello")));
    let body = std::hint::black_box(answer).into_body().collect().await?;
    let hello = body.to_bytes();
    if &hello[..] == b"hello" {
        Ok(())
    } else {
        Err("the handler said something else".into())
    }
}

/// Microseconds of each call, after some that warm up.
fn timed<F>(
    runtime: &tokio::runtime::Runtime,
    calls: u32,
    mut call: impl FnMut() -> F,
) -> Result<Vec<f64>, Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    runtime.block_on(async {
        for _ in 0..calls / 10 {
            call().await?;
        }
        let mut spans = Vec::new();
        for _ in 0..calls {
            let begun = Instant::now();
            call().await?;
            spans.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        Ok(spans)
    })
}
