//! The system's own programs that make networks and file systems.

use crate::LabError;
use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

/// Debian keeps some outside an ordinary user's path.
const PATHS: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

fn package(program: &str) -> &'static str {
    match program {
        "ip" => "iproute2",
        "mkfs.ext4" => "e2fsprogs",
        _ => "mount",
    }
}

/// Runs one to its end.
pub fn run<S: AsRef<OsStr>>(program: &str, words: &[S]) -> Result<(), LabError> {
    run_with(program, words, "")
}

/// The same with something on its standard input.
pub fn run_with<S: AsRef<OsStr>>(program: &str, words: &[S], input: &str) -> Result<(), LabError> {
    let shown = || {
        let words = words.iter().map(|word| word.as_ref().to_string_lossy());
        std::iter::once(program.into())
            .chain(words)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let failed = |source| LabError::io(format!("run `{}`", shown()), source);
    let spawned = Command::new(program)
        .args(words)
        .env("PATH", PATHS)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|source| match source.kind() {
        ErrorKind::NotFound => LabError::Missing {
            program: program.to_owned(),
            package: package(program),
        },
        _ => failed(source),
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends early says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    Err(LabError::Tool {
        command: shown(),
        said: if said.is_empty() {
            output.status.to_string()
        } else {
            said.to_owned()
        },
    })
}
