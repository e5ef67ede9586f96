//! Decides which news is told on, to whom, and for how long.
//!
//! In: fresh news, news heard again. Out: the pieces of the next packets.
//! Holds: one rumour a node and kind; a later one takes the earlier one's
//! place; each is told a bounded number of times, fewer when others tell it.

use kernel::NodeId;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Reach,
    Attributes,
}

pub type Key = (NodeId, Kind);

/// Who is told at once, beside the random few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eager {
    /// All neighbours: it is first known here.
    All,
    /// Those of other zones.
    Far,
    Nobody,
}

#[derive(Clone, Debug)]
struct Rumour {
    bytes: Vec<u8>,
    told: u32,
    eager: Eager,
}

#[derive(Clone, Debug, Default)]
pub struct Rumours {
    by_key: BTreeMap<Key, Rumour>,
    /// The least told first.
    order: BTreeSet<(u32, Key)>,
    /// Those that somebody is told at once.
    eager: BTreeSet<Key>,
}

impl Rumours {
    pub fn add(&mut self, key: Key, bytes: Vec<u8>, eager: Eager) {
        self.forget(key);
        let told = 0;
        if eager != Eager::Nobody {
            self.eager.insert(key);
        }
        self.by_key.insert(key, Rumour { bytes, told, eager });
        self.order.insert((told, key));
    }

    /// Whether it is under way and nobody was told of it yet.
    pub fn is_untold(&self, key: Key) -> bool {
        self.by_key.get(&key).is_some_and(|one| one.told == 0)
    }

    pub fn forget(&mut self, key: Key) {
        if let Some(old) = self.by_key.remove(&key) {
            self.order.remove(&(old.told, key));
            self.eager.remove(&key);
        }
    }

    /// Another has told the same.
    pub fn heard_again(&mut self, key: Key) {
        self.count(key, 1);
    }

    pub fn count(&mut self, key: Key, times: u32) {
        if let Some(rumour) = self.by_key.get_mut(&key) {
            self.order.remove(&(rumour.told, key));
            rumour.told += times;
            self.order.insert((rumour.told, key));
        }
    }

    /// Those told at once to everyone, or to those of other zones.
    pub fn eager(&self, far: bool) -> Vec<Key> {
        let wanted = |eager| eager == Eager::All || (far && eager == Eager::Far);
        let is_wanted = |key: &&Key| self.by_key.get(key).is_some_and(|one| wanted(one.eager));
        self.eager.iter().filter(is_wanted).copied().collect()
    }

    pub fn eager_done(&mut self) {
        for key in std::mem::take(&mut self.eager) {
            if let Some(rumour) = self.by_key.get_mut(&key) {
                rumour.eager = Eager::Nobody;
            }
        }
    }

    /// The least told first.
    pub fn by_need(&self) -> impl Iterator<Item = (Key, &[u8])> {
        let order = self.order.iter();
        order.filter_map(|(_, key)| Some((*key, self.by_key.get(key)?.bytes.as_slice())))
    }

    pub fn bytes(&self, key: Key) -> Option<&[u8]> {
        self.by_key.get(&key).map(|one| one.bytes.as_slice())
    }

    /// Drops what was told often enough, once those are told who are to be told
    /// at once.
    pub fn expire(&mut self, told_max: u32) {
        let order = self.order.iter().rev();
        let spent = order.take_while(|(told, _)| *told >= told_max);
        let spent = spent.filter(|(_, key)| !self.eager.contains(key));
        let spent: Vec<Key> = spent.map(|(_, key)| *key).collect();
        for key in spent {
            self.forget(key);
        }
    }

    pub fn has(&self, kind: Kind) -> bool {
        self.by_key.keys().any(|(_, one)| *one == kind)
    }

    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Whether some were not told at all.
    pub fn has_fresh(&self) -> bool {
        self.order.first().is_some_and(|(told, _)| *told == 0)
    }
}
