//! What the leader asks other nodes for, to answer for the whole
//! cluster: their lines of a log, their decisions, their part of a restart.
//!
//! Holds: a node that cannot be reached is left out, and said so in the log; a
//! follower answers for itself alone.

use crate::apply::api_error;
use crate::cluster::admin::ask_node;
use crate::shared::Shared;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use axum::response::Response;
use futures_util::StreamExt;
use kernel::{NodeId, ScopedName};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use wire::api::{ApiError, Progress};

/// A line that is longer ends the answer.
const LINE_BYTES_MAX: usize = 1 << 20;

/// The other nodes that run a service, as far as they can be reached; none on a
/// follower.
pub fn with_service(shared: &Shared, service: &ScopedName) -> Vec<NodeId> {
    let cluster = &shared.cluster;
    if !cluster.leads() {
        return Vec::new();
    }
    let reports = cluster.reports.borrow();
    let others = reports.iter().filter(|(node, report)| {
        **node != cluster.own.id && report.status.services.contains_key(service)
    });
    let there = others.filter(|(node, _)| cluster.reach(**node).is_up());
    there.map(|(node, _)| *node).collect()
}

/// The same, and those that hold the seats of zones: they decide about services, whether
/// they run any or not.
pub fn with_service_or_seat(shared: &Shared, service: &ScopedName) -> Vec<NodeId> {
    let cluster = &shared.cluster;
    let mut nodes = with_service(shared, service);
    if cluster.leads() {
        let holders = cluster.seats.holders().into_iter();
        let others = holders.filter(|node| {
            *node != cluster.own.id && !nodes.contains(node) && cluster.reach(*node).is_up()
        });
        let others: Vec<NodeId> = others.collect();
        nodes.extend(others);
    }
    nodes
}

/// In a path of the admin API: the slash of a whole name is escaped.
pub fn segment(service: &ScopedName) -> String {
    format!("{}%2F{}", service.project, service.name)
}

/// All other nodes that can be reached; none on a follower.
pub fn reached(shared: &Shared) -> Vec<NodeId> {
    let cluster = &shared.cluster;
    if !cluster.leads() {
        return Vec::new();
    }
    let nodes = cluster.nodes.borrow().clone();
    let others = nodes.values().filter(|record| {
        record.id != cluster.own.id && record.belongs() && cluster.reach(record.id).is_up()
    });
    others.map(|record| record.id).collect()
}

/// The other node of that name, if it can be reached.
pub fn called(shared: &Shared, name: &str) -> Vec<NodeId> {
    let mut nodes = reached(shared);
    nodes.retain(|node| shared.cluster.called(*node) == name);
    nodes
}

/// * `body`: empty, or JSON.
pub async fn ask(
    shared: &Shared,
    node: NodeId,
    (method, path): (&str, &str),
    body: Vec<u8>,
) -> Result<Response, ApiError> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body))
        .map_err(|error| api_error("internal", error.to_string(), None))?;
    ask_node(&shared.cluster, node, request).await
}

/// Each line of another node's answer, until nobody takes them.
pub async fn lines<T: DeserializeOwned>(
    shared: &Shared,
    node: NodeId,
    (method, path): (&str, &str),
    taken: &mpsc::Sender<T>,
) -> Result<(), ApiError> {
    let answer = ask(shared, node, (method, path), Vec::new()).await?;
    let broken = |why: String| api_error("unreachable", why, Some("homeostat node ls"));
    if !answer.status().is_success() {
        return Err(broken(format!("a node answered {}", answer.status())));
    }
    let mut body = answer.into_body().into_data_stream();
    let mut pending = Vec::new();
    loop {
        let bytes = tokio::select! {
            bytes = body.next() => bytes,
            () = taken.closed() => return Ok(()),
        };
        let Some(bytes) = bytes else { return Ok(()) };
        pending.extend_from_slice(&bytes.map_err(|error| broken(error.to_string()))?);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let read = serde_json::from_slice(&line);
            let line = read.map_err(|error| broken(error.to_string()))?;
            if taken.send(line).await.is_err() {
                return Ok(());
            }
        }
        if pending.len() > LINE_BYTES_MAX {
            return Err(broken("a node's line has no end".to_owned()));
        }
    }
}

/// One document.
pub async fn document<T: DeserializeOwned>(
    shared: &Shared,
    node: NodeId,
    path: &str,
) -> Result<T, ApiError> {
    let answer = ask(shared, node, ("GET", path), Vec::new()).await?;
    let bytes = axum::body::to_bytes(answer.into_body(), LINE_BYTES_MAX * 16).await;
    let bytes = bytes.map_err(|error| api_error("unreachable", error.to_string(), None))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| api_error("unreachable", error.to_string(), None))
}

/// Has another node restart its replicas of a service; why not, if it did not.
pub async fn restart(shared: &Shared, node: NodeId, service: &ScopedName) -> Result<(), ApiError> {
    let (taken, mut steps) = mpsc::channel(64);
    let path = format!("/v1/restart/{}", segment(service));
    let asking = lines::<Progress>(shared, node, ("POST", &path), &taken);
    let mut last = None;
    let ended = {
        tokio::pin!(asking);
        loop {
            tokio::select! {
                ended = &mut asking => break ended,
                Some(step) = steps.recv() => last = Some(step),
            }
        }
    };
    ended?;
    while let Ok(step) = steps.try_recv() {
        last = Some(step);
    }
    match last {
        Some(Progress::Failed { error }) => Err(error),
        _ => Ok(()),
    }
}
