//! Compares what two nodes know of their common ancestors' children, and
//! exchanges what differs: what telling could not carry, this does.
//!
//! Holds: one hash a table while nothing differs; no state is kept between
//! packets; answers are bounded in number and rate.

use super::Tree;
use super::spread::Packets;
use super::table::Entry;
use std::collections::BTreeMap;
use std::time::Duration;
use wire::tree::{Beat, Contact, ENTRIES_MAX, Entry as Stamped, Part, WANTED_MAX, ZoneKey};

/// How often somebody is asked whom no row names.
const ACQUAINTED_TURN: u64 = 8;

impl Tree {
    pub(super) fn compare(&mut self) {
        let Some(partner) = self.partner() else {
            return;
        };
        let mut packets = Packets::default();
        for level in 0..self.depth() {
            if self.is_stale(level) {
                self.write_stamps(&mut packets, level);
            } else {
                let (zone, hash) = (self.path[level].key, self.tables[level].hash());
                packets.push(&Part::Hash { zone, hash });
            }
        }
        // Who has none is told by those who have some.
        for (step, board) in self.path.iter().zip(&self.boards) {
            if !board.is_empty() {
                let (zone, hash) = (step.key, board.hash());
                packets.push(&Part::NoticesHash { zone, hash });
            }
        }
        self.send_bare(partner, packets);
    }

    /// A random mate; who represents a zone, every other time one of those it
    /// represents it to, also of zones that are unknown: so a cut is seen to
    /// be healed. Who is alone in its zone asks nobody else.
    fn partner(&mut self) -> Option<Contact> {
        let now = self.now;
        let turn = self.rng.next_u64();
        let levels = (0..self.depth()).filter(|level| {
            let post = &self.posts[*level];
            post.rank
                .is_some_and(|rank| rank < self.parameters.representatives)
        });
        let levels: Vec<usize> = levels.collect();
        let lonely = self.tables.iter().any(|table| table.len() < 2);
        let far = !levels.is_empty() && (turn.is_multiple_of(2) || self.near.is_empty());
        if far && (lonely || (turn / 2).is_multiple_of(ACQUAINTED_TURN)) {
            let found = pick(&self.acquainted, self.rng.next_u64());
            if found.is_some() {
                return found;
            }
        }
        if far && let Some(level) = pick(&levels, self.rng.next_u64()) {
            let own = self.path[level + 1].key;
            let siblings = self.tables[level].iter().filter(|(key, _)| *key != own);
            let siblings: Vec<&[Contact]> = siblings
                .map(|(_, entry)| entry.row.row.contacts.as_slice())
                .filter(|contacts| !contacts.is_empty())
                .collect();
            let chosen = pick(&siblings, self.rng.next_u64()).unwrap_or_default();
            let found = pick(chosen, self.rng.next_u64());
            if found.is_some_and(|one| one.node != self.own.node) {
                return found;
            }
        }
        let is_heard = |one: &Contact| {
            let link = self.links.get(one.node);
            link.is_none_or(|link| !link.is_silent(now))
        };
        let chosen = self.rng.next_u64();
        let found = pick(&self.near, chosen).filter(is_heard);
        found.or_else(|| pick(&self.near, chosen.wrapping_mul(3)))
    }

    /// Something is about to be unknown here that others may have heard of.
    fn is_stale(&mut self, level: usize) -> bool {
        let (now, limits) = (self.now, &self.parameters);
        if self.tables[level].age_max(now) < limits.stale_after {
            return false;
        }
        let span = limits.stale_after..limits.unknown_after * 2;
        let is_old = |one: &Entry| !one.ended && span.contains(&one.confirmed.age(now));
        let found = self.tables[level].iter().any(|(_, one)| is_old(one));
        self.tables[level].look();
        found
    }

    fn write_stamps(&self, packets: &mut Packets, level: usize) {
        let all: Vec<Stamped> = self.tables[level]
            .iter()
            .map(|(zone, one)| Stamped {
                zone,
                stamp: one.stamp(),
                beat: one.beat,
            })
            .collect();
        let zone = self.path[level].key;
        let mut low = ZoneKey(0);
        let mut rest = all.as_slice();
        loop {
            let (some, later) = rest.split_at(rest.len().min(ENTRIES_MAX));
            let high = match some.last() {
                Some(last) if !later.is_empty() => last.zone,
                _ => ZoneKey(u64::MAX),
            };
            packets.push(&Part::Stamps {
                zone,
                low,
                high,
                entries: some.to_vec(),
            });
            if later.is_empty() {
                return;
            }
            low = ZoneKey(high.0.saturating_add(1));
            rest = later;
        }
    }

    fn level_of_key(&self, zone: ZoneKey) -> Option<usize> {
        let levels = self.path.iter().take(self.depth());
        levels
            .enumerate()
            .find(|(_, step)| step.key == zone)
            .map(|(level, _)| level)
    }

    pub(super) fn on_hash(&mut self, from: Contact, zone: ZoneKey, hash: u64) {
        let Some(level) = self.level_of_key(zone) else {
            return;
        };
        if self.tables[level].hash() == hash || !self.may_answer() {
            return;
        }
        let mut packets = Packets::default();
        self.write_stamps(&mut packets, level);
        self.send_bare(from, packets);
    }

    pub(super) fn on_stamps(
        &mut self,
        from: Contact,
        zone: ZoneKey,
        (low, high): (ZoneKey, ZoneKey),
        entries: &[Stamped],
    ) {
        let Some(level) = self.level_of_key(zone).filter(|_| low <= high) else {
            return;
        };
        if !self.may_answer() {
            return;
        }
        let theirs: BTreeMap<ZoneKey, &Stamped> =
            entries.iter().map(|one| (one.zone, one)).collect();
        let table = &self.tables[level];
        let wanted = entries.iter().filter(|one| {
            let known = table.get(one.zone);
            known.is_none_or(|entry| entry.stamp() < one.stamp)
        });
        let mut wanted: Vec<ZoneKey> = wanted.map(|one| one.zone).collect();
        wanted.truncate(WANTED_MAX);
        let mut packets = Packets::default();
        if !wanted.is_empty() {
            packets.push(&Part::Want(wanted));
        }
        let inside = table.iter().filter(|(key, _)| (low..=high).contains(key));
        let mut beats = Vec::new();
        let mut rows = Vec::new();
        for (key, entry) in inside {
            match theirs.get(&key) {
                Some(one) if one.stamp > entry.stamp() => {}
                Some(one) if one.stamp == entry.stamp() => {
                    if one.beat < entry.beat {
                        beats.push(self.beat_of(key, entry));
                    }
                }
                _ => rows.push(key),
            }
        }
        for beat in beats {
            packets.push(&Part::Beat(beat));
        }
        for key in rows {
            self.write_asked(&mut packets, level, key);
        }
        self.send_bare(from, packets);
    }

    pub(super) fn on_want(&mut self, from: Contact, zones: &[ZoneKey]) {
        if !self.may_answer() {
            return;
        }
        let mut packets = Packets::default();
        for zone in zones {
            let level = self
                .tables
                .iter()
                .position(|table| table.get(*zone).is_some());
            if let Some(level) = level {
                self.write_asked(&mut packets, level, *zone);
            }
        }
        self.send_bare(from, packets);
    }

    pub(super) fn write_asked(&self, packets: &mut Packets, level: usize, key: ZoneKey) {
        let Some(entry) = self.tables[level].get(key) else {
            return;
        };
        packets.push(&Part::Row {
            asked: true,
            age_ms: entry.confirmed.age_ms(self.now),
            bytes: entry.row.bytes(),
        });
        if entry.beat > 0 {
            packets.push(&Part::Beat(self.beat_of(key, entry)));
        }
    }

    pub(super) fn beat_of(&self, zone: ZoneKey, entry: &Entry) -> Beat {
        let stamp = entry.stamp();
        Beat {
            zone,
            epoch: stamp.epoch,
            number: stamp.number,
            beat: entry.beat,
            proof: entry.proof,
            age_ms: entry.confirmed.age_ms(self.now),
        }
    }

    pub(super) fn send_bare(&mut self, to: Contact, packets: Packets) {
        for payload in packets.into_payloads() {
            self.put_on_the_way(to, payload);
        }
    }

    /// Takes one from what may be answered in this second.
    pub(super) fn may_answer(&mut self) -> bool {
        if self.now.since(self.agenda.second) >= Duration::from_secs(1) {
            self.agenda.second = self.now;
            self.agenda.answered = 0;
        }
        let may = self.agenda.answered < self.parameters.answer_rate;
        self.agenda.answered += u32::from(may);
        may
    }
}

fn pick<T: Clone>(all: &[T], chosen: u64) -> Option<T> {
    let count = u64::try_from(all.len()).ok().filter(|count| *count > 0)?;
    let at = usize::try_from(chosen % count).ok()?;
    all.get(at).cloned()
}
