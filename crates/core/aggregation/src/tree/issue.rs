//! Computes a zone's row, issues it where this node leads, confirms it by
//! beats, and computes the leader's again where another does.
//!
//! Holds: a row goes out only when what it says has changed beyond what is
//! worth telling, and then at most so often; what was computed from the same
//! inputs and differs is a lie, and its issuer is named once.

use super::event::{Aggregate, Effect};
use super::link::Kind;
use super::table::{Entry, Moment};
use super::tools::{Evaluated, Input, Source, Tools};
use super::{Tree, elect::Lead};
use kernel::{Time, UnixMillis, ZonePath};
use std::sync::Arc;
use wire::tree::{Contact, Coverage, Digest, Row, SignedRow, Stamp};

/// What a row is made from.
struct Computed {
    attributes: Vec<u8>,
    coverage: Coverage,
    inputs: Digest,
    issued_at: UnixMillis,
}

impl Tree {
    /// The row of the zone at this place of the path.
    pub(super) fn compute(&self, place: usize, tools: Tools) -> Aggregate {
        Aggregate {
            attributes: self.evaluate(place, tools.wall, tools).attributes,
            coverage: self.coverage(place),
        }
    }

    fn evaluate(&self, place: usize, now: UnixMillis, tools: Tools) -> Evaluated {
        let inputs = self.inputs(place);
        let zone = &self.path[place].zone;
        tools.programs.evaluate(zone, now, &inputs)
    }

    pub(super) fn inputs(&self, place: usize) -> Vec<Input<'_>> {
        if place == self.depth() {
            let mates = self.mates.values();
            let reporting = mates.filter(|one| one.reach.is_up() && one.version.number > 0);
            return reporting
                .map(|one| Input {
                    of: Source::Node(one.contact.node),
                    attributes: &one.attributes,
                    nodes: 1,
                })
                .collect();
        }
        let children = self.tables[place].iter().filter(|(_, one)| one.reports());
        children
            .map(|(_, entry)| Input {
                of: Source::Zone(&entry.row.row.zone),
                attributes: &entry.row.row.attributes,
                nodes: entry.row.row.coverage.reporting,
            })
            .collect()
    }

    /// A zone of which nothing is heard keeps what it expects.
    pub(super) fn coverage(&self, place: usize) -> Coverage {
        let mut sum = Coverage::default();
        if place == self.depth() {
            for mate in self.mates.values() {
                if mate.reach.is_up() && mate.version.number > 0 {
                    sum.reporting += 1;
                }
                if mate.reach == crate::membership::Reach::Suspect {
                    let silent = self.now.since(mate.since).as_millis();
                    let silent = u64::try_from(silent).unwrap_or(u64::MAX);
                    sum.oldest_ms = sum.oldest_ms.max(silent);
                }
            }
            sum.expected = self.expected.max(sum.reporting);
            return sum;
        }
        for (_, entry) in self.tables[place].iter() {
            let row = &entry.row.row;
            if row.ended {
                continue;
            }
            sum.expected = sum.expected.saturating_add(row.coverage.expected);
            if !entry.unknown {
                sum.reporting = sum.reporting.saturating_add(row.coverage.reporting);
                let age = entry.confirmed.age_ms(self.now);
                let age = age.saturating_add(row.coverage.oldest_ms);
                sum.oldest_ms = sum.oldest_ms.max(age);
            }
        }
        sum
    }

    /// Of what this place's row is computed from, and of the programs that do.
    fn inputs_digest(&self, place: usize, tools: Tools) -> Digest {
        let mut told = Vec::with_capacity(64);
        let programs = tools.programs.fingerprint(&self.path[place].zone);
        told.extend(programs.to_be_bytes());
        if place == self.depth() {
            told.extend(self.expected.to_be_bytes());
            for (node, mate) in &self.mates {
                if mate.reach.is_up() && mate.version.number > 0 {
                    told.extend(node.0.to_be_bytes());
                    told.extend(mate.version.epoch.to_be_bytes());
                    told.extend(mate.version.number.to_be_bytes());
                }
            }
        } else {
            for (key, entry) in self.tables[place].iter() {
                told.extend(key.0.to_be_bytes());
                told.extend(entry.row.signature());
                told.push(u8::from(entry.unknown));
            }
        }
        tools.keys.digest(&told)
    }

    fn contacts(&self, level: usize) -> Vec<Contact> {
        let servers = &self.posts[level].servers;
        let own = servers.iter().filter(|one| one.node == self.own.node);
        let others = servers.iter().filter(|one| one.node != self.own.node);
        let all = own.chain(others).copied();
        all.take(self.parameters.representatives).collect()
    }

    /// Of the zone after `level` on the path, which this node leads.
    pub(super) fn issue(&mut self, level: usize, forced: bool, tools: Tools) {
        let zone = self.path[level + 1].zone.clone();
        let evaluated = self.evaluate(level + 1, tools.wall, tools);
        let computed = Computed {
            inputs: self.inputs_digest(level + 1, tools),
            attributes: evaluated.attributes,
            coverage: self.coverage(level + 1),
            issued_at: tools.wall,
        };
        self.on_failed(level + 1, evaluated.failed, tools);
        let contacts = self.contacts(level);
        if !forced {
            let old = self.tables[level].get(self.path[level + 1].key);
            let same = old.is_some_and(|old| {
                let row = &old.row.row;
                row.contacts == contacts
                    && row.coverage.expected == computed.coverage.expected
                    && row.coverage.reporting == computed.coverage.reporting
                    && !tools
                        .programs
                        .differs(&zone, &row.attributes, &computed.attributes)
            });
            if same {
                return;
            }
            if let Some(at) = self.too_soon(level) {
                self.posts[level].issue_at = Some(at);
                return;
            }
        }
        self.sign_and_spread(level, zone, contacts, computed, tools);
    }

    /// When the next row may go out, if not now.
    fn too_soon(&mut self, level: usize) -> Option<Time> {
        let (now, interval) = (self.now, self.parameters.issue_interval);
        let burst = self.parameters.issue_burst.max(1);
        let post = &mut self.posts[level];
        while post.burst > 0 && post.burst_at + interval <= now {
            post.burst -= 1;
            post.burst_at = post.burst_at + interval;
        }
        if post.burst >= burst {
            return Some(post.burst_at + interval);
        }
        if post.burst == 0 {
            post.burst_at = now;
        }
        post.burst += 1;
        None
    }

    fn sign_and_spread(
        &mut self,
        level: usize,
        zone: ZonePath,
        contacts: Vec<Contact>,
        computed: Computed,
        tools: Tools,
    ) {
        let beat_at = self.now + self.around(self.parameters.beat_interval);
        let beats = self.parameters.beats.clamp(1, wire::tree::BEATS_MAX);
        let Some(lead) = self.posts[level].lead.as_mut() else {
            return;
        };
        let next = lead.number.checked_add(1);
        let next = next.map(|number| (lead.epoch, number));
        (lead.epoch, lead.number) = next.unwrap_or((lead.epoch + 1, 1));
        lead.secret = secret(lead, &zone, tools);
        lead.beat_at = beat_at;
        let row = Row {
            zone,
            stamp: Stamp {
                epoch: lead.epoch,
                number: lead.number,
                issuer: self.own.node,
            },
            ended: false,
            contacts,
            coverage: computed.coverage,
            issued_at: computed.issued_at,
            inputs: computed.inputs,
            anchor: hashed(lead.secret, beats, tools),
            beats,
            attributes: computed.attributes,
        };
        let Some(signed) = self.sign(row, tools) else {
            self.yield_lead(level);
            return;
        };
        self.counts.issued += 1;
        let key = signed.key;
        self.put(level, Entry::new(signed, Moment::of(self.now)));
        self.spread(level, key, Kind::Row, None, false);
    }

    fn sign(&mut self, row: Row, tools: Tools) -> Option<Arc<SignedRow>> {
        let Ok(encoded) = row.encode() else {
            self.counts.oversized += 1;
            return None;
        };
        self.counts.signed += 1;
        let signature = tools.keys.sign(&encoded);
        Some(Arc::new(SignedRow::new(row, encoded, &signature)))
    }

    /// Says that the last row still holds.
    pub(super) fn beat(&mut self, level: usize, tools: Tools) {
        let key = self.path[level + 1].key;
        let now = self.now;
        let next = self.around(self.parameters.beat_interval);
        let Some(lead) = self.posts[level].lead.as_mut() else {
            return;
        };
        lead.beat_at = now + next;
        let secret = lead.secret;
        let Some(entry) = self.tables[level].get_mut(key) else {
            return;
        };
        let beats = entry.row.row.beats;
        if entry.beat >= beats {
            return self.issue(level, true, tools);
        }
        entry.beat += 1;
        entry.proof = hashed(secret, beats - entry.beat, tools);
        entry.confirmed = Moment::of(now);
        self.counts.beats += 1;
        self.spread(level, key, Kind::Beat, None, false);
    }

    /// Computes again what the leader has issued.
    pub(super) fn check(&mut self, level: usize, tools: Tools) {
        let post = &self.posts[level];
        let represents = post
            .rank
            .is_some_and(|rank| rank < self.parameters.representatives);
        if !represents || post.lead.is_some() || !post.unchecked {
            return;
        }
        let Some(entry) = self.tables[level].get(self.path[level + 1].key) else {
            return;
        };
        let (row, stamp) = (entry.row.clone(), entry.stamp());
        let is_same = self.inputs_digest(level + 1, tools) == row.row.inputs;
        self.posts[level].unchecked = false;
        if !is_same || row.row.ended {
            return;
        }
        let own = self.evaluate(level + 1, row.row.issued_at, tools);
        let (coverage, said) = (self.coverage(level + 1), &row.row.coverage);
        let is_true = own.attributes == row.row.attributes
            && coverage.expected == said.expected
            && coverage.reporting == said.reporting;
        if !is_true && self.posts[level].named != Some(stamp) {
            self.posts[level].named = Some(stamp);
            let zone = row.row.zone.clone();
            self.out.push(Effect::Lie { zone, stamp });
        }
    }

    /// Said by a representative of the zone above, in whose name it is signed.
    pub(super) fn on_ended(&mut self, zone: &ZonePath, tools: Tools) {
        let Some(level) = zone.depth().checked_sub(1) else {
            return;
        };
        let is_child = self.path.get(level).map(|step| &step.zone) == zone.parent().as_ref();
        let is_own = self
            .path
            .get(level + 1)
            .is_some_and(|step| step.zone == *zone);
        if !is_child || is_own || level >= self.depth() {
            return;
        }
        let key = wire::tree::ZoneKey::of(zone);
        let last = self.tables[level].get(key);
        if last.is_some_and(|entry| entry.ended) {
            return;
        }
        let row = Row {
            zone: zone.clone(),
            stamp: Stamp {
                epoch: last.map_or(0, |entry| entry.stamp().epoch) + 1,
                number: 1,
                issuer: self.own.node,
            },
            ended: true,
            contacts: Vec::new(),
            coverage: Coverage::default(),
            issued_at: tools.wall,
            inputs: Digest::default(),
            anchor: Digest::default(),
            beats: 0,
            attributes: Vec::new(),
        };
        if let Some(signed) = self.sign(row, tools) {
            self.put(level, Entry::new(signed, Moment::of(self.now)));
            self.spread(level, key, Kind::Row, None, true);
        }
    }
}

fn secret(lead: &Lead, zone: &ZonePath, tools: Tools) -> Digest {
    let mut about = b"homeostat beats".to_vec();
    about.extend(lead.epoch.to_be_bytes());
    about.extend(lead.number.to_be_bytes());
    about.extend(zone.to_string().as_bytes());
    tools.keys.secret(&about)
}

pub fn hashed(from: Digest, times: u16, tools: Tools) -> Digest {
    (0..times).fold(from, |digest, _| tools.keys.digest(&digest))
}
