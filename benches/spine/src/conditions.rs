//! Says under what conditions the figures were measured.

use crate::closed::CONNECTIONS;
use crate::machine::{cpu_model, first_line, said_by};
use crate::peers::Kind;
use crate::site::FILES;
use crate::{Failure, Lengths, Spine, data};
use std::path::Path;

pub fn tell(spine: &Spine) -> Result<(), Failure> {
    for (key, value) in machine(spine)?.into_iter().chain(work(&spine.lengths)) {
        data(&format!("condition {key}: {value}"))?;
    }
    Ok(())
}

/// Others on the machine may have come meanwhile.
pub fn tell_end() -> Result<(), Failure> {
    let load = first_line("/proc/loadavg");
    Ok(data(&format!("condition load average at end: {load}"))?)
}

type Line = (&'static str, String);

fn machine(spine: &Spine) -> Result<Vec<Line>, Failure> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let versions: Vec<String> = [Kind::Nginx, Kind::Httpd, Kind::Etcd]
        .into_iter()
        .map(|kind| match kind.find() {
            Some(program) => kind.version(&program),
            None => format!(
                "{} is missing (Debian package {}), so its figures have no peer",
                kind.name(),
                kind.package()
            ),
        })
        .collect();
    let place = spine.programs.homeostat.parent();
    let profile = place.and_then(Path::file_name).unwrap_or_default();
    let profile = profile.to_string_lossy();
    let described = ["describe", "--always", "--dirty", "--abbrev=7"];
    let sources = said_by(Path::new("git"), &described)
        .filter(|said| !said.contains(' '))
        .unwrap_or_else(|| "unknown".to_owned());
    let pinning = if spine.cores.are_shared() {
        "servers and load share the only core".to_owned()
    } else {
        format!(
            "static figures: servers on {:?}, load on {:?}, alike for all; else unpinned",
            spine.cores.server, spine.cores.load
        )
    };
    Ok(vec![
        ("cores", format!("{all}, {}", cpu_model())),
        ("kernel", first_line("/proc/sys/kernel/osrelease")),
        ("load average at start", first_line("/proc/loadavg")),
        (
            "homeostat",
            said_by(&spine.programs.homeostat, &["--version"]).unwrap_or_default()
                + &format!(
                    ", sources {sources}, cargo's `{profile}` profile, started by `homeostat up`"
                ),
        ),
        ("peers", versions.join("; ")),
        (
            "wrk",
            said_by(Path::new("wrk"), &["-v"])
                .ok_or("wrk is not installed (Debian package wrk)")?,
        ),
        ("cores used", pinning),
    ])
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
