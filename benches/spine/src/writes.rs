//! Durable writes per second: the embedded store, and one etcd member.
//!
//! Holds: the same client program, the same disk, each write acknowledged only
//! when it is synced; ours is called in its process, as the agent calls it, and
//! etcd over kept gRPC connections.

use crate::peers::{self, Kind};
use crate::{Spine, goals};
use bench_common::figure::{Figure, median};
use bench_common::{Failure, note};
use std::path::Path;
use std::process::Command;

pub fn measure(spine: &Spine, report: &mut impl FnMut(Figure)) -> Result<(), Failure> {
    let ours_at = spine.directory("w")?;
    let peer = match Kind::Etcd.find() {
        None => None,
        Some(program) => {
            let home = spine.directory("etcd")?;
            Some(peers::start(Kind::Etcd, &program, &home, &home, None)?)
        }
    };
    let address = peer.as_ref().map(|peer| format!("http://{}", peer.address));
    for (goal, clients) in [(goals::WRITES_1, 1), (goals::WRITES_64, 64)] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..spine.lengths.rounds {
            ours.push(run(spine, ours_at.as_os_str(), clients)?);
            if let Some(address) = &address {
                theirs.push(run(spine, address.as_ref(), clients)?);
            }
        }
        note(&format!("homeostat, writes/s by {clients}"), &ours);
        if address.is_some() {
            note(&format!("etcd, writes/s by {clients}"), &theirs);
        }
        report(Figure {
            goal,
            ours: median(&ours),
            peer: address.as_ref().map(|_| median(&theirs)),
        });
    }
    Ok(())
}

fn run(spine: &Spine, target: &std::ffi::OsStr, clients: u32) -> Result<f64, Failure> {
    let output = Command::new(&spine.programs.writes)
        .arg(target)
        .arg(clients.to_string())
        .arg(spine.lengths.writes_seconds.to_string())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let rate = rate(&said).filter(|_| output.status.success());
    rate.ok_or_else(|| {
        let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
        let target = Path::new(target).display();
        format!(
            "writes to {target} ended with {}: {said}{wrong}",
            output.status
        )
        .into()
    })
}

/// Of a line `clients 64, writes/s 2571, p50 …`.
fn rate(line: &str) -> Option<f64> {
    let (_, rest) = line.split_once("writes/s ")?;
    rest.split(',').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_the_line() {
        assert_eq!(
            rate("clients 64, writes/s 2571, p50 1 us, p99 2 us\n"),
            Some(2571.0)
        );
        assert_eq!(rate("no line"), None);
    }
}
