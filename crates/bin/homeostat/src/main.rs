//! The `homeostat` program: its commands, and the processes that make a node.

mod arguments;
mod commands;
mod failure;
mod output;
mod roles;

use clap::Parser;
use std::ffi::OsStr;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A replica's shim starts often: it skips the parser and the runtime.
    let mut words = std::env::args_os().skip(1);
    match words.next().as_deref().and_then(OsStr::to_str) {
        Some("shim") => return roles::shim(words),
        Some("compile") => return roles::compile(words),
        Some("lab-keeper") => return roles::lab_keeper(words),
        Some("lab-enter") => return roles::lab_enter(words),
        Some("lab-unfill") => return commands::chaos::unfill(words),
        _ => {}
    }
    let arguments = arguments::Arguments::parse();
    match commands::run(arguments) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
