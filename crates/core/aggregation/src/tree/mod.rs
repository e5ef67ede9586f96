//! Decides what this node knows of zones: the rows of its ancestors' children,
//! and the rows that it issues for the zones it represents.
//!
//! In: [`Event`]s with the time and [`Tools`]. Out: ordered [`Effect`]s, and
//! when to be called next.
//! Holds: a node keeps the rows of its ancestors' children and no others, so
//! its state is branching times depth; of two rows of a zone the larger stamp
//! prevails, everywhere; no row is believed without its issuer's signature, no
//! confirmation without a preimage of what was signed; a zone that nobody
//! confirms is unknown since then, and is never dropped for it; ages add up
//! hop by hop and no wall clock is asked; all that waits is bounded.
//! Never: reads a clock, does I/O, draws unseeded randomness, panics on input.
//!
//! How an agent drives it. Start: [`Tree::new`] with its leaf zone; a node that
//! changes zones starts another. In:
//! - [`Event::Expected`] from the node table: how many belong to the leaf zone.
//! - [`Event::Mate`] for each of them at each change that
//!   [`crate::membership`] tells (reach, attributes, address), this node with
//!   its own row too; [`Event::Gone`] when one leaves the node table.
//! - [`Event::Acquainted`] with a few nodes of other zones, some at each level:
//!   asked where no row leads, as at the start.
//! - [`Event::Received`] for each packet, datagram or stream, of a proven peer.
//! - [`Event::KeyLearned`] once [`Effect::KeyWanted`] was answered.
//! - [`Event::Notice`] for programs that are installed or removed here, and
//!   after a restart for those that were kept.
//! - [`Event::Tick`] when [`Tree::next_wake`] says so, asked after each event.
//!
//! Out: [`Effect::Send`] and [`Effect::Stream`] go to the peer;
//! [`Effect::Programs`] asks for the [`Tools::programs`] to be made anew, as
//! [`crate::installed::Installed::of`] [`Tree::programs`]; the others are for
//! whoever shows or records them. All rows are read from the tree.
//!
//! Source: van Renesse, Birman, Vogels, "Astrolabe", TOCS 21(2), 2003.

mod board;
mod compare;
mod elect;
mod event;
mod hear;
mod install;
mod issue;
mod link;
mod parameters;
mod read;
mod spread;
mod table;
mod tools;
mod wake;

pub use board::{Applied, Standing};
pub use event::{Aggregate, Counts, Demand, Effect, Event, Failed, Mate, ReadError, Start, View};
pub use parameters::Parameters;
pub use tools::{Evaluated, Input, Keys, Programs, Source, Tools, Verdict};

use crate::membership::Reach;
use board::Board;
use elect::Post;
use hear::Waiting;
use kernel::{NodeId, Rng, Time, ZonePath};
use link::Links;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use table::Table;
use wake::Agenda;
use wire::tree::{Contact, NoticeKey, ZoneKey};

/// Nodes of other zones that are remembered beside the rows.
const ACQUAINTED_MAX: usize = 32;

pub struct Tree {
    parameters: Arc<Parameters>,
    rng: Rng,
    own: Contact,
    /// The root, …, this node's leaf zone.
    path: Vec<Step>,
    expected: u64,
    layout: u64,
    mates: BTreeMap<NodeId, Mate>,
    /// By level: of the children of the zone at that place of the path.
    tables: Vec<Table>,
    /// By level: for the zone at the place after.
    posts: Vec<Post>,
    /// By place of the path: programs that were installed there.
    boards: Vec<Board>,
    /// Of all programs, as was last said.
    standing: Vec<(NoticeKey, Standing)>,
    /// The nodes of the leaf zone that are up, without this one.
    near: Vec<Contact>,
    links: Links,
    acquainted: Vec<Contact>,
    waiting: Waiting,
    agenda: Agenda,
    warned: bool,
    counts: Counts,
    now: Time,
    out: Vec<Effect>,
}

/// One of this node's zones.
#[derive(Clone, Debug)]
struct Step {
    zone: ZonePath,
    key: ZoneKey,
    /// What the names of its children begin with.
    prefix: String,
}

impl Tree {
    pub fn new(start: &Start, parameters: Arc<Parameters>, seed: u64, now: Time) -> Self {
        let depth = start.zone.depth();
        let step = |depth| {
            let zone = start.zone.ancestor(depth);
            let key = ZoneKey::of(&zone);
            let mut prefix = zone.to_string();
            if depth > 0 {
                prefix.push('/');
            }
            Step { zone, key, prefix }
        };
        let mut made = Self {
            rng: Rng::seeded(seed),
            own: start.own,
            path: (0..=depth).map(step).collect(),
            expected: 1,
            layout: 0,
            mates: BTreeMap::new(),
            tables: vec![Table::default(); depth],
            posts: vec![Post::unsettled(); depth],
            boards: vec![Board::default(); depth + 1],
            standing: Vec::new(),
            near: Vec::new(),
            links: Links::default(),
            acquainted: Vec::new(),
            waiting: Waiting::default(),
            agenda: Agenda::default(),
            warned: false,
            counts: Counts::default(),
            parameters,
            now,
            out: Vec::new(),
        };
        made.begin();
        made
    }

    #[must_use = "effects must be carried out"]
    pub fn handle(&mut self, event: Event, now: Time, tools: Tools) -> Vec<Effect> {
        self.now = self.now.max(now);
        match event {
            Event::Expected(nodes) => self.on_expected(nodes),
            Event::Mate(mate) => self.on_mate(mate),
            Event::Gone(node) => self.on_gone(node),
            Event::Acquainted(contacts) => self.on_acquainted(contacts),
            Event::Received { from, payload } => self.on_received(from, &payload, tools),
            Event::KeyLearned(node) => self.on_key_learned(node, tools),
            Event::Ended(zone) => self.on_ended(&zone, tools),
            Event::Laid(layout) => self.layout = layout,
            Event::Notice { notice, age } => self.hear_notice(None, &notice, age, tools),
            Event::Tick => {}
        }
        self.on_time(tools);
        std::mem::take(&mut self.out)
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn on_expected(&mut self, nodes: u64) {
        if self.expected != nodes {
            self.expected = nodes;
            self.inputs_changed(self.depth());
        }
    }

    fn on_mate(&mut self, mate: Mate) {
        let node = mate.contact.node;
        let old = self.mates.get(&node);
        let standing = |one: &Mate| (one.contact, one.fitness, one.domain, one.reach);
        let input = |one: &Mate| (one.version, one.reach.is_up());
        let stands = old.map(standing) == Some(standing(&mate));
        let is_input = old.map(input) != Some(input(&mate));
        if !stands {
            self.election_is_old(self.depth());
        }
        if mate.reach == Reach::Suspect {
            self.agenda
                .doubt_by(mate.since + self.parameters.doubt_hold);
        }
        if is_input {
            self.inputs_changed(self.depth());
        }
        self.mates.insert(node, mate);
    }

    fn on_gone(&mut self, node: NodeId) {
        if self.mates.remove(&node).is_some() {
            self.election_is_old(self.depth());
            self.inputs_changed(self.depth());
        }
    }

    fn on_acquainted(&mut self, mut contacts: Vec<Contact>) {
        contacts.truncate(ACQUAINTED_MAX);
        self.acquainted = contacts;
    }

    /// Of the leaf zone.
    fn depth(&self) -> usize {
        self.tables.len()
    }

    /// What the row of the zone at this place of the path is computed from.
    fn inputs_changed(&mut self, place: usize) {
        let due = self.now + self.parameters.issue_coalesce;
        if let Some(post) = place.checked_sub(1).and_then(|at| self.posts.get_mut(at)) {
            post.unchecked = true;
            if post.rank.is_some() || post.lead.is_some() {
                let at = post.issue_at.get_or_insert(due);
                *at = (*at).min(due);
                self.agenda.posts_by(due);
            }
        }
    }

    /// Whom the zone at this place of the path is represented by must be found
    /// anew: the standing or contacts of its nodes or children have changed.
    fn election_is_old(&mut self, place: usize) {
        if let Some(post) = place.checked_sub(1).and_then(|at| self.posts.get_mut(at)) {
            post.election_is_old = true;
            // Where hundreds come at once, they are not counted for each.
            let many =
                place == self.tables.len() && self.mates.len() > self.parameters.leaf_advised;
            let wait = if many {
                self.parameters.coalesce
            } else {
                Duration::ZERO
            };
            self.agenda.posts_by(self.now + wait);
        }
    }

    fn is_mate(&self, node: NodeId) -> bool {
        self.mates.contains_key(&node)
    }
}
