//! Measures the evaluator of aggregates beside `SQLite`, and what hostile programs
//! cost.
//!
//! In: `--quick`, and names of parts to measure alone. Out: conditions and
//! figures on standard output, single runs on standard error.
//! Holds: a figure that is short is said and is no failure; an error ends all
//! without its figures.

mod goals;
mod hostile;
mod sets;

use bench_common::figure::Figure;
use bench_common::{Failure, say};
use std::process::ExitCode;
use std::time::Duration;

type Report<'a> = &'a mut dyn FnMut(Figure);
type Part = (&'static str, fn(&Bench, Report) -> Result<(), Failure>);

const PARTS: [Part; 2] = [("sets", sets::measure), ("hostile", hostile::measure)];

/// How often and how long each thing is done.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    pub rounds: u32,
    pub span: Duration,
    pub hostile: u64,
}

const FULL: Lengths = Lengths {
    rounds: 9,
    span: Duration::from_secs(2),
    hostile: 10_000,
};

const QUICK: Lengths = Lengths {
    rounds: 3,
    span: Duration::from_millis(300),
    hostile: 2_000,
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
        _ => None,
    };
    let known = lengths.filter(|_| {
        parts
            .iter()
            .all(|part| PARTS.iter().any(|(name, _)| name == part))
    });
    let Some(lengths) = known else {
        let names = PARTS.map(|(name, _)| format!(" [{name}]")).concat();
        say(&format!("usage: bench-evaluator [--quick]{names}"));
        return ExitCode::from(2);
    };
    match run(lengths, &parts) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&format!("bench evaluator: {why}"));
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
