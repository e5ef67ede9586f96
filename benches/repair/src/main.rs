//! Measures how soon a cluster is what was wished again.
//!
//! In: `--quick`, and names of parts to measure alone; or `chaos`, for any number of
//! random faults. Out: conditions and figures
//! on standard output, single runs on standard error.
//! Holds: a figure that is short is said and is no failure; an error ends all
//! without its figures.

mod chaos;
mod cluster;
mod edges;
mod goals;
mod leader;
mod load;
mod replica;
mod restart;
mod seats;
mod singleton;

use bench_common::figure::Figure;
use bench_common::machine::{cpu_model, first_line};
use bench_common::{Failure, conditions, say};
use cluster::{Cluster, HOST};
use std::process::ExitCode;

type Report<'a> = &'a mut dyn FnMut(Figure);
type Part = fn(&Cluster, usize, Report) -> Result<(), Failure>;

/// Without a lab.
const RESTART: &str = "restart";
/// With how many power cuts each is measured in full.
const PARTS: [(&str, Part, usize); 5] = [
    ("edges", edges::measure, 30),
    ("replica", replica::measure, 30),
    ("singleton", singleton::measure, 50),
    ("leader", leader::measure, 50),
    ("seats", seats::measure, 30),
];
const RESTARTS: usize = 50;
/// Of each part.
const QUICK: usize = 5;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some((_, rest)) = words.split_first().filter(|(first, _)| *first == "chaos") {
        return ended(chaos::run(rest));
    }
    let (flags, parts): (Vec<_>, Vec<_>) = words.iter().partition(|word| word.starts_with('-'));
    let most = match flags.as_slice() {
        [] => Some(usize::MAX),
        [flag] if *flag == "--quick" => Some(QUICK),
        _ => None,
    };
    let names = || PARTS.iter().map(|(name, ..)| *name).chain([RESTART]);
    let is_known = |part: &&String| names().any(|name| name == *part);
    let Some(most) = most.filter(|_| parts.iter().all(is_known)) else {
        let names: Vec<&str> = names().collect();
        say(&format!(
            "usage: bench-repair [--quick] [{}]",
            names.join("] [")
        ));
        return ExitCode::from(2);
    };
    ended(run(most, &parts))
}

fn ended(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&format!("bench repair: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn run(most: usize, parts: &[&String]) -> Result<(), Failure> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    conditions::tell([
        ("cores", format!("{all}, {}", cpu_model())),
        ("kernel", first_line("/proc/sys/kernel/osrelease")),
        ("load average at start", first_line("/proc/loadavg")),
        (
            "cluster",
            format!(
                "{} nodes of `homeostat up` in {} zones of a lab; power is cut by link down, then kill",
                cluster::NODES,
                cluster::ZONES.len()
            ),
        ),
    ])?;
    let wanted = |name: &str| parts.is_empty() || parts.iter().any(|word| *word == name);
    bench_common::report(|report| {
        if wanted(RESTART) {
            restart::measure(RESTARTS.min(most), report)?;
        }
        if !PARTS.iter().any(|(name, ..)| wanted(name)) {
            return Ok(());
        }
        if !bench_common::labs::possible() {
            say("    no network namespaces can be made here: this needs root and /dev/net/tun");
            for goal in goals::OF_LAB {
                report(Figure::alone(goal, f64::NAN));
            }
            return Ok(());
        }
        let cluster = Cluster::start(cluster::NODES)?;
        for (name, measure, cuts) in PARTS {
            if wanted(name) {
                measure(&cluster, cuts.min(most), report)?;
            }
        }
        Ok(())
    })
}
