//! The named peer, `wasmtime serve` of the engine's own major version.
//!
//! Holds: one that is not there is `None`, and its figures are said without it.

use bench_common::Failure;
use bench_common::child::{Child, free_address, installed};
use bench_common::machine::{pinned, said_by};
use std::path::{Path, PathBuf};

/// Set by `cargo xtask bench`, which installs it.
const VARIABLE: &str = "HOMEOSTAT_BENCH_WASMTIME";
const VERSION: &str = "wasmtime 48.";

pub fn find() -> Option<PathBuf> {
    let told = std::env::var_os(VARIABLE).map(PathBuf::from);
    told.into_iter()
        .chain(installed(&["wasmtime"]))
        .find(|program| {
            said_by(program, &["--version"]).is_some_and(|said| said.starts_with(VERSION))
        })
}

/// With its own defaults; `cli` and `keyvalue` since the guest imports them, as
/// ours always provides.
pub fn start(
    program: &Path,
    component: &Path,
    home: &Path,
    cores: &[usize],
    reuse: u32,
) -> Result<Child, Failure> {
    let address = free_address()?;
    let mut command = pinned(cores, program);
    command
        .args([
            "serve",
            "-S",
            "cli",
            "-S",
            "keyvalue",
            "--max-instance-reuse-count",
        ])
        .arg(reuse.to_string())
        .args(["--addr", &address.to_string()])
        .arg(component);
    Child::start("wasmtime serve", command, address, home)
}
