//! Keeps what documents need in memory, within a budget.
//!
//! In: hash and encoding, with what was found for them. Out: it, at the cost of
//! one hash lookup and a reference count.
//! Holds: what is counted stays within the budget; what was not asked for since
//! the clock's hand last passed goes first (second chance).
//! Never: touches the disk.

use crate::documents::LargeFile;
use bytes::Bytes;
use ingress::Encoding;
use kernel::Hash;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

const SHARDS: usize = 16;
/// What an entry costs beside its bytes.
const ENTRY_BYTES: usize = 160;
/// What an open file counts, so that few descriptors are kept.
const FILE_BYTES: usize = 256 << 10;

#[derive(Clone, Debug)]
pub enum Kept {
    Memory(Bytes),
    /// Too large for memory; kept open.
    File {
        file: Arc<LargeFile>,
        bytes: u64,
    },
    /// There was none; look again after that.
    Absent {
        until: Instant,
    },
}

impl Kept {
    fn cost(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Self::Memory(bytes) => bytes.len(),
                Self::File { .. } => FILE_BYTES,
                Self::Absent { .. } => 0,
            }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    hash: Hash,
    encoding: Encoding,
}

impl Key {
    /// Content hashes are uniform already.
    fn number(&self) -> u64 {
        let start = self.hash.0.first_chunk().copied().unwrap_or_default();
        let start = u64::from_le_bytes(start);
        start ^ (self.encoding as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl std::hash::Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.number());
    }
}

#[derive(Default)]
struct Uniform(u64);

impl Hasher for Uniform {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

struct Slot {
    kept: Kept,
    used: AtomicBool,
}

#[derive(Default)]
struct Shard {
    slots: HashMap<Key, Slot, BuildHasherDefault<Uniform>>,
    /// Each key of `slots` once, in the order of the clock's hand.
    order: VecDeque<Key>,
    bytes: usize,
}

pub struct Cache {
    shards: [RwLock<Shard>; SHARDS],
    shard_bytes_max: usize,
}

impl Cache {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| RwLock::default()),
            shard_bytes_max: bytes_max / SHARDS,
        }
    }

    fn shard(&self, key: &Key) -> &RwLock<Shard> {
        // The map uses the number's ends.
        let middle = (key.number() >> 32) as usize;
        &self.shards[middle % SHARDS]
    }

    pub fn get(&self, hash: Hash, encoding: Encoding) -> Option<Kept> {
        let key = Key { hash, encoding };
        let shard = self.shard(&key);
        let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
        let slot = shard.slots.get(&key)?;
        if let Kept::Absent { until } = slot.kept
            && Instant::now() >= until
        {
            return None;
        }
        // Written once a round only, so that readers share the line.
        if !slot.used.load(Relaxed) {
            slot.used.store(true, Relaxed);
        }
        Some(slot.kept.clone())
    }

    pub fn put(&self, hash: Hash, encoding: Encoding, kept: Kept) {
        let key = Key { hash, encoding };
        let cost = kept.cost();
        if cost > self.shard_bytes_max {
            return;
        }
        let shard = self.shard(&key);
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        let slot = Slot {
            kept,
            used: AtomicBool::new(false),
        };
        match shard.slots.insert(key, slot) {
            Some(old) => shard.bytes -= old.kept.cost(),
            None => shard.order.push_back(key),
        }
        shard.bytes += cost;
        shard.shrink(self.shard_bytes_max);
    }

    /// Open files and what was absent: after a change of content the first
    /// would keep removed files on the disk, the second may be there now.
    pub fn forget_all_but_memory(&self) {
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let Shard {
                slots,
                order,
                bytes,
            } = &mut *shard;
            slots.retain(|_, slot| matches!(slot.kept, Kept::Memory(_)));
            order.retain(|key| slots.contains_key(key));
            *bytes = slots.values().map(|slot| slot.kept.cost()).sum();
        }
    }
}

impl Shard {
    fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max
            && let Some(key) = self.order.pop_front()
        {
            let used = self
                .slots
                .get(&key)
                .is_some_and(|slot| slot.used.swap(false, Relaxed));
            if used {
                self.order.push_back(key);
            } else if let Some(slot) = self.slots.remove(&key) {
                self.bytes -= slot.kept.cost();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn hash(number: u32) -> Hash {
        Hash(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    fn memory(bytes: usize) -> Kept {
        Kept::Memory(Bytes::from(vec![7; bytes]))
    }

    fn total(cache: &Cache) -> usize {
        let bytes = |shard: &RwLock<Shard>| shard.read().expect("lock").bytes;
        cache.shards.iter().map(bytes).sum()
    }

    #[test]
    fn the_budget_holds_and_the_often_asked_for_stays() {
        let budget = 1 << 20;
        let cache = Cache::new(budget);
        let often = hash(u32::MAX);
        cache.put(often, Encoding::Identity, memory(1000));
        for number in 0..5000 {
            cache.put(hash(number), Encoding::Gzip, memory(1000));
            assert!(cache.get(often, Encoding::Identity).is_some());
            assert!(total(&cache) <= budget);
        }
        assert!(cache.get(hash(0), Encoding::Gzip).is_none());
        assert!(cache.get(hash(4999), Encoding::Gzip).is_some());
        assert!(cache.get(hash(4999), Encoding::Brotli).is_none());
    }

    #[test]
    fn what_was_absent_is_looked_for_again() {
        let cache = Cache::new(1 << 20);
        let until = Instant::now() + Duration::from_mins(1);
        cache.put(hash(1), Encoding::Gzip, Kept::Absent { until });
        assert!(cache.get(hash(1), Encoding::Gzip).is_some());
        let until = Instant::now();
        cache.put(hash(1), Encoding::Gzip, Kept::Absent { until });
        assert!(cache.get(hash(1), Encoding::Gzip).is_none());
    }

    #[test]
    fn forgetting_keeps_memory_and_the_count() {
        let cache = Cache::new(1 << 20);
        let until = Instant::now() + Duration::from_mins(1);
        for number in 0..100 {
            cache.put(hash(number), Encoding::Identity, memory(10));
            cache.put(hash(number), Encoding::Gzip, Kept::Absent { until });
        }
        cache.forget_all_but_memory();
        assert_eq!(total(&cache), 100 * (10 + ENTRY_BYTES));
        assert!(cache.get(hash(1), Encoding::Gzip).is_none());
        assert!(cache.get(hash(1), Encoding::Identity).is_some());
    }

    #[test]
    fn replacing_an_entry_counts_it_once() {
        let cache = Cache::new(1 << 20);
        cache.put(hash(1), Encoding::Identity, memory(10));
        cache.put(hash(1), Encoding::Identity, memory(20));
        assert_eq!(total(&cache), 20 + ENTRY_BYTES);
    }
}
