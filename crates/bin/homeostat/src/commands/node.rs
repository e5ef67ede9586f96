//! Nodes: listed, renamed, revoked.

use super::Context;
use super::inspect::clock;
use crate::arguments::Format;
use crate::arguments::cluster::Nodes;
use crate::failure::Failure;
use crate::output::{self, data, say};
use client::segment;
use std::process::ExitCode;
use wire::api::{NodeNameRequest, NodeView};

pub async fn run(context: &Context, what: &Nodes) -> Result<ExitCode, Failure> {
    match what {
        Nodes::Ls => list(context).await?,
        Nodes::Revoke { node } => {
            let path = format!("/v1/nodes/{}/revoke", segment(node));
            let revoked: NodeView = context.client.post(&path, &()).await?;
            say(&format!(
                "node {} is revoked: no node speaks to it any more, and it cannot come back",
                revoked.name
            ));
            say("what was placed on it moves with the next: homeostat apply DIR");
        }
        Nodes::Rename { node, name } => {
            let path = format!("/v1/nodes/{}/name", segment(node));
            let request = NodeNameRequest { name: name.clone() };
            let renamed: NodeView = context.client.post(&path, &request).await?;
            say(&format!("node {node} is called {} now", renamed.name));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(context: &Context) -> Result<(), Failure> {
    let nodes: Vec<NodeView> = context.client.get("/v1/nodes").await?;
    match context.output {
        Format::Json => output::json(&nodes, Format::Json),
        Format::Jsonl => nodes
            .iter()
            .try_for_each(|node| output::json(node, Format::Jsonl)),
        Format::Name => nodes.iter().try_for_each(|node| data(&node.name)),
        Format::Table => {
            let header = ["NAME", "ZONE", "STATE", "READY", "ADDRESS", "RTT", "JOINED"];
            output::rows(header, nodes.iter().map(row))
        }
    }
}

fn row(node: &NodeView) -> [String; 7] {
    let mut name = node.name.clone();
    if node.this {
        name.push_str(" (this)");
    }
    let mut state = node.state.clone();
    if node.holder {
        state.push_str(", holds the store");
    }
    if node.cloned {
        state.push_str(", its key is used twice");
    }
    let dash = || "-".to_owned();
    let round_trip = node.round_trip_us.map(std::time::Duration::from_micros);
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
