//! Measures who is known to be reachable, how soon and how surely.
//!
//! In: `--quick` or `--long`, and names of parts to measure alone. Out: conditions and
//! figures on standard output, single runs on standard error.
//! Holds: a figure that is short is said and is no failure; an error ends all
//! without its figures.

mod beats;
mod beside;
mod cluster;
mod deaths;
mod goals;
mod heard;
mod join;
mod power;
mod serf;

use bench_common::figure::Figure;
use bench_common::machine::{cpu_model, first_line, said_by};
use bench_common::{Failure, conditions, say};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

type Report<'a> = &'a mut dyn FnMut(Figure);
type Part = (&'static str, fn(&Bench, Report) -> Result<(), Failure>);

const PARTS: [Part; 5] = [
    ("false-deaths", deaths::measure),
    ("join", join::measure),
    ("power", power::measure),
    ("serf", beside::measure),
    ("heartbeat", beats::measure),
];

/// How often and how long each thing is done.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    /// Of 100 simulated nodes, each with a seed of its own.
    pub runs: u64,
    pub hours: f64,
    pub joins: usize,
    /// Power cuts, and agents killed beside Serf's.
    pub deaths: usize,
    /// Nodes of each zone where power is cut.
    pub zone_nodes: usize,
    /// Of ours and of Serf's.
    pub agents: usize,
    pub changes: usize,
    /// For how long bytes are counted.
    pub counted: Duration,
    pub beats: Duration,
}

const FULL: Lengths = Lengths {
    runs: 50,
    hours: 1.0,
    joins: 10,
    deaths: 20,
    zone_nodes: 5,
    agents: 30,
    changes: 20,
    // Four of the longest rounds of the peer.
    counted: Duration::from_mins(2),
    beats: Duration::from_secs(20),
};

const QUICK: Lengths = Lengths {
    runs: 4,
    hours: 0.05,
    joins: 2,
    deaths: 2,
    zone_nodes: 3,
    agents: 12,
    changes: 3,
    counted: Duration::from_secs(30),
    beats: Duration::from_secs(4),
};

/// For where the figures should end.
const LONG: Lengths = Lengths { runs: 500, ..FULL };

pub struct Bench {
    pub lengths: Lengths,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (flags, parts): (Vec<_>, Vec<_>) = words.iter().partition(|word| word.starts_with('-'));
    let lengths = match flags.as_slice() {
        [] => Some(FULL),
        [flag] if *flag == "--quick" => Some(QUICK),
        [flag] if *flag == "--long" => Some(LONG),
        _ => None,
    };
    let known = lengths.filter(|_| {
        parts
            .iter()
            .all(|part| PARTS.iter().any(|(name, _)| name == part))
    });
    let Some(lengths) = known else {
        let names = PARTS.map(|(name, _)| format!(" [{name}]")).concat();
        say(&format!("usage: bench-gossip [--quick|--long]{names}"));
        return ExitCode::from(2);
    };
    match run(lengths, &parts) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&format!("bench gossip: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn run(lengths: Lengths, parts: &[&String]) -> Result<(), Failure> {
    let bench = Bench { lengths };
    conditions::tell(machine())?;
    bench_common::report(|report| {
        for (name, measure) in PARTS {
            if parts.is_empty() || parts.iter().any(|word| *word == name) {
                measure(&bench, report)?;
            }
        }
        Ok(())
    })
}

fn machine() -> Vec<conditions::Line> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let described = ["describe", "--always", "--dirty", "--abbrev=7"];
    let sources = said_by(Path::new("git"), &described);
    let sources = sources.filter(|said| !said.contains(' '));
    vec![
        ("cores", format!("{all}, {}", cpu_model())),
        ("kernel", first_line("/proc/sys/kernel/osrelease")),
        ("load average at start", first_line("/proc/loadavg")),
        ("sources", sources.unwrap_or_else(|| "unknown".to_owned())),
    ]
}
