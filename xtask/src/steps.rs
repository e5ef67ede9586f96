//! Runs the steps of a chore and tells people which one runs and how long it took.
//!
//! In: a step's name and what it does. Out: lines on standard error.
//! Holds: a step's last line is its own, so that what it printed stays with it.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// # Errors
/// What the step itself failed with.
pub fn step<T>(name: &str, work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    say(&format!("==> {name}"));
    let start = Instant::now();
    let outcome = work()?;
    say(&format!(
        "    {name}: {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    Ok(outcome)
}

pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// # Errors
/// Names the command line and how it ended.
pub fn cargo(line: &str) -> Result<(), String> {
    run(cargo_command().args(line.split(' ')))
}

/// The cargo that runs us, so that one toolchain does everything.
pub fn cargo_command() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// # Errors
/// Names the command line and how it ended.
pub fn run(command: &mut Command) -> Result<(), String> {
    let outcome = command.status();
    let line = shown(command);
    match outcome {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{line}` failed: {status}")),
        Err(why) => Err(format!("`{line}` did not start: {why}")),
    }
}

/// Builds what is chosen; each program's path, as cargo tells it.
///
/// * `choice`: words for `cargo build`, such as `--package homeostat`.
///
/// # Errors
/// Names what failed.
pub fn programs(choice: &str) -> Result<BTreeMap<String, PathBuf>, String> {
    let mut command = cargo_command();
    command.args(["build", "--message-format=json-render-diagnostics"]);
    command.args(choice.split(' '));
    let failed = |why: io::Error| format!("cargo build did not run: {why}");
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(failed)?;
    let output = child.stdout.take().ok_or("cargo build has no output")?;
    let mut programs = BTreeMap::new();
    for line in BufReader::new(output).lines() {
        let line = line.map_err(failed)?;
        let message: Value = serde_json::from_str(&line).unwrap_or_default();
        let (name, path) = (&message["target"]["name"], &message["executable"]);
        // With all targets, each program is built as a test too.
        let is_test = message["profile"]["test"] == true;
        if let (Some(name), Some(path), false) = (name.as_str(), path.as_str(), is_test) {
            programs.insert(name.to_owned(), PathBuf::from(path));
        }
    }
    let status = child.wait().map_err(failed)?;
    if status.success() {
        Ok(programs)
    } else {
        Err(format!("cargo build failed: {status}"))
    }
}

/// The command as a person would type it.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_named_as_typed() {
        let why = run(Command::new("/bin/sh").args(["-c", "exit 3"])).expect_err("a failure");
        assert_eq!(why, "`sh -c exit 3` failed: exit status: 3");
        let why = run(&mut Command::new("/nowhere/tool")).expect_err("no such program");
        assert!(why.starts_with("`tool` did not start: "), "{why}");
    }

    #[test]
    fn a_step_passes_on_what_its_work_gave() {
        assert_eq!(step("count", || Ok(3)), Ok(3));
        assert_eq!(step::<()>("count", || Err("no".into())), Err("no".into()));
    }
}
