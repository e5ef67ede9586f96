//! Small static files over kept connections: CPU per request, and the 99th
//! percentile at half of nginx's peak.
//!
//! Holds: all servers are up together, on the same cores, the load on the
//! others; runs are interleaved; before the first and after the last run each
//! server's files are compared byte for byte.

use crate::peers::{self, Kind};
use crate::{Spine, goals};
use bench_common::child::Child;
use bench_common::closed::{self, Came};
use bench_common::figure::{Figure, median};
use bench_common::machine::cpu_seconds;
use bench_common::node::Node;
use bench_common::paced::{self, Latencies};
use bench_common::{Failure, data, note, say};
use std::collections::BTreeSet;
use std::net::SocketAddr;

enum Server {
    Ours(Box<Node>),
    Peer(Kind, Child),
}

impl Server {
    fn name(&self) -> &'static str {
        match self {
            Self::Ours(_) => "homeostat",
            Self::Peer(kind, _) => kind.name(),
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Ours(node) => node.http,
            Self::Peer(_, peer) => peer.address,
        }
    }

    fn closed_run(&self, spine: &Spine, seconds: u64) -> Result<Came, Failure> {
        let is_peer = matches!(self, Self::Peer(..));
        let (address, asks) = (self.address(), &spine.site.asks());
        let came = closed::run(
            address,
            seconds,
            &spine.cores,
            asks,
            &spine.scratch,
            is_peer,
        )
        .map_err(|why| format!("{}: {why}", self.name()))?;
        if came.errors.read > 0 {
            let (name, read) = (self.name(), came.errors.read);
            data(&format!(
                "condition closed loop, {name}: closed {read} kept connections under a request"
            ))?;
        }
        Ok(came)
    }

    fn processes(&self) -> BTreeSet<u32> {
        let pids = match self {
            Self::Ours(node) => node.processes(),
            Self::Peer(_, peer) => peer.processes(),
        };
        pids.into_iter().collect()
    }
}

/// A server's runs: CPU seconds per million requests, requests per second.
struct Runs {
    server: Server,
    cpu: Vec<f64>,
    rate: Vec<f64>,
}

pub fn measure(spine: &Spine, report: &mut impl FnMut(Figure)) -> Result<(), Failure> {
    let mut all = start(spine)?;
    for runs in &all {
        spine.site.verify(runs.server.address())?;
        runs.server.closed_run(spine, 1)?;
    }
    for _ in 0..spine.lengths.rounds {
        for runs in &mut all {
            closed_run(spine, runs)?;
        }
    }
    for runs in &all {
        let name = runs.server.name();
        note(&format!("{name}, CPU s per 1e6 requests"), &runs.cpu);
        note(&format!("{name}, requests/s at most"), &runs.rate);
    }
    let of = |wanted: &str| all.iter().find(|runs| runs.server.name() == wanted);
    let ours = median(&of("homeostat").ok_or("our node is missing")?.cpu);
    for (goal, peer) in [(goals::CPU_NGINX, "nginx"), (goals::CPU_HTTPD, "httpd")] {
        report(Figure {
            goal,
            ours,
            peer: of(peer).map(|runs| median(&runs.cpu)),
        });
    }
    let (ours, peer) = paced(spine, &all)?;
    report(Figure {
        goal: goals::P99,
        ours,
        peer,
    });
    for runs in &all {
        spine.site.verify(runs.server.address())?;
    }
    Ok(())
}

fn start(spine: &Spine) -> Result<Vec<Runs>, Failure> {
    let home = spine.directory("s")?;
    let node = spine.node(&home, 1, Some(&spine.cores.server))?;
    node.up()?;
    let mut servers = vec![Server::Ours(Box::new(node))];
    for kind in [Kind::Nginx, Kind::Httpd] {
        let Some(program) = kind.find() else {
            continue;
        };
        let home = spine.directory(kind.name())?;
        let cores = Some(&*spine.cores.server);
        let peer = peers::start(kind, &program, &home, &spine.site.directory, cores)?;
        servers.push(Server::Peer(kind, peer));
    }
    let runs = servers.into_iter().map(|server| Runs {
        server,
        cpu: Vec::new(),
        rate: Vec::new(),
    });
    Ok(runs.collect())
}

fn closed_run(spine: &Spine, runs: &mut Runs) -> Result<(), Failure> {
    let before = runs.server.processes();
    let used = cpu_seconds(&before);
    let came = runs.server.closed_run(spine, spine.lengths.seconds)?;
    let after = runs.server.processes();
    if !before.is_subset(&after) {
        return Err(format!("a process of {} ended in a run", runs.server.name()).into());
    }
    let used = cpu_seconds(&after) - used;
    runs.cpu.push(used * 1e6 / came.requests);
    runs.rate.push(came.per_second());
    Ok(())
}

/// Medians of the 99th percentiles, ours and nginx's, ms.
fn paced(spine: &Spine, all: &[Runs]) -> Result<(f64, Option<f64>), Failure> {
    let peer = all.iter().find(|runs| runs.server.name() == "nginx");
    let Some(base) = peer.or_else(|| all.first()) else {
        return Err("there is no server".into());
    };
    let rate = median(&base.rate) / 2.0;
    say(&format!(
        "    paced at {rate:.0} requests/s, half of {}'s most",
        base.server.name()
    ));
    let mut found = [Vec::new(), Vec::new()];
    for _ in 0..spine.lengths.rounds {
        for (runs, found) in all.iter().zip(&mut found) {
            found.push(paced_run(spine, runs, rate)?);
        }
    }
    let mut medians = [None, None];
    for ((runs, found), median_ms) in all.iter().zip(&found).zip(&mut medians) {
        let p99: Vec<f64> = found.iter().map(|one| one.p99_ms).collect();
        let p50: Vec<f64> = found.iter().map(|one| one.p50_ms).collect();
        let answers: u64 = found.iter().map(|one| one.count).sum();
        let lag: Vec<f64> = found.iter().map(|one| one.lag_p99_ms).collect();
        let name = runs.server.name();
        say(&format!("    {name}, paced: {answers} answers, all right"));
        note(&format!("{name}, paced p50 ms"), &p50);
        note(&format!("{name}, paced p99 ms"), &p99);
        note(&format!("{name}, generator's lag p99 ms"), &lag);
        paced::doubt(name, median(&lag), median(&p99))?;
        *median_ms = Some(median(&p99));
    }
    let peer = peer.and(medians[1]);
    Ok((medians[0].ok_or("nothing was paced")?, peer))
}

fn paced_run(spine: &Spine, runs: &Runs, rate: f64) -> Result<Latencies, Failure> {
    let (address, span) = (runs.server.address(), spine.lengths.paced);
    paced::run_on(&spine.cores.load, address, rate, span, &spine.site.asks())
        .map_err(|why| format!("{}: {why}", runs.server.name()).into())
}
