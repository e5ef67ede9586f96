//! Between the control group's leader and each node that follows it: one stream,
//! on which keys and reports go out and the follower's own report comes in.
//!
//! Holds: a follower that does not take what it is sent is let go, and comes
//! back; whoever does not lead says so at once, and who does.
//! Never: delays one follower for another.

mod frames;
mod mirror;

use super::group::control::Control;
use super::group::{Lead, lease};
use super::{Cluster, stream};
use crate::shared::Shared;
use frames::Frames;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kernel::{NodeId, Revision};
use mirror::{Mirrored, Source};
use net::transport::{Priority, RecvHalf, SendHalf, Stream};
use node::lease::{Ask, Grant};
use node::members::Members;
use node::nodes::NodeReport;
use node::store::StoreError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use store::EmbeddedStore;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use wire::cluster::FOLLOW;

/// The other side takes nothing for so long: it is let go.
const SEND_MAX: Duration = Duration::from_secs(10);
/// Each says so often that it is there …
const BEAT: Duration = Duration::from_millis(500);
/// … and is let go when it has not been heard for so long.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);
const RETRY_MIN: Duration = Duration::from_millis(100);
pub const RETRY_MAX: Duration = Duration::from_secs(1);
/// A leader that was not heard for so long may be none: the others are asked.
const DOUBT_AFTER: Duration = Duration::from_millis(1_200);
const ASK_AGAIN: Duration = Duration::from_millis(150);
/// Who leads says so within this time, or is not waited for.
const ANSWER_MAX: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ToFollower {
    /// This node does not lead; who does, as far as it knows.
    LedBy(Option<NodeId>),
    Mirror(Mirrored),
    Report(NodeId, Box<NodeReport>),
    Beat,
    Granted(Grant),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FromFollower {
    Report(Box<NodeReport>),
    Beat,
    Ask(Ask),
}

async fn send<M: Serialize>(stream: &mut SendHalf, message: &M) -> io::Result<()> {
    match timeout(SEND_MAX, frames::send(stream, message)).await {
        Ok(sent) => sent,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// The leader's side; ends with the stream, or with its leadership.
pub async fn lead(shared: Arc<Shared>, from: NodeId, stream: Stream) {
    let cluster = &shared.cluster;
    let (mut sender, receiver) = stream.split();
    let lead = cluster.lead();
    if lead != Lead::Here {
        let _ = send(&mut sender, &ToFollower::LedBy(lead.node())).await;
        sender.finish();
        return;
    }
    // The first word: this node leads.
    if send(&mut sender, &ToFollower::Beat).await.is_err() {
        return;
    }
    let (answer, grants) = lease::way_back();
    let hearing = hear(cluster, from, Frames::new(receiver), answer);
    let telling = tell(&shared, from, &mut sender, grants);
    let ended = tokio::select! {
        ended = hearing => ended,
        ended = telling => ended,
        () = cluster.lead_changes(Lead::Here) => Ok(()),
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

async fn hear(
    cluster: &Cluster,
    from: NodeId,
    mut frames: Frames<RecvHalf>,
    answer: mpsc::Sender<Grant>,
) -> io::Result<()> {
    let mut silent_at = Instant::now() + SILENCE_MAX;
    while let Some(message) = next(&mut frames, &mut silent_at).await? {
        match message {
            FromFollower::Report(report) => cluster.reported(from, *report),
            FromFollower::Beat => {}
            FromFollower::Ask(ask) => {
                let answer = answer.clone();
                let asked = lease::Asked { from, ask, answer };
                // Too many at once: it asks again.
                let _ = cluster.leases.asks.try_send(asked);
            }
        }
    }
    Ok(())
}

async fn tell(
    shared: &Shared,
    to: NodeId,
    sender: &mut SendHalf,
    mut grants: mpsc::Receiver<Grant>,
) -> io::Result<()> {
    let (read, mut mirrored) = mpsc::channel(1);
    // Goes on while other things are sent: begun anew each time, a reading that
    // takes longer than they are apart would never end.
    let reading = async move {
        let mut source = Source::new(&shared.control);
        loop {
            let next = source.next().await.map_err(io::Error::other)?;
            read.send(next).await.map_err(io::Error::other)?;
        }
    };
    tokio::pin!(reading);
    let mut reports = shared.cluster.reports.subscribe();
    reports.mark_changed();
    let mut told: BTreeMap<NodeId, NodeReport> = BTreeMap::new();
    let mut beats = tokio::time::interval(BEAT);
    loop {
        tokio::select! {
            _ = beats.tick() => send(sender, &ToFollower::Beat).await?,
            Some(grant) = grants.recv() => send(sender, &ToFollower::Granted(grant)).await?,
            ended = &mut reading => return ended,
            Some(mirrored) = mirrored.recv() => {
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

/// The leader's own copy of what it knows, as followers have it; runs for ever.
pub async fn mirror_here(shared: Arc<Shared>) {
    loop {
        let mut source = Source::new(&shared.control);
        let ended: Result<(), StoreError> = async {
            loop {
                take(&shared, source.next().await?).await?;
            }
        }
        .await;
        if let Err(error) = ended {
            tracing::warn!(%error, "the control group is not read");
        }
        tokio::time::sleep(RETRY_MIN).await;
    }
}

/// Writes down here what the leader has.
async fn take(shared: &Arc<Shared>, mirrored: Mirrored) -> Result<(), StoreError> {
    let cluster = &shared.cluster;
    let of = mirrored.revision();
    let kept = mirror::keep(&shared.store, mirrored).await?;
    if let Some(members) = kept.members {
        cluster.note_members(&members);
        cluster.members.send_replace(members);
    }
    cluster.mirrored.send_modify(|mirrored| {
        mirrored.of = of;
        mirrored.here = kept.revision.max(mirrored.here);
    });
    Ok(())
}

/// Before there is a network: has in this node's own store what the control group
/// has, where this node alone keeps that. Returns who is wanted as members.
pub async fn begin(
    store: &EmbeddedStore,
    control: &Control,
    own: NodeId,
) -> Result<Members, StoreError> {
    if control.members().leader == Some(own) {
        let whole = Source::new(control).next().await?;
        mirror::keep(store, whole).await?;
    }
    Ok(super::group::wanted(store).await?.0)
}

/// The follower's side; runs for ever.
pub async fn follow(shared: Arc<Shared>) {
    let cluster = &shared.cluster;
    let mut wait = RETRY_MIN;
    let mut next = None;
    loop {
        if cluster.leads() {
            next = None;
            cluster.lead_changes(Lead::Here).await;
            continue;
        }
        let said = cluster.lead();
        let found = match next.take() {
            Some(found) => Some(found),
            None => find(cluster).await,
        };
        if let (None, Lead::At(node)) = (&found, said) {
            // A member goes by the last leader it heard of until it votes.
            cluster.lost(node);
        }
        if let Some(found) = found {
            let node = found.node;
            let ended = converse(&shared, found).await;
            if cluster.following.send_replace(false) {
                wait = RETRY_MIN;
            }
            cluster.lost(node);
            match ended {
                Ok(Some(other)) => {
                    next = Some(other);
                    continue;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "the leader is lost; what runs runs on"),
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// A stream to the leader.
struct Led {
    node: NodeId,
    sender: SendHalf,
    frames: Frames<RecvHalf>,
}

/// Asks the one that is known to lead, else all who may.
async fn find(cluster: &Cluster) -> Option<Led> {
    if let Lead::At(node) = cluster.lead()
        && let Ok(led) = ask(cluster, node).await
    {
        return Some(led);
    }
    let mut asked = cluster.trusted();
    asked.extend(cluster.own.told().map(|told| told.id));
    asked.remove(&cluster.own.id);
    let mut asking: FuturesUnordered<_> = asked.iter().map(|node| ask(cluster, *node)).collect();
    while let Some(answer) = asking.next().await {
        match answer {
            Ok(led) => return Some(led),
            // One of a later choice than this node knows of.
            Err(Some(other)) if !asked.contains(&other) && other != cluster.own.id => {
                if let Ok(led) = ask(cluster, other).await {
                    return Some(led);
                }
            }
            Err(_) => {}
        }
    }
    None
}

/// # Errors
/// It does not lead, or is not reached: who leads, if it says that.
async fn ask(cluster: &Cluster, node: NodeId) -> Result<Led, Option<NodeId>> {
    let asking = async {
        let open = stream(FOLLOW, Priority::Normal);
        let stream = cluster.transport().open(node, open).await;
        let stream = stream.map_err(|error| {
            tracing::debug!(%node, %error, "not reached to follow it");
            None
        })?;
        let (mut sender, receiver) = stream.split();
        // Without a word from here the other side does not hear of the stream.
        let said = send(&mut sender, &FromFollower::Beat).await;
        said.map_err(|_| None)?;
        let mut frames = Frames::new(receiver);
        match frames.next::<ToFollower>().await {
            Ok(Some(ToFollower::LedBy(other))) => Err(other),
            Ok(Some(ToFollower::Beat)) => Ok(Led {
                node,
                sender,
                frames,
            }),
            Ok(_) | Err(_) => Err(None),
        }
    };
    timeout(ANSWER_MAX, asking).await.unwrap_or(Err(None))
}

/// Until it ends, or another one is found to lead.
async fn converse(shared: &Arc<Shared>, to: Led) -> io::Result<Option<Led>> {
    let cluster = &shared.cluster;
    let Led {
        node,
        mut sender,
        mut frames,
    } = to;
    let leader = Lead::At(node);
    cluster.set_lead(leader);
    let mut own = cluster.own_report.subscribe();
    own.mark_changed();
    let mut beats = tokio::time::interval(BEAT);
    let mut asking = cluster.leases.asking.subscribe();
    let mut silent_at = Instant::now() + SILENCE_MAX;
    // Goes on until something is heard, whatever is sent meanwhile.
    let doubt = another_leads(cluster, node, Instant::now());
    tokio::pin!(doubt);
    loop {
        tokio::select! {
            () = cluster.lead_changes(leader) => return Ok(None),
            other = &mut doubt => return Ok(Some(other)),
            _ = beats.tick() => send(&mut sender, &FromFollower::Beat).await?,
            changed = own.changed() => {
                changed.map_err(io::Error::other)?;
                let report = own.borrow_and_update().clone();
                send(&mut sender, &FromFollower::Report(Box::new(report))).await?;
            }
            changed = asking.changed() => {
                changed.map_err(io::Error::other)?;
                let ask = asking.borrow_and_update().clone();
                if let Some(ask) = ask {
                    send(&mut sender, &FromFollower::Ask(ask)).await?;
                }
            }
            message = next::<ToFollower>(&mut frames, &mut silent_at) => {
                doubt.set(another_leads(cluster, node, Instant::now()));
                match message? {
                    None | Some(ToFollower::LedBy(_)) => return Ok(None),
                    Some(message) => told(shared, message).await.map_err(io::Error::other)?,
                }
            }
        }
    }
}

async fn told(shared: &Arc<Shared>, message: ToFollower) -> Result<(), StoreError> {
    let cluster = &shared.cluster;
    match message {
        ToFollower::Beat | ToFollower::LedBy(_) => {}
        ToFollower::Granted(grant) => {
            let _ = cluster.leases.grants.try_send(grant);
        }
        ToFollower::Mirror(mirrored) => {
            take(shared, mirrored).await?;
            if !cluster.following.send_replace(true) {
                let newest = newest(&shared.store).await?;
                tokio::spawn(become_current(Arc::clone(shared), newest));
            }
        }
        ToFollower::Report(node, report) => cluster.reported(node, *report),
    }
    Ok(())
}

/// Whichever of the others says that it leads, asked once this one was not heard for
/// a while.
async fn another_leads(cluster: &Cluster, than: NodeId, heard: Instant) -> Led {
    tokio::time::sleep_until(heard + DOUBT_AFTER).await;
    loop {
        let mut others = cluster.trusted();
        others.remove(&than);
        others.remove(&cluster.own.id);
        let mut asking: FuturesUnordered<_> =
            others.iter().map(|node| ask(cluster, *node)).collect();
        while let Some(answer) = asking.next().await {
            if let Ok(led) = answer {
                return led;
            }
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// The last change of desired state here.
async fn newest(store: &dyn node::store::Store) -> Result<Revision, StoreError> {
    let range = store.range(node::desired::PREFIX).await?;
    let changes = range.entries.iter().map(|entry| entry.modified);
    Ok(changes.max().unwrap_or_default())
}

/// Once what the leader had said is in force at the edge.
async fn become_current(shared: Arc<Shared>, revision: Revision) {
    crate::apply::settling::edge_has(&shared, revision).await;
    shared.cluster.current.send_replace(true);
}
