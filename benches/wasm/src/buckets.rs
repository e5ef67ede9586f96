//! Durable sets per second of a bucket, over its socket, against etcd and Redis.
//!
//! Holds: 64 clients with one set of 256 bytes under way each, the same disk;
//! each is acknowledged only when it is synced.

use crate::{Bench, Report, goals};
use bench_common::child::{Child, free_address, installed};
use bench_common::figure::{Figure, median};
use bench_common::{Failure, beside, note};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

const CLIENTS: &str = "64";
const ETCD: &str = include_str!("../../spine/etcd.flags");
const REDIS: &str = include_str!("../redis.conf");

pub fn measure(bench: &Bench, report: Report) -> Result<(), Failure> {
    let sets = beside("examples/sets")?;
    let writes = beside("examples/writes")?;
    let home = bench.directory("b")?;
    let _serving = Serving::start(&sets, &home)?;
    let etcd = installed(&["etcd"]).map(|program| start_etcd(bench, &program));
    let redis = installed(&["redis-server"]).map(|program| start_redis(bench, &program));
    let (etcd, redis) = (etcd.transpose()?, redis.transpose()?);
    let (mut ours, mut of_etcd, mut of_redis) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.lengths.rounds {
        ours.push(run(bench, &sets, &home.to_string_lossy())?);
        if let Some(peer) = &etcd {
            of_etcd.push(run(bench, &writes, &format!("http://{}", peer.address))?);
        }
        if let Some(peer) = &redis {
            of_redis.push(run(bench, &sets, &format!("redis://{}", peer.address))?);
        }
    }
    note("homeostat, sets/s", &ours);
    note("etcd, sets/s", &of_etcd);
    note("redis, sets/s", &of_redis);
    for (goal, theirs) in [(goals::SETS_ETCD, &of_etcd), (goals::SETS_REDIS, &of_redis)] {
        report(Figure {
            goal,
            ours: median(&ours),
            peer: (!theirs.is_empty()).then(|| median(theirs)),
        });
    }
    Ok(())
}

/// The program's line: `clients 64, writes/s 2571, p50 …`.
fn run(bench: &Bench, program: &Path, target: &str) -> Result<f64, Failure> {
    let output = Command::new(program)
        .args([target, CLIENTS, &bench.lengths.seconds.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let rate = said
        .split_once("writes/s ")
        .and_then(|(_, rest)| rest.split(',').next()?.trim().parse().ok());
    rate.filter(|_| output.status.success()).ok_or_else(|| {
        let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
        format!(
            "sets to {target} ended with {}: {said}{wrong}",
            output.status
        )
        .into()
    })
}

/// Our server; ended when it is dropped.
struct Serving(std::process::Child);

impl Serving {
    fn start(program: &Path, home: &Path) -> Result<Self, Failure> {
        let mut child = Command::new(program)
            .arg("serve")
            .arg(home)
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("no output")?;
        let serving = Self(child);
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        if line.trim() == "serving" {
            return Ok(serving);
        }
        Err(format!("the bucket server said `{}`", line.trim()).into())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_etcd(bench: &Bench, program: &Path) -> Result<Child, Failure> {
    let (home, address) = (bench.directory("etcd")?, free_address()?);
    let text = ETCD
        .replace("@PORT@", &address.port().to_string())
        .replace("@PEER_PORT@", &free_address()?.port().to_string())
        .replace("@HERE@", &home.to_string_lossy());
    let mut command = Command::new(program);
    command.args(text.lines());
    Child::start("etcd", command, address, &home)
}

fn start_redis(bench: &Bench, program: &Path) -> Result<Child, Failure> {
    let (home, address) = (bench.directory("redis")?, free_address()?);
    let text = REDIS
        .replace("@PORT@", &address.port().to_string())
        .replace("@HERE@", &home.to_string_lossy());
    let file = home.join("redis.conf");
    fs::write(&file, text)?;
    let mut command = Command::new(program);
    command.arg(&file);
    Child::start("redis-server", command, address, &home)
}
