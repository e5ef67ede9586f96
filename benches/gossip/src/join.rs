//! How soon a machine that was given the line of a token serves.
//!
//! Holds: each joins from a fresh directory; time runs from the command's start
//! to the first good answer at that node's own edge; it is a member then.

use crate::{Bench, Report, goals};
use bench_common::figure::{Figure, quantile};
use bench_common::http::answers;
use bench_common::node::{Node, until};
use bench_common::{Failure, beside, conditions, note};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;
use wire::api::NodeView;

const FILES: u8 = 100;
const FILE_BYTES: usize = 8 << 10;

pub fn measure(bench: &Bench, report: Report) -> Result<(), Failure> {
    // Short, for sockets.
    let scratch = tempfile::Builder::new().prefix("hg").tempdir()?;
    let manifest = site(&scratch.path().join("site"))?;
    let program = beside("homeostat")?;
    let first = Node::new(&program, &scratch.path().join("0"), manifest.clone(), None)?;
    first.up()?;
    conditions::tell([(
        "joins",
        format!(
            "a site of {FILES} files of {FILE_BYTES} bytes; first node and new one on one machine, over loopback"
        ),
    )])?;
    let mut spans = Vec::new();
    for round in 1..=bench.lengths.joins {
        let home = scratch.path().join(round.to_string());
        let node = Node::new(&program, &home, manifest.clone(), None)?;
        spans.push(join(&first, &node, round)?);
    }
    note("line pasted to first good answer, s", &spans);
    report(Figure::alone(goals::JOIN, quantile(&spans, 1.0)));
    Ok(())
}

/// Files that differ in every block.
fn site(directory: &Path) -> Result<std::path::PathBuf, Failure> {
    fs::create_dir_all(directory)?;
    for index in 0..FILES {
        let body: Vec<u8> = (0..FILE_BYTES)
            .map(|at| u8::try_from(at % 251).unwrap_or_default() ^ index)
            .collect();
        fs::write(directory.join(format!("f{index:03}.bin")), body)?;
    }
    fs::write(
        directory.join("index.html"),
        "<!doctype html><p>joined</p>\n",
    )?;
    let manifest = directory.with_file_name("homeostat.toml");
    let text =
        "[project]\nname = \"joins\"\n[site.web]\nroot = \"site\"\nhosts = [\"localhost\"]\n";
    fs::write(&manifest, text)?;
    Ok(manifest)
}

fn join(first: &Node, node: &Node, round: usize) -> Result<f64, Failure> {
    let name = format!("joined-{round}");
    let mut token = first.command("token");
    token.args(["create", "--ttl", "5m", "--zone", "/eu/1"]);
    let token = token.stdout(Stdio::piped()).output()?;
    let line = String::from_utf8(token.stdout)?;
    let begun = Instant::now();
    let mut up = node.command("up");
    let child = up.args(["--join", line.trim(), "--name", &name]).spawn()?;
    until("the first answer", || answers(node.http, "/").then_some(()))?;
    let span = begun.elapsed().as_secs_f64();
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("`homeostat up --join` ended with {}: {said}", output.status).into());
    }
    let list = first
        .command("node")
        .args(["ls", "-o", "json"])
        .stdout(Stdio::piped())
        .output()?;
    let nodes: Vec<NodeView> = serde_json::from_slice(&list.stdout)?;
    if nodes
        .iter()
        .any(|one| one.name == name && one.state == "alive")
    {
        Ok(span)
    } else {
        Err(format!("{name} serves, and is no living member at the first node").into())
    }
}
