//! On the leader: compares what is wished with what is seen, and places elsewhere
//! what ran on nodes that are gone.
//!
//! The loop is `control::repair`, in the node's machine; here are its sensor and
//! its actuator.
//! Holds: one change of what is placed at a time; who runs what is written before
//! anybody acts on it, so that all act on the same.

use super::{placing, read_desired, read_head, storage, write_head};
use crate::shared::{Message, Shared};
use aggregation::membership::Reach;
use control::repair::{Reading, Seen};
use kernel::{NodeId, ScopedName};
use node::NodeEvent;
use node::desired::{Applied, Desired};
use node::nodes::{NodeRecord, NodeTable};
use node::placing::{is_movable, leaving, replace as replacing};
use std::collections::{BTreeMap, BTreeSet};
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
    loop {
        match read_desired(&shared.store).await {
            Ok(desired) => {
                let event = Message::Node(look(&shared, &desired));
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
            () = tokio::time::sleep(LOOK) => {}
        }
        tokio::time::sleep(GATHER).await;
        let _ = reach.borrow_and_update();
        let _ = nodes.borrow_and_update();
        let _ = mirrored.borrow_and_update();
    }
}

/// Whether it is known that it does not run anything for the cluster now.
fn is_gone(shared: &Shared, node: NodeId) -> bool {
    matches!(shared.cluster.reach(node), Reach::Dead | Reach::Left)
}

fn look(shared: &Shared, desired: &Desired) -> NodeEvent {
    let nodes = shared.cluster.nodes.borrow().clone();
    let mut movable: BTreeMap<NodeId, u32> = BTreeMap::new();
    let mut about = BTreeSet::new();
    for (name, service, applied) in desired.services() {
        for record in nodes.values() {
            let share = applied.share(&name.name, service, record.id);
            if share > 0 && is_movable(service) {
                *movable.entry(record.id).or_default() += share;
                if !record.belongs() || is_gone(shared, record.id) {
                    about.insert(name.clone());
                }
            }
        }
    }
    let mut reports = shared.cluster.reports.borrow().clone();
    reports.retain(|node, _| !is_gone(shared, *node));
    let differences = node::wishes::differences(desired, &nodes, &reports);
    let seen = nodes.values().map(|record| {
        let up = record.belongs() && !is_gone(shared, record.id);
        let draining = up && record.draining;
        let movable = if draining {
            leaving(desired, &nodes, &differences, record.id)
        } else {
            movable.get(&record.id).copied().unwrap_or_default()
        };
        let seen = Seen {
            up,
            movable,
            left: !record.belongs(),
            draining,
        };
        (record.id, seen)
    });
    let reading = Reading {
        nodes: seen.collect(),
    };
    NodeEvent::ClusterSeen {
        reading,
        as_wished: differences.is_empty() && about.is_empty(),
        about: about.into_iter().collect::<Vec<ScopedName>>(),
    }
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
    mut gone: BTreeSet<NodeId>,
    at_most: u32,
) -> Result<u32, ApiError> {
    let nodes: Arc<NodeTable> = shared.cluster.nodes.borrow().clone();
    // One that is back meanwhile keeps what it has.
    let belongs = |node: &NodeId| nodes.get(node).is_some_and(NodeRecord::belongs);
    gone.retain(|node| !belongs(node) || is_gone(shared, *node));
    let desired = read_desired(&shared.control).await;
    let desired = desired.map_err(|error| storage(&error))?;
    let known = |node| placing::known(shared, node);
    let replaced = replacing(&desired, &nodes, &gone, at_most, known);
    for refusal in &replaced.refused {
        tracing::warn!(%refusal, hint = refusal.hint(), "no other place");
    }
    for (project, placements) in replaced.placements {
        let Some((applied, revision)) = read_head(&shared.control, &project).await? else {
            continue;
        };
        // The same state under the same number: nobody asked for another one.
        // Singletons may have got their places since it was read.
        let mut applied: Applied = applied;
        for (name, placed) in placements {
            let service = applied.manifest.services.get(&name);
            if service.is_some_and(|service| !service.singleton) {
                applied.placements.insert(name, placed);
            }
        }
        match write_head(shared, &applied, Some(revision), None).await {
            // Somebody was faster, and is looked at next.
            Err(error) if error.code == "conflict" => {}
            done => drop(done?),
        }
    }
    Ok(replaced.moved)
}
