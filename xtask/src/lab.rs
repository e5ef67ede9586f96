//! Builds the programs, and plays scripts with real agents in a lab, beside the
//! same in the simulated world.
//!
//! In: what follows `lab`. Out: a table a script.

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

/// With programs that are built already.
///
/// # Errors
/// As [`run`].
pub fn play(programs: &BTreeMap<String, PathBuf>, arguments: &[String]) -> Result<(), String> {
    say("==> scripts in a lab");
    run_command(Command::new(&programs["scripts"]).args(arguments))
}
