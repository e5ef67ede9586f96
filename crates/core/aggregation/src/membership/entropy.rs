//! Compares what two nodes know, part by part, and exchanges only what differs:
//! what news could not carry (to who joined late, over a healed cut) it does.
//!
//! Holds: no state is kept between packets; each packet is answered by a
//! bounded number, and all answers together by a bounded rate. A suspect
//! counts as alive here: suspicions are settled by probes.
//!
//! Source: range-based set reconciliation (Meyer, SRDS 2023), in its simplest
//! form.

use super::Membership;
use super::hear::Saying;
use super::member::{Member, rank};
use super::probe::draw;
use super::rumour::{Key, Kind};
use kernel::NodeId;
use std::collections::BTreeMap;
use std::time::Duration;
use wire::gossip::{Body, ENTRIES_MAX, Entry, RANGES_MAX, Range, Said, WANTED_MAX};

const PARTS: usize = 8;
const PACKETS_MAX: usize = 8;

impl Membership {
    pub(super) fn compare(&mut self) {
        self.renew_mesh();
        let chosen = self.agenda.compare_with.take();
        let chosen = chosen.filter(|node| {
            let member = self.members.get(node);
            member.is_some_and(|one| one.reach.is_up())
        });
        let partner = chosen.or_else(|| {
            let up = self.up_neighbours();
            draw(up, 1, &mut self.rng).first().copied()
        });
        if let Some(partner) = partner {
            let whole = self.range(NodeId(0), NodeId(u64::MAX));
            self.send(partner, &Body::Ranges(vec![whole]));
        }
    }

    fn range(&self, low: NodeId, high: NodeId) -> Range {
        let hash = hash(&self.known(low, high));
        Range { low, high, hash }
    }

    /// All that is known of nodes from `low` to `high`, this one with them.
    fn known(&self, low: NodeId, high: NodeId) -> Vec<Entry> {
        if low > high {
            return Vec::new();
        }
        let others = self.members.range(low..=high);
        let mut known: Vec<Entry> = others
            .filter_map(|(node, member)| entry(*node, member))
            .collect();
        let own = &self.own;
        if (low..=high).contains(&own.node) {
            let at = known.partition_point(|one| one.node < own.node);
            let entry = Entry {
                node: own.node,
                life: own.life,
                said: Said::Alive,
                attributes: own.version,
            };
            known.insert(at, entry);
        }
        known
    }

    pub(super) fn on_ranges(&mut self, from: NodeId, ranges: &[Range]) {
        let mut parts = Vec::new();
        for range in ranges {
            let known = self.known(range.low, range.high);
            if hash(&known) == range.hash || range.low > range.high {
                continue;
            }
            if known.len() <= ENTRIES_MAX {
                let (low, high) = (range.low, range.high);
                let entries = known;
                self.answer(from, &Body::Entries { low, high, entries });
            } else {
                split(range, &known, &mut parts);
            }
        }
        for some in parts.chunks(RANGES_MAX) {
            self.answer(from, &Body::Ranges(some.to_vec()));
        }
    }

    pub(super) fn on_entries(
        &mut self,
        from: NodeId,
        low: NodeId,
        high: NodeId,
        entries: &[Entry],
    ) {
        let mut learned = false;
        let mut wanted = Vec::new();
        let mut told = BTreeMap::new();
        for entry in entries {
            learned |= self.hear(
                Saying {
                    node: entry.node,
                    life: entry.life,
                    said: entry.said,
                    by: from,
                },
                from,
            );
            let known = self.members.get(&entry.node);
            if known.is_some_and(|one| one.version < entry.attributes) {
                wanted.push(entry.node);
            }
            told.insert(entry.node, *entry);
        }
        let mut keys: Vec<Key> = Vec::new();
        for one in self.known(low, high) {
            let theirs = told.get(&one.node);
            let newer = theirs
                .is_none_or(|theirs| rank(theirs.life, theirs.said) < rank(one.life, one.said));
            if newer {
                keys.push((one.node, Kind::Reach));
            }
            if theirs.is_none_or(|theirs| theirs.attributes < one.attributes) {
                keys.push((one.node, Kind::Attributes));
            }
        }
        let all = self.tell_all(from, &keys, PACKETS_MAX);
        let wants = !wanted.is_empty();
        for some in wanted.chunks(WANTED_MAX) {
            self.answer(from, &Body::Want(some.to_vec()));
        }
        if learned || wants || !all {
            self.agenda.compare_soon(self.now, &self.parameters);
            self.agenda.compare_with = Some(from);
        }
    }

    pub(super) fn on_want(&mut self, from: NodeId, nodes: &[NodeId]) {
        let keys: Vec<Key> = nodes.iter().map(|node| (*node, Kind::Attributes)).collect();
        let _ = self.tell_all(from, &keys, PACKETS_MAX);
    }

    pub(super) fn answer(&mut self, to: NodeId, body: &Body) {
        if self.may_answer() {
            self.send(to, body);
        }
    }

    /// Takes one from what may be answered in this second.
    pub(super) fn may_answer(&mut self) -> bool {
        if self.now.since(self.agenda.second) >= Duration::from_secs(1) {
            self.agenda.second = self.now;
            self.agenda.answered = 0;
        }
        let may = self.agenda.answered < self.parameters.entropy_rate;
        self.agenda.answered += u32::from(may);
        may
    }
}

/// What is told of a node; nothing of the unheard.
fn entry(node: NodeId, member: &Member) -> Option<Entry> {
    let said = match member.said()? {
        Said::Suspect => Said::Alive,
        said => said,
    };
    Some(Entry {
        node,
        life: member.life,
        said,
        attributes: member.version,
    })
}

fn split(range: &Range, known: &[Entry], parts: &mut Vec<Range>) {
    let mut low = range.low;
    let chunks = known.chunks(known.len().div_ceil(PARTS));
    let last = chunks.len() - 1;
    for (at, chunk) in chunks.enumerate() {
        let high = match chunk.last() {
            Some(entry) if at < last => entry.node,
            _ => range.high,
        };
        let hash = hash(chunk);
        parts.push(Range { low, high, hash });
        low = NodeId(high.0.saturating_add(1));
    }
}

fn hash(entries: &[Entry]) -> u64 {
    let count = entries.len() as u64;
    entries.iter().fold(mix(count), |sum, one| {
        let life = [
            one.life.epoch,
            one.life.nonce.into(),
            one.life.incarnation.into(),
        ];
        let rest = [
            one.said as u64,
            one.attributes.epoch,
            one.attributes.number.into(),
        ];
        let words = life.into_iter().chain(rest);
        words.fold(mix(sum ^ one.node.0), |sum, word| mix(sum ^ word))
    })
}

/// The finish of `SplitMix64`.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
