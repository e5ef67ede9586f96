//! The way to one other node: what is to be told, what is not yet
//! acknowledged, how long an answer takes.
//!
//! Holds: what waits is named, not copied: what is sent is always the latest;
//! each zone waits once; a packet is sent a bounded number of times.

use super::parameters::Parameters;
use crate::membership::RoundTrip;
use kernel::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::tree::{ACKS_MAX, Contact, NoticeKey, ZoneKey};

/// What is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// A level's table, and one of its zones.
    Zone(u8, ZoneKey),
    /// A place of the path, and what was said of a program there.
    Notice(u8, NoticeKey),
}

/// Packets under way to one node; older ones are given up for newer.
const FLIGHTS_MAX: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The row is known there; it still holds.
    Beat,
    /// The row, in case nobody else brought it.
    Spare,
    Row,
}

#[derive(Clone, Copy, Debug)]
pub struct Pending {
    pub kind: Kind,
    pub due: Time,
    pub tries: u8,
}

#[derive(Clone, Debug)]
pub struct Flight {
    seq: u32,
    sent: Time,
    deadline: Time,
    pub tries: u8,
    pub items: Vec<(Item, Kind)>,
    /// A second copy follows, whatever becomes of this one.
    pub is_doubled: bool,
}

#[derive(Clone, Debug)]
pub struct Link {
    pub contact: Contact,
    pub pending: BTreeMap<Item, Pending>,
    acks: Vec<u32>,
    ack_due: Option<Time>,
    flights: Vec<Flight>,
    seq: u32,
    round_trip: RoundTrip,
    pub silent_until: Option<Time>,
    pub used: Time,
    /// As it stands in the agenda of all links.
    due: Option<Time>,
}

impl Link {
    fn new(contact: Contact, now: Time) -> Self {
        Self {
            contact,
            pending: BTreeMap::new(),
            acks: Vec::new(),
            ack_due: None,
            flights: Vec::new(),
            seq: 0,
            round_trip: RoundTrip::default(),
            silent_until: None,
            used: now,
            due: None,
        }
    }

    pub fn is_silent(&self, now: Time) -> bool {
        self.silent_until.is_some_and(|until| now < until)
    }

    pub fn queue(&mut self, item: Item, pending: Pending) {
        let held = self.pending.entry(item).or_insert(pending);
        held.due = held.due.min(pending.due);
        if pending.kind > held.kind {
            *held = Pending {
                due: pending.due,
                ..pending
            };
        }
    }

    /// The other has it: it has sent the same. Returns whether it was to be told.
    fn has(&mut self, item: Item, up_to: Kind) -> bool {
        let waits = self.pending.get(&item);
        let has = waits.is_some_and(|one| one.kind <= up_to);
        if has {
            self.pending.remove(&item);
        }
        has
    }

    pub fn acknowledge(&mut self, seq: u32, due: Time) {
        if !self.acks.contains(&seq) && self.acks.len() < ACKS_MAX {
            self.acks.push(seq);
        }
        self.ack_due.get_or_insert(due);
    }

    pub fn take_acks(&mut self) -> Vec<u32> {
        self.ack_due = None;
        std::mem::take(&mut self.acks)
    }

    /// Whether it was waited for.
    pub fn on_ack(&mut self, seq: u32, now: Time) -> bool {
        let at = self.flights.iter().position(|one| one.seq == seq);
        if let Some(at) = at {
            let flight = self.flights.remove(at);
            self.round_trip.sample(now.since(flight.sent));
            self.silent_until = None;
        }
        at.is_some()
    }

    /// Of the next packet that is taken off.
    pub fn next_seq(&self) -> u32 {
        self.seq.wrapping_add(1).max(1)
    }

    pub fn take_off(
        &mut self,
        items: Vec<(Item, Kind)>,
        tries: u8,
        is_doubled: bool,
        now: Time,
        limits: &Parameters,
    ) {
        self.seq = self.next_seq();
        let wait = self.round_trip.short_wait().unwrap_or(limits.resend_first);
        let wait = wait + limits.ack_hold;
        let wait = wait.clamp(limits.resend_min, limits.resend_max) * (2 + u32::from(tries)) / 2;
        let wait = if is_doubled {
            limits.double_after
        } else {
            wait
        };
        if self.flights.len() >= FLIGHTS_MAX {
            self.flights.remove(0);
        }
        self.flights.push(Flight {
            seq: self.seq,
            sent: now,
            deadline: now + wait,
            tries,
            items,
            is_doubled,
        });
    }

    pub fn is_overdue(&self, now: Time) -> bool {
        self.flights.iter().any(|one| one.deadline <= now)
    }

    /// Packets that no acknowledgement came for.
    pub fn overdue(&mut self, now: Time) -> Vec<Flight> {
        let mut late = Vec::new();
        self.flights.retain(|one| {
            let is_late = one.deadline <= now;
            if is_late {
                late.push(one.clone());
            }
            !is_late
        });
        late
    }

    fn next(&self) -> Option<Time> {
        let pending = self.pending.values().map(|one| one.due);
        let flights = self.flights.iter().map(|one| one.deadline);
        pending.chain(flights).chain(self.ack_due).min()
    }
}

/// All ways, and when each is due.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// Of late, in thousandths of what was sent.
    lost: u32,
    by_node: BTreeMap<kernel::NodeId, Link>,
    agenda: BTreeSet<(Time, kernel::NodeId)>,
    /// The first of it.
    next: Option<Time>,
}

/// Ways of one node; more than any shape of a tree asks for.
const LINKS_MAX: usize = 4_096;
/// Packets that losses are a mean of.
const LOSS_MEMORY: u32 = 32;
const LOSS_DOUBLED: u32 = 50;

impl Links {
    pub fn get(&self, node: kernel::NodeId) -> Option<&Link> {
        self.by_node.get(&node)
    }

    /// Changes one and notes when it is due now.
    pub fn change<T>(
        &mut self,
        contact: Contact,
        now: Time,
        change: impl FnOnce(&mut Link) -> T,
    ) -> Option<T> {
        let node = contact.node;
        if self.by_node.len() >= LINKS_MAX && !self.by_node.contains_key(&node) {
            return None;
        }
        let link = self.by_node.entry(node);
        let link = link.or_insert_with(|| Link::new(contact, now));
        link.contact = contact;
        link.used = now;
        let result = change(link);
        let (before, next) = (link.due, link.next());
        link.due = next;
        self.note(node, before, next);
        Some(result)
    }

    /// The other has it, if it was to be told: it has sent the same.
    pub fn has(&mut self, node: kernel::NodeId, item: Item, up_to: Kind) {
        let Some(link) = self.by_node.get_mut(&node) else {
            return;
        };
        if !link.has(item, up_to) {
            return;
        }
        let (before, next) = (link.due, link.next());
        link.due = next;
        self.note(node, before, next);
    }

    fn note(&mut self, node: kernel::NodeId, before: Option<Time>, next: Option<Time>) {
        if next == before {
            return;
        }
        if let Some(before) = before {
            self.agenda.remove(&(before, node));
        }
        if let Some(next) = next {
            self.agenda.insert((next, node));
        }
        self.next = self.agenda.first().map(|(at, _)| *at);
    }

    pub fn heard(&mut self, acks: u32) {
        for _ in 0..acks {
            self.lost -= self.lost.div_ceil(LOSS_MEMORY);
        }
    }

    pub fn missed(&mut self, packets: u32) {
        for _ in 0..packets {
            self.lost += (1_000 - self.lost.min(1_000)) / LOSS_MEMORY;
        }
    }

    /// So much is lost that a second copy is worth its bytes.
    pub fn are_bad(&self) -> bool {
        self.lost > LOSS_DOUBLED
    }

    pub fn next(&self) -> Option<Time> {
        self.next
    }

    pub fn next_due(&self, now: Time) -> Option<kernel::NodeId> {
        self.next.filter(|at| *at <= now)?;
        self.agenda.first().map(|(_, node)| *node)
    }

    pub fn forget_idle(&mut self, now: Time, idle: Duration) {
        self.by_node
            .retain(|_, link| link.due.is_some() || now.since(link.used) < idle);
    }
}
