//! Decides who represents a zone, who of them leads, and whom each serves.
//!
//! In: the leaf zone's nodes, the rows of children. Out: a [`Post`] a level.
//! Holds: whoever sees the same finds the same; a leaf zone's are drawn from
//! its nodes, fittest first and from different domains, an upper zone's from
//! its children's representatives, from different children. Whoever issued the
//! last row goes on while it is elected and heard: nothing flaps back. When all
//! are gone, the same rule gives others.

use super::Tree;
use super::event::{Effect, Failed, Mate};
use super::table::mix;
use crate::membership::Reach;
use kernel::{NodeId, Time};
use std::collections::BTreeSet;
use std::time::Duration;
use wire::tree::{Contact, Digest, Stamp};

/// This node's part in one of its zones.
#[derive(Clone, Debug, Default)]
pub struct Post {
    /// Those who serve the zone; the first few represent it.
    pub servers: Vec<Contact>,
    /// This node's place among them.
    pub rank: Option<usize>,
    /// Whom this node tells what is new: each a node of the leaf zone, or the
    /// contacts of a child.
    pub served: Vec<Vec<Contact>>,
    pub lead: Option<Lead>,
    /// Nobody who may lead was heard since then.
    pub vacant_since: Option<Time>,
    /// When to look whether a row must be issued.
    pub issue_at: Option<Time>,
    /// The leader's last row was not yet computed again.
    pub unchecked: bool,
    /// The last row found to be a lie.
    pub named: Option<Stamp>,
    /// Programs that gave nothing, as was last said.
    pub failed: Vec<Failed>,
    /// Somebody's standing or contacts have changed since the election.
    pub election_is_old: bool,
    /// Rows issued of late, and until when that is counted.
    pub burst: u32,
    pub burst_at: Time,
}

impl Post {
    /// Before the first election.
    pub fn unsettled() -> Self {
        Self {
            election_is_old: true,
            ..Self::default()
        }
    }
}

/// This run of this node issues the zone's row.
#[derive(Clone, Debug)]
pub struct Lead {
    pub epoch: u64,
    pub number: u32,
    pub secret: Digest,
    pub beat_at: Time,
}

/// A leader's first row has a number below: three bytes in a beat.
const NUMBERS_BEGIN: u64 = 1 << 21;

/// Who may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seat {
    Own,
    Other,
    Vacant,
}

impl Tree {
    pub(super) fn elect(&mut self) {
        for level in (0..self.depth()).rev() {
            if !std::mem::take(&mut self.posts[level].election_is_old) {
                continue;
            }
            let is_leaf = level + 1 == self.depth();
            let servers = if is_leaf {
                self.near = self.nodes_up();
                self.leaf_servers()
            } else {
                self.upper_servers(level)
            };
            let own = self.own.node;
            let rank = servers.iter().position(|one| one.node == own);
            let served = match rank {
                None => Vec::new(),
                Some(rank) if is_leaf => self.served_nodes(rank, &servers),
                Some(rank) => self.served_children(level, rank, &servers),
            };
            let post = &mut self.posts[level];
            let changed = post.servers != servers;
            post.served = served;
            post.rank = rank;
            post.servers = servers;
            if changed {
                self.inputs_changed(level + 1);
            }
        }
    }

    fn nodes_up(&self) -> Vec<Contact> {
        let mates = self.mates.values();
        let up = mates.filter(|one| one.reach.is_up() && one.contact.node != self.own.node);
        up.map(|one| one.contact).collect()
    }

    fn usable(&self, mate: &Mate) -> bool {
        let doubtful =
            mate.reach == Reach::Suspect && self.now.since(mate.since) < self.parameters.doubt_hold;
        mate.contact.node == self.own.node || mate.reach == Reach::Alive || doubtful
    }

    fn leaf_servers(&self) -> Vec<Contact> {
        let usable = self.mates.values().filter(|one| self.usable(one));
        let mut ranked: Vec<(u8, u64, &Mate)> = usable
            .clone()
            .filter(|one| one.fitness > 0)
            .map(|one| (u8::MAX - one.fitness, mix(one.contact.node.0), one))
            .collect();
        ranked.sort_unstable_by_key(|(unfit, hash, one)| (*unfit, *hash, one.contact.node));
        let wanted = usable.count().div_ceil(self.parameters.served.max(1));
        let wanted = wanted.max(self.parameters.representatives);
        let mut domains = BTreeSet::new();
        let (mut apart, mut rest) = (Vec::new(), Vec::new());
        for (_, _, one) in ranked {
            if one.domain == 0 || domains.insert(one.domain) {
                apart.push(one.contact);
            } else {
                rest.push(one.contact);
            }
        }
        apart.extend(rest);
        apart.truncate(wanted);
        apart
    }

    /// The first contact of each child; where there are few, their next ones.
    fn upper_servers(&self, level: usize) -> Vec<Contact> {
        let table = &self.tables[level + 1];
        let children = table.iter().filter(|(_, entry)| entry.reports());
        let mut ranked: Vec<(usize, u64, Contact)> = children
            .flat_map(|(key, entry)| {
                let contacts = entry.row.row.contacts.iter().enumerate();
                contacts.map(move |(at, contact)| (at, mix(key.0), *contact))
            })
            .collect();
        ranked.sort_unstable();
        let mut seen = BTreeSet::new();
        ranked.retain(|(_, _, contact)| seen.insert(contact.node));
        let servers = ranked.into_iter().map(|(_, _, contact)| contact);
        servers.take(self.parameters.representatives).collect()
    }

    fn served_nodes(&self, rank: usize, servers: &[Contact]) -> Vec<Vec<Contact>> {
        let is_server = |node: NodeId| servers.iter().any(|one| one.node == node);
        let others = self
            .mates
            .values()
            .filter(|one| one.reach.is_up() && !is_server(one.contact.node));
        let mine = others
            .enumerate()
            .filter(|(at, _)| at % servers.len() == rank);
        mine.map(|(_, one)| vec![one.contact]).collect()
    }

    /// But those that have a server among their contacts: it serves its own.
    fn served_children(&self, level: usize, rank: usize, servers: &[Contact]) -> Vec<Vec<Contact>> {
        let is_server = |one: &Contact| servers.iter().any(|server| server.node == one.node);
        let own = self.path[level + 2].key;
        let children = self.tables[level + 1].iter().filter(|(key, entry)| {
            let contacts = &entry.row.row.contacts;
            *key != own && !entry.ended && !contacts.iter().any(is_server)
        });
        let mine = children
            .enumerate()
            .filter(|(at, _)| at % servers.len() == rank);
        mine.map(|(_, (_, entry))| entry.row.row.contacts.clone())
            .collect()
    }

    /// Takes over where nobody leads, and issues what has changed.
    pub(super) fn consider(&mut self, level: usize, tools: super::Tools) {
        let post = &mut self.posts[level];
        if post.rank.is_none() && post.lead.is_none() {
            (post.issue_at, post.vacant_since) = (None, None);
            return;
        }
        match self.seat(level) {
            Seat::Own => {
                self.posts[level].vacant_since = None;
                if self.posts[level].issue_at.is_some_and(|at| at <= self.now) {
                    self.posts[level].issue_at = None;
                    self.issue(level, false, tools);
                }
            }
            Seat::Other => {
                let post = &mut self.posts[level];
                post.vacant_since = None;
                if post.issue_at.is_some_and(|at| at <= self.now) {
                    post.issue_at = None;
                    self.check(level, tools);
                }
            }
            Seat::Vacant => {
                self.posts[level].issue_at = None;
                let now = self.now;
                self.posts[level].vacant_since.get_or_insert(now);
                if self.take_over_at(level).is_some_and(|at| at <= now) {
                    self.take_over(level, tools);
                }
            }
        }
    }

    fn seat(&self, level: usize) -> Seat {
        let post = &self.posts[level];
        if post.lead.is_some() {
            return Seat::Own;
        }
        let Some(entry) = self.tables[level].get(self.path[level + 1].key) else {
            return Seat::Vacant;
        };
        let issuer = entry.stamp().issuer;
        let elected = post.servers.iter().any(|one| one.node == issuer);
        let heard = entry.confirmed.age(self.now) < self.parameters.takeover_after;
        if issuer != self.own.node && elected && heard {
            Seat::Other
        } else {
            Seat::Vacant
        }
    }

    /// The first of those elected who did not fall silent takes over at once,
    /// the next wait for those before them.
    pub(super) fn take_over_at(&self, level: usize) -> Option<Time> {
        let post = &self.posts[level];
        let (rank, since) = (post.rank?, post.vacant_since?);
        let representatives = self.parameters.representatives;
        if rank >= representatives {
            return None;
        }
        let last = self.tables[level].get(self.path[level + 1].key);
        let issuer = last.map(|entry| entry.stamp().issuer);
        let before = post.servers.iter().take(rank);
        let before = before.filter(|one| Some(one.node) != issuer).count();
        let step = self.parameters.takeover_step;
        let first = if last.is_some() {
            step / 4
        } else {
            Duration::ZERO
        };
        let before = u32::try_from(before).unwrap_or(u32::MAX);
        let at = since + first + step * before;
        let height = u32::try_from(self.depth() - level).unwrap_or(u32::MAX);
        Some(at.max(self.agenda.began + self.parameters.start_grace * height))
    }

    fn take_over(&mut self, level: usize, tools: super::Tools) {
        let last = self.tables[level].get(self.path[level + 1].key);
        let epoch = last.map_or(0, |entry| entry.stamp().epoch) + 1;
        let post = &mut self.posts[level];
        post.vacant_since = None;
        if epoch > wire::tree::EPOCH_MAX {
            return;
        }
        // Who has forgotten an earlier run must not give its rows' stamps again.
        let number = u32::try_from(self.rng.below(NUMBERS_BEGIN)).unwrap_or_default();
        post.lead = Some(Lead {
            epoch,
            number,
            secret: Digest::default(),
            beat_at: self.now,
        });
        self.issue(level, true, tools);
        if self.posts[level].lead.is_some() {
            let zone = self.path[level + 1].zone.clone();
            self.out.push(Effect::Leads { zone, leads: true });
        }
    }

    pub(super) fn yield_lead(&mut self, level: usize) {
        if self.posts[level].lead.take().is_some() {
            let zone = self.path[level + 1].zone.clone();
            self.out.push(Effect::Leads { zone, leads: false });
        }
    }
}
