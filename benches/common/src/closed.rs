//! Closed-loop load: `wrk`, with the same connections for every server.
//!
//! In: an address, what to ask. Out: how many good answers came in what time.
//! Holds: one bad status, one socket error or too few bytes fail the run; only a
//! peer may close a kept connection now and then, which is counted and said.

use crate::Failure;
use crate::ask::Ask;
use crate::machine::{Cores, pinned};
use serde::Deserialize;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

pub const CONNECTIONS: usize = 64;
/// A head is smaller than this.
const HEAD_BYTES_MAX: f64 = 1024.0;
/// Of a peer's answers, how many connections closed under a request are its way
/// (httpd's event MPM does so when a child's threads are all busy).
const PEER_CLOSED_SHARE_MAX: f64 = 0.001;

/// As `wrk` counts them; a status is one above 399.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Errors {
    pub connect: u64,
    pub read: u64,
    pub write: u64,
    pub status: u64,
    pub timeout: u64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Came {
    pub requests: f64,
    pub bytes: f64,
    pub seconds: f64,
    pub errors: Errors,
}

impl Came {
    pub fn per_second(&self) -> f64 {
        self.requests / self.seconds
    }
}

/// * `asks`: asked for in turn, each as often as any other.
/// * `scratch`: a directory for what `wrk` reads.
pub fn run(
    address: SocketAddr,
    seconds: u64,
    cores: &Cores,
    asks: &[Ask],
    scratch: &Path,
    is_peer: bool,
) -> Result<Came, Failure> {
    let script = scratch.join("asks.lua");
    fs::write(&script, include_str!("../asks.lua"))?;
    let output = pinned(&cores.load, Path::new("wrk"))
        .args(["-t", &cores.load.len().to_string()])
        .args(["-c", &CONNECTIONS.to_string()])
        .args(["-d", &format!("{seconds}s")])
        .arg("-s")
        .arg(script)
        .arg(format!("http://{address}/"))
        .arg("--")
        .args(asks.iter().flat_map(|ask| [&ask.host, &ask.path]))
        .output()
        .map_err(|why| format!("wrk does not run: {why}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let came = said
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str::<Came>(line).ok())
        .ok_or_else(|| {
            let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
            format!("wrk said nothing to count: {said}{wrong}")
        })?;
    check(&came, mean_bytes(asks), is_peer).map_err(|why| format!("{address}: {why}"))?;
    Ok(came)
}

fn mean_bytes(asks: &[Ask]) -> f64 {
    let total: usize = asks.iter().map(|ask| ask.bytes).sum();
    #[expect(clippy::cast_precision_loss, reason = "answers are small and few")]
    let mean = total as f64 / asks.len() as f64;
    mean
}

/// Each is asked for as often as any other, so the bytes are known.
fn check(came: &Came, mean_bytes: f64, is_peer: bool) -> Result<(), String> {
    let mut errors = came.errors;
    let closed = f64::from(u32::try_from(errors.read).unwrap_or(u32::MAX));
    if is_peer && closed <= came.requests * PEER_CLOSED_SHARE_MAX {
        errors.read = 0;
    }
    if errors != Errors::default() {
        return Err(format!("answers failed: {:?}", came.errors));
    }
    if came.requests < 1.0 {
        return Err("no answer came".to_owned());
    }
    let each = came.bytes / came.requests;
    // What is under way at the end has come in part.
    let (least, most) = (mean_bytes * 0.97, mean_bytes * 1.03 + HEAD_BYTES_MAX);
    if (least..=most).contains(&each) {
        Ok(())
    } else {
        Err(format!(
            "an answer had {each:.0} bytes on average, its body should have {mean_bytes:.0}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_with_failures_or_wrong_sizes_does_not_count() {
        let good = Came {
            requests: 1000.0,
            bytes: 8_900_000.0,
            seconds: 1.0,
            errors: Errors::default(),
        };
        assert_eq!(check(&good, 8_700.0, false), Ok(()));
        let errors = Errors {
            read: 1,
            ..Errors::default()
        };
        let closed = Came { errors, ..good };
        assert!(check(&closed, 8_700.0, false).is_err());
        assert_eq!(check(&closed, 8_700.0, true), Ok(()));
        let status = Errors {
            status: 1,
            ..Errors::default()
        };
        let refused = Came {
            errors: status,
            ..good
        };
        assert!(check(&refused, 8_700.0, true).is_err());
        let empty = Came {
            bytes: 300_000.0,
            ..good
        };
        assert!(check(&empty, 8_700.0, true).is_err());
        let nothing = Came {
            requests: 0.0,
            ..good
        };
        assert!(check(&nothing, 8_700.0, true).is_err());
    }
}
