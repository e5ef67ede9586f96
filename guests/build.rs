//! Builds each guest for `wasm32-wasip1`; encodes components as such.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};

const TARGET: &str = "wasm32-wasip1";
const COMPONENTS: [&str; 2] = ["probe", "comments"];
/// Core modules, as they are.
const ACTORS: [&str; 2] = ["probe-actor", "visitors"];
/// What actors are built on.
const SDK: &str = "actor-sdk";

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    for guest in COMPONENTS {
        let module = std::fs::read(build(guest, &out.join("target"))?)?;
        let component = wit_component::ComponentEncoder::default()
            .module(&module)?
            .adapter(
                WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
                WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
            )?
            .validate(true)
            .encode()?;
        std::fs::write(out.join(format!("{guest}.wasm")), component)?;
    }
    watch(SDK, &["Cargo.toml", "src"])?;
    for guest in ACTORS {
        let module = build(guest, &out.join("target"))?;
        std::fs::copy(module, out.join(format!("{guest}.wasm")))?;
    }
    Ok(())
}

fn watch(guest: &str, files: &[&str]) -> std::io::Result<()> {
    // What is not there would make the script run each time.
    for file in files
        .iter()
        .filter(|file| Path::new(guest).join(file).exists())
    {
        let line = format!("cargo::rerun-if-changed={guest}/{file}\n");
        std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes())?;
    }
    Ok(())
}

fn build(guest: &str, target: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").ok_or("no CARGO")?;
    let mut command = Command::new(cargo);
    command
        .args(["build", "--release", "--locked", "--target", TARGET])
        .arg("--manifest-path")
        .arg(format!("{guest}/Cargo.toml"))
        .arg("--target-dir")
        .arg(target);
    // What was meant for the host's build: flags, and a lint's compiler.
    for name in [
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_BUILD_TARGET",
    ] {
        command.env_remove(name);
    }
    let status = command.status()?;
    if !status.success() {
        return Err(format!(
            "guest `{guest}` was not built; if the target is missing: rustup target add {TARGET}"
        )
        .into());
    }
    watch(guest, &["Cargo.toml", "Cargo.lock", "src", "wit"])?;
    Ok(target
        .join(TARGET)
        .join("release")
        .join(format!("{}.wasm", guest.replace('-', "_"))))
}
