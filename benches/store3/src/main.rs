//! Measures durable writes of a store with three members against etcd with three.
//!
//! In: `--quick`. Out: conditions and figures on standard output, single runs on
//! standard error.
//! Holds: both have three processes on this machine and one disk, TLS with
//! certificates of both sides between them, and the same client; writes go to the
//! member that leads, ours called in its process as the agent does, etcd by gRPC
//! with TLS over kept connections. A figure that is short is said and is no
//! failure.

mod etcd;
mod goals;
mod ours;

use bench_common::figure::{Figure, median};
use bench_common::machine::{cpu_model, first_line, said_by};
use bench_common::{Failure, conditions, note, say};
use etcd::Etcd;
use ours::Ours;
use std::path::Path;
use std::process::ExitCode;

pub const MEMBERS: u16 = 3;

struct Lengths {
    rounds: u32,
    seconds: u64,
}

const FULL: Lengths = Lengths {
    rounds: 5,
    seconds: 5,
};
const QUICK: Lengths = Lengths {
    rounds: 3,
    seconds: 2,
};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let lengths = match words
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [] => FULL,
        ["--quick"] => QUICK,
        _ => {
            say("usage: bench-store3 [--quick]");
            return ExitCode::from(2);
        }
    };
    match run(&lengths) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&format!("bench store3: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn run(lengths: &Lengths) -> Result<(), Failure> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let peer = said_by(Path::new("etcd"), &["--version"]);
    let missing = "etcd is missing (Debian package etcd-server), so the figures have no peer";
    conditions::tell([
        ("cores", format!("{all}, {}", cpu_model())),
        ("kernel", first_line("/proc/sys/kernel/osrelease")),
        ("load average at start", first_line("/proc/loadavg")),
        ("peer", peer.unwrap_or_else(|| missing.to_owned())),
        (
            "work",
            format!(
                "puts of 256 bytes, each synced by a majority of {MEMBERS} before it is acknowledged; {} rounds of {} s in turns, medians",
                lengths.rounds, lengths.seconds
            ),
        ),
    ])?;
    bench_common::report(|report| {
        let scratch = tempfile::Builder::new().prefix("hs3").tempdir()?;
        let mut ours = Ours::start(&scratch.path().join("ours"))?;
        let peer = Etcd::start(&scratch.path().join("etcd"))?;
        for (goal, clients) in [(goals::WRITES_1, 1), (goals::WRITES_64, 64)] {
            let (mut of_ours, mut of_peer) = (Vec::new(), Vec::new());
            for _ in 0..lengths.rounds {
                of_ours.push(ours.writes(clients, lengths.seconds)?);
                if let Some(peer) = &peer {
                    of_peer.push(peer.writes(clients, lengths.seconds)?);
                }
            }
            note(&format!("homeostat, writes/s by {clients}"), &of_ours);
            note(&format!("etcd, writes/s by {clients}"), &of_peer);
            report(Figure {
                goal,
                ours: median(&of_ours),
                peer: peer.as_ref().map(|_| median(&of_peer)),
            });
        }
        Ok(())
    })
}

/// Of a line `clients 64, writes/s 2571, p50 …`.
pub fn rate(line: &str) -> Result<f64, Failure> {
    let rate = line.split_once("writes/s ").map(|(_, rest)| rest);
    let rate = rate.and_then(|rest| rest.split(',').next()?.trim().parse().ok());
    rate.ok_or_else(|| format!("no rate in `{line}`").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_the_line() {
        let found = rate("clients 64, writes/s 2571, p50 1 us").expect("a rate");
        assert!((found - 2571.0).abs() < 1e-9);
        assert!(rate("no line").is_err());
    }
}
