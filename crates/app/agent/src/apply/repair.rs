//! On the leader: compares what is wished with what is seen, and places elsewhere
//! what ran on nodes that are gone. Of a zone whose seat is at work, what that could not
//! place (`apply::zone`).
//!
//! The loop is `control::repair`, in the node's machine; here are its sensor and
//! its actuator.
//! Holds: one change of what is placed at a time; who runs what is written before
//! anybody acts on it, so that all act on the same.

use super::{placing, read_desired, read_head, storage, write_head};
use crate::machine::now;
use crate::shared::{Message, Shared};
use kernel::NodeId;
use node::desired::Desired;
use node::nodes::{NodeRecord, NodeTable};
use node::placing::replace as replacing;
use node::seats::Patience;
use node::{NodeEvent, mending};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use wire::api::ApiError;

/// Nothing may have changed, and what was to come may be overdue.
const LOOK: Duration = Duration::from_secs(1);
/// What changes more often is looked at this often.
const GATHER: Duration = Duration::from_millis(50);

/// Runs for ever.
pub async fn run(shared: Arc<Shared>) {
    let cluster = &shared.cluster;
    let mut reach = cluster.reach_changes();
    let mut nodes = cluster.nodes.subscribe();
    let mut mirrored = cluster.mirrored.subscribe();
    let mut handed = cluster.seats.handed.subscribe();
    let mut patience = Patience::default();
    loop {
        match read_desired(&shared.store).await {
            Ok(desired) => {
                let event = Message::Node(look(&shared, &desired, &mut patience));
                if shared.messages.send(event).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "what is wished is not read"),
        }
        tokio::select! {
            changed = reach.changed() => if changed.is_err() { return },
            changed = nodes.changed() => if changed.is_err() { return },
            changed = mirrored.changed() => if changed.is_err() { return },
            changed = handed.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK) => {}
        }
        tokio::time::sleep(GATHER).await;
        let _ = reach.borrow_and_update();
        let _ = nodes.borrow_and_update();
        let _ = mirrored.borrow_and_update();
        let _ = handed.borrow_and_update();
    }
}

fn look(shared: &Shared, desired: &Desired, patience: &mut Patience) -> NodeEvent {
    let cluster = &shared.cluster;
    let nodes = cluster.nodes.borrow().clone();
    let reports = cluster.reports.borrow().clone();
    let mut look = mending::look(desired, &nodes, reports, |node| cluster.reach(node));
    // One that is being emptied is not the zone's business.
    let is_its = |node: NodeId| nodes.get(&node).is_some_and(NodeRecord::takes_replicas);
    let works = |node| {
        let zone = cluster.zones.leaf_of(&nodes, node);
        let holder = zone.and_then(|zone| cluster.seats.at_work(&zone));
        is_its(node) && holder.is_some_and(|holder| cluster.reach(holder).is_up())
    };
    let in_view = |node| cluster.is_in_view(node);
    let left = cluster.seats.left();
    patience.look(&mut look.reading, works, &left, in_view, now());
    NodeEvent::ClusterSeen(look)
}

/// Carries a decision out.
pub async fn replace(shared: Arc<Shared>, gone: BTreeSet<NodeId>, at_most: u32) {
    let _applying = shared.applying.lock().await;
    match replace_once(&shared, gone, at_most).await {
        Ok(0) => {}
        Ok(moved) => tracing::info!(moved, "replicas have another place"),
        Err(error) => tracing::warn!(error = error.message, "nothing was placed elsewhere"),
    }
}

async fn replace_once(
    shared: &Arc<Shared>,
    decided: BTreeSet<NodeId>,
    at_most: u32,
) -> Result<u32, ApiError> {
    let nodes: Arc<NodeTable> = shared.cluster.nodes.borrow().clone();
    let cluster = &shared.cluster;
    // What is not in view here is believed of the zone's seat.
    let mut handed_over = cluster.seats.left();
    handed_over.retain(|node| decided.contains(node) && !cluster.is_in_view(*node));
    let mut gone = mending::still_gone(decided, &nodes, |node| cluster.reach(node));
    gone.extend(handed_over);
    let desired = read_desired(&shared.control).await;
    let desired = desired.map_err(|error| storage(&error))?;
    let known = |node| placing::known(shared, node);
    let replaced = replacing(&desired, &nodes, &gone, at_most, known);
    for refusal in &replaced.refused {
        tracing::warn!(%refusal, hint = refusal.hint(), "no other place");
    }
    for (project, placements) in replaced.placements {
        let Some((head, revision)) = read_head(&shared.control, &project).await? else {
            continue;
        };
        // Somebody was faster, and is looked at next.
        let Some(applied) = mending::placed(&desired, head, placements) else {
            continue;
        };
        match write_head(shared, &applied, Some(revision), None).await {
            Err(error) if error.code == "conflict" => {}
            done => drop(done?),
        }
    }
    Ok(replaced.moved)
}
