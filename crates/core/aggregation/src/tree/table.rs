//! The rows of one zone's children, and how old each is.
//!
//! Holds: ages are kept as moments of this node's clock, also of before it
//! started, so that no age is ever too young.

use kernel::Time;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use wire::tree::{Digest, SignedRow, Stamp, ZoneKey};

/// Nanoseconds of the boot-time clock, below zero before it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(i64);

/// Longer ages are cut to this one.
const AGE_MS_MAX: u64 = 1 << 40;

impl Moment {
    pub fn of(now: Time) -> Self {
        Self(i64::try_from(now.0).unwrap_or(i64::MAX))
    }

    pub fn before(now: Time, age_ms: u64) -> Self {
        let age = i64::try_from(age_ms.min(AGE_MS_MAX) * 1_000_000).unwrap_or(i64::MAX);
        Self(Self::of(now).0.saturating_sub(age))
    }

    pub fn age(self, now: Time) -> Duration {
        let nanos = Self::of(now).0.saturating_sub(self.0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }

    /// Rounded up, so that no hop makes anything younger.
    pub fn age_ms(self, now: Time) -> u64 {
        u64::try_from(self.age(now).as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub row: Arc<SignedRow>,
    /// When its issuer last stood by it.
    pub confirmed: Moment,
    /// The last beat known, and what proved it; 0 and the anchor at first.
    pub beat: u16,
    pub proof: Digest,
    pub unknown: bool,
    /// As its row says.
    pub ended: bool,
}

impl Entry {
    pub fn new(row: Arc<SignedRow>, confirmed: Moment) -> Self {
        let (proof, ended) = (row.row.anchor, row.row.ended);
        Self {
            ended,
            row,
            confirmed,
            beat: 0,
            proof,
            unknown: false,
        }
    }

    pub fn stamp(&self) -> Stamp {
        self.row.row.stamp
    }

    /// Whether it counts among what is aggregated.
    pub fn reports(&self) -> bool {
        !self.unknown && !self.ended
    }
}

#[derive(Clone, Debug, Default)]
pub struct Table {
    children: BTreeMap<ZoneKey, Entry>,
    hash: u64,
    /// No row that has not ended was confirmed before that: so most looks for
    /// old ones need not look at all.
    oldest: Option<Moment>,
    has_ended: bool,
}

impl Table {
    pub fn get(&self, key: ZoneKey) -> Option<&Entry> {
        self.children.get(&key)
    }

    pub fn get_mut(&mut self, key: ZoneKey) -> Option<&mut Entry> {
        self.children.get_mut(&key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (ZoneKey, &Entry)> {
        self.children.iter().map(|(key, entry)| (*key, entry))
    }

    pub fn entries_mut(&mut self) -> impl Iterator<Item = (ZoneKey, &mut Entry)> {
        self.children.iter_mut().map(|(key, entry)| (*key, entry))
    }

    /// How old the oldest row that has not ended is, at most.
    pub fn age_max(&self, now: Time) -> Duration {
        self.oldest.map_or(Duration::ZERO, |oldest| oldest.age(now))
    }

    /// Whether rows may be there that have ended.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Finds the oldest.
    pub fn look(&mut self) {
        self.has_ended = self.children.values().any(|one| one.ended);
        let all = self.children.values().filter(|one| !one.ended);
        self.oldest = all.map(|one| one.confirmed).min();
    }

    pub fn put(&mut self, entry: Entry) {
        let key = entry.row.key;
        if entry.ended {
            self.has_ended = true;
        } else {
            let oldest = self.oldest.get_or_insert(entry.confirmed);
            *oldest = (*oldest).min(entry.confirmed);
        }
        self.hash ^= fingerprint(key, entry.stamp());
        if let Some(old) = self.children.insert(key, entry) {
            self.hash ^= fingerprint(key, old.stamp());
        }
    }

    pub fn remove(&mut self, key: ZoneKey) {
        if let Some(old) = self.children.remove(&key) {
            self.hash ^= fingerprint(key, old.stamp());
        }
    }

    /// Of the names and stamps of all rows.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn len(&self) -> usize {
        self.children.len()
    }
}

fn fingerprint(key: ZoneKey, stamp: Stamp) -> u64 {
    let words = [key.0, stamp.epoch, stamp.number.into(), stamp.issuer.0];
    words.into_iter().fold(0, |sum, word| mix(sum ^ word))
}

/// The finish of `SplitMix64`.
pub fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
