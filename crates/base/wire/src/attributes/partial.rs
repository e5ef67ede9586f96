//! What an aggregate has gathered below a zone, before its last expressions.
//!
//! Holds: whoever merges the parts of several zones has what one zone of all
//! their nodes would have.

use super::{Bloom, COUNT_MAX, Distinct, Histogram, Quantiles, Scalar, Total};
use serde::{Deserialize, Serialize};

pub const STATES_MAX: usize = 32;

/// Entries of a list that an aggregate keeps.
pub const KEPT_MAX: usize = 32;

/// Keys that a list is ordered by.
pub const KEYS_MAX: usize = 4;

/// A longer text is not kept in a state: it would push others out of the row.
pub const KEPT_BYTES_MAX: usize = 256;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Partial {
    /// Names what was gathered: parts of another program do not merge.
    pub fingerprint: u64,
    /// Nodes whose rows were looked at.
    pub rows: u64,
    /// Of these, the ones that the program's `WHERE` let through.
    pub matched: u64,
    /// Values of a type that the program could not use.
    pub ignored: u64,
    pub states: Vec<State>,
}

/// Of one aggregate function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum State {
    Count(u64),
    Sum(Total),
    Average {
        values: Total,
        weights: Total,
    },
    /// The smallest or the largest, when there was any.
    Extreme(Option<Scalar>),
    /// The first few in the aggregate's order.
    First(Vec<Entry>),
    Quantiles(Option<Box<Quantiles>>),
    Distinct(Distinct),
    Bloom(Bloom),
    Histogram(Box<Histogram>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is ordered by; `None` where the row had nothing.
    pub keys: Vec<Option<Scalar>>,
    pub value: Scalar,
}

impl Partial {
    /// Bytes that it takes at most in a row.
    pub fn bytes_at_most(&self) -> usize {
        40 + self.states.iter().map(State::bytes_at_most).sum::<usize>()
    }

    pub fn is_sound(&self) -> bool {
        self.rows <= COUNT_MAX
            && self.matched <= self.rows
            && self.ignored <= COUNT_MAX
            && self.states.len() <= STATES_MAX
            && self.states.iter().all(State::is_sound)
    }
}

impl State {
    pub fn is_sound(&self) -> bool {
        match self {
            Self::Count(count) => *count <= COUNT_MAX,
            Self::Sum(total) => total.is_sound(),
            Self::Average { values, weights } => values.is_sound() && weights.is_sound(),
            Self::Extreme(kept) => kept.as_ref().is_none_or(Scalar::is_kept),
            Self::First(entries) => {
                entries.len() <= KEPT_MAX && entries.iter().all(Entry::is_sound)
            }
            Self::Quantiles(quantiles) => quantiles.as_ref().is_none_or(|all| all.is_sound()),
            Self::Distinct(distinct) => distinct.is_sound(),
            Self::Bloom(bloom) => bloom.is_sound(),
            Self::Histogram(histogram) => histogram.is_sound(),
        }
    }
}

impl State {
    /// Bytes that it takes at most in a row, found without writing it.
    pub fn bytes_at_most(&self) -> usize {
        /// Of a count or an index as postcard writes it.
        const NUMBER: usize = 10;
        const TAGS: usize = 4;
        TAGS + match self {
            Self::Count(_) => NUMBER,
            Self::Sum(total) => total.bytes_at_most(),
            Self::Average { values, weights } => values.bytes_at_most() + weights.bytes_at_most(),
            Self::Extreme(kept) => kept.as_ref().map_or(0, Scalar::bytes_at_most),
            Self::First(entries) => entries.iter().map(Entry::bytes_at_most).sum(),
            Self::Quantiles(None) => 0,
            // An index of 18 bits and a sign; a count is rarely long.
            Self::Quantiles(Some(all)) => {
                let counts = all.buckets.iter().map(|(_, count)| varint(*count));
                20 + 3 * all.buckets.len() + counts.sum::<usize>()
            }
            Self::Distinct(Distinct::Few(hashes)) => NUMBER * hashes.len(),
            Self::Distinct(Distinct::Many(packed)) => packed.len(),
            Self::Bloom(bloom) => bloom.bits.len(),
            Self::Histogram(histogram) => {
                8 * histogram.bounds.len() + NUMBER * histogram.counts.len()
            }
        }
    }
}

fn varint(number: u64) -> usize {
    let bits = u64::BITS - number.leading_zeros();
    bits.div_ceil(7).max(1) as usize
}

impl Entry {
    fn bytes_at_most(&self) -> usize {
        let keys = self
            .keys
            .iter()
            .map(|key| key.as_ref().map_or(1, |key| 1 + key.bytes_at_most()));
        1 + self.value.bytes_at_most() + keys.sum::<usize>()
    }
}

impl Scalar {
    fn bytes_at_most(&self) -> usize {
        match self {
            Self::Text(text) => 4 + text.len(),
            Self::Bytes(bytes) => 4 + bytes.len(),
            _ => 11,
        }
    }
}

impl Entry {
    fn is_sound(&self) -> bool {
        let known = self.keys.iter().flatten();
        self.keys.len() <= KEYS_MAX
            && self.value.is_kept()
            && known.into_iter().all(Scalar::is_kept)
    }
}

impl Scalar {
    /// Whether a state keeps it: short, and a number that can be ordered.
    pub fn is_kept(&self) -> bool {
        match self {
            Self::Float(number) => {
                number.is_finite() && (*number != 0.0 || number.is_sign_positive())
            }
            Self::Text(text) => text.len() <= KEPT_BYTES_MAX,
            Self::Bytes(bytes) => bytes.len() <= KEPT_BYTES_MAX,
            Self::Bool(_) | Self::Int(_) | Self::Time(_) | Self::Duration(_) => true,
        }
    }
}
