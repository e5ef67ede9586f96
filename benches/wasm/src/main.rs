//! Measures wasm services against named peers, and says each figure in one line.
//!
//! In: `--quick`, and names of parts to measure alone. Out: conditions and
//! figures on standard output, single runs on standard error.
//! Holds: a figure that is short is said and is no failure; an error, such as
//! one wrong answer, ends all without its figures.

mod buckets;
mod calls;
mod conditions;
mod goals;
mod hog;
mod idle;
mod peer;
mod server;
mod serving;

use bench_common::figure::Figure;
use bench_common::machine::Cores;
use bench_common::{Failure, beside, say};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

type Report<'a> = &'a mut dyn FnMut(Figure);
type Part = (&'static str, fn(&Bench, Report) -> Result<(), Failure>);

const PARTS: [Part; 5] = [
    ("buckets", buckets::measure),
    ("calls", calls::measure),
    ("serving", serving::measure),
    ("hog", hog::measure),
    ("idle", idle::measure),
];

/// How often and how long each thing is done.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    pub rounds: u32,
    pub seconds: u64,
    pub paced: Duration,
    /// Of each kind, called in process.
    pub calls: u32,
    pub idle_services: usize,
}

const FULL: Lengths = Lengths {
    rounds: 5,
    seconds: 10,
    paced: Duration::from_secs(10),
    calls: 20_000,
    idle_services: 20_000,
};

const QUICK: Lengths = Lengths {
    rounds: 3,
    seconds: 2,
    paced: Duration::from_secs(2),
    calls: 5_000,
    idle_services: 5_000,
};

/// What all parts share.
pub struct Bench {
    pub lengths: Lengths,
    pub homeostat: PathBuf,
    pub cores: Cores,
    pub scratch: PathBuf,
    /// The component that all serve.
    pub component: PathBuf,
}

impl Bench {
    /// A fresh directory of a part.
    pub fn directory(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.scratch.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (flags, parts): (Vec<_>, Vec<_>) = words.iter().partition(|word| word.starts_with('-'));
    let known = flags.iter().all(|flag| *flag == "--quick")
        && parts
            .iter()
            .all(|part| PARTS.iter().any(|(name, _)| name == part));
    if !known {
        let names = PARTS.map(|(name, _)| format!(" [{name}]")).concat();
        say(&format!("usage: bench-wasm [--quick]{names}"));
        return ExitCode::from(2);
    }
    let lengths = if flags.is_empty() { FULL } else { QUICK };
    match run(lengths, &parts) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&format!("bench wasm: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn run(lengths: Lengths, parts: &[&String]) -> Result<(), Failure> {
    // Short, for sockets.
    let scratch = tempfile::Builder::new().prefix("hw").tempdir()?;
    let component = scratch.path().join("probe.wasm");
    fs::write(&component, guests::PROBE)?;
    let bench = Bench {
        lengths,
        homeostat: beside("homeostat")?,
        cores: Cores::split()?,
        scratch: scratch.path().to_owned(),
        component,
    };
    bench_common::conditions::tell(conditions::all(&bench)?)?;
    bench_common::report(|report| {
        for (name, measure) in PARTS {
            if parts.is_empty() || parts.iter().any(|word| *word == name) {
                measure(&bench, report)?;
            }
        }
        Ok(())
    })
}
