//! Measures who is known to be reachable, how soon and how surely.
//!
//! In: `--quick` or `--long`, and names of parts to measure alone. Out: conditions and
//! figures on standard output, single runs on standard error.
//! Holds: a figure that is short is said and is no failure; an error ends all
//! without its figures.

mod deaths;
mod goals;

use bench_common::figure::Figure;
use bench_common::{Failure, say};
use std::process::ExitCode;

type Report<'a> = &'a mut dyn FnMut(Figure);
type Part = (&'static str, fn(&Bench, Report) -> Result<(), Failure>);

const PARTS: [Part; 1] = [("false-deaths", deaths::measure)];

/// How often and how long each thing is done.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    /// Of 100 simulated nodes, each with a seed of its own.
    pub runs: u64,
    pub hours: f64,
}

const FULL: Lengths = Lengths {
    runs: 50,
    hours: 1.0,
};

const QUICK: Lengths = Lengths {
    runs: 4,
    hours: 0.05,
};

/// For where the figures should end.
const LONG: Lengths = Lengths {
    runs: 500,
    hours: 1.0,
};

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
    bench_common::report(|report| {
        for (name, measure) in PARTS {
            if parts.is_empty() || parts.iter().any(|word| *word == name) {
                measure(&bench, report)?;
            }
        }
        Ok(())
    })
}
