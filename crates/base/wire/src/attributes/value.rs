//! The types that an attribute can have.
//!
//! Holds: [`Value::is_sound`] is asked of what was read, so that what counts,
//! sorts and sizes sketches is right by then.

use super::{Average, Bloom, Distinct, Histogram, Partial, Quantiles};
use kernel::UnixMillis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One fact. That nothing is known is the absence of the attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Time(UnixMillis),
    /// In nanoseconds; below zero where two times are compared.
    Duration(i64),
    /// Of texts.
    Set(BTreeSet<String>),
    /// In the order that made it.
    List(Vec<Scalar>),
    /// What merges: two of a kind make a third, in any order.
    Average(Average),
    Quantiles(Box<Quantiles>),
    Distinct(Distinct),
    Bloom(Bloom),
    Histogram(Box<Histogram>),
    /// What an aggregate's values were made of; merged one level above.
    Partial(Box<Partial>),
}

/// A value without parts: what a list holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Scalar {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Time(UnixMillis),
    /// In nanoseconds.
    Duration(i64),
}

impl Value {
    /// Whether sketches are as their kind writes them.
    pub fn is_sound(&self) -> bool {
        match self {
            Self::Average(average) => average.is_sound(),
            Self::Quantiles(quantiles) => quantiles.is_sound(),
            Self::Distinct(distinct) => distinct.is_sound(),
            Self::Bloom(bloom) => bloom.is_sound(),
            Self::Histogram(histogram) => histogram.is_sound(),
            Self::Partial(partial) => partial.is_sound(),
            _ => true,
        }
    }
}

impl From<Scalar> for Value {
    fn from(scalar: Scalar) -> Self {
        match scalar {
            Scalar::Bool(truth) => Self::Bool(truth),
            Scalar::Int(number) => Self::Int(number),
            Scalar::Float(number) => Self::Float(number),
            Scalar::Text(text) => Self::Text(text),
            Scalar::Bytes(bytes) => Self::Bytes(bytes),
            Scalar::Time(time) => Self::Time(time),
            Scalar::Duration(nanos) => Self::Duration(nanos),
        }
    }
}
