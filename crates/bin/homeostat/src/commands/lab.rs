//! Labs: a cluster on this machine, started, shown, entered, ended.

use super::{Context, apply};
use crate::arguments::lab::{LabCommand, Which};
use crate::arguments::{Format, Up};
use crate::failure::{DEADLINE, FAILED, Failure, NOT_FOUND, USAGE};
use crate::output::{self, data, say};
use crate::roles;
use kernel::error_chain;
use lab::{Lab, LabError, Options};
use serde::Serialize;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use wire::lab::{Fault, LabKind, LabNode};

const SERVE_MAX: Duration = Duration::from_mins(2);
const ANSWER_MAX: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);
const TOKEN_LIFE: &str = "15m";

impl From<LabError> for Failure {
    fn from(error: LabError) -> Self {
        let exit = match error {
            LabError::Options { .. } => USAGE,
            LabError::Unknown { .. } => NOT_FOUND,
            _ => FAILED,
        };
        Self::new(exit, error_chain(&error), error.hint().as_deref())
    }
}

/// The lab that is meant; none when there is none at all.
pub fn find(which: Which) -> Result<Option<Lab>, Failure> {
    if let Some(id) = which.lab {
        return Ok(Some(Lab::open(id)?));
    }
    match Lab::all().0.as_slice() {
        [] => Ok(None),
        [id] => Ok(Some(Lab::open(*id)?)),
        _ => Err(Failure::new(
            USAGE,
            "there are several labs",
            Some("name one with --lab NUMBER: homeostat lab ls"),
        )),
    }
}

pub fn none() -> Failure {
    let help = "homeostat up examples/news --lab 6";
    Failure::new(NOT_FOUND, "there is no lab", Some(help))
}

/// Needs no node and no runtime: the process becomes the program.
pub fn exec(node: &kernel::Name, which: Which, command: &[OsString]) -> Result<ExitCode, Failure> {
    let lab = find(which)?.ok_or_else(none)?;
    Err(lab::enter(lab.directory(), node.as_str(), command).into())
}

pub fn run(context: &Context, what: &LabCommand) -> Result<ExitCode, Failure> {
    match what {
        LabCommand::Ls => list(context),
        LabCommand::Down { id } => down(*id),
        LabCommand::Exec {
            node,
            which,
            command,
        } => exec(node, *which, command),
    }
}

/// `6`, or a file that says more.
fn options(asked: &str) -> Result<Options, Failure> {
    // Until all nodes are started, it goes with this command.
    let options = Options {
        bound: true,
        ..Options::new(roles::program()?)
    };
    if let Ok(nodes) = asked.parse() {
        return Ok(Options { nodes, ..options });
    }
    let text = std::fs::read_to_string(asked).map_err(|error| {
        Failure::new(
            NOT_FOUND,
            format!("`{asked}` is neither a number of nodes nor a file that can be read: {error}"),
            Some("homeostat up --lab 6"),
        )
    })?;
    Ok(options.read(&text)?)
}

pub fn up(context: &Context, up: &Up, asked: &str) -> Result<ExitCode, Failure> {
    // A manifest that cannot be read starts nothing.
    up.manifest.as_deref().map(apply::read).transpose()?;
    let mut lab = Lab::start(options(asked)?)?;
    let id = lab.id();
    say(&format!("lab {id}: {}", kind(&lab)));
    if let Err(failure) = start_nodes(&lab, up.manifest.as_deref()) {
        say(&format!("lab {id} is taken away again"));
        lab.down()?;
        return Err(failure);
    }
    lab.keep()?;
    let late = wait_serving(&lab);
    show(context, &[lab_view(&lab)])?;
    if !late.is_empty() {
        return Err(Failure::new(
            DEADLINE,
            format!(
                "these do not answer as the first node does: {}",
                late.join(", ")
            ),
            Some(&format!(
                "homeostat lab exec {} -- homeostat doctor",
                late[0]
            )),
        ));
    }
    say(&format!(
        "next: homeostat lab exec n2 -- bash, homeostat chaos cut {} --for 30s, homeostat down --lab",
        lab.nodes()
            .last()
            .map_or_else(String::new, |node| node.zone.to_string()),
    ));
    Ok(ExitCode::SUCCESS)
}

fn kind(lab: &Lab) -> String {
    let (nodes, zones) = (lab.nodes().len(), lab.plan().zones.len());
    let nodes = if nodes == 1 {
        "1 node".to_owned()
    } else {
        format!("{nodes} nodes")
    };
    match lab.plan().kind {
        LabKind::Namespaces => {
            format!("{nodes} in {zones} zones, each with a network, a disk and limits of its own")
        }
        LabKind::Loopback => format!(
            "{nodes} in {zones} zones, each with an address of its own (as root, also a network, a disk and limits)"
        ),
    }
}

/// The first, the others with a token of it; the manifest once all are there, so
/// that replicas are dealt out over them.
fn start_nodes(lab: &Lab, manifest: Option<&Path>) -> Result<(), Failure> {
    let program = roles::program()?;
    let first = lab.name(0);
    for (number, node) in lab.nodes().iter().enumerate() {
        let zone = node.zone.to_string();
        let mut command = start_command(lab, node, &program);
        if number == 0 {
            command.args(["--zone", &zone]);
        } else {
            let mut token = lab.command(first, &program);
            token.args(["token", "create", "--ttl", TOKEN_LIFE, "--zone", &zone]);
            let token = finish(token, first.as_str(), "token create")?;
            command.args(["--join", token.trim()]);
        }
        finish(command, node.name.as_str(), "up")?;
        let again = [program.display().to_string(), "up".to_owned()];
        let again: Vec<String> = again.into_iter().chain(listen(node)).collect();
        lab.restart_with(&node.name, &again)?;
        say(&format!("{} is up in {zone}", node.name));
    }
    if let Some(manifest) = manifest {
        let mut apply = lab.command(first, &program);
        apply.arg("apply").arg(std::path::absolute(manifest)?);
        finish(apply, first.as_str(), "apply")?;
    }
    Ok(())
}

fn start_command(lab: &Lab, node: &LabNode, program: &Path) -> Command {
    let mut command = lab.command(&node.name, program);
    command.arg("up").arg("--data-dir").arg(&node.data);
    command.args(["--http", &node.http.to_string()]);
    command.args(["--https", &node.https.to_string()]);
    command
        .args(["--name", node.name.as_str()])
        .args(listen(node));
    command
}

/// Where a node listens for others: on its own address, whatever the variables
/// of the person say.
fn listen(node: &LabNode) -> Vec<String> {
    let at = |port| SocketAddr::new(node.http.ip(), port).to_string();
    let flags = [("--agent-listen", at(7_600)), ("--edge-listen", at(7_601))];
    let flags = flags.into_iter();
    flags
        .flat_map(|(flag, address)| [flag.to_owned(), address])
        .collect()
}

/// What a node's command said; its failure in its own words.
fn finish(mut command: Command, node: &str, what: &str) -> Result<String, Failure> {
    // The person's rights are for nodes of the person's own.
    command.env_remove(super::TOKEN).stdin(Stdio::null());
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let code = output
        .status
        .code()
        .and_then(|code| u8::try_from(code).ok());
    Err(Failure {
        exit: code.unwrap_or(FAILED),
        message: format!("`homeostat {what}` failed in {node}"),
        help: None,
        drawn: vec![said],
    })
}

/// Nodes that do not answer as the first one does in time.
fn wait_serving(lab: &Lab) -> Vec<String> {
    let deadline = Instant::now() + SERVE_MAX;
    let mut left: Vec<&LabNode> = lab.nodes().iter().collect();
    loop {
        let first = lab.nodes().first().and_then(|node| status(node.http));
        if let Some(expected) = first.filter(|status| *status < 500) {
            left.retain(|node| status(node.http) != Some(expected));
        }
        if left.is_empty() || Instant::now() >= deadline {
            return left.iter().map(|node| node.name.to_string()).collect();
        }
        std::thread::sleep(LOOK);
    }
}

/// What a node's edge answers.
fn status(address: SocketAddr) -> Option<u16> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_MAX).ok()?;
    stream.set_read_timeout(Some(ANSWER_MAX)).ok()?;
    let request = b"HEAD / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).ok()?;
    let mut head = String::new();
    stream.take(1_024).read_to_string(&mut head).ok()?;
    head.split(' ').nth(1)?.parse().ok()
}

pub fn down(id: Option<u8>) -> Result<ExitCode, Failure> {
    let (live, dead) = Lab::all();
    let chosen: Vec<u8> = match id {
        Some(id) => vec![id],
        None if live.len() > 1 => {
            let help = "homeostat lab ls, then: homeostat lab down NUMBER";
            return Err(Failure::new(USAGE, "there are several labs", Some(help)));
        }
        // What dead ones left goes too.
        None => live.into_iter().chain(dead).collect(),
    };
    if chosen.is_empty() {
        say("there is no lab");
    }
    for id in chosen {
        lab::take_down(id)?;
        say(&format!("lab {id} is gone, and all that was in it"));
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct LabView {
    lab: u8,
    state: &'static str,
    kind: Option<LabKind>,
    keeper_pid: Option<u32>,
    directory: PathBuf,
    nodes: Vec<NodeView>,
    /// Where this machine's programs are, by zone.
    clients: Vec<wire::lab::LabClient>,
    faults: Vec<wire::lab::ActiveFault>,
    packets: Option<wire::lab::PacketCounts>,
}

#[derive(Serialize)]
struct NodeView {
    name: String,
    zone: String,
    http: String,
    https: String,
    data: PathBuf,
    state: String,
}

fn lab_view(lab: &Lab) -> LabView {
    let status = lab.status().ok();
    let faults = status
        .as_ref()
        .map(|status| status.faults.clone())
        .unwrap_or_default();
    let node = |node: &LabNode| {
        let off = |fault: &Fault| matches!(fault, Fault::PowerOff { node: n } if *n == node.name);
        let state = if faults.iter().any(|active| off(&active.fault)) {
            "off".to_owned()
        } else {
            match lab.processes(&node.name) {
                0 => "empty".to_owned(),
                1 => "1 process".to_owned(),
                count => format!("{count} processes"),
            }
        };
        NodeView {
            name: node.name.to_string(),
            zone: node.zone.to_string(),
            http: view_address(node.http),
            https: format!("https://{}", without_usual_port(node.https, 443)),
            data: node.data.clone(),
            state,
        }
    };
    LabView {
        lab: lab.id(),
        state: "live",
        kind: Some(lab.plan().kind),
        keeper_pid: status.as_ref().map(|status| status.pid),
        directory: lab.directory().to_owned(),
        nodes: lab.nodes().iter().map(node).collect(),
        clients: lab.plan().clients.clone(),
        packets: status.map(|status| status.packets),
        faults,
    }
}

fn view_address(http: SocketAddr) -> String {
    format!("http://{}", without_usual_port(http, 80))
}

fn without_usual_port(address: SocketAddr, usual: u16) -> String {
    if address.port() == usual {
        address.ip().to_string()
    } else {
        address.to_string()
    }
}

fn list(context: &Context) -> Result<ExitCode, Failure> {
    let (live, dead) = Lab::all();
    let mut views = Vec::new();
    for id in live {
        views.push(lab_view(&Lab::open(id)?));
    }
    views.extend(dead.into_iter().map(|id| LabView {
        lab: id,
        state: "dead",
        kind: None,
        keeper_pid: None,
        directory: lab::labs_directory().join(id.to_string()),
        nodes: Vec::new(),
        clients: Vec::new(),
        faults: Vec::new(),
        packets: None,
    }));
    show(context, &views)?;
    if views.iter().any(|view| view.state == "dead") {
        say("what a dead lab left goes with: homeostat lab down");
    }
    Ok(ExitCode::SUCCESS)
}

fn show(context: &Context, views: &[LabView]) -> Result<(), Failure> {
    match context.output {
        Format::Json => output::json(&views, context.output),
        Format::Jsonl => views
            .iter()
            .try_for_each(|view| output::json(view, context.output)),
        Format::Name => {
            let mut nodes = views.iter().flat_map(|view| &view.nodes);
            nodes.try_for_each(|node| data(&node.name))
        }
        Format::Table => output::rows(
            ["LAB", "NODE", "ZONE", "ADDRESS", "STATE"],
            views.iter().flat_map(|view| {
                let lab = view.lab.to_string();
                let dead = view
                    .nodes
                    .is_empty()
                    .then(|| [&lab, "-", "-", "-", view.state].map(str::to_owned));
                let nodes = view.nodes.iter().map(move |node| {
                    [&lab, &node.name, &node.zone, &node.http, &node.state].map(String::clone)
                });
                nodes.chain(dead).collect::<Vec<_>>()
            }),
        ),
    }
}
