//! What this node sees of itself and of the others, brought to where it is
//! acted on: the transport, gossip, the node's machine, the edge.

use crate::shared::{Message, Shared};
use aggregation::membership::{Belongs, Event, Table};
use kernel::{NodeId, Revision, ScopedName};
use net::Address;
use node::nodes::{EdgeReport, NODES_PREFIX, NodeRecord, NodeReport, NodeTable, Way};
use node::store::Store;
use node::{NodeEvent, Peer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use wire::edge::{EdgeReadings, GenerationReadings};
use wire::supervise::release::Span;

const RETRY: Duration = Duration::from_secs(1);
/// What changes more often is told this often.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// A large table is read anew at most so often: many may join at once.
const LARGE_TABLE_EVERY: Duration = Duration::from_secs(1);
/// The machine's addresses are looked at so often.
const LOOK: Duration = Duration::from_secs(5);
/// Nodes' moves are written down at most so often, all of them together.
const MOVES_EVERY: Duration = Duration::from_secs(1);

/// Follows the node table; runs for ever.
pub async fn table(shared: Arc<Shared>) {
    loop {
        let after = match super::table::read_all(&shared.store).await {
            Ok((nodes, revision)) => {
                let is_large = nodes.len() > shared.cluster.whole_max;
                take(&shared, nodes).await;
                if is_large {
                    tokio::time::sleep(LARGE_TABLE_EVERY).await;
                }
                revision
            }
            Err(error) => {
                tracing::error!(%error, "cannot read the node table");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        match shared.store.watch(NODES_PREFIX, after).await {
            Ok(mut watch) => {
                if let Err(error) = watch.next().await {
                    tracing::error!(%error, "the watch on the node table ended");
                    tokio::time::sleep(RETRY).await;
                }
            }
            Err(error) => {
                tracing::error!(%error, "cannot watch the node table");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn take(shared: &Arc<Shared>, nodes: NodeTable) {
    let cluster = &shared.cluster;
    let nodes = Arc::new(nodes);
    cluster.nodes.send_replace(Arc::clone(&nodes));
    let transport = cluster.transport();
    for record in nodes.values().filter(|record| record.id != cluster.own.id) {
        if record.belongs() {
            transport.set_peer(record.id, addresses(shared, record));
        } else {
            transport.forget_peer(record.id);
        }
    }
    // Whoever was revoked is let go now.
    transport.reauthorise();
    let belongs = |record: &NodeRecord| Belongs {
        zone: record.zone.clone(),
        revoked: !record.belongs(),
        outbound_only: record.way.outbound_only,
    };
    let table: Table = nodes
        .iter()
        .map(|(id, record)| (*id, belongs(record)))
        .collect();
    let _ = cluster.gossip.send(Event::Table(Arc::new(table))).await;
    publish(shared).await;
}

/// Of the nodes that this one was told of they are known from the join, before
/// they have written their own down.
fn addresses(shared: &Shared, record: &NodeRecord) -> Vec<Address> {
    let way = &record.way;
    let mut all: Vec<Address> = way.addresses.iter().copied().map(Address::from).collect();
    let relays = way.relays.iter().copied();
    all.extend(
        relays
            .filter(|relay| *relay != shared.cluster.own.id)
            .map(Address::Via),
    );
    let mut told = shared.cluster.own.told();
    if let Some(told) = told.find(|told| told.id == record.id) {
        for address in told.addresses.iter().copied().map(Address::from) {
            if !all.contains(&address) {
                all.push(address);
            }
        }
    }
    all
}

/// The edge gets what changed beside its services: peers, identity.
pub async fn publish(shared: &Shared) {
    let (answer, _published) = oneshot::channel();
    let _ = shared.messages.send(Message::Certificates(answer)).await;
}

/// Makes this node's report, when something in it changed; runs for ever.
pub async fn own(shared: Arc<Shared>) {
    let cluster = &shared.cluster;
    let mut status = shared.status.subscribe();
    let mut listeners = shared.listeners.subscribe();
    let mut machine = cluster.machine.subscribe();
    let mut relays = cluster.relays.subscribe();
    let mut content = shared.holdings.report.subscribe();
    let mut entrusted = cluster.entrusted.subscribe();
    let mut has = cluster.has.subscribe();
    let mut readings = shared.readings.subscribe();
    loop {
        let report = report(&shared);
        let told = report.generations.clone();
        cluster.own_report.send_if_modified(|last| {
            let news = *last != report;
            last.clone_from(&report);
            news
        });
        cluster.reported(cluster.own.id, report);
        tokio::select! {
            changed = status.changed() => if changed.is_err() { return },
            changed = listeners.changed() => if changed.is_err() { return },
            changed = machine.changed() => if changed.is_err() { return },
            changed = relays.changed() => if changed.is_err() { return },
            changed = content.changed() => if changed.is_err() { return },
            changed = has.changed() => if changed.is_err() { return },
            // They come all the time; most have nothing that is reported.
            changed = readings.wait_for(|now| generations(now) != told) => {
                if changed.is_err() { return }
            }
            changed = entrusted.changed() => if changed.is_err() { return },
        }
        tokio::time::sleep(TELL_EVERY).await;
        let _ = status.borrow_and_update();
        let _ = listeners.borrow_and_update();
        let _ = machine.borrow_and_update();
        let _ = relays.borrow_and_update();
        let _ = content.borrow_and_update();
        let _ = entrusted.borrow_and_update();
        let _ = has.borrow_and_update();
    }
}

/// Notices that this machine's addresses have changed; runs for ever.
pub async fn machine(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Ok(now) = tokio::task::spawn_blocking(super::listen::addresses).await else {
            return;
        };
        shared.cluster.machine.send_if_modified(|known| {
            let news = *known != now;
            if news {
                tracing::info!(addresses = ?now, "this machine's addresses have changed");
                *known = now;
            }
            news
        });
    }
}

/// On the leader: writes down how nodes say that they are
/// reached; runs for ever. A report is of the node whose certificate its stream
/// was opened with.
pub async fn moves(shared: Arc<Shared>) {
    let mut reports = shared.cluster.reports.subscribe();
    loop {
        let said: Vec<(NodeId, Way)> = {
            let reports = reports.borrow_and_update();
            let said = reports.iter();
            said.filter_map(|(node, report)| Some((*node, report.way.clone()?)))
                .collect()
        };
        for (node, way) in said {
            match super::table::moved(&shared.control, node, &way).await {
                Ok(true) => tracing::info!(%node, ?way, "moved"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%node, error = error.message, "not written down"),
            }
        }
        tokio::time::sleep(MOVES_EVERY).await;
        if reports.changed().await.is_err() {
            return;
        }
    }
}

fn report(shared: &Shared) -> NodeReport {
    let cluster = &shared.cluster;
    let (http, https) = *shared.listeners.borrow();
    let mut status = (**shared.status.borrow()).clone();
    // Of no use elsewhere, and news each time.
    let replicas = status.services.values_mut();
    for replica in replicas.flat_map(|service| &mut service.replicas) {
        replica.address = None;
    }
    NodeReport {
        status,
        edge: Some(EdgeReport {
            http,
            https,
            peer: cluster.reachable(cluster.listen.edge),
        }),
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        speaks: Some(Span::from(&net::versions_spoken())),
        way: Some(cluster.way()),
        content: shared.holdings.report.borrow().clone(),
        machine: cluster.has.borrow().clone(),
        entrusted: *cluster.entrusted.borrow(),
        generations: generations(&shared.readings.borrow()),
    }
}

fn generations(
    readings: &EdgeReadings,
) -> BTreeMap<ScopedName, BTreeMap<Revision, GenerationReadings>> {
    let services = readings.services.iter();
    let rolled = services.filter(|(_, one)| !one.generations.is_empty());
    rolled
        .map(|(name, one)| (name.clone(), one.generations.clone()))
        .collect()
}

/// Tells the node's machine what the others run and whether they are there;
/// runs for ever.
pub async fn peers(shared: Arc<Shared>) {
    let cluster = &shared.cluster;
    let mut nodes = cluster.nodes.subscribe();
    let mut reports = cluster.reports.subscribe();
    let mut reach = cluster.reach.subscribe();
    let mut zones = cluster.zones.changes.subscribe();
    let mut rows = cluster.rows.changes();
    let (mut told, mut told_edges) = (BTreeMap::new(), (BTreeMap::new(), BTreeMap::new()));
    loop {
        let now = seen(&shared);
        if now != told {
            told.clone_from(&now);
            let event = Message::Node(NodeEvent::Peers(now));
            if shared.messages.send(event).await.is_err() {
                return;
            }
        }
        let edges = (cluster.edge_peers(), super::zones::headroom(&shared));
        if edges != told_edges {
            told_edges = edges;
            publish(&shared).await;
        }
        tokio::select! {
            changed = nodes.changed() => if changed.is_err() { return },
            changed = reports.changed() => if changed.is_err() { return },
            changed = reach.changed() => if changed.is_err() { return },
            changed = zones.changed() => if changed.is_err() { return },
            changed = rows.changed() => if changed.is_err() { return },
        }
    }
}

fn seen(shared: &Shared) -> BTreeMap<NodeId, Peer> {
    let cluster = &shared.cluster;
    let nodes = cluster.nodes.borrow().clone();
    let reports = cluster.reports.borrow();
    let others = reports.iter().filter(|(id, _)| **id != cluster.own.id);
    let peer = |(id, report): (&NodeId, &NodeReport)| {
        let record = nodes.get(id).filter(|record| record.belongs())?;
        let services = report.status.services.iter();
        let endpoints = services
            .filter(|(_, status)| !status.endpoints.is_empty())
            .map(|(name, status)| (name.clone(), status.endpoints.clone()));
        let peer = Peer {
            reachable: cluster.reach(record.id).is_up(),
            endpoints: endpoints.collect(),
        };
        Some((*id, peer))
    };
    others.filter_map(peer).collect()
}
