//! The `homeostat` program: its commands, and the processes that make a node.

mod arguments;
mod commands;
mod failure;
mod output;
mod roles;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A replica's shim starts often: it skips the parser and the runtime.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == "shim") {
        return roles::shim(words);
    }
    let arguments = arguments::Arguments::parse();
    match commands::run(arguments) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
