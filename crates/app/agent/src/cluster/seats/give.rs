//! The leader's side: gives seats, and writes what their holders want written.
//!
//! Holds: what is known of the records in memory may be old, and is no more than a
//! reason to try: each transaction compares the record itself, and where that is
//! another all is read anew.

use crate::apply::{read_head, write_head_fenced};
use crate::machine::{now, unix_now};
use crate::shared::Shared;
use aggregation::membership::Reach;
use kernel::{FencingEpoch, NodeId, ZonePath};
use node::nodes::NodeRecord;
use node::seats::{
    Answer, Ask, Moves, SEATS_PREFIX, Seat, Standing, Verdict, Zones, epoch_at, seat_key,
    written_at, zone_of_key,
};
use node::store::{Compare, Operation, Store, Transaction};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A person's change may hold up a zone's for so long: then the seat tries again.
const APPLYING_MAX: Duration = Duration::from_secs(1);
/// Of records of zones that have no seat any more, deleted at once.
const DELETED_MAX: usize = 64;

/// A node asks for its zone's seat.
pub async fn answer(shared: &Arc<Shared>, from: NodeId, ask: &Ask) -> Result<Answer, String> {
    let cluster = &shared.cluster;
    leads(shared)?;
    let nodes = cluster.nodes.borrow().clone();
    let seated = cluster.zones.seated(&nodes);
    let leaves = cluster.zones.leaves(&nodes);
    // A zone hands over its own nodes, and no others.
    let within = leaves.get(&ask.zone);
    let is_its = |node: &NodeId| within.is_some_and(|within| within.contains(node));
    let ask = Ask {
        zone: ask.zone.clone(),
        left: ask.left.iter().copied().filter(is_its).collect(),
    };
    let is_gone = |node: NodeId| {
        let belongs = nodes.get(&node).is_some_and(NodeRecord::belongs);
        !belongs || matches!(cluster.reach(node), Reach::Dead | Reach::Left)
    };
    let look = || {
        let mut keeper = cluster.seats.keeper();
        keeper.asked(from, &ask, &seated, is_gone, now())
    };
    match look() {
        Verdict::Renewed(epoch) => {
            hand_over(shared);
            return Ok(Answer { epoch: Some(epoch) });
        }
        Verdict::Refused => return Ok(Answer::default()),
        Verdict::Unread | Verdict::Give { .. } => {}
    }
    let _giving = cluster.seats.giving.lock().await;
    if look() == Verdict::Unread {
        read(shared).await?;
    }
    match look() {
        Verdict::Renewed(epoch) => Ok(Answer { epoch: Some(epoch) }),
        Verdict::Refused | Verdict::Unread => Ok(Answer::default()),
        Verdict::Give { over } => give(shared, (from, &ask.zone), over, &seated).await,
    }
}

/// What seats hand over is news to the root's loop.
fn hand_over(shared: &Shared) {
    let seats = &shared.cluster.seats;
    let left = seats.left();
    seats.handed.send_if_modified(|handed| {
        let news = *handed != left;
        *handed = left;
        news
    });
}

fn leads(shared: &Shared) -> Result<(), String> {
    if shared.cluster.leads() {
        Ok(())
    } else {
        Err("this node does not lead".to_owned())
    }
}

/// Finds out what is written down.
async fn read(shared: &Shared) -> Result<(), String> {
    let range = shared.control.range(SEATS_PREFIX).await;
    let range = range.map_err(|error| error.to_string())?;
    let mut seats = Vec::new();
    for entry in range.entries {
        let zone = zone_of_key(&entry.key);
        let seat = serde_json::from_slice::<Seat>(&entry.value).ok();
        if let Some((zone, seat)) = zone.zip(seat) {
            seats.push((zone, seat, entry.modified));
        } else {
            tracing::error!(key = entry.key, "no seat can be read there");
        }
    }
    shared.cluster.seats.keeper().read(seats);
    Ok(())
}

async fn give(
    shared: &Shared,
    (to, zone): (NodeId, &ZonePath),
    over: Option<FencingEpoch>,
    seated: &Zones,
) -> Result<Answer, String> {
    let seats = &shared.cluster.seats;
    let seat = Seat {
        holder: to,
        since: unix_now(),
    };
    let key = seat_key(zone);
    let value = serde_json::to_vec(&seat).map_err(|error| error.to_string())?;
    let compare = match over {
        Some(epoch) => Compare::Modified(key.clone(), written_at(epoch)),
        None => Compare::Absent(key.clone()),
    };
    let mut stale = seats.keeper().stale(seated);
    stale.truncate(DELETED_MAX);
    let mut then = vec![Operation::Put(key, value)];
    let deleted = stale.iter().map(|(zone, _)| seat_key(zone));
    then.extend(deleted.map(Operation::Delete));
    let transaction = Transaction {
        compare: vec![compare],
        then,
        otherwise: Vec::new(),
    };
    match shared.control.transact(transaction).await {
        Ok(outcome) if outcome.succeeded => {
            let epoch = epoch_at(outcome.revision);
            let mut keeper = seats.keeper();
            keeper.deleted(&stale);
            keeper.given(zone, seat, outcome.revision, now());
            let to = shared.cluster.called(to);
            tracing::info!(%zone, to, epoch = epoch.0, "a zone's seat has another holder");
            Ok(Answer { epoch: Some(epoch) })
        }
        Ok(_) => {
            seats.keeper().forget();
            Ok(Answer::default())
        }
        // It may or may not be done.
        Err(error) => {
            seats.keeper().forget();
            Err(error.to_string())
        }
    }
}

/// Writes what a zone's seat has decided.
pub async fn write(shared: &Arc<Shared>, from: NodeId, moves: &Moves) -> Result<(), String> {
    let cluster = &shared.cluster;
    leads(shared)?;
    let zone = &moves.zone;
    if !cluster.seats.keeper().holds(zone, from, moves.epoch) {
        let called = cluster.called(from);
        let epoch = moves.epoch.0;
        return Err(format!(
            "`{called}` does not hold the seat of {zone} under epoch {epoch}"
        ));
    }
    let applying = tokio::time::timeout(APPLYING_MAX, shared.applying.lock()).await;
    let _applying = applying.map_err(|_| "another change is under way".to_owned())?;
    let head = read_head(&shared.control, &moves.project).await;
    let head = head.map_err(|error| error.message)?;
    let (head, revision) = head.ok_or_else(|| format!("there is no `{}`", moves.project))?;
    let nodes = cluster.nodes.borrow().clone();
    let within = cluster.zone_table(&nodes, zone);
    let within = within.ok_or_else(|| format!("there is no leaf zone {zone}"))?;
    let made = moves.made(&head, &within);
    let made = made.map_err(|error| error.to_string())?;
    let fence = Compare::Modified(seat_key(zone), written_at(moves.epoch));
    let written = write_head_fenced(shared, &made, revision, fence).await;
    written.map(drop).map_err(|error| {
        // The head is another, or the seat is.
        cluster.seats.keeper().forget();
        error.message
    })
}

/// All seats of zones that have one: who may hold each, and who does.
pub async fn standing(
    shared: &Shared,
) -> Result<(Arc<Zones>, BTreeMap<ZonePath, Standing>), String> {
    let cluster = &shared.cluster;
    let nodes = cluster.nodes.borrow().clone();
    let seated = cluster.zones.seated(&nodes);
    {
        let _giving = cluster.seats.giving.lock().await;
        read(shared).await?;
    }
    let standing = cluster.seats.keeper().standing();
    Ok((seated, standing))
}
