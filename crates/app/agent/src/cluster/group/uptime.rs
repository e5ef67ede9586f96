//! On the leader: how often each node is down, for who places replicas.
//!
//! In: who is there, as gossip says. Out: a record for each node in the control
//! group, written when a node goes or comes.
//! Holds: the next leader goes on from what this one has written.

use crate::machine::unix_now;
use crate::shared::Shared;
use kernel::NodeId;
use node::nodes::NodeRecord;
use node::store::{Operation, Store, StoreError, TRANSACTION_OPERATIONS_MAX, Transaction};
use node::uptime::{PREFIX, Standing, Uptime, key};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Also where nothing is heard: a write may have failed.
const LOOK: Duration = Duration::from_secs(5);
/// Nodes that go together are written together.
const GATHER: Duration = Duration::from_millis(500);

/// Runs for ever.
pub async fn watch(shared: Arc<Shared>) {
    let cluster = &shared.cluster;
    let mut reach = cluster.reach_changes();
    let mut known = loop {
        match read(&shared.control).await {
            Ok(known) => break known,
            Err(error) => tracing::warn!(%error, "how often nodes are down is not read"),
        }
        tokio::time::sleep(LOOK).await;
    };
    loop {
        if let Err(error) = look(&shared, &mut known).await {
            tracing::warn!(%error, "how often nodes are down is not written");
        }
        match tokio::time::timeout(LOOK, reach.changed()).await {
            Ok(Err(_)) => return,
            Ok(Ok(())) => tokio::time::sleep(GATHER).await,
            Err(_) => {}
        }
        let _ = reach.borrow_and_update();
    }
}

async fn read(store: &dyn Store) -> Result<BTreeMap<NodeId, Uptime>, StoreError> {
    let kept = store.range(PREFIX).await?.entries;
    let read = kept.iter().filter_map(|entry| {
        let node = entry.key.strip_prefix(PREFIX)?.parse().ok()?;
        // What cannot be read begins anew.
        let uptime = serde_json::from_slice(&entry.value).unwrap_or_default();
        Some((NodeId(node), uptime))
    });
    Ok(read.collect())
}

async fn look(shared: &Shared, known: &mut BTreeMap<NodeId, Uptime>) -> Result<(), StoreError> {
    let cluster = &shared.cluster;
    let nodes = cluster.nodes.borrow().clone();
    let now = unix_now();
    let mut then = known.clone();
    let mut writes = Vec::new();
    let belongs = |node: &NodeId| nodes.get(node).is_some_and(NodeRecord::belongs);
    for (node, _) in known.iter().filter(|(node, _)| !belongs(node)) {
        then.remove(node);
        writes.push(Operation::Delete(key(*node)));
    }
    for node in nodes.keys().filter(|node| belongs(node)) {
        let Some(standing) = Standing::of(cluster.reach(*node)) else {
            continue;
        };
        let uptime = then.entry(*node).or_default();
        if uptime.seen(standing, now) {
            let value = serde_json::to_vec(uptime).unwrap_or_default();
            writes.push(Operation::Put(key(*node), value));
        }
    }
    cluster.uptimes.send_replace(Arc::new(then.clone()));
    while !writes.is_empty() {
        let rest = writes.split_off(writes.len().min(TRANSACTION_OPERATIONS_MAX));
        let transaction = Transaction {
            then: std::mem::replace(&mut writes, rest),
            ..Transaction::default()
        };
        shared.control.transact(transaction).await?;
    }
    *known = then;
    Ok(())
}
