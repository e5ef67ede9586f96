//! On whoever holds a zone's seat: compares what is wished of the zone with what is seen
//! of it, and has what it lost placed elsewhere within it.
//!
//! The loop is `control::repair`, in the node's machine; what it sees and may change is
//! `node::seats`; here are its sensor and its actuator.
//! Holds: one decision is carried out at a time, under the epoch that it was taken
//! under; without the seat nothing is looked at, and nothing is done.

use super::{placing, read_desired};
use crate::cluster::group::Lead;
use crate::cluster::seats::{call, write};
use crate::machine::now;
use crate::shared::{Message, Shared};
use kernel::{FencingEpoch, NodeId, ZonePath};
use node::seats::{Decided, Held, Moves, decide, part};
use node::store::StoreError;
use node::{NodeEvent, mending};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use wire::cluster::MOVE;

/// Nothing may have changed, and what was to come may be overdue.
const LOOK: Duration = Duration::from_secs(1);
/// What changes more often is looked at this often.
const GATHER: Duration = Duration::from_millis(50);
/// For the leader to write it down.
const MOVE_MAX: Duration = Duration::from_secs(3);

/// Runs for ever.
pub async fn run(shared: Arc<Shared>) {
    let cluster = &shared.cluster;
    let mut tenure = cluster.seats.tenure.subscribe();
    let mut reach = cluster.reach_changes();
    let mut nodes = cluster.nodes.subscribe();
    let mut mirrored = cluster.mirrored.subscribe();
    loop {
        if tenure.wait_for(Option::is_some).await.is_err() {
            return;
        }
        if let Some(held) = cluster.seats.held() {
            match look(&shared, &held).await {
                Ok(Some(event)) if held.is_held(now()) => {
                    if shared.messages.send(Message::Node(event)).await.is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "what is wished of the zone is not read"),
            }
        }
        tokio::select! {
            changed = reach.changed() => if changed.is_err() { return },
            changed = nodes.changed() => if changed.is_err() { return },
            changed = mirrored.changed() => if changed.is_err() { return },
            changed = tenure.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK) => {}
        }
        tokio::time::sleep(GATHER).await;
        let _ = reach.borrow_and_update();
        let _ = nodes.borrow_and_update();
        let _ = mirrored.borrow_and_update();
    }
}

/// None where there is no such zone (any more).
async fn look(shared: &Shared, held: &Held) -> Result<Option<NodeEvent>, StoreError> {
    let cluster = &shared.cluster;
    let nodes = cluster.nodes.borrow().clone();
    let Some(within) = cluster.zone_table(&nodes, &held.zone) else {
        return Ok(None);
    };
    let desired = part(&read_desired(&shared.store).await?, &within);
    let reports = cluster.reports.borrow().clone();
    let look = mending::look(&desired, &within, reports, |node| cluster.reach(node));
    cluster.seats.seen(&look.reading);
    Ok(Some(NodeEvent::ZoneSeen {
        zone: held.zone.clone(),
        epoch: held.epoch,
        look,
    }))
}

/// Carries a decision out.
pub async fn replace(
    shared: Arc<Shared>,
    (zone, epoch): (ZonePath, FencingEpoch),
    gone: BTreeSet<NodeId>,
    at_most: u32,
) {
    let seats = &shared.cluster.seats;
    let _moving = seats.moving.lock().await;
    let holds = || {
        let held = seats.held();
        held.is_some_and(|held| held.zone == zone && held.epoch == epoch)
    };
    if !holds() {
        tracing::info!(%zone, "this node does not hold the zone's seat any more");
        return;
    }
    let decided = match decided(&shared, (&zone, epoch), gone, at_most).await {
        Ok(decided) => decided,
        Err(error) => {
            tracing::warn!(%zone, %error, "what is wished of the zone is not read");
            return;
        }
    };
    let Decided { moves, refused } = decided;
    for moves in moves.into_iter().take_while(|_| holds()) {
        let project = &moves.project;
        match ask(&shared, &moves).await {
            Ok(()) => tracing::info!(%zone, %project, "replicas have another place in the zone"),
            Err(why) => tracing::warn!(%zone, %project, why, "nothing was placed elsewhere"),
        }
    }
    // After what the zone could place: else the root would race it.
    if !refused.is_empty() {
        tracing::warn!(%zone, nodes = ?refused, "what these had is the root's to place");
        seats.refused(refused);
    }
}

async fn decided(
    shared: &Shared,
    (zone, epoch): (&ZonePath, FencingEpoch),
    gone: BTreeSet<NodeId>,
    at_most: u32,
) -> Result<Decided, StoreError> {
    let cluster = &shared.cluster;
    let nodes = cluster.nodes.borrow().clone();
    let Some(within) = cluster.zone_table(&nodes, zone) else {
        return Ok(Decided::default());
    };
    let gone = mending::still_gone(gone, &within, |node| cluster.reach(node));
    let desired = read_desired(&shared.store).await?;
    let known = |node| placing::known(shared, node);
    let its = (zone, epoch, &within);
    Ok(decide(&desired, &nodes, its, &gone, at_most, known))
}

/// Has the leader write it down.
async fn ask(shared: &Arc<Shared>, moves: &Moves) -> Result<(), String> {
    let cluster = &shared.cluster;
    match cluster.lead() {
        Lead::Here => write(shared, cluster.own.id, moves).await,
        Lead::At(leader) => call(cluster, (leader, MOVE), moves, MOVE_MAX).await,
        Lead::Unknown => Err("nobody is known to lead".to_owned()),
    }
}
