//! A component that another toolchain made, of Python by componentize-py.
//!
//! Skipped, and said so, where `HOMEOSTAT_COMPONENTIZE_PY` does not name the
//! directory of the tool; `cargo xtask test` installs it.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use wasm::{CompiledCache, GuestError, Host, Limits, Service, ServiceSpec};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../guests/python");

/// The interfaces that the engine's own library comes with.
fn interfaces() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()
        .expect("cargo");
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).expect("its answer");
    let packages = all["packages"].as_array().expect("packages");
    let found = packages
        .iter()
        .find(|package| package["name"] == "wasmtime-wasi-http")
        .and_then(|package| package["manifest_path"].as_str())
        .expect("the library");
    Path::new(found).with_file_name("wit")
}

/// Made once for these sources and this tool.
fn component(tool: &Path) -> Vec<u8> {
    let source = std::fs::read(Path::new(SOURCE).join("app.py")).expect("the source");
    let mut hasher = blake3::Hasher::new();
    hasher.update(&source);
    hasher.update(tool.as_os_str().as_encoded_bytes());
    let name = format!("python-{}.wasm", hasher.finalize().to_hex());
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if let Ok(found) = std::fs::read(&kept) {
        return found;
    }
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    std::fs::write(scratch.path().join("app.py"), source).expect("a copy");
    let made = scratch.path().join("app.wasm");
    let output = Command::new("python3")
        .current_dir(scratch.path())
        .env("PYTHONPATH", tool)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(tool.join("bin/componentize-py"))
        .arg("-d")
        .arg(interfaces())
        .args(["-w", "wasi:http/proxy@0.2.12"])
        .args(["componentize", "app", "-o"])
        .arg(&made)
        .output()
        .expect("python3");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    std::fs::rename(&made, &kept).expect("its place");
    std::fs::read(&kept).expect("a component")
}

async fn ask(service: &Service, path: &str, body: &'static [u8]) -> String {
    let answer = loop {
        let request = http::Request::post(path)
            .header("host", "localhost")
            .body(Full::new(Bytes::from_static(body)))
            .expect("a request");
        match service.handle(request).await {
            // The last one's guest has not returned yet.
            Err(GuestError::Busy(_)) => tokio::task::yield_now().await,
            answer => break answer.expect("an answer"),
        }
    };
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.expect("a whole body");
    String::from_utf8_lossy(&body.to_bytes()).into_owned()
}

#[tokio::test]
async fn a_component_of_another_toolchain_answers_and_is_used_again() {
    let Some(tool) = std::env::var_os("HOMEOSTAT_COMPONENTIZE_PY") else {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: HOMEOSTAT_COMPONENTIZE_PY names no tool; `cargo xtask test` installs it"
        );
        return;
    };
    let component = component(Path::new(&tool));
    let host = Host::new().expect("an engine");
    // Compiling an interpreter takes a while: kept for the next run.
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-compiled");
    let cache = CompiledCache::open(&kept).expect("a cache");
    let spec = |reuse| ServiceSpec {
        name: "python".to_owned(),
        limits: Limits {
            reuse,
            concurrency: 1,
            memory_bytes: 128 << 20,
            ..Limits::default()
        },
        environment: Vec::new(),
        output: Arc::new(|_, _| {}),
        calls: Arc::default(),
        buckets: None,
    };
    let once = Service::new(&host, &cache, &component, spec(1)).expect("a service");
    for _ in 0..2 {
        let said = ask(&once, "/path?query", b"body").await;
        assert_eq!(said, "/path?query, asked 1, with 4 bytes");
    }
    let reused = Service::new(&host, &cache, &component, spec(1_000)).expect("a service");
    for time in 1..=3 {
        let said = ask(&reused, "/again", b"").await;
        assert_eq!(said, format!("/again, asked {time}, with 0 bytes"));
    }
}
