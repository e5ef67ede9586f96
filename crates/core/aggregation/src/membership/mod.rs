//! Decides who is reachable: SWIM with Lifeguard's awareness of one's own
//! health, over a partial mesh.
//!
//! In: [`Event`]s with the time. Out: ordered [`Effect`]s, and when to be
//! called next.
//! Holds: silence removes nobody: who belongs is what the table says, gossip
//! says only who is reachable; nobody outside the table is spoken or listened
//! to; packets fit a datagram; all views of one node are joined by one order
//! of sayings, so that they agree once they have been exchanged; a run of a
//! node that a clone has outdone is silent for good.
//! Never: reads a clock, does I/O, draws unseeded randomness, panics on input.
//!
//! How an agent drives it: `new`, then [`Event::Table`] as soon as the node
//! table is known and whenever it changes; each datagram of a proven peer as
//! [`Event::Received`]; [`Event::Tick`] when [`Membership::next_wake`] says so,
//! asked again after each event. Effects in their order: `Remember` is written
//! before what follows it is sent.
//!
//! Source: Das, Gupta, Motivala, "SWIM", DSN 2002; Dadgar, Phillips, Currey,
//! "Lifeguard", DSN 2018.

mod entropy;
mod event;
mod hear;
mod member;
mod mesh;
mod own;
mod parameters;
mod probe;
mod rumour;
mod scope;
mod spread;
mod table;
mod wake;

pub use event::{Counts, Effect, Event, Reach, Start, View};
pub(crate) use member::RoundTrip;
pub use parameters::{Parameters, WHOLE_MAX};
pub use scope::in_view;
pub use table::{Belongs, Table};

use kernel::{NodeId, Rng, Time};
use member::Member;
use mesh::{Mesh, Standing};
use own::Own;
use probe::Probes;
use rumour::Rumours;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wake::Agenda;
use wire::gossip::{AttributesVersion, Life};

pub struct Membership {
    parameters: Parameters,
    rng: Rng,
    own: Own,
    /// As it was told, of all.
    whole: Arc<Table>,
    /// Of it, what is in view.
    table: Arc<Table>,
    /// All others that belong and are in view.
    members: BTreeMap<NodeId, Member>,
    mesh: Mesh,
    /// Somebody has died or come back since the mesh was made.
    mesh_is_old: bool,
    /// Neighbours that are up; none once that may have changed.
    neighbours_up: Option<Vec<NodeId>>,
    /// How many members are up or suspect.
    up: usize,
    rumours: Rumours,
    probes: Probes,
    agenda: Agenda,
    counts: Counts,
    now: Time,
    out: Vec<Effect>,
}

impl Membership {
    pub fn new(start: Start, parameters: Parameters, seed: u64, now: Time) -> Self {
        let mut made = Self {
            rng: Rng::seeded(seed),
            own: Own::default(),
            whole: Arc::default(),
            table: Arc::default(),
            members: BTreeMap::new(),
            mesh: Mesh::default(),
            mesh_is_old: false,
            neighbours_up: None,
            up: 0,
            rumours: Rumours::default(),
            probes: Probes::default(),
            agenda: Agenda::default(),
            counts: Counts::default(),
            parameters,
            now,
            out: Vec::new(),
        };
        made.begin(start);
        made
    }

    #[must_use = "effects must be carried out"]
    pub fn handle(&mut self, event: Event, now: Time) -> Vec<Effect> {
        self.now = self.now.max(now);
        if !self.own.is_silent {
            self.forgive_lateness();
            match event {
                Event::Table(table) => self.on_table(table),
                Event::Attributes(bytes) => self.on_attributes(bytes),
                Event::Received { from, payload } => self.on_received(from, &payload),
                Event::Doubted(node) => self.on_doubted(node),
                Event::Leaving => self.on_leaving(),
                Event::Tick => {}
            }
            self.on_time();
        }
        self.agenda.due = self.wake().filter(|_| !self.own.is_silent);
        std::mem::take(&mut self.out)
    }

    /// When [`Event::Tick`] is due, if nothing else comes before.
    pub fn next_wake(&self) -> Option<Time> {
        self.agenda.due
    }

    /// Of another node that belongs and is in view.
    pub fn view(&self, node: NodeId) -> Option<View<'_>> {
        self.members.get(&node).map(view)
    }

    /// All others that belong and are in view.
    pub fn views(&self) -> impl Iterator<Item = (NodeId, View<'_>)> {
        self.members.iter().map(|(node, one)| (*node, view(one)))
    }

    pub fn node(&self) -> NodeId {
        self.own.node
    }

    /// Of this run.
    pub fn life(&self) -> Life {
        self.own.life
    }

    /// Of this node's own attributes.
    pub fn version(&self) -> AttributesVersion {
        self.own.version
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// 0 is well; the waits for others grow with it.
    pub fn local_health(&self) -> u32 {
        self.probes.health
    }

    /// Whom this node speaks with unasked: connections to them should be kept.
    pub fn neighbours(&mut self) -> Vec<NodeId> {
        self.renew_mesh();
        self.mesh.all().collect()
    }

    fn on_table(&mut self, whole: Arc<Table>) {
        let own = self.own.node;
        let table = in_view(&whole, own, self.parameters.whole_max);
        self.whole = whole;
        let belongs = |node: &NodeId| table.get(node).is_some_and(|one| !one.revoked);
        let rumours = &mut self.rumours;
        self.members.retain(|node, _| {
            let kept = belongs(node);
            if !kept {
                rumours.forget((*node, rumour::Kind::Reach));
                rumours.forget((*node, rumour::Kind::Attributes));
            }
            kept
        });
        for node in table.keys().filter(|node| **node != own && belongs(node)) {
            self.members.entry(*node).or_insert_with(|| Member {
                since: self.now,
                ..Member::default()
            });
        }
        self.up = self
            .members
            .values()
            .filter(|one| one.reach.is_up())
            .count();
        self.probes.forget_strangers(&self.members);
        self.own.belongs = belongs(&own);
        self.table = table;
        self.mesh_is_old = true;
        self.neighbours_up = None;
        self.agenda.knock_soon(self.now);
    }

    /// Of a node of the same ring: who can ask it in this node's stead.
    fn common_neighbours(&self, target: NodeId) -> BTreeSet<NodeId> {
        let theirs = Mesh::new(target, &self.table, |_| Standing::Up, &self.parameters);
        theirs.near.into_iter().collect()
    }

    fn renew_mesh(&mut self) {
        if !self.mesh_is_old {
            return;
        }
        self.mesh_is_old = false;
        self.neighbours_up = None;
        let members = &self.members;
        let standing = |node: NodeId| {
            let reach = members.get(&node).map(|one| one.reach);
            Standing::of(reach.unwrap_or_default())
        };
        let mesh = Mesh::new(self.own.node, &self.table, standing, &self.parameters);
        let before = std::mem::replace(&mut self.mesh, mesh);
        // Those who step in for the silent are asked at once: the whole zone
        // may be gone.
        let fresh = self.mesh.far.iter().copied();
        let fresh = fresh.filter(|node| !before.far.contains(node));
        self.agenda.ask_soon.extend(fresh);
    }

    /// Times that news is told on, by how many must hear it.
    fn retransmissions(&self) -> u32 {
        let many = if self.mesh.tells_all() {
            1
        } else {
            digits(self.up + 1)
        };
        self.parameters.retransmissions * many
    }
}

/// `ceil(log10(count + 1))`.
fn digits(count: usize) -> u32 {
    count.checked_ilog10().map_or(1, |digits| digits + 1)
}

fn view(member: &Member) -> View<'_> {
    View {
        reach: member.reach,
        life: member.life,
        since: member.since,
        version: member.version,
        attributes: &member.attributes,
    }
}
