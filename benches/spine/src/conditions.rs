//! Says under what conditions the figures were measured.

use crate::peers::Kind;
use crate::site::FILES;
use crate::{Lengths, Spine};
use bench_common::Failure;
use bench_common::closed::CONNECTIONS;
use bench_common::conditions::{Line, machine, pinning};

pub fn all(spine: &Spine) -> Result<Vec<Line>, Failure> {
    let mut lines = machine(&spine.programs.homeostat)?;
    lines.push(("peers", peers()));
    lines.push(pinning(&spine.cores, "static figures"));
    lines.extend(work(&spine.lengths));
    Ok(lines)
}

fn peers() -> String {
    let versions = [Kind::Nginx, Kind::Httpd, Kind::Etcd].map(|kind| match kind.find() {
        Some(program) => kind.version(&program),
        None => format!(
            "{} is missing (Debian package {}), so its figures have no peer",
            kind.name(),
            kind.package()
        ),
    });
    versions.join("; ")
}

fn work(lengths: &Lengths) -> Vec<Line> {
    vec![
        (
            "site",
            format!("{FILES} files of 1 to 16 KiB that do not compress, asked for in turn"),
        ),
        (
            "logging",
            "access log on in all; peers' buffered for up to a second as ours is".to_owned(),
        ),
        ("TLS", "off".to_owned()),
        (
            "closed loop",
            format!(
                "wrk, {CONNECTIONS} kept connections; CPU is user+system of all processes of a server, by /proc"
            ),
        ),
        (
            "fixed rate",
            format!(
                "own open-loop generator, one thread, {CONNECTIONS} kept connections, even gaps; latency counts from when a request was due"
            ),
        ),
        (
            "durable writes",
            "256 bytes, each synced before it is acknowledged; ours called in process as the agent does, etcd by gRPC over at most 8 kept connections from the same client program"
                .to_owned(),
        ),
        (
            "kills",
            format!(
                "{} of agent and edge each, the longest counts; {} of replicas, from the signal to the start that the shim records",
                lengths.kills, lengths.restarts
            ),
        ),
        (
            "idle",
            format!("{} s after `up`, site and 2 replicas running", lengths.idle.as_secs()),
        ),
        (
            "runs",
            format!(
                "{} interleaved, medians; {} s closed, {} s paced, {} s of writes",
                lengths.rounds,
                lengths.seconds,
                lengths.paced.as_secs(),
                lengths.writes_seconds
            ),
        ),
    ]
}
