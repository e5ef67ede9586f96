//! Measures the tree of zones: how soon, at what cost, and what it withstands,
//! in simulated worlds of the cores that agents run.
//!
//! In: `--quick`, and names of parts to measure alone. Out: conditions and
//! figures on standard output, single runs on standard error.
//! Holds: a figure that is short is said and is no failure; an error ends all
//! without its figures.

mod chart;
mod drill;
mod faults;
mod forged;
mod goals;
mod leaf;
mod rollout;
mod sizes;
mod speed;

use bench_common::figure::Figure;
use bench_common::{Failure, conditions, say};
use sim::tree::{Shape, Ways};
use std::process::ExitCode;
use std::time::Duration;

type Report<'a> = &'a mut dyn FnMut(Figure);
type Part = (&'static str, fn(&Bench, Report) -> Result<(), Failure>);

const PARTS: [Part; 7] = [
    ("leaf", leaf::measure),
    ("sizes", sizes::measure),
    ("faults", faults::measure),
    ("rollout", rollout::measure),
    ("drill", drill::measure),
    ("forged", forged::measure),
    ("speed", speed::measure),
];

pub struct Bench {
    pub is_quick: bool,
}

impl Bench {
    /// Simulated, of load.
    pub fn span(&self) -> Duration {
        Duration::from_secs(if self.is_quick { 20 } else { 120 })
    }
}

/// Recorded distances where there are any.
pub fn ways(shape: &Shape, seed: u64) -> Result<(Ways, String), Failure> {
    let Some(data) = std::env::var_os("HOMEOSTAT_DATA") else {
        let said = "drawn, as HOMEOSTAT_DATA is not set: hosts in a rectangle of 160 by 80 ms";
        return Ok((Ways::drawn(shape, seed), said.to_owned()));
    };
    let file = std::path::Path::new(&data).join("PlanetLabData_1");
    let said = "round trips between 490 PlanetLab hosts, each leaf zone at a host drawn at random";
    Ok((Ways::recorded(&file, shape, seed)?, said.to_owned()))
}

/// Half of the time goes without large pages: each event is at another node.
fn memory() -> String {
    let tuned = std::env::var("GLIBC_TUNABLES").unwrap_or_default();
    let pages = if tuned.contains("hugetlb=1") {
        "large pages, as GLIBC_TUNABLES asks for"
    } else {
        "pages as they come"
    };
    pages.to_owned()
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (flags, parts): (Vec<_>, Vec<_>) = words.iter().partition(|word| word.starts_with('-'));
    let is_quick = match flags.as_slice() {
        [] => Some(false),
        [flag] if *flag == "--quick" => Some(true),
        _ => None,
    };
    let known = |part: &&String| PARTS.iter().any(|(name, _)| name == *part);
    let Some(is_quick) = is_quick.filter(|_| parts.iter().all(known)) else {
        let names = PARTS.map(|(name, _)| format!(" [{name}]")).concat();
        say(&format!("usage: bench-aggregation [--quick]{names}"));
        return ExitCode::from(2);
    };
    match run(&Bench { is_quick }, &parts) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&format!("bench aggregation: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn run(bench: &Bench, parts: &[&String]) -> Result<(), Failure> {
    bench_common::report(|report| {
        conditions::tell([("memory", memory())])?;
        for (name, measure) in PARTS {
            if parts.is_empty() || parts.iter().any(|word| *word == name) {
                measure(bench, report)?;
            }
        }
        Ok(())
    })
}
