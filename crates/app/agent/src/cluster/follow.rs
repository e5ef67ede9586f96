//! Between the node that holds the store and each that follows it: one stream,
//! on which keys and reports go out and the follower's own report comes in.
//!
//! Holds: a follower that does not take what it is sent is let go, and comes
//! back.
//! Never: delays one follower for another.

use super::frames::{self, Frames};
use super::mirror::{self, Mirrored, Source};
use super::{Cluster, stream};
use crate::shared::Shared;
use kernel::{NodeId, Revision};
use net::transport::{Priority, RecvHalf, SendHalf, Stream};
use node::nodes::NodeReport;
use node::store::{Store, StoreError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use wire::cluster::FOLLOW;

/// The other side takes nothing for so long: it is let go.
const SEND_MAX: Duration = Duration::from_secs(10);
/// Each says so often that it is there …
const BEAT: Duration = Duration::from_millis(1_500);
/// … and is let go when it has not been heard for so long.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);
const RETRY_MIN: Duration = Duration::from_millis(100);
pub const RETRY_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ToFollower {
    Mirror(Mirrored),
    Report(NodeId, Box<NodeReport>),
    Beat,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FromFollower {
    Report(Box<NodeReport>),
    Beat,
}

async fn send<M: Serialize>(stream: &mut SendHalf, message: &M) -> io::Result<()> {
    match timeout(SEND_MAX, frames::send(stream, message)).await {
        Ok(sent) => sent,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// The holder's side; ends with the stream.
pub async fn lead(shared: Arc<Shared>, from: NodeId, stream: Stream) {
    let cluster = &shared.cluster;
    let (mut sender, receiver) = stream.split();
    let hearing = hear(cluster, from, Frames::new(receiver));
    let telling = tell(&shared, from, &mut sender);
    let ended = tokio::select! {
        ended = hearing => ended,
        ended = telling => ended,
    };
    if let Err(error) = ended {
        tracing::info!(node = %from, %error, "a follower's stream ended");
    }
    // What it said last stays: its agent may be on its way back, while its edge
    // and replicas serve. Whether it can be reached is for gossip to say.
}

/// What the other side says next, if it is there. Safe to drop before it is
/// done: `silent_at` goes on.
async fn next<M: DeserializeOwned>(
    frames: &mut Frames<RecvHalf>,
    silent_at: &mut Instant,
) -> io::Result<Option<M>> {
    match timeout_at(*silent_at, frames.next()).await {
        Ok(message) => {
            *silent_at = Instant::now() + SILENCE_MAX;
            message
        }
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn hear(cluster: &Cluster, from: NodeId, mut frames: Frames<RecvHalf>) -> io::Result<()> {
    let mut silent_at = Instant::now() + SILENCE_MAX;
    while let Some(message) = next(&mut frames, &mut silent_at).await? {
        match message {
            FromFollower::Report(report) => cluster.reported(from, *report),
            FromFollower::Beat => {}
        }
    }
    Ok(())
}

async fn tell(shared: &Shared, to: NodeId, sender: &mut SendHalf) -> io::Result<()> {
    let mut source = Source::new(&shared.store);
    let mut reports = shared.cluster.reports.subscribe();
    reports.mark_changed();
    let mut told: BTreeMap<NodeId, NodeReport> = BTreeMap::new();
    let mut beats = tokio::time::interval(BEAT);
    loop {
        tokio::select! {
            _ = beats.tick() => send(sender, &ToFollower::Beat).await?,
            mirrored = source.next() => {
                let mirrored = mirrored.map_err(io::Error::other)?;
                send(sender, &ToFollower::Mirror(mirrored)).await?;
            }
            changed = reports.changed() => {
                changed.map_err(io::Error::other)?;
                let mut now = reports.borrow_and_update().clone();
                now.remove(&to);
                let news = now.iter().filter(|(node, report)| told.get(node) != Some(report));
                for (node, report) in news {
                    let message = ToFollower::Report(*node, Box::new(report.clone()));
                    send(sender, &message).await?;
                }
                told = now;
            }
        }
    }
}

/// The follower's side; runs for ever.
pub async fn follow(shared: Arc<Shared>, holder: NodeId) {
    let cluster = &shared.cluster;
    let mut wait = RETRY_MIN;
    loop {
        let open = stream(FOLLOW, Priority::Normal);
        match cluster.transport().open(holder, open).await {
            Ok(stream) => {
                let ended = converse(&shared, stream).await;
                if cluster.following.send_replace(false) {
                    wait = RETRY_MIN;
                }
                if let Err(error) = ended {
                    tracing::warn!(%error, "the holder of the store is lost; what runs runs on");
                }
            }
            Err(error) => tracing::debug!(%error, "the holder of the store is not reached"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

async fn converse(shared: &Arc<Shared>, stream: Stream) -> io::Result<()> {
    let cluster = &shared.cluster;
    let (mut sender, receiver) = stream.split();
    let mut frames = Frames::new(receiver);
    let mut own = cluster.own_report.subscribe();
    own.mark_changed();
    let mut beats = tokio::time::interval(BEAT);
    let mut silent_at = Instant::now() + SILENCE_MAX;
    loop {
        tokio::select! {
            _ = beats.tick() => send(&mut sender, &FromFollower::Beat).await?,
            changed = own.changed() => {
                changed.map_err(io::Error::other)?;
                let report = own.borrow_and_update().clone();
                send(&mut sender, &FromFollower::Report(Box::new(report))).await?;
            }
            message = next::<ToFollower>(&mut frames, &mut silent_at) => match message? {
                Some(ToFollower::Beat) => {}
                None => return Ok(()),
                Some(ToFollower::Mirror(mirrored)) => {
                    let kept = mirror::keep(&shared.store, mirrored).await;
                    kept.map_err(io::Error::other)?;
                    if !cluster.following.send_replace(true) {
                        let newest = newest(&shared.store).await.map_err(io::Error::other)?;
                        tokio::spawn(become_current(Arc::clone(shared), newest));
                    }
                }
                Some(ToFollower::Report(node, report)) => cluster.reported(node, *report),
            }
        }
    }
}

/// The last change of desired state here.
async fn newest(store: &dyn Store) -> Result<Revision, StoreError> {
    let range = store.range(node::desired::PREFIX).await?;
    let changes = range.entries.iter().map(|entry| entry.modified);
    Ok(changes.max().unwrap_or_default())
}

/// Once what the holder had said is in force at the edge.
async fn become_current(shared: Arc<Shared>, revision: Revision) {
    crate::apply::settling::edge_has(&shared, revision).await;
    shared.cluster.current.send_replace(true);
}
