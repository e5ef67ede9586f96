//! Builds the programs, and plays scripts with real agents in a lab, beside the
//! same in the simulated world; or random faults, for their users.
//!
//! In: what follows `lab`, or `chaos`. Out: a table.

use crate::steps::{programs, run as run_command, say, step};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// # Errors
/// Says that a script did not hold, or cannot be read.
pub fn run(arguments: &[String]) -> Result<(), String> {
    let choice = "--package homeostat --package black-box";
    let built = step("build", || programs(choice))?;
    play(&built, arguments)
}

/// # Errors
/// Says what was not as wished in the end.
pub fn chaos(arguments: &[String]) -> Result<(), String> {
    let choice = "--package homeostat --package black-box --package bench-repair";
    let built = step("build", || programs(choice))?;
    say("==> random faults in a lab");
    run_command(
        Command::new(&built["bench-repair"])
            .arg("chaos")
            .args(arguments),
    )
}

/// With programs that are built already.
///
/// # Errors
/// As [`run`].
pub fn play(programs: &BTreeMap<String, PathBuf>, arguments: &[String]) -> Result<(), String> {
    say("==> scripts in a lab");
    run_command(Command::new(&programs["scripts"]).args(arguments))
}
