//! Builds the simulator, optimised, and plays scripts in it.
//!
//! In: what follows `sim`. Out: what came of each script, with the hash of all
//! that happened.

use crate::steps::{cargo_command, run as run_command};

/// # Errors
/// Says that a script did not hold, or cannot be read.
pub fn run(arguments: &[String]) -> Result<(), String> {
    let mut command = cargo_command();
    command.args(["run", "--quiet", "--release", "--package", "sim", "--"]);
    run_command(command.args(arguments))
}
