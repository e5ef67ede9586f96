//! Requests to a component over kept connections: CPU per request and requests
//! per second.
//!
//! Holds: all servers are up together, on the same cores, the load on the
//! others; runs are interleaved. With an instance for each request, as the peer
//! does by itself, and, for people to see, with instances reused.

use crate::{Bench, Report, goals, peer, server};
use bench_common::ask::Ask;
use bench_common::child::Child;
use bench_common::closed;
use bench_common::figure::{Figure, median};
use bench_common::machine::cpu_seconds;
use bench_common::node::Node;
use bench_common::{Failure, note};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Requests of one instance, in the runs where it is used again.
const REUSE: u32 = 1_000;

enum Server {
    Ours(Box<Node>),
    Peer(Child),
}

impl Server {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Ours(node) => node.http,
            Self::Peer(child) => child.address,
        }
    }

    fn processes(&self) -> BTreeSet<u32> {
        let pids = match self {
            Self::Ours(node) => node.processes(),
            Self::Peer(child) => child.processes(),
        };
        pids.into_iter().collect()
    }
}

struct Runs {
    name: &'static str,
    server: Server,
    /// Microseconds of CPU per request.
    cpu: Vec<f64>,
    rate: Vec<f64>,
}

pub fn measure(bench: &Bench, report: Report) -> Result<(), Failure> {
    let mut all = start(bench)?;
    for runs in &mut all {
        closed_run(bench, runs, 1)?;
        runs.cpu.clear();
        runs.rate.clear();
    }
    for _ in 0..bench.lengths.rounds {
        for runs in &mut all {
            closed_run(bench, runs, bench.lengths.seconds)?;
        }
    }
    for runs in &all {
        note(&format!("{}, CPU us per request", runs.name), &runs.cpu);
        note(&format!("{}, requests/s at most", runs.name), &runs.rate);
    }
    let of = |name: &str| all.iter().find(|runs| runs.name == name);
    let ours = of(OURS).ok_or("our server is missing")?;
    let peer = of(PEER);
    report(Figure {
        goal: goals::CPU,
        ours: median(&ours.cpu),
        peer: peer.map(|runs| median(&runs.cpu)),
    });
    report(Figure {
        goal: goals::RATE,
        ours: median(&ours.rate),
        peer: peer.map(|runs| median(&runs.rate)),
    });
    Ok(())
}

const OURS: &str = "homeostat";
const PEER: &str = "wasmtime serve";

fn start(bench: &Bench) -> Result<Vec<Runs>, Failure> {
    let runs = |name, server| Runs {
        name,
        server,
        cpu: Vec::new(),
        rate: Vec::new(),
    };
    let ours = |home: &str, reuse| -> Result<Server, Failure> {
        Ok(Server::Ours(Box::new(server::start(bench, home, reuse)?)))
    };
    let mut all = vec![
        runs(OURS, ours("s", 1)?),
        runs("homeostat, reused", ours("sr", REUSE)?),
    ];
    let Some(program) = peer::find() else {
        return Ok(all);
    };
    for (name, home, reuse) in [(PEER, "p", 1), ("wasmtime serve, reused", "pr", REUSE)] {
        let home = bench.directory(home)?;
        let peer = peer::start(
            &program,
            &bench.component,
            &home,
            &bench.cores.server,
            reuse,
        )?;
        all.push(runs(name, Server::Peer(peer)));
    }
    Ok(all)
}

fn closed_run(bench: &Bench, runs: &mut Runs, seconds: u64) -> Result<(), Failure> {
    let before = runs.server.processes();
    let used = cpu_seconds(&before);
    let came = closed::run(
        runs.server.address(),
        seconds,
        &bench.cores,
        &[Ask::new("/hello", 5)],
        &bench.scratch,
        matches!(runs.server, Server::Peer(_)),
    )
    .map_err(|why| format!("{}: {why}", runs.name))?;
    let after = runs.server.processes();
    if !before.is_subset(&after) {
        return Err(format!("a process of {} ended in a run", runs.name).into());
    }
    runs.cpu
        .push((cpu_seconds(&after) - used) * 1e6 / came.requests);
    runs.rate.push(came.per_second());
    Ok(())
}
