//! Runs the project's chores: `check` and `test`.
//!
//! In: one word. Out: the exit status of the first chore that failed.
//! Holds: the tests run last, so that their summary closes the output.
//! Never: changes a source file.

use std::io::Write as _;
use std::process::{Command, ExitCode};

mod direction;

fn main() -> ExitCode {
    let outcome = match std::env::args().nth(1).as_deref() {
        Some("check") => check(),
        Some("test") => test(),
        _ => Err("usage: cargo xtask check|test".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<(), String> {
    cargo("fmt --all --check")?;
    direction::check()?;
    cargo("clippy --workspace --all-targets -- -D warnings")
}

fn test() -> Result<(), String> {
    if !cargo_has("nextest") {
        return Err("cargo-nextest is missing: cargo install --locked cargo-nextest".to_owned());
    }
    check()?;
    cargo("build --workspace")?;
    cargo("test --workspace --doc")?;
    cargo("nextest run --workspace")
}

fn cargo_has(tool: &str) -> bool {
    Command::new("cargo")
        .args([tool, "--version"])
        .output()
        .is_ok_and(|o| o.status.success())
}

fn cargo(line: &str) -> Result<(), String> {
    match Command::new("cargo").args(line.split(' ')).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cargo {line}: {status}")),
        Err(why) => Err(format!("cargo {line}: {why}")),
    }
}
