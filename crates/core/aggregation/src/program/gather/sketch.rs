//! Makes and merges sketches.
//!
//! Holds: merging is associative, commutative and, where the sketch is a set,
//! idempotent: bit for bit, whatever the order. What a sketch comes to is
//! computed with operations that IEEE 754 fixes.

use crate::program::cell::{Cell, float_of, whole};
use kernel::{Rng, fnv1a};
use wire::attributes::{
    Bloom, COUNT_MAX, Distinct, FEW_MAX, Histogram, QUANTILE_BUCKETS_MAX, QUANTILE_LEVEL_MAX,
    Quantiles, REGISTERS,
};

/// Spreads all 64 bits.
pub(in crate::program) fn mix(word: u64) -> u64 {
    Rng::seeded(word).next_u64()
}

/// Of a plain value; equal numbers have one hash, be they integer or float.
pub(in crate::program) fn hash(cell: &Cell) -> Option<u64> {
    let tagged = |tag: u8, bytes: &[u8]| mix(fnv1a([tag].into_iter().chain(bytes.iter().copied())));
    Some(match cell {
        Cell::Null | Cell::Whole(_) => return None,
        Cell::Int(int) => tagged(1, &int.to_le_bytes()),
        Cell::Float(float) => match whole(*float) {
            Some(int) if float_of(int).to_bits() == float.to_bits() => {
                tagged(1, &int.to_le_bytes())
            }
            _ => tagged(2, &float.to_bits().to_le_bytes()),
        },
        Cell::Text(text) => tagged(3, text.as_bytes()),
        Cell::Bytes(bytes) => tagged(4, bytes),
        Cell::Time(millis) => tagged(5, &millis.to_le_bytes()),
        Cell::Duration(nanos) => tagged(6, &nanos.to_le_bytes()),
        Cell::Bool(truth) => tagged(7, &[u8::from(*truth)]),
    })
}

// --- Quantiles

fn bucket(number: f64, level: u8) -> i32 {
    Quantiles::bucket(number, level)
}

/// The middle of a bucket.
fn middle(index: i32, level: u8) -> f64 {
    let (low, high) = Quantiles::bounds(index, level);
    low / 2.0 + high / 2.0
}

pub(in crate::program) fn add_number(quantiles: &mut Option<Box<Quantiles>>, number: f64) {
    let Some(all) = quantiles else {
        *quantiles = Some(Box::new(Quantiles {
            level: 0,
            smallest: number,
            largest: number,
            buckets: vec![(bucket(number, 0), 1)],
        }));
        return;
    };
    all.smallest = all.smallest.min(number);
    all.largest = all.largest.max(number);
    let index = bucket(number, all.level);
    match all
        .buckets
        .binary_search_by_key(&index, |(index, _)| *index)
    {
        Ok(at) => all.buckets[at].1 = (all.buckets[at].1 + 1).min(COUNT_MAX),
        Err(at) => {
            all.buckets.insert(at, (index, 1));
            bound(all);
        }
    }
}

pub(in crate::program) fn merge_quantiles(into: &mut Option<Box<Quantiles>>, other: &Quantiles) {
    let Some(all) = into else {
        *into = Some(Box::new(other.clone()));
        return;
    };
    all.smallest = all.smallest.min(other.smallest);
    all.largest = all.largest.max(other.largest);
    while all.level < other.level {
        widen(all);
    }
    let up = all.level - other.level;
    let mut merged: Vec<(i32, u64)> = Vec::with_capacity(all.buckets.len() + other.buckets.len());
    let mut ours = all.buckets.iter().copied().peekable();
    for (index, count) in &other.buckets {
        let index = wider(*index, up);
        while let Some(one) = ours.next_if(|(own, _)| *own <= index) {
            push(&mut merged, one);
        }
        push(&mut merged, (index, *count));
    }
    ours.for_each(|one| push(&mut merged, one));
    all.buckets = merged;
    bound(all);
}

/// Behind what is not beyond it.
fn push(buckets: &mut Vec<(i32, u64)>, (index, count): (i32, u64)) {
    match buckets.last_mut() {
        Some((last, sum)) if *last == index => *sum = (*sum + count).min(COUNT_MAX),
        _ => buckets.push((index, count)),
    }
}

/// How wide buckets must be depends on which values there are, not on their
/// order: so whoever gathers the same values has the same buckets.
fn bound(all: &mut Quantiles) {
    while all.buckets.len() > QUANTILE_BUCKETS_MAX && all.level < QUANTILE_LEVEL_MAX {
        widen(all);
    }
}

fn widen(all: &mut Quantiles) {
    all.level += 1;
    let mut wide: Vec<(i32, u64)> = Vec::with_capacity(all.buckets.len());
    for (index, count) in &all.buckets {
        push(&mut wide, (wider(*index, 1), *count));
    }
    all.buckets = wide;
}

fn wider(index: i32, levels: u8) -> i32 {
    match index {
        0 => 0,
        1.. => ((index - 1) >> levels) + 1,
        _ => -(((-index - 1) >> levels) + 1),
    }
}

/// The value that at least `share` of all do not exceed, within half a bucket's
/// width: 0.8 % at level 0, twice that per level.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank among at most 2^56, where a float is near enough"
)]
pub(in crate::program) fn quantile(all: &Quantiles, share: f64) -> Cell<'static> {
    let count: u64 = all.buckets.iter().map(|(_, count)| count).sum();
    let rank = (share * (count.saturating_sub(1)) as f64) as u64;
    if rank == 0 {
        return Cell::float(all.smallest);
    }
    if rank + 1 >= count {
        return Cell::float(all.largest);
    }
    let mut before = 0;
    for (index, count) in &all.buckets {
        before += count;
        if before > rank {
            let found = middle(*index, all.level);
            return Cell::float(found.clamp(all.smallest, all.largest));
        }
    }
    Cell::float(all.largest)
}

// --- Distinct

#[derive(Clone, Debug)]
pub(in crate::program) enum Seen {
    /// Ascending.
    Few(Vec<u64>),
    Many(Box<[u8; REGISTERS]>),
}

impl Seen {
    pub(in crate::program) fn add(&mut self, hash: u64) {
        match self {
            Self::Few(hashes) => {
                let Err(at) = hashes.binary_search(&hash) else {
                    return;
                };
                hashes.insert(at, hash);
                if hashes.len() > FEW_MAX {
                    let mut many = Self::Many(Box::new([0; REGISTERS]));
                    for hash in std::mem::take(hashes) {
                        many.add(hash);
                    }
                    *self = many;
                }
            }
            Self::Many(registers) => {
                let register = &mut registers[(hash >> 55) as usize];
                let rank = (hash << 9).leading_zeros().min(55) as u8 + 1;
                *register = (*register).max(rank);
            }
        }
    }

    pub(in crate::program) fn merge(&mut self, other: &Distinct) {
        match other {
            Distinct::Few(hashes) => hashes.iter().for_each(|hash| self.add(*hash)),
            Distinct::Many(packed) => {
                if let Self::Few(hashes) = self {
                    let hashes = std::mem::take(hashes);
                    *self = Self::Many(Box::new([0; REGISTERS]));
                    for hash in hashes {
                        self.add(hash);
                    }
                }
                if let Self::Many(registers) = self {
                    for (own, other) in registers.iter_mut().zip(unpacked(packed)) {
                        *own = (*own).max(other);
                    }
                }
            }
        }
    }

    pub(in crate::program) fn distinct(self) -> Distinct {
        match self {
            Self::Few(hashes) => Distinct::Few(hashes),
            Self::Many(registers) => Distinct::Many(packed(&registers)),
        }
    }
}

/// Four registers in three bytes.
fn packed(registers: &[u8; REGISTERS]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(Distinct::PACKED);
    for four in registers.chunks_exact(4) {
        let word = four
            .iter()
            .rev()
            .fold(0_u32, |word, one| word << 6 | u32::from(*one));
        packed.extend_from_slice(&word.to_le_bytes()[..3]);
    }
    packed
}

fn unpacked(packed: &[u8]) -> impl Iterator<Item = u8> {
    packed.chunks_exact(3).flat_map(|three| {
        let word = u32::from_le_bytes([three[0], three[1], three[2], 0]);
        // No hash has a higher rank than 56.
        [0, 6, 12, 18].map(|shift| ((word >> shift & 0x3f) as u8).min(56))
    })
}

/// Exact while there are few, else within 4.6 % in one standard error (Ertl,
/// "New cardinality estimation algorithms for `HyperLogLog` sketches", 2017:
/// without tables, and without logarithms, which machines round differently).
pub(in crate::program) fn estimate(distinct: &Distinct) -> Cell<'static> {
    /// 1 / (2 ln 2).
    const ALPHA: f64 = 0.721_347_520_444_481_7;
    const M: f64 = 512.0;
    /// Of 64 bits without the register's nine.
    const Q: usize = 55;
    let packed = match distinct {
        Distinct::Few(hashes) => {
            return Cell::Int(i64::try_from(hashes.len()).unwrap_or(i64::MAX));
        }
        Distinct::Many(packed) => packed,
    };
    let mut ranks = [0_u32; Q + 2];
    unpacked(packed).for_each(|rank| ranks[usize::from(rank)] += 1);
    let mut sum = M * tau((M - f64::from(ranks[Q + 1])) / M);
    for rank in (1..=Q).rev() {
        sum = 0.5 * (sum + f64::from(ranks[rank]));
    }
    sum += M * sigma(f64::from(ranks[0]) / M);
    let estimate = ALPHA * M * M / sum;
    whole(estimate.round()).map_or(Cell::Null, Cell::Int)
}

fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z <= before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z >= before {
            return z / 3.0;
        }
    }
}

// --- Bloom

/// Of ten bits a value: one false yes in about a hundred.
pub(in crate::program) const BLOOM_HASHES: u8 = 7;

/// Bits from two halves of one hash (Kirsch, Mitzenmacher, 2006).
fn places(bloom: &Bloom, hash: u64) -> impl Iterator<Item = (usize, u8)> + use<> {
    let mask = bloom.bits.len().wrapping_mul(8).wrapping_sub(1);
    let (one, other) = (hash >> 32, hash | 1);
    (0..u64::from(bloom.hashes)).map(move |round| {
        #[expect(clippy::cast_possible_truncation, reason = "within the mask")]
        let at = one.wrapping_add(round.wrapping_mul(other)) as usize & mask;
        (at / 8, 1 << (at % 8))
    })
}

pub(in crate::program) fn bloom_add(bloom: &mut Bloom, hash: u64) {
    for (byte, bit) in places(bloom, hash) {
        if let Some(byte) = bloom.bits.get_mut(byte) {
            *byte |= bit;
        }
    }
}

pub(in crate::program) fn bloom_has(bloom: &Bloom, hash: u64) -> bool {
    let mut places = places(bloom, hash);
    places.all(|(byte, bit)| bloom.bits.get(byte).is_some_and(|byte| byte & bit != 0))
}

/// Of two that are made alike.
pub(in crate::program) fn bloom_merge(into: &mut Bloom, other: &Bloom) {
    for (own, other) in into.bits.iter_mut().zip(&other.bits) {
        *own |= other;
    }
}

// --- Histogram

pub(in crate::program) fn histogram_add(histogram: &mut Histogram, number: f64) {
    let at = histogram.bounds.partition_point(|bound| *bound <= number);
    if let Some(count) = histogram.counts.get_mut(at) {
        *count = (*count + 1).min(COUNT_MAX);
    }
}

/// Of two with the same bounds.
pub(in crate::program) fn histogram_merge(into: &mut Histogram, other: &Histogram) {
    for (own, other) in into.counts.iter_mut().zip(&other.counts) {
        *own = (*own + other).min(COUNT_MAX);
    }
}
