//! Our nodes in a lab: each in a network namespace of its own, at imposed
//! distances.
//!
//! Holds: the lab goes with this process, however that ends.

use crate::{Failure, say};
use lab::{Lab, Options};
use std::path::Path;
use std::process::{Command, Stdio};
use wire::lab::LabNode;

pub const AGENT_PORT: u16 = 7_600;
const EDGE_PORT: u16 = 7_601;

/// Whether this user may make network namespaces.
pub fn possible() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/dev/net/tun").exists()
}

/// Nodes of `homeostat up` without services, joined, dealt out over `zones`.
///
/// * `log`: what their agents tell, as `HOMEOSTAT_LOG`.
pub fn start(program: &Path, nodes: usize, zones: &[&str], log: &str) -> Result<Lab, Failure> {
    let mut options = Options::new(program);
    options.nodes = nodes;
    let zones = zones.iter().map(|zone| zone.parse());
    options.zones = zones.collect::<Result<_, _>>()?;
    options.round_trip_ms.truncate(options.zones.len());
    for row in &mut options.round_trip_ms {
        row.truncate(options.zones.len());
    }
    options.disk = kernel::Bytes::mebibytes(128);
    options.bound = true;
    let lab = Lab::start(options)?;
    say(&format!("    {nodes} nodes of ours join"));
    for (at, node) in lab.nodes().iter().enumerate() {
        let zone = node.zone.to_string();
        let mut command = up(&lab, node, program, log);
        if at == 0 {
            command.args(["--zone", &zone]);
        } else {
            let mut token = lab.command(lab.name(0), program);
            token.args(["token", "create", "--ttl", "1h", "--owner", "admin"]);
            token.args(["--zone", &zone]);
            command.args(["--join", finish(token)?.trim()]);
        }
        finish(command)?;
        let again = again(node, program, log);
        lab.restart_with(&node.name, &again)?;
    }
    Ok(lab)
}

fn listen(node: &LabNode) -> Vec<String> {
    let at = |port| format!("{}:{port}", node.address);
    let flags = [("--agent-listen", AGENT_PORT), ("--edge-listen", EDGE_PORT)];
    let flags = flags.into_iter();
    flags
        .flat_map(|(flag, port)| [flag.to_owned(), at(port)])
        .collect()
}

/// The command that starts a node of the lab.
pub fn up(lab: &Lab, node: &LabNode, program: &Path, log: &str) -> Command {
    let mut command = lab.command(&node.name, program);
    command.arg("up").args(listen(node));
    command.env("HOMEOSTAT_LOG", log);
    command
}

/// How the lab's keeper starts a node whose power is back.
fn again(node: &LabNode, program: &Path, log: &str) -> Vec<String> {
    let words = [
        "env".to_owned(),
        format!("HOMEOSTAT_LOG={log}"),
        program.display().to_string(),
        "up".to_owned(),
    ];
    words.into_iter().chain(listen(node)).collect()
}

/// Its standard output; its failure in its own words.
pub fn finish(mut command: Command) -> Result<String, Failure> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let words: Vec<_> = command.get_args().skip(2).collect();
    Err(format!("{words:?} ended with {}: {said}", output.status).into())
}
