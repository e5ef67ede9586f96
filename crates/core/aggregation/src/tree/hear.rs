//! Decides what of a packet is believed.
//!
//! Holds: the cheap questions come first: a row that is not newer is never
//! verified; a row of an older epoch is refused, and who sent it is told the
//! newer; a row whose issuer's certificate is not known waits in a bounded
//! place. A beat is believed for the row it was made for, and only when it is
//! later than the last.

use super::event::Effect;
use super::issue::hashed;
use super::link::{Item, Kind};
use super::table::{Entry, Moment};
use super::tools::{Tools, Verdict};
use super::{Tree, spread};
use kernel::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use wire::tree::{Beat, Contact, Head, Part, SignedRow, Stamp, Writer, ZoneKey, decode, head};

/// Epochs that can pass unheard: a leader a second for twelve days.
const EPOCHS_AHEAD_MAX: u64 = 1 << 20;
/// Issuers whose certificates are waited for, and rows of each.
const ISSUERS_WAITING_MAX: usize = 32;
const ROWS_WAITING_MAX: usize = 4;

pub type Waiting = BTreeMap<NodeId, Vec<Heard>>;

/// A row on its way in.
#[derive(Clone, Debug)]
pub struct Heard {
    level: usize,
    row: Arc<SignedRow>,
    confirmed: Moment,
    from: Contact,
    asked: bool,
}

impl Tree {
    pub(super) fn on_received(&mut self, from: Contact, payload: &[u8], tools: Tools) {
        if from.node == self.own.node {
            return;
        }
        let Ok(packet) = decode(payload) else {
            self.counts.garbled += 1;
            return;
        };
        let now = self.now;
        if packet.seq != 0 || !packet.acks.is_empty() {
            let due = now + self.parameters.ack_hold;
            let heard = self.links.change(from, now, |link| {
                let acks = packet.acks.iter();
                let heard = acks.map(|ack| u32::from(link.on_ack(*ack, now))).sum();
                if packet.seq != 0 {
                    link.acknowledge(packet.seq, due);
                }
                heard
            });
            self.links.heard(heard.unwrap_or(0));
        }
        let mut wanted = Vec::new();
        for part in packet.parts {
            match part {
                Part::Row {
                    asked,
                    age_ms,
                    bytes,
                } => self.hear_row(from, bytes, Moment::before(now, age_ms), asked, tools),
                Part::Beat(beat) => wanted.extend(self.hear_beat(from, &beat, tools)),
                Part::Hash { zone, hash } => self.on_hash(from, zone, hash),
                Part::Stamps {
                    zone,
                    low,
                    high,
                    entries,
                } => self.on_stamps(from, zone, (low, high), &entries),
                Part::Want(zones) => self.on_want(from, &zones),
                Part::Notice { age_ms, bytes } => {
                    let age = Duration::from_millis(age_ms);
                    self.hear_notice(Some(from), bytes, age, tools);
                }
                Part::NoticesHash { zone, hash } => self.on_notices_hash(from, zone, hash),
                Part::Notices { zone, keys } => self.on_notices(from, zone, &keys),
                Part::WantNotices { zone, keys } => self.on_want_notices(from, zone, &keys),
            }
        }
        if !wanted.is_empty() && self.may_answer() {
            let mut writer = Writer::new(0, &[]);
            writer.push(&Part::Want(wanted));
            self.put_on_the_way(from, writer.into_bytes());
        }
    }

    /// In whose table a zone of this name stands.
    fn level_of(&self, zone: &str) -> Option<usize> {
        let level = zone
            .bytes()
            .filter(|byte| *byte == b'/')
            .count()
            .checked_sub(1)?;
        let step = self.path.get(level).filter(|_| level < self.depth())?;
        zone.starts_with(&step.prefix).then_some(level)
    }

    fn hear_row(
        &mut self,
        from: Contact,
        bytes: &[u8],
        confirmed: Moment,
        asked: bool,
        tools: Tools,
    ) {
        let Ok(head) = head(bytes) else {
            self.counts.garbled += 1;
            return;
        };
        let Some(level) = self.level_of(head.zone) else {
            self.counts.strange += 1;
            return;
        };
        if !self.is_news(level, &head, from) {
            return;
        }
        let Ok(row) = tools.keys.open(bytes) else {
            self.counts.garbled += 1;
            return;
        };
        let arrived = Heard {
            level,
            row,
            confirmed,
            from,
            asked,
        };
        self.prove(arrived, tools);
    }

    fn is_news(&mut self, level: usize, head: &Head, from: Contact) -> bool {
        let item = Item::Zone(u8::try_from(level).unwrap_or(u8::MAX), head.key);
        let Some(entry) = self.tables[level].get(head.key) else {
            return true;
        };
        let known = entry.stamp();
        if head.stamp >= known {
            self.links.has(from.node, item, Kind::Row);
        }
        if head.stamp == known {
            self.counts.repeated += 1;
            return false;
        }
        if head.stamp < known {
            self.counts.outdated += 1;
            if head.stamp.epoch < known.epoch {
                self.tell_newer(from, level, head.key);
            }
            return false;
        }
        if head.stamp.epoch > known.epoch + EPOCHS_AHEAD_MAX {
            self.counts.future += 1;
            return false;
        }
        true
    }

    fn tell_newer(&mut self, to: Contact, level: usize, key: ZoneKey) {
        if !self.may_answer() {
            return;
        }
        let mut packets = spread::Packets::default();
        self.write_asked(&mut packets, level, key);
        self.send_bare(to, packets);
    }

    fn prove(&mut self, heard: Heard, tools: Tools) {
        let row = &heard.row.row;
        let issuer = row.stamp.issuer;
        let parent = row.zone.parent().unwrap_or_default();
        let within = if row.ended { &parent } else { &row.zone };
        self.counts.verified += 1;
        let (signed, signature) = (heard.row.signed(), heard.row.signature());
        match tools.keys.verify(issuer, within, signed, &signature) {
            Verdict::Good => self.believe(heard, tools),
            Verdict::Bad => self.counts.forged += 1,
            Verdict::UnknownKey => self.wait_for_key(issuer, heard),
        }
    }

    fn wait_for_key(&mut self, issuer: NodeId, heard: Heard) {
        let from = heard.from;
        let full = self.waiting.len() >= ISSUERS_WAITING_MAX;
        if full && !self.waiting.contains_key(&issuer) {
            self.waiting.pop_first();
            self.counts.unproven += 1;
        }
        let rows = self.waiting.entry(issuer).or_default();
        if rows.len() >= ROWS_WAITING_MAX {
            rows.remove(0);
            self.counts.unproven += 1;
        }
        rows.push(heard);
        self.out.push(Effect::KeyWanted { issuer, from });
    }

    pub(super) fn on_key_learned(&mut self, node: NodeId, tools: Tools) {
        for heard in self.waiting.remove(&node).unwrap_or_default() {
            let known = self.tables[heard.level].get(heard.row.key);
            if known.is_none_or(|entry| entry.stamp() < heard.row.row.stamp) {
                self.prove(heard, tools);
            }
        }
    }

    fn believe(&mut self, heard: Heard, tools: Tools) {
        let Heard {
            level,
            row,
            confirmed,
            from,
            asked,
        } = heard;
        let key = row.key;
        let other_name = |old: &Entry| old.row.row.zone != row.row.zone;
        if self.tables[level].get(key).is_some_and(other_name) {
            self.counts.strange += 1;
            return;
        }
        let stamp = row.row.stamp;
        self.counts.accepted += 1;
        self.put(level, Entry::new(row, confirmed));
        if key == self.path[level + 1].key {
            self.on_own_zone(level, stamp, tools);
        }
        self.spread(level, key, Kind::Row, Some(from.node), asked);
    }

    /// Another has issued the row of a zone of this node's path.
    fn on_own_zone(&mut self, level: usize, stamp: Stamp, tools: Tools) {
        if stamp.issuer == self.own.node && self.posts[level].lead.is_some() {
            // A run of before, which this one does not remember.
            if let Some(lead) = self.posts[level].lead.as_mut() {
                (lead.epoch, lead.number) = (stamp.epoch + 1, 0);
            }
            if stamp.epoch < wire::tree::EPOCH_MAX {
                return self.issue(level, true, tools);
            }
        }
        self.yield_lead(level);
        self.posts[level].vacant_since = None;
        self.posts[level].unchecked = true;
        self.check(level, tools);
    }

    /// Into the table, with all that follows from it.
    pub(super) fn put(&mut self, level: usize, mut entry: Entry) {
        let (key, row) = (entry.row.key, entry.row.clone());
        let age = entry.confirmed.age(self.now);
        entry.unknown = !entry.ended && age > self.parameters.unknown_after;
        let is_unknown = entry.unknown;
        let old = self.tables[level].get(key);
        let is_same = old.is_some_and(|old| {
            old.row.row.contacts == row.row.contacts && old.reports() == entry.reports()
        });
        let was_unknown = old.is_some_and(|one| one.unknown);
        self.tables[level].put(entry);
        if !is_same {
            self.election_is_old(level);
        }
        if key == self.path[level + 1].key {
            self.agenda.posts_by(self.now);
        }
        let zone = row.row.zone.clone();
        self.out.push(Effect::Row { level, row });
        if is_unknown {
            self.out.push(Effect::Unknown { zone, age });
        } else if was_unknown {
            self.out.push(Effect::Known { zone });
        }
        self.inputs_changed(level);
    }

    /// Returns the zone whose row is missing here.
    fn hear_beat(&mut self, from: Contact, beat: &Beat, tools: Tools) -> Option<ZoneKey> {
        let level = self
            .tables
            .iter()
            .position(|table| table.get(beat.zone).is_some());
        let Some(level) = level else {
            return Some(beat.zone);
        };
        let entry = self.tables[level].get(beat.zone)?;
        let (known, said) = (entry.stamp(), (beat.epoch, beat.number));
        if said != (known.epoch, known.number) {
            return ((known.epoch, known.number) < said).then_some(beat.zone);
        }
        let item = Item::Zone(u8::try_from(level).unwrap_or(u8::MAX), beat.zone);
        if beat.beat >= entry.beat {
            self.links.has(from.node, item, Kind::Beat);
        }
        if beat.beat <= entry.beat || beat.beat > entry.row.row.beats {
            return None;
        }
        if hashed(beat.proof, beat.beat - entry.beat, tools) != entry.proof {
            self.counts.forged_beats += 1;
            return None;
        }
        let confirmed = Moment::before(self.now, beat.age_ms).max(entry.confirmed);
        let unknown = confirmed.age(self.now) > self.parameters.unknown_after;
        let entry = self.tables[level].get_mut(beat.zone)?;
        (entry.beat, entry.proof) = (beat.beat, beat.proof);
        entry.confirmed = confirmed;
        let is_back = entry.unknown && !unknown;
        if self.posts[level].vacant_since.is_some() {
            self.agenda.posts_by(self.now);
        }
        if is_back {
            entry.unknown = false;
            let zone = entry.row.row.zone.clone();
            self.out.push(Effect::Known { zone });
            self.election_is_old(level);
            self.inputs_changed(level);
        }
        self.spread(level, beat.zone, Kind::Beat, Some(from.node), false);
        None
    }
}
