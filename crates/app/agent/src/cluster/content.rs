//! Content from node to node: what desired state names is here before this
//! node acts on it.
//!
//! Holds: what comes is checked against its hash; the nearest who has it is
//! asked first. Never: waits for content for ever: what ran before runs on.

use super::{Cluster, stream};
use crate::shared::Shared;
use ::content::{FetchError, FetchProgress, Holder, HolderStream, Wanted};
use aggregation::membership::Reach;
use futures_util::future::BoxFuture;
use kernel::{Hash, NodeId, error_chain};
use net::transport::{Priority, Stream, Transport};
use node::desired::{Applied, Desired};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use wire::cluster::CONTENT;

const HOLDERS_MAX: usize = 8;
/// To a node that nothing is known of.
const FAR: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_secs(1);
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

/// Everybody who may have it, `origin` always among them.
fn holders(cluster: &Cluster, origin: NodeId) -> Vec<Arc<dyn Holder>> {
    let transport = cluster.transport();
    let nodes = cluster.nodes.borrow().clone();
    let mut others: Vec<Other> = nodes
        .values()
        .filter(|record| record.belongs() && record.id != cluster.own.id)
        .filter(|record| {
            let reach = cluster.reach(record.id);
            record.id == origin || reach.is_up() || reach == Reach::Unheard
        })
        .map(|record| Other {
            transport: transport.clone(),
            node: record.id,
            name: record.name.to_string(),
            distance: transport.rtt(record.id).unwrap_or(FAR),
        })
        .collect();
    others.sort_by_key(|other| (other.node != origin, other.distance));
    others.truncate(HOLDERS_MAX);
    let holders = others.into_iter();
    holders
        .map(|other| Arc::new(other) as Arc<dyn Holder>)
        .collect()
}

/// Answers who fetches from this node.
pub async fn serve(shared: &Shared, stream: Stream) {
    let (mut writer, reader) = stream.split();
    match shared.content_server.serve(reader, &mut writer).await {
        Ok(_) => writer.finish(),
        Err(error) => tracing::debug!(%error, "content not served"),
    }
}

/// Has here all that an applied manifest names.
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
    for program in applied.programs.values().copied().filter(missing) {
        let wanted = Wanted::new(program).executable();
        let fetched = shared.fetcher.fetch(wanted, &others(), progress).await?;
        tracing::info!(%program, ?fetched, "content fetched");
    }
    Ok(())
}

/// Has here what desired state names, or has tried for a while; sites that
/// replicas here are bound to are laid out.
pub async fn ready(shared: &Arc<Shared>, desired: &Desired) {
    let alone = shared.cluster.nodes.borrow().len() < 2;
    if alone && shared.cluster.holder().is_none() {
        return;
    }
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

/// Tries until all is here.
async fn have(shared: &Arc<Shared>, applied: &Applied) {
    while let Err(error) = fetch(shared, applied, &mut |_| {}).await {
        let project = &applied.manifest.project;
        let why = error_chain(&error);
        tracing::warn!(%project, why, "content is missing here; trying on");
        tokio::time::sleep(RETRY).await;
    }
    if let Err(error) = crate::apply::lay_out_sites(shared, applied).await {
        tracing::warn!(error = error.message, "a site is not laid out");
    }
}
