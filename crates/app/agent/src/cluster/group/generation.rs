//! The cluster's generation: raised where a person has a node lead without the
//! others (`force`), and taken over by whoever comes back from before.
//!
//! In: the generation in others' frames, what they show for it. Out: this node's
//! members of the groups, taken over or begun anew at the next start; the start.
//! Holds: a generation is believed when a node that may vote has signed it; what is
//! of another generation is answered nothing but how this node stands; who was
//! led by an earlier one leads no more, and what only it had is kept aside.

use super::super::{Cluster, Kept, Own};
use crate::shared::Shared;
use futures_util::future::join_all;
use kernel::{NodeId, error_chain};
use net::PublicKey;
use net::identity::verify_statement;
use node::members::{MEMBERS_KEY, Members};
use node::nodes::NodeTable;
use node::store::{Operation, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use store::OpenError;
use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc};
use wire::cluster::{Raised, STANDING, Standing};
use wire::layout::Layout;
use wire::net::join::Signature;

const NOTE: &str = "generation.json";
/// For how another one stands.
const ASK_MAX: Duration = Duration::from_secs(2);
/// Two sides may have raised to the same generation: who leads looks for that.
const LOOK: Duration = Duration::from_secs(5);
/// Nodes that are asked in one look.
const LOOK_AT_MAX: usize = 8;
const QUEUED_MAX: usize = 16;

pub struct Generation {
    /// By which it was raised last; none in the first one.
    pub raised: Option<Raised>,
    /// Nodes whose frames are of a later one.
    ahead: mpsc::Sender<NodeId>,
    queue: AsyncMutex<mpsc::Receiver<NodeId>>,
    /// The agent is to start anew.
    pub restart: Notify,
    /// Since when nobody is known to lead.
    leaderless: Mutex<Option<Instant>>,
}

impl Generation {
    pub fn new(kept: &Kept) -> Self {
        let (ahead, queue) = mpsc::channel(QUEUED_MAX);
        Self {
            raised: noted(kept),
            ahead,
            queue: AsyncMutex::new(queue),
            restart: Notify::new(),
            leaderless: Mutex::new(None),
        }
    }

    pub fn number(&self) -> u16 {
        self.raised.as_ref().map_or(0, |raised| raised.generation)
    }

    fn rank(&self) -> Option<(u16, NodeId)> {
        self.raised.as_ref().map(Raised::rank)
    }

    /// Whether a frame is of this node's generation. Of a later one it is asked
    /// for what it has to show for that.
    pub fn is(&self, from: NodeId, generation: u16) -> bool {
        if generation > self.number() {
            // One that waits already is as good.
            let _ = self.ahead.try_send(from);
        }
        generation == self.number()
    }

    pub fn lead_is_known(&self, known: bool) {
        let mut since = self.since();
        *since = match *since {
            _ if known => None,
            None => Some(Instant::now()),
            since => since,
        };
    }

    pub fn leaderless_for(&self) -> Option<Duration> {
        self.since().map(|since| since.elapsed())
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.leaderless
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn noted(kept: &Kept) -> Option<Raised> {
    serde_json::from_slice(&kept.note(NOTE)?).ok()
}

pub fn keep(kept: &Kept, raised: &Raised) -> Result<(), String> {
    let bytes = serde_json::to_vec(raised).map_err(|error| error.to_string())?;
    kept.keep_note(NOTE, &bytes)
        .map_err(|error| error_chain(&error))
}

/// A number for a store's file, by which the later of two generations is greater.
pub fn rank(raised: &Raised) -> u64 {
    let by = raised.by.0 & ((1 << store::GENERATION_SHIFT) - 1);
    (u64::from(raised.generation) << store::GENERATION_SHIFT) | by
}

/// Before the stores are opened: has their files be of this node's generation.
/// Blocks.
///
/// Returns whether this node may begin a group by itself.
pub fn prepare(layout: &Layout, own: &Own) -> Result<bool, OpenError> {
    let Some(raised) = noted(&Kept::new(layout)) else {
        return Ok(own.holder.is_none());
    };
    let rank = rank(&raised);
    if raised.by == own.id {
        let alone = Members {
            voters: BTreeSet::from([own.id]),
            learners: BTreeSet::new(),
        };
        let value = serde_json::to_vec(&alone).unwrap_or_default();
        let members = Transaction {
            then: vec![Operation::Put(MEMBERS_KEY.to_owned(), value)],
            ..Transaction::default()
        };
        store::take_over(&layout.control(), own.id, rank, members)?;
        store::take_over(&layout.buckets(), own.id, rank, Transaction::default())?;
        return Ok(false);
    }
    for path in [layout.control(), layout.buckets()] {
        if let Some(aside) = store::begin_anew(&path, own.id, rank)? {
            tracing::warn!(
                aside = %aside.display(),
                generation = raised.generation,
                by = %raised.by,
                "another node leads since a later generation: what this one kept is aside"
            );
        }
    }
    Ok(false)
}

/// After a store was made from a backup.
pub fn mark(layout: &Layout, node: NodeId) -> Result<(), OpenError> {
    let Some(raised) = noted(&Kept::new(layout)).filter(|raised| raised.by != node) else {
        return Ok(());
    };
    for path in [layout.control(), layout.buckets()] {
        store::set_generation(&path, node, rank(&raised))?;
    }
    Ok(())
}

/// How this node stands, for any that asks.
pub fn standing(shared: &Shared) -> Standing {
    Standing {
        raised: shared.cluster.generation.raised.clone(),
        leads: shared.cluster.leads(),
        last: shared.control.last(),
    }
}

/// Those of `nodes` that answer.
pub async fn ask(cluster: &Cluster, nodes: &BTreeSet<NodeId>) -> BTreeMap<NodeId, Standing> {
    let asked = nodes.iter().map(|node| async move {
        let asking = cluster
            .transport()
            .call(*node, STANDING, Vec::new(), ASK_MAX);
        let answer = asking.await.ok()?;
        let standing: Standing = serde_json::from_slice(&answer).ok()?;
        Some((*node, standing))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Those that may be made to lead.
pub fn others(nodes: &NodeTable, own: NodeId) -> BTreeSet<NodeId> {
    let others = nodes.values().filter(|record| {
        record.id != own && record.belongs() && record.may_vote && !record.way.outbound_only
    });
    others.map(|record| record.id).collect()
}

/// One that alone is a majority asks the others first whether they were led by
/// another meanwhile.
pub async fn ask_before_leading(shared: &Shared) {
    let cluster = &shared.cluster;
    let own = cluster.own.id;
    let store = shared.control.embedded();
    if store.is_none_or(|store| store.members().voters != BTreeSet::from([own])) {
        return;
    }
    let others = others(&cluster.nodes.borrow(), own);
    for (node, standing) in ask(cluster, &others).await {
        consider(cluster, node, standing);
    }
}

/// Runs for ever.
pub async fn run(shared: Arc<Shared>) {
    let cluster = &shared.cluster;
    let mut queue = cluster.generation.queue.lock().await;
    loop {
        let asked = match tokio::time::timeout(LOOK, queue.recv()).await {
            Ok(Some(node)) => BTreeSet::from([node]),
            Ok(None) => return,
            Err(_) if cluster.generation.raised.is_some() && cluster.leads() => some(cluster),
            Err(_) => continue,
        };
        for (node, standing) in ask(cluster, &asked).await {
            consider(cluster, node, standing);
        }
        while queue.try_recv().is_ok() {}
    }
}

fn some(cluster: &Cluster) -> BTreeSet<NodeId> {
    let nodes = cluster.nodes.borrow().clone();
    let own = cluster.own.id;
    let others = nodes.keys().copied();
    let others = others.filter(|node| *node != own && cluster.reach(*node).is_up());
    let mut others: Vec<NodeId> = others.collect();
    fastrand::shuffle(&mut others);
    others.into_iter().take(LOOK_AT_MAX).collect()
}

/// Takes part in a later generation, if that is what it shows: at the next start,
/// which is now.
fn consider(cluster: &Cluster, from: NodeId, standing: Standing) {
    let Some(raised) = standing.raised else {
        return;
    };
    if Some(raised.rank()) <= cluster.generation.rank() {
        return;
    }
    let generation = raised.generation;
    match check(cluster, &raised).and_then(|()| keep(&cluster.kept, &raised)) {
        Ok(()) => {
            tracing::warn!(%from, generation, by = %raised.by, "a later generation: starts anew");
            cluster.generation.restart.notify_one();
        }
        Err(why) => tracing::error!(
            %from,
            generation,
            why,
            "a later generation is not believed; this node takes part no more until it joins anew"
        ),
    }
}

fn check(cluster: &Cluster, raised: &Raised) -> Result<(), String> {
    let by = raised.by;
    if by == cluster.own.id {
        return Err("this node is to have raised it, and does not know of it".to_owned());
    }
    let record = cluster.record(by);
    let record = record.ok_or_else(|| format!("node {by}, which raised it, is not known here"))?;
    if !record.belongs() || !record.may_vote {
        return Err(format!("node {by} may not raise it"));
    }
    let key = PublicKey(raised.key);
    let signature: [u8; 64] = (raised.signature.as_slice())
        .try_into()
        .map_err(|_| "its signature is no signature".to_owned())?;
    let statement = Raised::statement(raised.generation, by, raised.at);
    if key.fingerprint() != record.key || !verify_statement(&key, &statement, &Signature(signature))
    {
        return Err(format!("it is not signed by node {by}"));
    }
    Ok(())
}
