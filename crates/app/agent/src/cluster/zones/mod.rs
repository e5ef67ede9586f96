//! Drives the zone tree: who is in this node's leaf zone, packets and time in;
//! packets out, rows and ages for readers.
//!
//! Holds: the tree stands where the node table puts this node, and is begun
//! anew when that changes; a row is believed by the key that the table has.
//! Never: makes gossip about reach wait.

pub mod aggregates;
pub mod alerts;
pub mod ask;
mod ended;
mod far;
mod keys;
mod place;
mod view;

pub use view::{read, view};

use crate::machine::{now, unix_now};
use crate::shared::Shared;
use aggregation::tree::{Effect, Event, Mate, Parameters, Start, Tools, Tree};
use kernel::{NodeId, ZonePath, fnv1a};
use keys::{NodeKeys, Proofs};
use net::PublicKey;
use node::nodes::{NodeRecord, NodeTable};
use node::seats;
use place::Places;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use wire::attributes::{Row, Value};
use wire::cluster::{KEY, TREE};
use wire::tree::Contact;

const QUEUED_MAX: usize = 1_024;
const CALL_MAX: Duration = Duration::from_secs(3);
/// What is told of one moment is told together.
const SETTLE: Duration = Duration::from_millis(10);

pub enum Input {
    Packet { from: NodeId, payload: Vec<u8> },
    KeyLearned(NodeId),
}

pub struct Zones {
    keys: NodeKeys,
    tree: Mutex<Option<Tree>>,
    /// Counts the rows that changed.
    pub changes: watch::Sender<u64>,
    /// Counts how often the tree was begun: what was said in it is said again.
    pub begun: watch::Sender<u64>,
    /// Of the newest table that was asked about.
    placed: Mutex<Option<(Arc<NodeTable>, Arc<Places>)>>,
    inbox: mpsc::Sender<Input>,
    outbox: Mutex<Option<mpsc::Receiver<Input>>>,
}

impl Zones {
    pub fn new(own: NodeId, key: net::NodeKey) -> Self {
        let (inbox, outbox) = mpsc::channel(QUEUED_MAX);
        Self {
            keys: NodeKeys::new(own, key),
            tree: Mutex::default(),
            changes: watch::Sender::new(0),
            begun: watch::Sender::new(0),
            placed: Mutex::default(),
            inbox,
            outbox: Mutex::new(Some(outbox)),
        }
    }

    fn tree(&self) -> MutexGuard<'_, Option<Tree>> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the nodes of `table` stand; found anew only when it is another one.
    fn places(&self, table: &Arc<NodeTable>) -> Arc<Places> {
        let newest = self.placed.lock();
        let mut newest = newest.unwrap_or_else(PoisonError::into_inner);
        match &*newest {
            Some((known, places)) if Arc::ptr_eq(known, table) => Arc::clone(places),
            _ => {
                let places = Arc::new(Places::of(table));
                *newest = Some((Arc::clone(table), Arc::clone(&places)));
                places
            }
        }
    }

    /// The leaf zones of `table`, with their nodes.
    pub fn leaves(&self, table: &Arc<NodeTable>) -> Arc<seats::Zones> {
        Arc::clone(&self.places(table).leaves)
    }

    /// Those that have a seat, with who may hold it.
    pub fn seated(&self, table: &Arc<NodeTable>) -> Arc<seats::Zones> {
        Arc::clone(&self.places(table).seated)
    }

    /// The leaf zone of a node of `table`.
    pub fn leaf_of(&self, table: &Arc<NodeTable>, node: NodeId) -> Option<ZonePath> {
        let record = table.get(&node)?;
        Some(self.places(table).leaf(&record.zone))
    }

    /// `None` before this node is in its own table.
    pub fn read<T>(&self, look: impl FnOnce(&Tree) -> T) -> Option<T> {
        self.tree().as_ref().map(look)
    }

    /// Lost when there is too much, like any datagram.
    pub fn packet(&self, from: NodeId, payload: Vec<u8>) {
        if self
            .inbox
            .try_send(Input::Packet { from, payload })
            .is_err()
        {
            tracing::debug!(%from, "too many packets of the tree");
        }
    }
}

/// For whoever has a row that a node has issued, and cannot prove it.
pub fn key(shared: &Shared, asked: &[u8]) -> Option<PublicKey> {
    let node = NodeId(u64::from_be_bytes(asked.try_into().ok()?));
    shared.cluster.zones.keys.known(node)
}

/// What the tree was told of the leaf zone.
#[derive(Default)]
struct Told {
    zone: Option<ZonePath>,
    expected: u64,
    mates: BTreeMap<NodeId, Mate>,
    acquainted: Vec<Contact>,
    far: far::Seen,
    layout: Option<u64>,
}

/// Runs for ever.
pub async fn run(shared: Arc<Shared>) {
    let cluster = &shared.cluster;
    let outbox = cluster.zones.outbox.lock();
    let outbox = outbox.unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut inputs) = outbox else {
        return;
    };
    let mut nodes = cluster.nodes.subscribe();
    let mut reach = cluster.reach.subscribe();
    let mut rows = cluster.rows.changes();
    let mut told = Told::default();
    tell(&shared, &mut told);
    loop {
        let input = tokio::select! {
            input = inputs.recv() => match input {
                Some(input) => Some(input),
                None => return,
            },
            changed = nodes.changed() => if changed.is_err() { return } else { None },
            changed = reach.changed() => if changed.is_err() { return } else { None },
            changed = rows.changed() => if changed.is_err() { return } else { None },
            () = wake(&shared) => {
                handle(&shared, Event::Tick);
                look_far(&shared, &mut told);
                continue;
            }
        };
        match input {
            Some(Input::Packet { from, payload }) => {
                let Some(record) = cluster.record(from) else {
                    continue;
                };
                let from = contact(&record);
                handle(&shared, Event::Received { from, payload });
                look_far(&shared, &mut told);
                settle(&shared, &mut told);
            }
            Some(Input::KeyLearned(node)) => {
                handle(&shared, Event::KeyLearned(node));
                look_far(&shared, &mut told);
            }
            None => {
                tokio::time::sleep(SETTLE).await;
                let _ = nodes.borrow_and_update();
                let _ = reach.borrow_and_update();
                let _ = rows.borrow_and_update();
                tell(&shared, &mut told);
            }
        }
    }
}

fn look_far(shared: &Shared, told: &mut Told) {
    let cluster = &shared.cluster;
    let table = cluster.nodes.borrow().clone();
    let places = cluster.zones.places(&table);
    far::look(cluster, &places, &table, &mut told.far);
}

async fn wake(shared: &Shared) {
    let at = shared.cluster.zones.read(Tree::next_wake).flatten();
    match at {
        None => std::future::pending().await,
        Some(at) => tokio::time::sleep(at.since(now())).await,
    }
}

/// Lends what the tree needs for a while.
fn with_tools<T>(shared: &Shared, use_them: impl FnOnce(Tools) -> T) -> T {
    let cluster = &shared.cluster;
    let table = cluster.nodes.borrow().clone();
    let places = cluster.zones.places(&table);
    let programs = cluster.programs.current();
    use_them(Tools {
        keys: &Proofs {
            keys: &cluster.zones.keys,
            table: &table,
            places: &places,
            trusted: &cluster.trusted(),
        },
        programs: &*programs,
        wall: unix_now(),
    })
}

fn handle(shared: &Arc<Shared>, event: Event) {
    let zones = &shared.cluster.zones;
    let effects = with_tools(shared, |tools| {
        let mut tree = zones.tree();
        let tree = tree.as_mut()?;
        Some(tree.handle(event, now(), tools))
    });
    let Some(effects) = effects else {
        return;
    };
    let mut rows = 0;
    for effect in effects {
        rows += u64::from(matches!(
            effect,
            Effect::Row { .. } | Effect::Unknown { .. } | Effect::Known { .. }
        ));
        carry_out(shared, effect);
    }
    if rows > 0 {
        zones.changes.send_modify(|count| *count += rows);
    }
}

fn carry_out(shared: &Arc<Shared>, effect: Effect) {
    let cluster = &shared.cluster;
    match effect {
        Effect::Send { to, payload } => {
            // Lost like any datagram: the core knows of silence.
            if let Err(error) = cluster.transport().send_datagram(to.node, &payload) {
                tracing::trace!(node = %to.node, %error, "a packet of the tree not sent");
            }
        }
        Effect::Stream { to, payload } => {
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                let transport = shared.cluster.transport();
                if let Err(error) = transport.call(to.node, TREE, payload, CALL_MAX).await {
                    tracing::debug!(node = %to.node, %error, "rows of zones not sent");
                }
            });
        }
        Effect::Row { row, .. } => {
            tracing::trace!(zone = %row.row.zone, stamp = ?row.row.stamp, "row of a zone");
        }
        Effect::Unknown { zone, age } => {
            tracing::warn!(%zone, ?age, "nothing is heard of the zone");
        }
        Effect::Known { zone } => tracing::info!(%zone, "the zone is heard of again"),
        Effect::Leads { zone, leads } => {
            tracing::info!(%zone, leads, "this node issues the zone's row, or no longer");
        }
        Effect::Lie { zone, stamp } => {
            let node = cluster.called(stamp.issuer);
            tracing::error!(%zone, node, ?stamp, "a node says what its zone's rows do not give");
            cluster.liars.send_modify(|liars| {
                liars.insert(stamp.issuer, zone);
            });
        }
        Effect::KeyWanted { issuer, from } => {
            tokio::spawn(learn(Arc::clone(shared), issuer, from.node));
        }
        Effect::Programs => {
            let applied = cluster.zones.read(Tree::programs).unwrap_or_default();
            cluster.programs.replace(&applied);
        }
        Effect::Failed { zone, failed } => cluster.programs.failed(zone, failed),
        Effect::LargeZone { nodes, advised } => {
            tracing::warn!(
                nodes,
                advised,
                "this node's zone is larger than is advised: divide it"
            );
        }
    }
}

/// Asks whoever sent a row for the key of its issuer.
async fn learn(shared: Arc<Shared>, issuer: NodeId, from: NodeId) {
    let cluster = &shared.cluster;
    let body = issuer.0.to_be_bytes().to_vec();
    let answer = cluster.transport().call(from, KEY, body, CALL_MAX).await;
    let key = match answer.map(|bytes| <[u8; 32]>::try_from(&bytes[..])) {
        Ok(Ok(key)) => PublicKey(key),
        Ok(Err(_)) => return,
        Err(error) => {
            tracing::debug!(node = %from, %error, "no key for a zone's row");
            return;
        }
    };
    let table = cluster.nodes.borrow().clone();
    if cluster.zones.keys.learn(issuer, key, &table) {
        let _ = cluster.zones.inbox.send(Input::KeyLearned(issuer)).await;
    } else {
        tracing::warn!(node = %issuer, by = %from, "a key that is not that node's");
    }
}

/// Tells the tree what has changed of the leaf zone.
fn tell(shared: &Arc<Shared>, told: &mut Told) {
    let cluster = &shared.cluster;
    let table = cluster.nodes.borrow().clone();
    let Some(own) = table.get(&cluster.own.id) else {
        return;
    };
    let places = cluster.zones.places(&table);
    let zone = places.leaf(&own.zone);
    if told.zone.as_ref() != Some(&zone) {
        tracing::info!(%zone, "in the zone tree");
        let start = Start {
            own: contact(own),
            zone: zone.clone(),
        };
        let parameters = Arc::new(Parameters::default());
        let seed = fastrand::u64(..);
        let new = Tree::new(&start, parameters, seed, now());
        let before = cluster.zones.tree().replace(new);
        cluster.programs.replace(&[]);
        *told = Told {
            zone: Some(zone.clone()),
            ..Told::default()
        };
        cluster.zones.begun.send_modify(|count| *count += 1);
        // What ran goes on in the new place, where it may.
        for applied in before.iter().flat_map(Tree::programs) {
            let (notice, age) = (applied.notice.bytes().to_vec(), applied.age);
            handle(shared, Event::Notice { notice, age });
        }
    }
    if told.layout != Some(places.layout()) {
        lay(shared, told, places.layout_begun(own.id));
    }
    far::look(cluster, &places, &table, &mut told.far);
    for event in news(shared, &table, &places, told) {
        handle(shared, event);
    }
    let ended = cluster
        .zones
        .read(|tree| ended::ended(cluster, &table, &places, tree));
    for zone in ended.unwrap_or_default() {
        tracing::info!(%zone, "no node is in the zone any more");
        handle(shared, Event::Ended(zone));
    }
    settle(shared, told);
}

fn lay(shared: &Arc<Shared>, told: &mut Told, layout: u64) {
    if told.layout != Some(layout) {
        told.layout = Some(layout);
        handle(shared, Event::Laid(layout));
    }
}

/// A layout is told once no zone is left that it has emptied.
fn settle(shared: &Arc<Shared>, told: &mut Told) {
    let cluster = &shared.cluster;
    let table = cluster.nodes.borrow().clone();
    let places = cluster.zones.places(&table);
    if told.layout == Some(places.layout()) {
        return;
    }
    let settled = cluster
        .zones
        .read(|tree| ended::emptied(&places, tree).next().is_none());
    if settled == Some(true) {
        lay(shared, told, places.layout());
    }
}

fn news(shared: &Shared, table: &NodeTable, places: &Places, told: &mut Told) -> Vec<Event> {
    let mut events = Vec::new();
    let zone = told.zone.clone().unwrap_or_default();
    let belongs = table.values().filter(|record| record.belongs());
    let (mates, others): (Vec<&NodeRecord>, Vec<&NodeRecord>) =
        belongs.partition(|record| places.leaf(&record.zone) == zone);
    let expected = mates.len() as u64;
    if told.expected != expected {
        told.expected = expected;
        events.push(Event::Expected(expected));
    }
    let mut gone: Vec<NodeId> = told.mates.keys().copied().collect();
    for record in mates {
        gone.retain(|node| *node != record.id);
        let mate = mate(shared, record, told.mates.get(&record.id));
        if told.mates.get(&record.id) != Some(&mate) {
            told.mates.insert(record.id, mate.clone());
            events.push(Event::Mate(mate));
        }
    }
    for node in gone {
        told.mates.remove(&node);
        events.push(Event::Gone(node));
    }
    let acquainted = far::acquaintances(&shared.cluster, places, &zone, &others);
    let acquainted: Vec<Contact> = acquainted.into_iter().map(contact).collect();
    if told.acquainted != acquainted {
        told.acquainted.clone_from(&acquainted);
        events.push(Event::Acquainted(acquainted));
    }
    events
}

fn mate(shared: &Shared, record: &NodeRecord, before: Option<&Mate>) -> Mate {
    let cluster = &shared.cluster;
    let reach = cluster.reach(record.id);
    let seen = cluster.rows.of(record.id);
    // What a node calls its domain: a rack, a building.
    let domain = match seen.row.get("domain") {
        Some(Value::Text(domain)) => fnv1a(domain.bytes()),
        _ => 0,
    };
    let since = match before {
        Some(before) if before.reach == reach => before.since,
        _ => now(),
    };
    Mate {
        contact: contact(record),
        fitness: u8::from(!record.way.outbound_only),
        domain,
        reach,
        since,
        version: seen.version,
        attributes: seen.bytes,
    }
}

/// How much other nodes have free, in hundredths: of one in this node's zone its
/// own, of others what their zone's row says.
pub fn headroom(shared: &Shared) -> BTreeMap<NodeId, u8> {
    let cluster = &shared.cluster;
    let table = cluster.nodes.borrow().clone();
    let places = cluster.zones.places(&table);
    let others = table
        .values()
        .filter(|record| record.belongs() && record.id != cluster.own.id);
    let known = cluster.zones.read(|tree| {
        let known = others.filter_map(|record| {
            let leaf = places.leaf(&record.zone);
            let free = if leaf == *tree.zone() {
                free(&cluster.rows.of(record.id).row)
            } else {
                free_in(tree, &leaf)
            };
            Some((record.id, free?))
        });
        known.collect()
    });
    known.unwrap_or_default()
}

/// What is known best of a zone that this node is not in.
fn free_in(tree: &Tree, zone: &ZonePath) -> Option<u8> {
    let own = tree.zone();
    (0..own.depth()).rev().find_map(|depth| {
        let above = own.ancestor(depth);
        let mut beside = tree.children(&above);
        let view = beside.find(|view| view.row.row.zone.contains(zone) && !view.unknown)?;
        let row = Row::decode(&view.row.row.attributes).ok()?;
        free(&row)
    })
}

/// To tenths, so that an edge hears of steps alone.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and 100"
)]
fn free(row: &Row) -> Option<u8> {
    match row.get("headroom") {
        Some(Value::Float(free)) => Some((free.clamp(0.0, 1.0) * 10.0).round() as u8 * 10),
        _ => None,
    }
}

/// A node that nobody can call has no address; the transport knows its relays.
fn contact(record: &NodeRecord) -> Contact {
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    Contact {
        node: record.id,
        address: record.way.addresses.first().copied().unwrap_or(nowhere),
    }
}
