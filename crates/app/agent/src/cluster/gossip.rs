//! Drives the membership core: datagrams and time in, datagrams and news out.

use super::Cluster;
use crate::machine::{now, unix_now};
use crate::shared::Shared;
use aggregation::membership::{Effect, Event, Membership, Parameters, Reach, Start};
use kernel::NodeId;
use net::transport::Received;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

const EPOCH: &str = "epoch";
const LEAVING_MAX: Duration = Duration::from_secs(1);

/// Runs until this node has left.
pub async fn run(
    shared: Arc<Shared>,
    mut datagrams: mpsc::Receiver<Received>,
    mut inbox: mpsc::Receiver<Event>,
) {
    let cluster = &shared.cluster;
    let start = Start {
        node: cluster.own.id,
        nonce: fastrand::u32(..),
        remembered: remembered(cluster),
        wall: unix_now(),
        attributes: super::rows::own(&shared).encode().unwrap_or_default(),
    };
    let mut row = start.attributes.clone();
    let parameters = Parameters {
        whole_max: cluster.whole_max,
        ..Parameters::default()
    };
    let mut core = Membership::new(start, parameters, fastrand::u64(..), now());
    let mut version = None;
    loop {
        // Of this node's row as others have it: a rejoin counts anew.
        if version != Some(core.version()) {
            version = Some(core.version());
            cluster.rows.heard(cluster.own.id, core.version(), &row);
        }
        let event = tokio::select! {
            received = datagrams.recv() => match received {
                Some(received) => match take(cluster, &received) {
                    Some(event) => event,
                    None => continue,
                },
                None => return,
            },
            event = inbox.recv() => match event {
                Some(event) => event,
                None => return,
            },
            () = wake(&core) => Event::Tick,
        };
        if let Event::Attributes(bytes) = &event {
            row.clone_from(bytes);
        }
        let is_table = matches!(event, Event::Table(_));
        for effect in core.handle(event, now()) {
            if carry_out(&shared, effect) {
                return;
            }
        }
        if is_table {
            forget_unseen(cluster, &core);
        }
    }
}

/// What was heard of nodes that are out of view now, or gone.
fn forget_unseen(cluster: &Cluster, core: &Membership) {
    let is_seen = |node: NodeId| node == core.node() || core.view(node).is_some();
    cluster.reach.send_if_modified(|reach| {
        let before = reach.len();
        reach.retain(|node, _| is_seen(*node));
        reach.len() < before
    });
    cluster.rows.keep(is_seen);
}

/// Packets of the zone tree go there.
fn take(cluster: &Cluster, received: &Received) -> Option<Event> {
    let (from, payload) = (received.from.node, received.bytes.to_vec());
    cluster.generation.is(from, received.generation);
    if wire::tree::is_packet(&payload) {
        cluster.zones.packet(from, payload);
        return None;
    }
    Some(Event::Received { from, payload })
}

async fn wake(core: &Membership) {
    match core.next_wake() {
        None => std::future::pending().await,
        Some(at) => tokio::time::sleep(at.since(now())).await,
    }
}

/// Whether it was the last.
fn carry_out(shared: &Arc<Shared>, effect: Effect) -> bool {
    let cluster = &shared.cluster;
    match effect {
        Effect::Send { to, payload } => {
            // Lost like any datagram: the core knows of silence.
            if let Err(error) = cluster.transport().send_datagram(to, &payload) {
                tracing::trace!(node = %to, %error, "gossip not sent");
            }
        }
        Effect::Reach {
            node, was, is, by, ..
        } => {
            tracing::info!(node = %node, ?was, ?is, by = %by, "reach");
            if is == Reach::Dead {
                // Sooner than its connections find out: they are seldom used.
                cluster.transport().disconnect(node);
            }
            cluster.reach.send_modify(|reach| {
                reach.insert(node, is);
            });
        }
        Effect::Remember { epoch } => {
            let shared = Arc::clone(shared);
            tokio::task::spawn_blocking(move || remember(&shared.cluster, epoch));
        }
        Effect::Cloned { node, nonces } => {
            tracing::error!(node = %node, ?nonces, "two processes have the key of one node");
            cluster.clones.send_modify(|clones| {
                clones.insert(node);
            });
        }
        Effect::Superseded { by } => {
            tracing::error!(by, "another process has this node's key, and prevails");
            cluster.superseded.send_replace(true);
        }
        Effect::Left => {
            cluster.reach.send_modify(|reach| {
                reach.insert(cluster.own.id, Reach::Left);
            });
            return true;
        }
        Effect::Attributes {
            node,
            version,
            bytes,
        } => cluster.rows.heard(node, version, &bytes),
    }
    false
}

/// Until the others were told that this node leaves.
pub async fn left(cluster: &Cluster) {
    let own = cluster.own.id;
    let mut reach = cluster.reach.subscribe();
    let told = reach.wait_for(|reach| reach.get(&own) == Some(&Reach::Left));
    let _ = tokio::time::timeout(LEAVING_MAX, told).await;
}

fn remembered(cluster: &Cluster) -> Option<u64> {
    let bytes = cluster.kept.note(EPOCH)?;
    std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
}

fn remember(cluster: &Cluster, epoch: u64) {
    if let Err(error) = cluster.kept.keep_note(EPOCH, epoch.to_string().as_bytes()) {
        tracing::warn!(%error, "this node's epoch is not kept: a restart begins another");
    }
}
