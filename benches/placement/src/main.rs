//! Measures how fast replicas are placed on thousands of nodes.
//!
//! In: `--quick`. Out: conditions and figures on standard output, single runs on
//! standard error.
//! Holds: a figure that is short is said and is no failure; an error ends all
//! without its figures.

mod goals;
mod large;
mod worlds;

use bench_common::{Failure, say};
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let rounds = match words.as_slice() {
        [] => 9,
        ["--quick"] => 3,
        _ => {
            say("usage: bench-placement [--quick]");
            return ExitCode::from(2);
        }
    };
    match run(rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&format!("bench placement: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn run(rounds: u32) -> Result<(), Failure> {
    bench_common::report(|report| large::measure(rounds, report))
}
