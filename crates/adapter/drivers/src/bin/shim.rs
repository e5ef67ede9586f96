//! The shim as a program of its own, for this crate's tests.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    match (arguments.next(), arguments.next()) {
        (Some(directory), Some(socket)) => drivers::run_shim(&directory, &socket),
        _ => ExitCode::from(2),
    }
}
