//! Values that merge: many facts in a few bytes.
//!
//! Holds: for the same facts a sketch has one spelling, in whatever order and
//! grouping they were merged. Making and merging them is `aggregation`'s.

use super::COUNT_MAX;
use serde::{Deserialize, Serialize};

/// Buckets of a quantile sketch before they are made twice as wide.
pub const QUANTILE_BUCKETS_MAX: usize = 192;

/// At this level a bucket spans 2^32 of the narrowest.
pub const QUANTILE_LEVEL_MAX: u8 = 16;

/// Values that are told apart exactly before they are estimated.
pub const FEW_MAX: usize = 32;

/// Of the estimate: a standard error of 1.04 / √512, 4.6 %.
pub const REGISTERS: usize = 512;

pub const HISTOGRAM_BOUNDS_MAX: usize = 32;

/// A mean that weights itself: the sum of values times weights, and of weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Average {
    pub sum: f64,
    pub weight: f64,
}

/// How values are spread: counts in buckets of a relative width (Masson, Rim,
/// Lee, "`DDSketch`", VLDB 2019). A bucket is the first bits of a float: its
/// exponent and six bits of its mantissa at level 0, one bit less per level
/// (Epicoco et al., "`UDDSketch`", 2020).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    pub level: u8,
    pub smallest: f64,
    pub largest: f64,
    /// Ascending; the sign is the value's, 0 is zero.
    pub buckets: Vec<(i32, u64)>,
}

/// How many different values: their hashes while they are few, else
/// `HyperLogLog` (Flajolet et al., 2007).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Distinct {
    /// Ascending.
    Few(Vec<u64>),
    /// [`REGISTERS`] of six bits, in bytes from their low bits.
    Many(Vec<u8>),
}

/// Which values there may be: never a false no (Bloom, 1970).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bloom {
    /// Bits that one value sets.
    pub hashes: u8,
    /// A power of two of bytes, 16 to 1,024.
    pub bits: Vec<u8>,
}

/// Counts between bounds: the first of values under the first bound, the last
/// of those at or above the last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    pub bounds: Vec<f64>,
    pub counts: Vec<u64>,
}

impl Average {
    pub fn is_sound(&self) -> bool {
        self.sum.is_finite() && self.weight.is_finite() && self.weight >= 0.0
    }
}

impl Quantiles {
    /// The bucket of a number: the first bits of a float, its exponent and six
    /// bits of its mantissa at level 0, one less at each level above; read from
    /// its bits, so that it is the same on every machine.
    #[expect(clippy::cast_possible_truncation, reason = "18 bits")]
    pub fn bucket(number: f64, level: u8) -> i32 {
        if number == 0.0 {
            return 0;
        }
        let index = (number.abs().to_bits() >> (46 + u32::from(level))) as i32 + 1;
        if number < 0.0 { -index } else { index }
    }

    /// What lies in a bucket, from the least in it to the least beyond it;
    /// nearer to zero first.
    pub fn bounds(index: i32, level: u8) -> (f64, f64) {
        let Some(first) = u64::from(index.unsigned_abs()).checked_sub(1) else {
            return (0.0, 0.0);
        };
        let shift = 46 + u32::from(level);
        let low = f64::from_bits(first << shift);
        let high = f64::from_bits(((first + 1) << shift).min(f64::MAX.to_bits()));
        if index < 0 {
            (-low, -high)
        } else {
            (low, high)
        }
    }

    pub fn is_sound(&self) -> bool {
        let last = (i32::MAX >> 14) >> self.level.min(QUANTILE_LEVEL_MAX);
        !self.buckets.is_empty()
            && self.level <= QUANTILE_LEVEL_MAX
            && self.buckets.len() <= QUANTILE_BUCKETS_MAX
            && self.smallest.is_finite()
            && self.largest.is_finite()
            && self.smallest <= self.largest
            && self.buckets.is_sorted_by(|a, b| a.0 < b.0)
            && self.buckets.iter().all(|(index, count)| {
                (1..=COUNT_MAX).contains(count) && index.unsigned_abs() <= last.unsigned_abs() + 1
            })
    }
}

impl Distinct {
    /// Bytes of all registers.
    pub const PACKED: usize = REGISTERS * 6 / 8;

    pub fn is_sound(&self) -> bool {
        match self {
            Self::Few(hashes) => {
                hashes.len() <= FEW_MAX && hashes.is_sorted_by(|one, next| one < next)
            }
            Self::Many(packed) => packed.len() == Self::PACKED,
        }
    }
}

impl Bloom {
    /// Whether the two are made alike, so that they merge.
    pub fn is_like(&self, other: &Self) -> bool {
        self.hashes == other.hashes && self.bits.len() == other.bits.len()
    }

    pub fn is_sound(&self) -> bool {
        let bytes = self.bits.len();
        bytes.is_power_of_two() && (16..=1_024).contains(&bytes) && (1..=16).contains(&self.hashes)
    }
}

impl Histogram {
    pub fn is_sound(&self) -> bool {
        let bounds = self.bounds.len();
        (1..=HISTOGRAM_BOUNDS_MAX).contains(&bounds)
            && self.counts.len() == bounds + 1
            && self.bounds.iter().all(|bound| bound.is_finite())
            && self.bounds.is_sorted_by(|one, next| one < next)
            && self.counts.iter().all(|count| *count <= COUNT_MAX)
    }
}
