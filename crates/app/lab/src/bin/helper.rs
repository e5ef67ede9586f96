//! The keeper and the way in as a program of its own, for this crate's tests.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    match words.as_slice() {
        [word, directory] if word == "lab-keeper" => lab::run_keeper(&PathBuf::from(directory)),
        [word, directory, node, command @ ..] if word == "lab-enter" => {
            let node = node.to_string_lossy();
            let error = lab::enter(&PathBuf::from(directory), &node, command);
            tracing::error!(error = kernel::error_chain(&error), "not entered");
            ExitCode::FAILURE
        }
        [word] if word == "hold" => hold(),
        _ => ExitCode::from(2),
    }
}

/// Holds a bound lab until it is killed.
fn hold() -> ExitCode {
    let options = std::env::current_exe().map(|program| lab::Options {
        bound: true,
        nodes: 1,
        ..lab::Options::new(program)
    });
    let held = options.map(lab::Lab::start);
    let Ok(Ok(held)) = held else {
        tracing::error!(?held, "no lab");
        return ExitCode::FAILURE;
    };
    let plan = serde_json::to_string(held.plan()).unwrap_or_default();
    let mut out = std::io::stdout();
    let told = writeln!(out, "{plan}").and_then(|()| out.flush());
    while told.is_ok() {
        std::thread::park();
    }
    ExitCode::FAILURE
}
