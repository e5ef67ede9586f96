//! Content on this node: what it needs is here before it acts on it, and what
//! nobody needs goes.
//!
//! The loop is `control::holding`, in the node's machine; here are its sensor
//! (`look`), its actuators (`act`), and what tells it of damage (`scrub`, the
//! edge, holders).
//! Holds: what comes is checked against its hash; the nearest who has it is
//! asked first. Never: waits for content for ever: what ran before runs on.

pub mod act;
pub mod in_use;
mod kept;
mod look;
mod reading;
pub mod scrub;
mod told;

pub use look::run;
pub use told::{Holdings, Settings};

use super::{Cluster, stream};
use crate::shared::Shared;
use ::content::{FetchError, FetchProgress, Holder, HolderStream, Wanted};
use aggregation::membership::Reach;
use futures_util::future::BoxFuture;
use kernel::{Hash, NodeId};
use net::transport::{Priority, Stream, Transport};
use node::desired::{Applied, Desired};
use node::nodes::NodeRecord;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use wire::cluster::CONTENT;

const HOLDERS_MAX: usize = 8;
/// To a node that nothing is known of.
const FAR: Duration = Duration::from_millis(500);
/// Whoever starts without what desired state names does not wait longer.
const READY_MAX: Duration = Duration::from_mins(2);

/// Another node, as one that content is fetched from.
struct Other {
    transport: Transport,
    node: NodeId,
    name: String,
    distance: Duration,
}

impl Holder for Other {
    fn name(&self) -> &str {
        &self.name
    }

    fn distance(&self) -> Duration {
        self.distance
    }

    fn open(&self) -> BoxFuture<'_, io::Result<HolderStream>> {
        Box::pin(async move {
            let open = stream(CONTENT, Priority::Bulk);
            let opened = self.transport.open(self.node, open).await;
            let (writer, reader) = opened.map_err(io::Error::other)?.split();
            Ok(HolderStream {
                reader: Box::new(reader),
                writer: Box::new(writer),
            })
        })
    }
}

/// Who is worth asking: nodes that are up or connected; while none is, those
/// too of which nothing was heard. One that is gone costs whoever asks it the
/// time that a living one would have taken.
fn worth_asking(cluster: &Cluster) -> Vec<NodeRecord> {
    let transport = cluster.transport();
    let nodes = cluster.nodes.borrow().clone();
    let others = nodes
        .values()
        .filter(|record| record.belongs() && record.id != cluster.own.id);
    let is_there = |record: &&&NodeRecord| {
        cluster.reach(record.id).is_up() || transport.rtt(record.id).is_some()
    };
    let there: Vec<NodeRecord> = others.clone().filter(|it| is_there(&it)).cloned().collect();
    if !there.is_empty() {
        return there;
    }
    let unheard = others.filter(|record| cluster.reach(record.id) == Reach::Unheard);
    unheard.cloned().collect()
}

/// Everybody who may have it, `origin` always among them.
fn holders(cluster: &Cluster, origin: NodeId) -> Vec<Arc<dyn Holder>> {
    let transport = cluster.transport();
    let mut asked = worth_asking(cluster);
    if origin != cluster.own.id && !asked.iter().any(|record| record.id == origin) {
        asked.extend(cluster.record(origin).filter(NodeRecord::belongs));
    }
    let other = |record: NodeRecord| Other {
        transport: transport.clone(),
        node: record.id,
        name: record.name.to_string(),
        distance: transport.rtt(record.id).unwrap_or(FAR),
    };
    let mut others: Vec<Other> = asked.into_iter().map(other).collect();
    others.sort_by_key(|other| (other.node != origin, other.distance));
    others.truncate(HOLDERS_MAX);
    let holders = others.into_iter();
    holders
        .map(|other| Arc::new(other) as Arc<dyn Holder>)
        .collect()
}

/// How many nodes may be asked now.
fn others(cluster: &Cluster) -> u32 {
    u32::try_from(worth_asking(cluster).len()).unwrap_or(u32::MAX)
}

/// Answers who fetches from this node.
pub async fn serve(shared: &Shared, stream: Stream) {
    let (mut writer, reader) = stream.split();
    match shared.content_server.serve(reader, &mut writer).await {
        Ok(_) => writer.finish(),
        Err(error) => tracing::debug!(%error, "content not served"),
    }
}

/// Has here all that an applied manifest names, before desired state names it.
pub async fn fetch(
    shared: &Shared,
    applied: &Applied,
    progress: &mut (dyn FnMut(FetchProgress) + Send),
) -> Result<(), FetchError> {
    let missing = |hash: &Hash| !shared.content.path(*hash).exists();
    let others = || holders(&shared.cluster, applied.origin);
    for tree in applied.trees.values().copied().filter(missing) {
        let fetched = shared.fetcher.fetch_tree(tree, &others(), progress).await?;
        tracing::info!(%tree, ?fetched, "content fetched");
    }
    for program in applied.all_programs().map(|it| *it.1).filter(missing) {
        let wanted = Wanted::new(program).executable();
        let fetched = shared.fetcher.fetch(wanted, &others(), progress).await?;
        tracing::info!(%program, ?fetched, "content fetched");
    }
    Ok(())
}

/// Waits until the loop has here what desired state names, or has tried for a
/// while; sites that replicas here are bound to are laid out.
pub async fn ready(shared: &Arc<Shared>, desired: &Desired) {
    shared.holdings.wake();
    let limit = tokio::time::Instant::now() + READY_MAX;
    for applied in desired.projects.values() {
        if tokio::time::timeout_at(limit, have(shared, applied))
            .await
            .is_ok()
        {
            continue;
        }
        let project = &applied.manifest.project;
        tracing::error!(%project, "going on without all of its content");
        let (shared, applied) = (Arc::clone(shared), applied.clone());
        tokio::spawn(async move {
            have(&shared, &applied).await;
            // The edge refused what was not here.
            super::observe::publish(&shared).await;
        });
    }
}

async fn have(shared: &Arc<Shared>, applied: &Applied) {
    let mut looks = shared.holdings.looks();
    let programs = || applied.all_programs().map(|(_, hash)| hash);
    let named = || applied.trees.values().chain(programs());
    while !named().all(|hash| shared.content.path(*hash).exists()) {
        if looks.changed().await.is_err() {
            return;
        }
    }
    if let Err(error) = crate::apply::lay_out_sites(shared, applied).await {
        tracing::warn!(error = error.message, "a site is not laid out");
    }
}
