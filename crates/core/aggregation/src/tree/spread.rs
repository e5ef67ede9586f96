//! Decides whom a row or a beat is told to, and puts what waits into packets.
//!
//! The leader tells all contacts of each sibling, so that a lost copy delays
//! one of them only; they serve their shares of the zone below, down to the
//! leaf zone's nodes. A beat goes to the first contact of each, who passes it
//! to the others.
//! Holds: whoever hears something twice tells it once; what was asked for by
//! somebody whom it should have reached goes up to the representatives too.

use super::Tree;
use super::event::Effect;
use super::link::{Item, Kind, Pending};
use crate::membership::Reach;
use kernel::{NodeId, Time};
use std::collections::BTreeMap;
use wire::tree::{Contact, NoticeKey, PACKET_BYTES_MAX, Part, Writer, ZoneKey};

/// Packets to one node at one time.
const BURST_MAX: usize = 16;

/// Packets that nobody acknowledges: what is lost is found missing again.
#[derive(Default)]
pub struct Packets {
    done: Vec<Vec<u8>>,
    open: Option<Writer>,
}

/// In answer to one packet.
const ANSWERS_MAX: usize = 24;

impl Packets {
    /// What is over the limit is dropped.
    pub fn push(&mut self, part: &Part) {
        let writer = self.open.get_or_insert_with(|| Writer::new(0, &[]));
        if writer.push(part) || self.done.len() >= ANSWERS_MAX {
            return;
        }
        let mut next = Writer::new(0, &[]);
        next.push(part);
        if let Some(full) = self.open.replace(next) {
            self.done.push(full.into_bytes());
        }
    }

    pub fn into_payloads(self) -> Vec<Vec<u8>> {
        let mut all = self.done;
        all.extend(self.open.map(Writer::into_bytes));
        all
    }
}

impl Tree {
    /// `asked`: it came by a comparison, past those who should have told it.
    pub(super) fn spread(
        &mut self,
        level: usize,
        key: ZoneKey,
        kind: Kind,
        from: Option<NodeId>,
        asked: bool,
    ) {
        let mut told: BTreeMap<NodeId, (Contact, Kind)> = BTreeMap::new();
        if from.is_none() || asked && self.is_first_hand(level) {
            self.tell_siblings(level, key, kind, &mut told);
        }
        let mut has_post = false;
        for post in self.posts.iter().skip(level) {
            if post.rank.is_none() {
                continue;
            }
            let is_topmost = !std::mem::replace(&mut has_post, true);
            let from_server = post.servers.iter().any(|one| Some(one.node) == from);
            if !from_server {
                for (at, one) in post.servers.iter().enumerate() {
                    // The contacts have their own copy of a row from above; in
                    // zones further down, from this node alone.
                    let is_spare = kind == Kind::Row
                        && is_topmost
                        && !asked
                        && from.is_some()
                        && at < self.parameters.representatives;
                    let kind = if is_spare { Kind::Spare } else { kind };
                    told.entry(one.node).or_insert((*one, kind));
                }
            }
            for contacts in &post.served {
                self.tell_zone(contacts, kind, &mut told);
            }
        }
        let is_from_afar = from.is_some_and(|node| !self.is_mate(node));
        if !has_post && (asked || is_from_afar) {
            let servers = self.posts.last().map(|post| &post.servers);
            for one in servers.into_iter().flatten() {
                told.insert(one.node, (*one, kind));
            }
        } else if asked && let Some(post) = self.posts.get(level) {
            for one in &post.servers {
                told.entry(one.node).or_insert((*one, kind));
            }
        }
        told.remove(&self.own.node);
        if let Some(from) = from {
            told.remove(&from);
        }
        let item = Item::Zone(u8::try_from(level).unwrap_or(u8::MAX), key);
        for (contact, kind) in told.into_values() {
            self.queue(contact, item, kind);
        }
    }

    /// Whether this node speaks for its zone beside others at this level.
    fn is_first_hand(&self, level: usize) -> bool {
        self.posts[level].lead.is_some()
    }

    pub(super) fn tell_siblings(
        &self,
        level: usize,
        key: ZoneKey,
        kind: Kind,
        told: &mut BTreeMap<NodeId, (Contact, Kind)>,
    ) {
        let own = self.path[level + 1].key;
        for (sibling, entry) in self.tables[level].iter() {
            if sibling != key && sibling != own {
                self.tell_zone(&entry.row.row.contacts, kind, told);
            }
        }
    }

    pub(super) fn tell_zone(
        &self,
        contacts: &[Contact],
        kind: Kind,
        told: &mut BTreeMap<NodeId, (Contact, Kind)>,
    ) {
        if kind == Kind::Beat {
            if let Some(one) = self.first_heard(contacts) {
                told.entry(one.node).or_insert((one, kind));
            }
            return;
        }
        for one in contacts {
            told.entry(one.node).or_insert((*one, kind));
        }
    }

    /// The first that is not silent; the first at all where all are.
    fn first_heard(&self, contacts: &[Contact]) -> Option<Contact> {
        let is_heard = |one: &&Contact| {
            let link = self.links.get(one.node);
            link.is_none_or(|link| !link.is_silent(self.now))
        };
        let heard = contacts.iter().find(is_heard);
        heard.or(contacts.first()).copied()
    }

    pub(super) fn queue(&mut self, contact: Contact, item: Item, kind: Kind) {
        let wait = match kind {
            Kind::Row => self.parameters.coalesce,
            Kind::Beat => self.parameters.beat_hold,
            Kind::Spare => {
                let thousandths = u32::try_from(self.rng.below(2_000)).unwrap_or_default();
                self.parameters.spare_hold * (1_000 + thousandths) / 1_000
            }
        };
        let pending = Pending {
            kind,
            due: self.now + wait,
            tries: 0,
        };
        let _ = self
            .links
            .change(contact, self.now, |link| link.queue(item, pending));
    }

    /// Sends what is due on all ways.
    pub(super) fn send_due(&mut self) {
        while let Some(node) = self.links.next_due(self.now) {
            let Some(link) = self.links.get(node) else {
                return;
            };
            let contact = link.contact;
            if link.is_overdue(self.now) {
                self.send_again(contact);
            }
            self.send_pending(contact);
        }
    }

    fn send_again(&mut self, contact: Contact) {
        let (now, limits) = (self.now, self.parameters.clone());
        let mate = self.mates.get(&contact.node);
        let is_near = mate.is_some_and(|mate| mate.reach == Reach::Alive);
        let given_up = self.links.change(contact, now, |link| {
            let mut given_up = Vec::new();
            let late = link.overdue(now);
            let again = late.len();
            let missed = late.iter().filter(|one| !one.is_doubled).count();
            for flight in late {
                let tries = flight.tries + 1;
                let most = match link.is_silent(now) {
                    _ if is_near => limits.tries_near,
                    true => 1,
                    false => limits.tries,
                };
                if tries >= most {
                    given_up.extend(flight.items);
                    continue;
                }
                for (item, kind) in flight.items {
                    let due = now;
                    link.queue(item, Pending { kind, due, tries });
                }
            }
            if !given_up.is_empty() {
                link.silent_until = Some(now + limits.silent);
            }
            (again, missed, given_up)
        });
        let (again, missed, given_up) = given_up.unwrap_or_default();
        self.links.missed(u32::try_from(missed).unwrap_or(u32::MAX));
        self.counts.sent_again += again as u64;
        if !given_up.is_empty() {
            self.counts.silent += 1;
            self.tell_another(contact.node, &given_up);
        }
    }

    /// What one contact of a zone did not take goes to its next one.
    fn tell_another(&mut self, silent: NodeId, items: &[(Item, Kind)]) {
        let mut next: Vec<Contact> = Vec::new();
        for (_, entry) in self.tables.iter().flat_map(super::Table::iter) {
            let contacts = &entry.row.row.contacts;
            if contacts.iter().any(|one| one.node == silent) {
                next.extend(self.first_heard(contacts));
            }
        }
        next.sort_unstable();
        next.dedup();
        next.retain(|one| one.node != silent && one.node != self.own.node);
        for contact in next {
            for (item, kind) in items {
                self.queue(contact, *item, *kind);
            }
        }
    }

    fn send_pending(&mut self, contact: Contact) {
        let now = self.now;
        let taken = self.links.change(contact, now, |link| {
            let mut taken: Vec<(Item, Pending)> = Vec::new();
            link.pending.retain(|item, pending| {
                let goes = pending.kind != Kind::Spare || pending.due <= now;
                if goes {
                    taken.push((*item, *pending));
                }
                !goes
            });
            let acks = link.take_acks();
            (taken, acks)
        });
        let Some((mut taken, mut acks)) = taken else {
            return;
        };
        taken.retain(|(item, pending)| self.has_to_say(*item, pending.kind));
        taken.reverse();
        for _ in 0..BURST_MAX {
            if taken.is_empty() {
                break;
            }
            self.send_packet(contact, &mut taken, &mut acks);
        }
        // More than a burst comes by comparisons.
        if !acks.is_empty() {
            let payload = Writer::new(0, &acks).into_bytes();
            self.put_on_the_way(contact, payload);
        }
    }

    /// Takes from the end of `taken` what one packet holds.
    fn send_packet(
        &mut self,
        contact: Contact,
        taken: &mut Vec<(Item, Pending)>,
        acks: &mut Vec<u32>,
    ) {
        let (now, limits) = (self.now, self.parameters.clone());
        let seq = self.links.get(contact.node);
        let seq = seq.map(super::link::Link::next_seq);
        let mut writer = Writer::new(seq.unwrap_or(0), acks);
        acks.clear();
        let (mut items, mut tries) = (Vec::new(), 0);
        while let Some((item, pending)) = taken.last().copied() {
            if !self.write_item(&mut writer, item, pending.kind, now) {
                break;
            }
            taken.pop();
            items.push((item, pending.kind));
            tries = tries.max(pending.tries);
        }
        if writer.is_bare() {
            return;
        }
        let has_row = items.iter().any(|(_, kind)| *kind != Kind::Beat);
        let is_worth_it = has_row && tries == 0 && self.links.are_bad();
        let _ = self.links.change(contact, now, |link| {
            let is_doubled = is_worth_it && !link.is_silent(now);
            link.take_off(items, tries, is_doubled, now, &limits);
        });
        self.put_on_the_way(contact, writer.into_bytes());
    }

    fn has_to_say(&self, item: Item, kind: Kind) -> bool {
        match item {
            Item::Zone(level, key) => {
                let entry = self.entry(level, key);
                entry.is_some_and(|entry| kind != Kind::Beat || entry.beat > 0)
            }
            Item::Notice(place, key) => self.held(place, key).is_some(),
        }
    }

    fn entry(&self, level: u8, key: ZoneKey) -> Option<&super::table::Entry> {
        self.tables.get(usize::from(level))?.get(key)
    }

    fn held(&self, place: u8, key: NoticeKey) -> Option<&super::board::Held> {
        self.boards.get(usize::from(place))?.get(key)
    }

    /// Whether there was room; what is known no more needs none.
    fn write_item(&self, writer: &mut Writer, item: Item, kind: Kind, now: Time) -> bool {
        let (level, key) = match item {
            Item::Zone(level, key) => (level, key),
            Item::Notice(place, key) => {
                return self.held(place, key).is_none_or(|held| {
                    let age_ms = held.signed.age_ms(now);
                    let bytes = held.notice.bytes();
                    writer.push(&Part::Notice { age_ms, bytes })
                });
            }
        };
        let Some(entry) = self.entry(level, key) else {
            return true;
        };
        let age_ms = entry.confirmed.age_ms(now);
        if kind != Kind::Beat {
            let bytes = entry.row.bytes();
            let asked = false;
            if !writer.push(&Part::Row {
                asked,
                age_ms,
                bytes,
            }) {
                return false;
            }
        }
        if entry.beat == 0 {
            return true;
        }
        let beat = self.beat_of(key, entry);
        writer.push(&Part::Beat(beat)) || kind != Kind::Beat
    }

    pub(super) fn put_on_the_way(&mut self, to: Contact, payload: Vec<u8>) {
        self.counts.sent += 1;
        self.out.push(if payload.len() <= PACKET_BYTES_MAX {
            Effect::Send { to, payload }
        } else {
            Effect::Stream { to, payload }
        });
    }
}
