//! Finds the best two slots for a replica without looking at all of them.
//!
//! Slots are in blocks of one zone, each with the best that any open slot in it
//! has of each kind. A block's bound is at least the score of all its slots, so
//! blocks are searched from the greatest bound on, until the next bound is not
//! above the second best found (branch and bound).
//!
//! Holds: the answer is that of a search through all slots ([`Index::scan`]).

use super::fits::fits;
use super::focus::{Focus, free_shares, lasting_and_free, per_machine};
use super::pool::{Amounts, Pool, Slot};
use crate::model::Policy;
use crate::score::{Fit, Measures, Score, fit};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Slots in a block: below, blocks cost; above, slots do.
const BLOCK: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub slot: u32,
    pub score: Score,
    rank: Rank,
}

/// The greater is the better: the score, then how near after the service on the
/// ring of keys, then the first.
type Rank = (i32, u64, u32);

#[derive(Clone, Debug, Default)]
struct Block {
    first: u32,
    end: u32,
    zone: u32,
    is_open: bool,
    has_dialable: bool,
    free_max: Amounts,
    share_max: [f64; 3],
    /// The least, and the most.
    per_unit: [[f64; 3]; 2],
    /// Of each slot's scarcest.
    scarcest_max: f64,
    lasting_and_free_max: f64,
    per_machine_min: f64,
    architectures: u64,
    devices: u64,
    price_min: i32,
    failure_min: i32,
    domains: Vec<u32>,
    /// In order.
    keys: Vec<u64>,
    /// Marks of the service in focus.
    affinity_max: i32,
    content_max: i32,
}

/// What the scores of a block's slots do not exceed.
#[derive(Clone, Copy, Debug)]
struct Bound {
    most: i32,
    /// Of all terms but fit, failure, price and those of a slot's own marks.
    others: i32,
    /// What those three exceed [`lasting_and_free`] by, if that says anything.
    grows: Option<f64>,
}

impl Bound {
    /// For a slot of which this is [`lasting_and_free`].
    fn of(&self, lasting_and_free: f64) -> i32 {
        let Some(grows) = self.grows else {
            return i32::MAX;
        };
        // One more than rounding hides.
        #[expect(clippy::cast_possible_truncation, reason = "weights are bounded")]
        let three = (lasting_and_free + grows + 2.0) as i32;
        self.others.saturating_add(three)
    }

    /// The [`lasting_and_free`] below which no slot has this score.
    fn enough(&self, score: i32) -> f64 {
        let three = f64::from(score) - f64::from(self.others);
        self.grows.map_or(f64::MIN, |grows| three - grows - 1.0)
    }
}

pub(super) struct Index {
    blocks: Vec<Block>,
    block_of: Vec<u32>,
    raised: Vec<u32>,
    policy: Policy,
    /// By slot, its lasting terms and what is free.
    lasting_and_free: Vec<f64>,
    /// Bounds and blocks, kept for its room.
    bounds: Vec<(i32, u32)>,
}

/// A set of small numbers that may say yes too often.
fn bit(number: u32) -> u64 {
    1 << (number % 64)
}

fn nearness(tie: u64, key: u64) -> u64 {
    u64::MAX - key.wrapping_sub(tie)
}

impl Index {
    pub fn new(pool: &Pool, policy: Policy) -> Self {
        let mut blocks: Vec<Block> = Vec::new();
        let mut block_of = Vec::with_capacity(pool.slots.len());
        for (number, slot) in (0_u32..).zip(&pool.slots) {
            let last = blocks.last_mut();
            let fits = |block: &&mut Block| {
                block.zone == slot.zone && ((number - block.first) as usize) < BLOCK
            };
            match last.filter(fits) {
                Some(block) => block.end = number + 1,
                None => blocks.push(Block {
                    first: number,
                    end: number + 1,
                    zone: slot.zone,
                    ..Block::default()
                }),
            }
            block_of.push(u32::try_from(blocks.len() - 1).unwrap_or(u32::MAX));
        }
        for block in &mut blocks {
            let slots = &pool.slots[block.first as usize..block.end as usize];
            block.domains = slots.iter().map(|slot| slot.domain).collect();
            block.domains.dedup();
            block.keys = slots.iter().map(|slot| slot.key).collect();
            block.keys.sort_unstable();
            block.sum_up(pool, policy);
        }
        Self {
            blocks,
            block_of,
            raised: Vec::new(),
            lasting_and_free: pool
                .slots
                .iter()
                .map(|slot| lasting_and_free(policy, slot))
                .collect(),
            policy,
            bounds: Vec::new(),
        }
    }

    /// A slot has changed.
    pub fn renew(&mut self, pool: &Pool, slot: u32) {
        let renewed = lasting_and_free(self.policy, &pool.slots[slot as usize]);
        self.lasting_and_free[slot as usize] = renewed;
        let block = self.block_of[slot as usize];
        self.blocks[block as usize].sum_up(pool, self.policy);
    }

    /// The focus has turned to another service.
    pub fn turn(&mut self, focus: &Focus) {
        for block in self.raised.drain(..) {
            let block = &mut self.blocks[block as usize];
            (block.affinity_max, block.content_max) = (0, 0);
        }
        for (slot, mark) in focus.raised() {
            let number = self.block_of[slot as usize];
            let block = &mut self.blocks[number as usize];
            block.affinity_max = block.affinity_max.max(mark.affinity);
            block.content_max = block.content_max.max(mark.content);
            self.raised.push(number);
        }
    }

    /// The best slot and the next best, of those that fit.
    pub fn best(&mut self, pool: &Pool, focus: &Focus) -> [Option<Found>; 2] {
        let mut found = [None; 2];
        if let Some(pin) = focus.pin {
            look(pool, focus, pin, &mut found);
            return found;
        }
        let mut bounds = std::mem::take(&mut self.bounds);
        bounds.clear();
        for (number, block) in (0_u32..).zip(&self.blocks) {
            if block.can_fit(focus) {
                bounds.push((block.bound(focus).most, number));
            }
        }
        let mut bounds = BinaryHeap::from(bounds);
        while let Some((bound, number)) = bounds.pop() {
            let block = &self.blocks[number as usize];
            match found[1].map(|found: Found| (found.rank.0.cmp(&bound), found.rank.1)) {
                Some((Ordering::Greater, _)) => break,
                Some((Ordering::Equal, near)) if near > block.nearest(focus.tie) => continue,
                _ => {}
            }
            let bound = block.bound(focus);
            for slot in block.first..block.end {
                let enough = found[1].map_or(f64::MIN, |found| bound.enough(found.rank.0));
                let marked = f64::from(focus.marked(slot));
                if self.lasting_and_free[slot as usize] + marked >= enough {
                    look(pool, focus, slot, &mut found);
                }
            }
        }
        self.bounds = bounds.into_vec();
        found
    }

    /// The same by looking at every slot.
    #[cfg(test)]
    pub fn scan(pool: &Pool, focus: &Focus) -> [Option<Found>; 2] {
        let mut found = [None; 2];
        for slot in (0_u32..).take(pool.slots.len()) {
            look(pool, focus, slot, &mut found);
        }
        found
    }
}

fn look(pool: &Pool, focus: &Focus, slot: u32, found: &mut [Option<Found>; 2]) {
    let Some(at) = pool.slots.get(slot as usize) else {
        return;
    };
    if !fits(pool, focus, slot) {
        return;
    }
    let score = focus.score(pool, slot);
    let rank = (score.total(), nearness(focus.tie, at.key), u32::MAX - slot);
    let is_better = |than: Option<Found>| than.is_none_or(|than| rank > than.rank);
    let new = Some(Found { slot, score, rank });
    if is_better(found[0]) {
        *found = [new, found[0]];
    } else if is_better(found[1]) {
        found[1] = new;
    }
}

impl Block {
    fn sum_up(&mut self, pool: &Pool, policy: Policy) {
        let slots = &pool.slots[self.first as usize..self.end as usize];
        self.is_open = false;
        self.has_dialable = false;
        self.free_max = [i64::MIN; 3];
        self.share_max = [f64::MIN; 3];
        self.per_unit = [[f64::MAX; 3], [0.0; 3]];
        self.scarcest_max = f64::MIN;
        self.lasting_and_free_max = f64::MIN;
        self.per_machine_min = f64::MAX;
        (self.architectures, self.devices) = (0, 0);
        (self.price_min, self.failure_min) = (i32::MAX, i32::MAX);
        for slot in slots.iter().filter(|slot| slot.is_open()) {
            self.add(slot, policy);
        }
    }

    fn add(&mut self, slot: &Slot, policy: Policy) {
        self.is_open = true;
        self.has_dialable |= !slot.outbound_only;
        let shares = free_shares(slot);
        for (kind, share) in shares.into_iter().enumerate() {
            let free = slot.free[kind].min(slot.largest[kind]);
            self.free_max[kind] = self.free_max[kind].max(free);
            self.share_max[kind] = self.share_max[kind].max(share);
            let [least, most] = &mut self.per_unit;
            least[kind] = least[kind].min(slot.per_unit[kind]);
            most[kind] = most[kind].max(slot.per_unit[kind]);
        }
        self.scarcest_max = self.scarcest_max.max(shares[0].min(shares[1]));
        let both = lasting_and_free(policy, slot);
        self.lasting_and_free_max = self.lasting_and_free_max.max(both);
        self.per_machine_min = self.per_machine_min.min(per_machine(slot));
        self.price_min = self.price_min.min(slot.price);
        self.failure_min = self.failure_min.min(slot.failure_measure);
        for architecture in &slot.architectures {
            self.architectures |= bit(*architecture);
        }
        for (device, free) in &slot.devices {
            if *free > 0 {
                self.devices |= bit(*device);
            }
        }
    }

    /// False only where no slot fits.
    fn can_fit(&self, focus: &Focus) -> bool {
        let need = &focus.need;
        let has_room = |kind: usize| need.amounts[kind] <= self.free_max[kind].max(0);
        self.is_open
            && has_room(0)
            && has_room(1)
            && has_room(2)
            && (self.has_dialable || !focus.rules.only_dialable)
            && focus
                .zone_open
                .get(self.zone as usize)
                .is_none_or(|open| *open)
            && need
                .architecture
                .is_none_or(|needed| self.architectures & bit(needed) != 0)
            && need
                .devices
                .iter()
                .all(|(device, _)| self.devices & bit(*device) != 0)
    }

    /// What no slot that fits exceeds.
    fn bound(&self, focus: &Focus) -> Bound {
        let copies = if focus.is_by_zone() {
            focus.spread_copies(self.zone, 0)
        } else {
            let each = self
                .domains
                .iter()
                .map(|domain| focus.spread_copies(self.zone, *domain));
            each.min().unwrap_or(0)
        };
        let per_machine = || self.per_machine_min;
        let all = focus.free_after(self.share_max, self.per_unit[0], per_machine);
        let free = if focus.is_sized() {
            all.min(self.scarcest_max)
        } else {
            all
        };
        let measures = Measures {
            domain_copies: copies,
            own_copies: 0,
            affinity: focus.zone_affinity(self.zone),
            latency: focus.latency(self.zone),
            // Rounding makes no bound too low.
            fit: match focus.fit {
                Fit::Balance => fit(focus.fit, free + 1e-9),
                Fit::Pack => crate::score::FULL,
            },
            failure: self.failure_min,
            content: 0,
            price: self.price_min,
        };
        let score = focus.weights.measures(&measures);
        let apart = score.fit + score.failure + score.price;
        let marked = focus.marks_score(self.affinity_max, self.content_max);
        let mut bound = Bound {
            most: score.total() + marked,
            others: score.total() - apart,
            grows: focus.grows(self.per_unit),
        };
        let together = bound.of(self.lasting_and_free_max).saturating_add(marked);
        bound.most = bound.most.min(together);
        bound
    }

    /// No slot is nearer after `tie` on the ring.
    fn nearest(&self, tie: u64) -> u64 {
        let next = self.keys.partition_point(|key| *key < tie);
        let key = self.keys.get(next).or(self.keys.first());
        key.map_or(0, |key| nearness(tie, *key))
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
