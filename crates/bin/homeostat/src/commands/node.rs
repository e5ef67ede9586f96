//! Nodes: listed, shown, renamed, emptied, revoked.

use super::Context;
use super::inspect::clock;
use super::publish::shown;
use crate::arguments::Format;
use crate::arguments::cluster::Nodes;
use crate::failure::Failure;
use crate::output::{self, data, say};
use client::segment;
use std::process::ExitCode;
use std::time::Duration;
use wire::api::{NodeDrainRequest, NodeNameRequest, NodeView, NodeZoneRequest};

pub async fn run(context: &Context, what: &Nodes) -> Result<ExitCode, Failure> {
    match what {
        Nodes::Ls => list(context).await?,
        Nodes::Show { node } => show(context, node).await?,
        Nodes::Revoke { node } => {
            let path = format!("/v1/nodes/{}/revoke", segment(node));
            let revoked: NodeView = context.client.post(&path, &()).await?;
            say(&format!(
                "node {} is revoked: no node speaks to it any more, and it cannot come back",
                revoked.name
            ));
        }
        Nodes::Rename { node, name } => {
            let path = format!("/v1/nodes/{}/name", segment(node));
            let request = NodeNameRequest { name: name.clone() };
            let renamed: NodeView = context.client.post(&path, &request).await?;
            say(&format!("node {node} is called {} now", renamed.name));
        }
        Nodes::Drain { node, end } => {
            let path = format!("/v1/nodes/{}/drain", segment(node));
            let request = NodeDrainRequest { draining: !end };
            let drained: NodeView = context.client.post(&path, &request).await?;
            if *end {
                say(&format!("node {} takes replicas again", drained.name));
            } else {
                say(&format!("node {} is being emptied", drained.name));
                say("see how far it is: homeostat get replicas");
            }
        }
        Nodes::Move { nodes, zone } => {
            for node in nodes {
                let path = format!("/v1/nodes/{}/zone", segment(node));
                let request = NodeZoneRequest { zone: zone.clone() };
                let moved: NodeView = context.client.post(&path, &request).await?;
                say(&format!("node {} is in {} now", moved.name, moved.zone));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(context: &Context) -> Result<(), Failure> {
    let nodes: Vec<NodeView> = context.client.get("/v1/nodes").await?;
    let rows = nodes.iter().map(row);
    output::list(&nodes, context.output, |it| it.name.clone(), (HEAD, rows))
}

const HEAD: [&str; 7] = ["NAME", "ZONE", "STATE", "READY", "ADDRESS", "RTT", "JOINED"];

async fn show(context: &Context, name: &str) -> Result<(), Failure> {
    let path = format!("/v1/nodes/{}", segment(name));
    let node: NodeView = context.client.get(&path).await?;
    match context.output {
        Format::Json | Format::Jsonl => output::json(&node, context.output),
        Format::Name => data(&node.name),
        Format::Table => {
            let changed = node.attributes_changed_ms.map(Duration::from_millis);
            output::rows(HEAD, std::iter::once(row(&node)))?;
            data("")?;
            let all = node.attributes.iter();
            let all = all.map(|(name, value)| [name.clone(), shown(value)]);
            output::rows(["ATTRIBUTE", "VALUE"], all)?;
            match changed {
                Some(ago) => say(&format!("changed {:.1}s ago", ago.as_secs_f64())),
                None => say("nothing was heard of its attributes yet"),
            }
            match node.attributes_unreadable {
                0 => {}
                count => say(&format!(
                    "{count} times what it published could not be read"
                )),
            }
            Ok(())
        }
    }
}

fn row(node: &NodeView) -> [String; 7] {
    let mut name = node.name.clone();
    if node.this {
        name.push_str(" (this)");
    }
    let mut state = node.state.clone();
    if node.leader {
        state.push_str(", leads");
    } else if node.votes {
        state.push_str(", votes");
    }
    if node.witness {
        state.push_str(", witness");
    }
    if node.draining {
        state.push_str(", draining");
    }
    if node.outbound_only {
        state.push_str(", outbound-only");
    }
    if node.cloned {
        state.push_str(", its key is used twice");
    }
    let dash = || "-".to_owned();
    let round_trip = node.round_trip_us.map(Duration::from_micros);
    [
        name,
        node.zone.clone(),
        state,
        node.ready.to_string(),
        node.http.clone().unwrap_or_else(dash),
        round_trip.map_or_else(dash, |span| format!("{:.1}ms", span.as_secs_f64() * 1e3)),
        clock(node.joined_unix_ms),
    ]
}
