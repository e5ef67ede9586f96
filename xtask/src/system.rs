//! Programs of the system that builds and tests need, installed once where that
//! is possible.
//!
//! In: what `PATH` holds. Out: nothing more to do, or what a person can do.
//! Holds: what is there is left as it is, in whatever version; no service is
//! started by installing it.

use crate::steps::{run, say, step};
use std::process::{Command, Stdio};

pub struct Package {
    program: &'static str,
    /// Debian's name.
    name: &'static str,
}

/// Compiles the interface of etcd, for the crate `etcd`.
pub const PROTOC: Package = Package {
    program: "protoc",
    name: "protobuf-compiler",
};

/// Runs in the tests of the same crate.
pub const ETCD: Package = Package {
    program: "etcd",
    name: "etcd-server",
};

/// # Errors
/// Says what a person can install instead.
pub fn install(package: &Package) -> Result<(), String> {
    let Package { program, name } = package;
    if is_there(program) {
        return Ok(());
    }
    step(&format!("install {name}"), || {
        let outcome = by_apt(name).or_else(|first| {
            say(&format!("    {first}; with new lists"));
            run(apt().arg("update"))?;
            by_apt(name)
        });
        match outcome {
            Ok(()) if is_there(program) => Ok(()),
            Ok(()) => Err(format!("{name} brought no `{program}`")),
            Err(why) => Err(why),
        }
        .map_err(|why| {
            format!(
                "`{program}` is missing and could not be installed: {why}\n  help: apt-get install -y {name}"
            )
        })
    })
}

fn by_apt(name: &str) -> Result<(), String> {
    run(apt().args(["install", "--yes", "--no-install-recommends", name]))
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command
        .arg("--quiet=2")
        .env("DEBIAN_FRONTEND", "noninteractive")
        // By it, packages know that their services are not to be started.
        .env("RUNLEVEL", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

fn is_there(program: &str) -> bool {
    let asked = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    asked.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_installed_and_what_cannot_be_is_told() {
        let there = Package {
            program: "cargo",
            name: "no-package-at-all",
        };
        assert_eq!(install(&there), Ok(()));
        assert!(!is_there("no-program-at-all"));
    }
}
