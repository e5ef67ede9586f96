//! Gathers what rows and zones have into states, and says what they come to.
//!
//! Holds: the same rows give the same states, bit for bit, in whatever order
//! and grouping; a state that does not fit is refused before anything changes.

mod ordered;
mod sketch;
mod sum;
mod wide;

pub(super) use ordered::{First, keep};
pub(super) use sketch::{
    Seen, add_number, bloom_add, bloom_has, bloom_merge, hash, histogram_add, histogram_merge,
    merge_quantiles, mix, quantile,
};
pub(super) use sum::{Sum, weighted};

use super::plan::{Aggregate, Kind};
use sketch::BLOOM_HASHES;
use wire::attributes::{
    Bloom, COUNT_MAX, Distinct, Entry, Histogram, KEPT_BYTES_MAX, QUANTILE_BUCKETS_MAX, Quantiles,
    REGISTERS, Scalar, State, Value,
};

/// A state while it grows.
#[derive(Clone, Debug)]
pub(super) enum Growing {
    Count(u64),
    Sum(Sum),
    Average { values: Sum, weights: Sum },
    Extreme { kept: Option<Scalar>, largest: bool },
    First(First),
    Quantiles(Option<Box<Quantiles>>),
    Distinct(Seen),
    Bloom(Bloom),
    Histogram(Box<Histogram>),
}

/// What a state came to.
#[derive(Clone, Debug)]
pub(super) enum Gathered {
    Nothing,
    Value(Value),
    /// Asked at several shares.
    Quantiles(Box<Quantiles>),
}

impl Growing {
    pub(super) fn new(kind: &Kind) -> Self {
        match kind {
            Kind::Count => Self::Count(0),
            Kind::Sum => Self::Sum(Sum::default()),
            Kind::Average => Self::Average {
                values: Sum::default(),
                weights: Sum::default(),
            },
            Kind::Min | Kind::Max => Self::Extreme {
                kept: None,
                largest: *kind == Kind::Max,
            },
            Kind::First { most, descending } => Self::first(*most, descending.clone()),
            Kind::Random { most } => Self::first(*most, vec![false]),
            Kind::Quantiles => Self::Quantiles(None),
            Kind::Distinct => Self::Distinct(Seen::Few(Vec::new())),
            Kind::Bloom { bytes } => Self::Bloom(Bloom {
                hashes: BLOOM_HASHES,
                bits: vec![0; *bytes],
            }),
            Kind::Histogram { bounds } => Self::Histogram(Box::new(Histogram {
                bounds: bounds.clone(),
                counts: vec![0; bounds.len() + 1],
            })),
        }
    }

    fn first(most: usize, descending: Vec<bool>) -> Self {
        Self::First(First {
            most,
            descending,
            entries: Vec::new(),
        })
    }

    /// Whether a sound state is of this aggregate.
    pub(super) fn fits(&self, state: &State) -> bool {
        match (self, state) {
            (Self::First(first), State::First(entries)) => {
                let keys = first.descending.len();
                entries.len() <= first.most && entries.iter().all(|entry| entry.keys.len() == keys)
            }
            (Self::Bloom(own), State::Bloom(other)) => own.is_like(other),
            (Self::Histogram(own), State::Histogram(other)) => own.bounds == other.bounds,
            (Self::Count(_), State::Count(_))
            | (Self::Sum(_), State::Sum(_))
            | (Self::Average { .. }, State::Average { .. })
            | (Self::Extreme { .. }, State::Extreme(_))
            | (Self::Quantiles(_), State::Quantiles(_))
            | (Self::Distinct(_), State::Distinct(_)) => true,
            _ => false,
        }
    }

    /// Takes in a state that fits.
    pub(super) fn merge(&mut self, state: &State) {
        match (self, state) {
            (Self::Count(own), State::Count(other)) => *own = (*own + other).min(COUNT_MAX),
            (Self::Sum(own), State::Sum(other)) => own.merge(other),
            (
                Self::Average { values, weights },
                State::Average {
                    values: more,
                    weights: more_weights,
                },
            ) => {
                values.merge(more);
                weights.merge(more_weights);
            }
            (Self::Extreme { kept, largest }, State::Extreme(Some(other))) => {
                let other = Value::from(other.clone());
                keep(kept, &super::cell::Cell::of(&other), *largest);
            }
            (Self::First(own), State::First(entries)) => {
                for entry in entries {
                    own.add(entry.clone());
                }
            }
            (Self::Quantiles(own), State::Quantiles(Some(other))) => merge_quantiles(own, other),
            (Self::Distinct(own), State::Distinct(other)) => own.merge(other),
            (Self::Bloom(own), State::Bloom(other)) => bloom_merge(own, other),
            (Self::Histogram(own), State::Histogram(other)) => histogram_merge(own, other),
            _ => {}
        }
    }

    pub(super) fn state(self) -> State {
        match self {
            Self::Count(count) => State::Count(count.min(COUNT_MAX)),
            Self::Sum(sum) => State::Sum(sum.total()),
            Self::Average { values, weights } => State::Average {
                values: values.total(),
                weights: weights.total(),
            },
            Self::Extreme { kept, .. } => State::Extreme(kept),
            Self::First(first) => State::First(first.entries),
            Self::Quantiles(quantiles) => State::Quantiles(quantiles),
            Self::Distinct(seen) => State::Distinct(seen.distinct()),
            Self::Bloom(bloom) => State::Bloom(bloom),
            Self::Histogram(histogram) => State::Histogram(histogram),
        }
    }
}

/// What a sound state comes to.
pub(super) fn gathered(state: &State) -> Gathered {
    let cell = match state {
        State::Count(count) => Some(Value::Int(i64::try_from(*count).unwrap_or(i64::MAX))),
        State::Sum(total) => sum::of(total).value(),
        State::Average { values, weights } => sum::mean(values, weights).value(),
        State::Extreme(kept) => kept.clone().map(Value::from),
        State::First(entries) => Some(first(entries)),
        State::Quantiles(None) => None,
        State::Quantiles(Some(all)) => return Gathered::Quantiles(all.clone()),
        State::Distinct(distinct) => sketch::estimate(distinct).value(),
        State::Bloom(bloom) => Some(Value::Bloom(bloom.clone())),
        State::Histogram(histogram) => Some(Value::Histogram(histogram.clone())),
    };
    cell.map_or(Gathered::Nothing, Gathered::Value)
}

fn first(entries: &[Entry]) -> Value {
    Value::List(entries.iter().map(|entry| entry.value.clone()).collect())
}

/// Units of fuel that taking in a state costs.
pub(super) fn cost(state: &State) -> u64 {
    let steps = match state {
        State::Count(_) | State::Extreme(_) => 1,
        State::Sum(_) => 8,
        State::Average { .. } => 16,
        State::First(entries) => 16 * entries.len(),
        State::Quantiles(quantiles) => quantiles.as_ref().map_or(1, |all| all.buckets.len() / 4),
        State::Distinct(Distinct::Few(hashes)) => 8 * hashes.len(),
        State::Distinct(Distinct::Many(_)) => REGISTERS / 4,
        State::Bloom(bloom) => bloom.bits.len() / 4,
        State::Histogram(histogram) => histogram.counts.len(),
    };
    u64::try_from(1 + steps).unwrap_or(u64::MAX)
}

/// Bytes that a state comes to at most, with what its growing needs beside.
pub(super) fn bytes_at_most(aggregate: &Aggregate) -> usize {
    const WIDE: usize = 600;
    const SCALAR: usize = 32 + KEPT_BYTES_MAX;
    let state = match &aggregate.kind {
        Kind::Count => 0,
        Kind::Sum => WIDE,
        Kind::Average => 2 * WIDE,
        Kind::Min | Kind::Max => SCALAR,
        Kind::First { most, descending } => most * (descending.len() + 1) * SCALAR,
        Kind::Random { most } => most * (SCALAR + 32),
        Kind::Quantiles => 3 * 16 * QUANTILE_BUCKETS_MAX,
        Kind::Distinct => 2 * REGISTERS,
        Kind::Bloom { bytes } => 2 * bytes,
        Kind::Histogram { bounds } => 2 * 16 * (bounds.len() + 1),
    };
    size_of::<Growing>() + size_of::<State>() + state
}
