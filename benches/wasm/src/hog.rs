//! What a guest that computes without end costs its neighbours.
//!
//! Holds: the server with both is on one core, the generator on the other; the
//! same load is measured without the hog and beside it, interleaved; the hog
//! has a request under way all the while.

use crate::{Bench, Report, goals, server};
use bench_common::ask::Ask;
use bench_common::figure::{Figure, median};
use bench_common::http::Connection;
use bench_common::paced::{self, Latencies};
use bench_common::{Failure, closed, note, say};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Of what the server can do at most.
const SHARE: f64 = 0.5;

pub fn measure(bench: &Bench, report: Report) -> Result<(), Failure> {
    let server = server::start(bench, "h", 1)?;
    let asks = [Ask::new("/hello", 5)];
    let most = closed::run(
        server.http,
        bench.lengths.seconds,
        &bench.cores,
        &asks,
        &bench.scratch,
        false,
    )?;
    let rate = most.per_second() * SHARE;
    say(&format!(
        "    paced at {rate:.0} requests/s, half of the most"
    ));
    let run = || {
        let span = bench.lengths.paced;
        paced::run_on(&bench.cores.load, server.http, rate, span, &asks)
    };
    let (mut calm, mut beside): (Vec<Latencies>, Vec<Latencies>) = (Vec::new(), Vec::new());
    for _ in 0..bench.lengths.rounds {
        calm.push(run()?);
        beside.push(beside_hog(server.http, run)?);
    }
    let p99 = |runs: &[Latencies]| -> Vec<f64> { runs.iter().map(|one| one.p99_ms).collect() };
    for (name, runs) in [("alone", &calm), ("beside a hog", &beside)] {
        let lag: Vec<f64> = runs.iter().map(|one| one.lag_p99_ms).collect();
        let p50: Vec<f64> = runs.iter().map(|one| one.p50_ms).collect();
        note(&format!("{name}, p50 ms"), &p50);
        note(&format!("{name}, p99 ms"), &p99(runs));
        paced::doubt(name, median(&lag), median(&p99(runs)))?;
    }
    report(Figure {
        goal: goals::HOG,
        ours: median(&p99(&beside)),
        peer: Some(median(&p99(&calm))),
    });
    Ok(())
}

/// Measures while a guest loops; each time its limit ends it, another begins.
fn beside_hog(
    address: SocketAddr,
    run: impl FnOnce() -> Result<Latencies, Failure>,
) -> Result<Latencies, Failure> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let hog = scope.spawn(|| -> Result<u32, Failure> {
            let mut ended = 0;
            while !over.load(Ordering::Acquire) {
                let mut ask = Ask::new("/loop", 0);
                server::HOG.clone_into(&mut ask.host);
                let answer = Connection::open(address)?.ask(&ask)?;
                if answer.status == 200 {
                    return Err("the hog answered".into());
                }
                ended += 1;
            }
            Ok(ended)
        });
        let found = run();
        over.store(true, Ordering::Release);
        let ended = hog.join().map_err(|_| "the hog's thread panicked")??;
        say(&format!("    the hog was ended {ended} times"));
        found
    })
}
