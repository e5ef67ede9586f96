//! Heartbeats between agents beside bulk that saturates a narrow link.
//!
//! In: the transport's own example, run as root. Out: its 99th percentiles,
//! beside bulk and idle.

use crate::{Bench, Report, goals};
use bench_common::figure::Figure;
use bench_common::{Failure, beside, conditions, say};
use std::process::Command;

const SENDERS: u32 = 3;

pub fn measure(bench: &Bench, report: Report) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        say("    no network namespaces can be made here: `heartbeat` needs root");
        report(Figure::alone(goals::HEARTBEAT, f64::NAN));
        return Ok(());
    }
    let seconds = bench.lengths.beats.as_secs();
    let output = Command::new(beside("examples/heartbeat")?)
        .args([seconds.to_string(), SENDERS.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("heartbeat ended with {}: {why}", output.status).into());
    }
    for line in said.lines() {
        say(&format!("    {line}"));
    }
    conditions::tell([(
        "heartbeats",
        format!(
            "{seconds} s each, {SENDERS} senders of bulk to one receiver, 100 Mbit/s by tbf, 20 ms there and back, transports of one process in namespaces"
        ),
    )])?;
    let p99 = |name: &str| {
        let line = said.lines().find(|line| line.starts_with(name));
        line.and_then(p99_ms)
            .ok_or_else(|| format!("heartbeat told nothing of `{name}`"))
    };
    report(Figure {
        goal: goals::HEARTBEAT,
        ours: p99("beside bulk")?,
        peer: Some(p99("idle")?),
    });
    Ok(())
}

fn p99_ms(line: &str) -> Option<f64> {
    line.split_once(" p99 ")?
        .1
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_percentile_is_read_from_a_line() {
        let line =
            "idle                           483 beats  p50   20.9 ms  p99   30.1 ms  max   35.0 ms";
        assert_eq!(p99_ms(line), Some(30.1));
    }
}
