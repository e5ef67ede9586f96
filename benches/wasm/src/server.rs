//! Our side: a node that runs the component, started by `homeostat up`.

use crate::Bench;
use bench_common::Failure;
use bench_common::node::Node;
use std::fs;

/// A host that reaches a guest which loops for ever; all others reach one that
/// answers.
pub const HOG: &str = "hog.localhost";

/// Up, on the servers' cores.
pub fn start(bench: &Bench, name: &str, reuse: u32) -> Result<Node, Failure> {
    let home = bench.directory(name)?;
    fs::copy(&bench.component, home.join("probe.wasm"))?;
    let written = home.join("bench.toml");
    fs::write(&written, manifest(reuse))?;
    let node = Node::new(&bench.homeostat, &home, written, Some(&bench.cores.server))?;
    node.up()?;
    Ok(node)
}

fn manifest(reuse: u32) -> String {
    format!(
        r#"[project]
name = "bench"

[service.usual]
run = {{ wasm = "probe.wasm" }}
routes = [{{ host = "localhost", path = "/" }}]
limits = {{ concurrency = 256, reuse = {reuse} }}

[service.hog]
run = {{ wasm = "probe.wasm" }}
routes = [{{ host = "{HOG}", path = "/" }}]
limits = {{ time = "2s" }}
"#
    )
}
