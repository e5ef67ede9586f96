//! Random cases in large numbers, for the machine's spare hours.
//!
//! In: what is tried, and how many cases. Out: the test's own words.
//! Holds: the cases are those of the tests in CI, and as many more as asked for.

use crate::steps::{cargo_command, run as run_command};

const USAGE: &str = "usage: cargo xtask cases evaluator [CASES]
  evaluator  aggregate programs beside SQLite, in trees: a million, or CASES";

const CASES: u64 = 1_000_000;

/// # Errors
/// Words that name nothing, or the case that failed.
pub fn run(arguments: &[String]) -> Result<(), String> {
    let cases = cases(arguments)?;
    let mut command = cargo_command();
    command.args([
        "test",
        "--release",
        "--package",
        "aggregation",
        "--test",
        "program",
    ]);
    command.args(["--", "sqlite", "--nocapture"]);
    run_command(command.env("HOMEOSTAT_SQLITE_CASES", cases.to_string()))
}

fn cases(arguments: &[String]) -> Result<u64, String> {
    match arguments {
        [what] if what == "evaluator" => Ok(CASES),
        [what, cases] if what == "evaluator" => cases.parse().map_err(|_| USAGE.to_owned()),
        _ => Err(USAGE.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_asked_for() {
        let cases = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            cases(&words)
        };
        assert_eq!(cases(&["evaluator"]), Ok(CASES));
        assert_eq!(cases(&["evaluator", "500"]), Ok(500));
        assert!(cases(&[]).is_err() && cases(&["wire"]).is_err());
    }
}
