//! Keeps a node that can only call out within reach: its relays.
//!
//! In: who belongs, who is reachable, how far they are. Out: relays for the
//! transport, the edge, and this node's report.
//! Holds: a relay that died is replaced as soon as it is known to be dead; the
//! relays of the last run are kept until something is known.

use super::Cluster;
use crate::shared::Shared;
use aggregation::membership::Reach;
use net::transport::PeerState;
use node::relays::{Candidate, Standing, choose};
use std::sync::Arc;
use std::time::Duration;

/// Distances are looked at so often.
const LOOK: Duration = Duration::from_secs(5);

/// Runs for ever.
pub async fn keep(shared: Arc<Shared>) {
    let cluster = &shared.cluster;
    let mut nodes = cluster.nodes.subscribe();
    let mut reach = cluster.reach.subscribe();
    cluster.transport().set_relays(cluster.relays());
    loop {
        let chosen = choose(&cluster.relays(), &candidates(cluster));
        if !chosen.is_empty() && chosen != cluster.relays() {
            let names: Vec<String> = chosen.iter().map(|it| cluster.called(*it)).collect();
            tracing::info!(relays = names.join(", "), "reached through others");
            cluster.transport().set_relays(chosen.clone());
            cluster.relays.send_replace(chosen);
            super::observe::publish(&shared).await;
        }
        tokio::select! {
            changed = nodes.changed() => if changed.is_err() { return },
            changed = reach.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn candidates(cluster: &Cluster) -> Vec<Candidate> {
    let nodes = cluster.nodes.borrow().clone();
    let others = nodes.values().filter(|record| {
        record.belongs() && record.id != cluster.own.id && !record.way.outbound_only
    });
    let candidate = |record: &node::nodes::NodeRecord| {
        let (distance, willing) = match cluster.transport().state(record.id) {
            PeerState::Connected { rtt, relays, .. } => (Some(rtt), relays),
            _ => (None, true),
        };
        let standing = match cluster.reach(record.id) {
            _ if !willing => Standing::Down,
            Reach::Alive | Reach::Suspect => Standing::Up,
            Reach::Unheard => Standing::Unheard,
            Reach::Dead | Reach::Left => Standing::Down,
        };
        Candidate {
            node: record.id,
            zone: record.zone.clone(),
            distance,
            standing,
        }
    };
    others.map(candidate).collect()
}
