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
const PARTS: [(&str, Part); 5] = [
    ("edges", edges::measure),
    ("replica", replica::measure),
    ("singleton", singleton::measure),
    ("leader", leader::measure),
    ("seats", seats::measure),
];
/// Power cuts, or kills, of each part.
const FULL: usize = 50;
const QUICK: usize = 5;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some((_, rest)) = words.split_first().filter(|(first, _)| *first == "chaos") {
        return ended(chaos::run(rest));
    }
    let (flags, parts): (Vec<_>, Vec<_>) = words.iter().partition(|word| word.starts_with('-'));
    let cuts = match flags.as_slice() {
        [] => Some(FULL),
        [flag] if *flag == "--quick" => Some(QUICK),
        _ => None,
    };
    let names = || PARTS.iter().map(|(name, _)| *name).chain([RESTART]);
    let is_known = |part: &&String| names().any(|name| name == *part);
    let Some(cuts) = cuts.filter(|_| parts.iter().all(is_known)) else {
        let names: Vec<&str> = names().collect();
        say(&format!(
            "usage: bench-repair [--quick] [{}]",
            names.join("] [")
        ));
        return ExitCode::from(2);
    };
    ended(run(cuts, &parts))
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

fn run(cuts: usize, parts: &[&String]) -> Result<(), Failure> {
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
            restart::measure(cuts, report)?;
        }
        if !PARTS.iter().any(|(name, _)| wanted(name)) {
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
        for (name, measure) in PARTS {
            if wanted(name) {
                measure(&cluster, cuts, report)?;
            }
        }
        Ok(())
    })
}
