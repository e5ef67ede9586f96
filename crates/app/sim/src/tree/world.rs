//! The world of a tree: nodes, their network, time.
//!
//! Holds: all randomness comes from one seed; what happens is hashed in order.

use super::due::{Due, Woken};
use super::keys::{Shelf, SimKeys, signature};
use super::measure::{Traffic, Watch};
use super::node::Node;
use super::rows::{Facts, SimPrograms, mark};
use super::shape::{Shape, at, contact, id};
use super::ways::Ways;
use crate::queue::Queue;
use crate::trace::Trace;
use aggregation::installed::Installed;
use aggregation::membership::{self, Belongs, Membership, Table};
use aggregation::tree::{Counts, Effect, Event, Failed, Parameters, Standing, Start, Tree};
use kernel::{NodeId, Rng, Time, UnixMillis, ZonePath};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use wire::gossip::AttributesVersion;
use wire::tree::{Contact, Notice, NoticeKey, SignedNotice, Stamp, TreeError, ZoneKey};

/// Where simulated time starts.
pub const BEGAN: Time = Time(1_000_000_000);
/// 2026 in milliseconds.
const WALL_START: u64 = 1_767_225_600_000;
/// Until another node of a leaf zone knows a row, where its gossip is not
/// simulated: what it waits for others to travel with.
const GOSSIP_HOLD: Duration = Duration::from_millis(10);
const STRANGERS: usize = 3;
/// Sets of programs that are not read again.
const INSTALLED_KEPT: usize = 64;

enum What {
    MembershipWake,
    TreeWake,
    Gossip {
        from: u32,
        payload: Vec<u8>,
    },
    Tree {
        from: u32,
        payload: Vec<u8>,
    },
    /// Of a node whose leaf zone's gossip is not simulated.
    Row {
        of: u32,
        version: AttributesVersion,
        attributes: Arc<[u8]>,
    },
}

type StandingOfAll = Vec<(NoticeKey, Standing)>;

struct Happening {
    node: u32,
    boot: u32,
    what: What,
}

#[derive(Clone, Debug)]
pub struct WorldStart {
    pub shape: Shape,
    pub ways: Ways,
    pub seed: u64,
    /// Whether leaf zones run the membership core; else their nodes are alive,
    /// and rows reach all of them after one way.
    pub gossips: bool,
    pub parameters: Parameters,
}

impl WorldStart {
    /// With gossip in its leaf zones, and what agents have for parameters.
    pub fn new(shape: Shape, ways: Ways, seed: u64) -> Self {
        Self {
            shape,
            ways,
            seed,
            gossips: true,
            parameters: Parameters::default(),
        }
    }
}

pub struct TreeWorld {
    pub shape: Rc<Shape>,
    pub ways: Ways,
    pub now: Time,
    pub rng: Rng,
    pub nodes: Vec<Node>,
    due: Vec<Due>,
    /// Of all packets.
    pub loss: f64,
    /// Packets between nodes of different sides are lost.
    pub sides: Option<Vec<u8>>,
    pub traffic: Traffic,
    pub trace: Trace,
    pub watches: Vec<Watch>,
    /// Who has named whose row a lie.
    pub lies: Vec<(NodeId, ZonePath, Stamp)>,
    /// Times that a node found a zone unknown.
    pub unknown: u64,
    pub warned: u64,
    pub unproven: Rc<RefCell<BTreeSet<NodeId>>>,
    /// Whether nodes run what is installed; else all run [`SimPrograms`].
    pub sql: bool,
    /// Each time that what is to run changed at a node.
    pub programs_at: Vec<Time>,
    /// What failed where, as their representatives say.
    pub failed: BTreeMap<(NodeId, ZonePath), Vec<Failed>>,
    /// Packets of the tree that were sent, when they are kept.
    pub kept: Option<Vec<(Contact, Contact, Vec<u8>)>>,
    shelf: Rc<Shelf>,
    queue: Queue<Happening>,
    tables: Vec<Arc<Table>>,
    gossips: bool,
    parameters: Arc<Parameters>,
    mark_read: Option<(ZoneKey, Stamp, i64)>,
    /// Programs are read once for all nodes.
    installed: Vec<(StandingOfAll, Rc<Installed>)>,
}

impl TreeWorld {
    pub fn new(start: WorldStart) -> Self {
        let shape = Rc::new(start.shape);
        let table = |leaf: usize| -> Arc<Table> {
            let zone = shape.zone(leaf);
            let first = leaf * shape.leaf;
            let belongs = |_| Belongs {
                zone: zone.clone(),
                revoked: false,
                outbound_only: false,
            };
            let nodes = first..first + shape.leaf;
            Arc::new(nodes.map(|node| (id(node), belongs(node))).collect())
        };
        let tables = if start.gossips {
            (0..shape.leaves()).map(table).collect()
        } else {
            Vec::new()
        };
        let mut world = Self {
            ways: start.ways,
            now: BEGAN,
            rng: Rng::seeded(start.seed),
            nodes: Vec::new(),
            due: vec![Due::default(); shape.nodes()],
            loss: 0.0,
            sides: None,
            traffic: Traffic::default(),
            trace: Trace::default(),
            watches: Vec::new(),
            lies: Vec::new(),
            unknown: 0,
            warned: 0,
            unproven: Rc::default(),
            sql: false,
            programs_at: Vec::new(),
            failed: BTreeMap::new(),
            kept: None,
            shelf: Rc::default(),
            queue: Queue::default(),
            tables,
            gossips: start.gossips,
            parameters: Arc::new(start.parameters),
            mark_read: None,
            installed: Vec::new(),
            shape,
        };
        for node in 0..world.shape.nodes() {
            let made = world.make(node, 0, 0);
            world.nodes.push(made);
        }
        world
    }

    fn make(&mut self, node: usize, boot: u32, wall_off_ms: i64) -> Node {
        let clock = self.rng.below(1 << 50);
        let facts = Facts {
            cpu: self.rng.unit(),
            memory_free: 1e9,
            ..Facts::default()
        };
        let start = Start {
            own: contact(node),
            zone: self.shape.zone(self.shape.leaf_of(node)),
        };
        let seed = self.rng.next_u64();
        let local = Time(self.now.0 + clock);
        let version = AttributesVersion {
            epoch: boot.into(),
            number: 1,
        };
        Node {
            alive: false,
            membership: None,
            tree: Tree::new(&start, self.parameters.clone(), seed, local),
            keys: SimKeys {
                node: id(node),
                shape: self.shape.clone(),
                shelf: self.shelf.clone(),
                unproven: self.unproven.clone(),
            },
            programs: SimPrograms::default(),
            installed: self.sql.then(Rc::default),
            attributes: facts.encode().into(),
            facts,
            version,
            clock,
            wall_off_ms,
            bytes: 0,
        }
    }

    /// All, one after the other.
    pub fn start_all(&mut self, over: Duration) {
        let count = u32::try_from(self.nodes.len()).unwrap_or(1).max(1);
        for node in 0..self.nodes.len() {
            self.start(node);
            self.advance(self.now + over / count);
        }
    }

    /// Without what an earlier run knew.
    pub fn start(&mut self, node: usize) {
        self.start_with(node, 0);
    }

    pub fn start_with(&mut self, node: usize, wall_off_ms: i64) {
        let boot = self.due[node].boot + 1;
        let mut made = self.make(node, boot, wall_off_ms);
        made.alive = true;
        self.due[node] = Due {
            alive: true,
            boot,
            ..Due::default()
        };
        let local = made.local(self.now);
        if self.gossips {
            let wall = WALL_START + self.now.0 / 1_000_000;
            let start = membership::Start {
                node: id(node),
                nonce: u32::try_from(self.rng.below(1 << 32)).unwrap_or(1),
                remembered: None,
                wall: UnixMillis(wall.saturating_add_signed(wall_off_ms)),
                attributes: made.attributes.to_vec(),
            };
            let parameters = membership::Parameters::default();
            let seed = self.rng.next_u64();
            made.membership = Some(Membership::new(start, parameters, seed, local));
        }
        self.nodes[node] = made;
        let leaf = self.shape.leaf_of(node);
        self.tree(node, Event::Expected(self.shape.leaf as u64));
        let strangers = self.shape.strangers(node, STRANGERS, &mut self.rng);
        self.tree(node, Event::Acquainted(strangers));
        if self.gossips {
            self.member(node, membership::Event::Table(self.tables[leaf].clone()));
        } else {
            self.tell_mates(node);
            for other in self.mates(node) {
                if self.nodes[other].alive {
                    let (version, row) = self.row_of(other);
                    let told = self.nodes[other].mate(other, version, row);
                    self.tree(node, Event::Mate(told));
                }
            }
        }
        self.tell_own(node);
    }

    /// As kill -9 does.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].alive = false;
        self.due[node] = Due {
            boot: self.due[node].boot + 1,
            ..Due::default()
        };
    }

    fn mates(&self, node: usize) -> impl Iterator<Item = usize> + use<> {
        let first = self.shape.leaf_of(node) * self.shape.leaf;
        (first..first + self.shape.leaf).filter(move |mate| *mate != node)
    }

    fn row_of(&self, node: usize) -> (AttributesVersion, Arc<[u8]>) {
        let one = &self.nodes[node];
        (one.version, one.attributes.clone())
    }

    fn tell_own(&mut self, node: usize) {
        if let Some(membership) = &self.nodes[node].membership {
            self.nodes[node].version = membership.version();
        }
        let (version, row) = self.row_of(node);
        let own = self.nodes[node].mate(node, version, row);
        self.tree(node, Event::Mate(own));
    }

    fn tell_mates(&mut self, node: usize) {
        let (version, attributes) = self.row_of(node);
        for mate in self.mates(node) {
            let way = self.ways.way(&self.shape, node, mate, &mut self.rng);
            let what = What::Row {
                of: u32::try_from(node).unwrap_or_default(),
                version,
                attributes: attributes.clone(),
            };
            let boot = self.due[mate].boot;
            self.put(self.now + way + GOSSIP_HOLD, mate, boot, what);
        }
    }

    /// Publishes the facts as they are now.
    pub fn publish(&mut self, node: usize) {
        let row = self.nodes[node].facts.encode();
        self.nodes[node].attributes = row.clone().into();
        if self.gossips {
            self.member(node, membership::Event::Attributes(row));
        } else {
            self.nodes[node].version.number += 1;
            self.tell_mates(node);
        }
        self.tell_own(node);
    }

    /// A change that rows up to zones of that depth tell.
    pub fn change(&mut self, node: usize, depth: usize) {
        let cpu = self.rng.unit();
        let value = i64::try_from(self.now.0 / 1_000).unwrap_or(i64::MAX);
        let facts = &mut self.nodes[node].facts;
        facts.cpu = cpu;
        if let Some(mark) = facts.marks.get_mut(depth) {
            *mark = value;
        }
        self.publish(node);
    }

    /// A change that reaches the root's aggregate, watched until all have it.
    pub fn watch(&mut self, node: usize) {
        let value = i64::try_from(self.now.0 / 1_000).unwrap_or(i64::MAX);
        let zone = self.shape.zone(self.shape.leaf_of(node)).ancestor(1);
        let seen: Vec<Option<Duration>> = self
            .nodes
            .iter()
            .map(|one| (!one.alive).then_some(Duration::ZERO))
            .collect();
        self.watches.push(Watch {
            key: ZoneKey::of(&zone),
            value,
            began: self.now,
            left: seen.iter().filter(|seen| seen.is_none()).count(),
            seen,
        });
        self.change(node, 1);
    }

    fn put(&mut self, at: Time, node: usize, boot: u32, what: What) {
        let node = u32::try_from(node).unwrap_or(u32::MAX);
        self.queue
            .put(at.max(self.now), Happening { node, boot, what });
    }

    pub fn advance(&mut self, end: Time) {
        while let Some((at, happening)) = self.queue.take(end) {
            self.now = at;
            self.happen(happening);
        }
        self.now = self.now.max(end);
    }

    pub fn pass(&mut self, span: Duration) {
        self.advance(self.now + span);
    }

    /// Whether it came true within that span; looked at ten times a second.
    pub fn until(&mut self, span: Duration, is_so: impl Fn(&Self) -> bool) -> Option<Duration> {
        self.until_by(span, Duration::from_millis(100), is_so)
    }

    pub fn until_by(
        &mut self,
        span: Duration,
        step: Duration,
        is_so: impl Fn(&Self) -> bool,
    ) -> Option<Duration> {
        let began = self.now;
        loop {
            if is_so(self) {
                return Some(self.now.since(began));
            }
            if self.now.since(began) >= span {
                return None;
            }
            self.pass(step);
        }
    }

    fn happen(&mut self, happening: Happening) {
        let Happening { node, boot, what } = happening;
        let node = node as usize;
        let due = &mut self.due[node];
        if due.boot != boot || !due.alive {
            return;
        }
        match what {
            What::MembershipWake => match due.membership.come(self.now) {
                Woken::Tick => {
                    self.trace.event(self.now, node, 0);
                    self.member(node, membership::Event::Tick);
                }
                Woken::Again(at) => self.put(at, node, boot, What::MembershipWake),
                Woken::Never => {}
            },
            What::TreeWake => match due.tree.come(self.now) {
                Woken::Tick => {
                    self.trace.event(self.now, node, 1);
                    self.tree(node, Event::Tick);
                }
                Woken::Again(at) => self.put(at, node, boot, What::TreeWake),
                Woken::Never => {}
            },
            What::Gossip { from, payload } => {
                self.trace.event(self.now, node, 2);
                self.gossip(node, from as usize, payload);
            }
            What::Tree { from, payload } => {
                self.trace.event(self.now, node, 3);
                self.packet(node, contact(from as usize), payload);
            }
            What::Row {
                of,
                version,
                attributes,
            } => {
                let mate = self.nodes[node].mate(of as usize, version, attributes);
                self.tree(node, Event::Mate(mate));
            }
        }
    }

    fn gossip(&mut self, node: usize, from: usize, payload: Vec<u8>) {
        self.nodes[node].bytes += payload.len() as u64;
        let from = id(from);
        let answered = self.member(node, membership::Event::Received { from, payload });
        self.traffic.membership.ack_packets += u64::from(!answered.contains(&from));
    }

    /// From whoever the contact says.
    pub fn packet(&mut self, node: usize, from: Contact, payload: Vec<u8>) {
        self.nodes[node].bytes += payload.len() as u64;
        let is_acknowledged = payload.get(1) != Some(&0);
        let answered = self.tree(node, Event::Received { from, payload });
        let answered = is_acknowledged || answered.contains(&from.node);
        self.traffic.tree.ack_packets += u64::from(!answered);
    }

    /// Returns whom it sent something.
    fn member(&mut self, node: usize, event: membership::Event) -> Vec<NodeId> {
        let one = &mut self.nodes[node];
        let local = one.local(self.now);
        let Some(core) = one.membership.as_mut() else {
            return Vec::new();
        };
        let effects = core.handle(event, local);
        let (mut sent, mut news) = (Vec::new(), BTreeSet::new());
        for effect in effects {
            match effect {
                membership::Effect::Send { to, payload } => {
                    sent.push(to);
                    let share = &mut self.traffic.membership;
                    share.packets += 1;
                    share.payload_bytes += payload.len() as u64;
                    let from = u32::try_from(node).unwrap_or_default();
                    self.transmit(
                        node,
                        at(to),
                        self.loss,
                        |payload| What::Gossip { from, payload },
                        payload,
                    );
                }
                membership::Effect::Reach { node, .. }
                | membership::Effect::Attributes { node, .. } => {
                    news.insert(node);
                }
                _ => {}
            }
        }
        for about in news {
            self.tell_tree(node, about);
        }
        // A run that others had outdone names its row anew.
        let one = &self.nodes[node];
        let version = one.membership.as_ref().map(Membership::version);
        if version.is_some_and(|version| version != one.version) {
            self.tell_own(node);
        }
        self.wake_membership(node);
        sent
    }

    /// What membership knows of a mate.
    fn tell_tree(&mut self, node: usize, about: NodeId) {
        let one = &self.nodes[node];
        let view = one.membership.as_ref().and_then(|core| core.view(about));
        if let Some(view) = view {
            let mut mate = one.mate(at(about), view.version, view.attributes.into());
            (mate.reach, mate.since) = (view.reach, view.since);
            self.tree(node, Event::Mate(mate));
        }
    }

    /// Gives the tree of a node an event; returns whom it sent something.
    pub fn tree(&mut self, node: usize, event: Event) -> Vec<NodeId> {
        let wall = self.wall(node);
        let one = &mut self.nodes[node];
        let local = one.local(self.now);
        let effects = one.with_tree(wall, |tree, tools| tree.handle(event, local, tools));
        let mut sent = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send { to, payload } => {
                    sent.push(to.node);
                    self.send(node, to, payload, self.loss);
                }
                Effect::Stream { to, payload } => {
                    sent.push(to.node);
                    self.send(node, to, payload, 0.0);
                }
                Effect::Row { level: 0, row } if !self.watches.is_empty() => {
                    self.see(node, row.key, row.row.stamp, &row.row.attributes);
                }
                Effect::Unknown { .. } => self.unknown += 1,
                Effect::Lie { zone, stamp } => self.lies.push((id(node), zone, stamp)),
                Effect::LargeZone { .. } => self.warned += 1,
                Effect::Programs => self.make_programs(node),
                Effect::Failed { zone, failed } => {
                    self.failed.insert((id(node), zone), failed);
                }
                _ => {}
            }
        }
        self.wake_tree(node);
        sent
    }

    /// By its own clock.
    fn wall(&self, node: usize) -> UnixMillis {
        let wall = WALL_START + self.now.0 / 1_000_000;
        UnixMillis(wall.saturating_add_signed(self.nodes[node].wall_off_ms))
    }

    fn make_programs(&mut self, node: usize) {
        self.programs_at.push(self.now);
        if !self.sql {
            return;
        }
        let applied = self.nodes[node].tree.programs();
        let standing = applied.iter();
        let standing = standing.map(|one| (one.notice.key, one.standing.clone()));
        let standing: StandingOfAll = standing.collect();
        let known = self.installed.iter().find(|(of, _)| *of == standing);
        let made = known.map(|(_, made)| made.clone());
        let made = made.unwrap_or_else(|| {
            let made = Rc::new(Installed::of(&applied));
            self.installed.truncate(INSTALLED_KEPT);
            self.installed.insert(0, (standing, made.clone()));
            made
        });
        self.nodes[node].installed = Some(made);
    }

    /// Says something of a program to one node, signed by whoever may.
    ///
    /// # Errors
    /// It is over its limits.
    pub fn install(&mut self, node: usize, notice: &Notice) -> Result<(), TreeError> {
        let encoded = notice.encode()?;
        let signature = signature(notice.issuer, &encoded);
        let signed = SignedNotice::new(notice.clone(), encoded, &signature);
        let (notice, age) = (signed.bytes().to_vec(), Duration::ZERO);
        self.tree(node, Event::Notice { notice, age });
        Ok(())
    }

    fn see(&mut self, node: usize, key: ZoneKey, stamp: Stamp, attributes: &[u8]) {
        if !self
            .watches
            .iter()
            .any(|watch| watch.key == key && watch.left > 0)
        {
            return;
        }
        let value = match self.mark_read {
            Some((read, of, value)) if (read, of) == (key, stamp) => value,
            _ => mark(attributes, 1),
        };
        self.mark_read = Some((key, stamp, value));
        let now = self.now;
        let watches = self.watches.iter_mut();
        for watch in watches.filter(|watch| watch.key == key && value >= watch.value) {
            watch.see(node, now);
        }
    }

    fn send(&mut self, node: usize, to: Contact, payload: Vec<u8>, loss: f64) {
        let share = &mut self.traffic.tree;
        share.packets += 1;
        share.payload_bytes += payload.len() as u64;
        if let Some(kept) = self.kept.as_mut() {
            kept.push((contact(node), to, payload.clone()));
        }
        let from = u32::try_from(node).unwrap_or_default();
        self.transmit(
            node,
            at(to.node),
            loss,
            |payload| What::Tree { from, payload },
            payload,
        );
    }

    fn transmit(
        &mut self,
        from: usize,
        to: usize,
        loss: f64,
        what: impl FnOnce(Vec<u8>) -> What,
        payload: Vec<u8>,
    ) {
        self.nodes[from].bytes += payload.len() as u64;
        let is_cut = |sides: &Vec<u8>| sides.get(from) != sides.get(to);
        let is_lost = loss > 0.0 && self.rng.unit() < loss;
        if to >= self.nodes.len() || is_lost || self.sides.as_ref().is_some_and(is_cut) {
            return;
        }
        let way = self.ways.way(&self.shape, from, to, &mut self.rng);
        self.put(self.now + way, to, self.due[to].boot, what(payload));
    }

    fn wake_membership(&mut self, node: usize) {
        let one = &mut self.nodes[node];
        let next = one.membership.as_ref().and_then(Membership::next_wake);
        let Some(next) = next.map(|local| one.global(local)) else {
            return;
        };
        let due = &mut self.due[node];
        if let Some(at) = due.membership.want(next, self.now) {
            let boot = due.boot;
            self.put(at, node, boot, What::MembershipWake);
        }
    }

    fn wake_tree(&mut self, node: usize) {
        let one = &mut self.nodes[node];
        let Some(next) = one.tree.next_wake().map(|local| one.global(local)) else {
            return;
        };
        let due = &mut self.due[node];
        if let Some(at) = due.tree.want(next, self.now) {
            let boot = due.boot;
            self.put(at, node, boot, What::TreeWake);
        }
    }

    pub fn alive(&self) -> usize {
        self.nodes.iter().filter(|one| one.alive).count()
    }

    /// Every node that runs finds so many nodes in the root's aggregate.
    pub fn all_count(&self, reporting: usize) -> bool {
        let root = ZonePath::root();
        let expected = self.nodes.len() as u64;
        self.nodes.iter().filter(|one| one.alive).all(|one| {
            let found = one.tree.coverage_of(&root);
            found.is_some_and(|found| {
                found.expected == expected && found.reporting == reporting as u64
            })
        })
    }

    /// All nodes that run hold the same rows of the same zones.
    pub fn all_agree(&self) -> bool {
        let depths = 0..self.shape.depth();
        depths.into_iter().all(|depth| {
            let mut found: Vec<(usize, Option<u64>)> = Vec::new();
            let below = self.shape.below(depth);
            for (node, one) in self.nodes.iter().enumerate().filter(|(_, one)| one.alive) {
                let zone = self.shape.zone(self.shape.leaf_of(node)).ancestor(depth);
                let group = node / below;
                let hash = one.tree.fingerprint(&zone);
                match found.last() {
                    Some((last, other)) if *last == group => {
                        if *other != hash {
                            return false;
                        }
                    }
                    _ => found.push((group, hash)),
                }
            }
            true
        })
    }

    /// Of all that run.
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for one in self.nodes.iter().filter(|one| one.alive) {
            sum.add(&one.tree.counts());
        }
        sum
    }
}
