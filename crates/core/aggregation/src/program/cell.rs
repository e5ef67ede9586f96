//! A value while it is computed with.
//!
//! Holds: a float is finite and has one zero, so that numbers are ordered and
//! equal ones are the same; what is not so is NULL. All values of the plain
//! types have one order: by kind first, then by value.

use std::borrow::Cow;
use std::cmp::Ordering;
use wire::attributes::{Scalar, Value};

#[derive(Clone, Debug)]
pub(super) enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    Bytes(&'a [u8]),
    /// Milliseconds since 1970.
    Time(u64),
    /// Nanoseconds.
    Duration(i64),
    /// A set, a list or a sketch.
    Whole(&'a Value),
}

/// A number, for what treats integers and floats alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    pub(super) fn as_float(self) -> f64 {
        match self {
            Self::Int(number) => float_of(number),
            Self::Float(number) => number,
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "rounds to the nearest, the same on every machine"
)]
pub(super) fn float_of(number: i64) -> f64 {
    number as f64
}

/// Without its fraction, when it is in range.
pub(super) fn whole(float: f64) -> Option<i64> {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    let fits = (-BEYOND..BEYOND).contains(&float);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "in range, and the fraction is to go"
    )]
    let whole = float as i64;
    fits.then_some(whole)
}

impl<'a> Cell<'a> {
    #[inline]
    pub(super) fn of(value: &'a Value) -> Self {
        match value {
            Value::Bool(truth) => Self::Bool(*truth),
            Value::Int(number) => Self::Int(*number),
            Value::Float(number) => Self::float(*number),
            Value::Text(text) => Self::Text(Cow::Borrowed(text)),
            Value::Bytes(bytes) => Self::Bytes(bytes),
            Value::Time(time) => Self::Time(time.0),
            Value::Duration(nanos) => Self::Duration(*nanos),
            _ => Self::Whole(value),
        }
    }

    /// NULL unless finite; -0 is 0.
    #[inline]
    pub(super) fn float(number: f64) -> Self {
        if number.is_finite() {
            Self::Float(number + 0.0)
        } else {
            Self::Null
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Of numbers, and of truths as 0 and 1.
    #[inline]
    pub(super) fn number(&self) -> Option<Number> {
        match self {
            Self::Int(number) => Some(Number::Int(*number)),
            Self::Float(number) => Some(Number::Float(*number)),
            Self::Bool(truth) => Some(Number::Int(i64::from(*truth))),
            _ => None,
        }
    }

    /// `Err` for what is neither true nor false nor unknown.
    pub(super) fn truth(&self) -> Result<Option<bool>, ()> {
        match self {
            Self::Null => Ok(None),
            Self::Bool(truth) => Ok(Some(*truth)),
            Self::Int(number) => Ok(Some(*number != 0)),
            Self::Float(number) => Ok(Some(*number != 0.0)),
            _ => Err(()),
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What a state or a list can keep of it.
    pub(super) fn scalar(&self) -> Option<Scalar> {
        Some(match self {
            Self::Null | Self::Whole(_) => return None,
            Self::Bool(truth) => Scalar::Bool(*truth),
            Self::Int(number) => Scalar::Int(*number),
            Self::Float(number) => Scalar::Float(*number),
            Self::Text(text) => Scalar::Text(text.clone().into_owned()),
            Self::Bytes(bytes) => Scalar::Bytes(bytes.to_vec()),
            Self::Time(millis) => Scalar::Time(kernel::UnixMillis(*millis)),
            Self::Duration(nanos) => Scalar::Duration(*nanos),
        })
    }

    pub(super) fn value(&self) -> Option<Value> {
        match self {
            Self::Whole(value) => Some((*value).clone()),
            plain => plain.scalar().map(Value::from),
        }
    }

    /// Bytes that looking at it touches.
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            _ => 0,
        }
    }

    /// Of two that can be compared: both numbers (or truths), both texts, …
    #[inline]
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        Some(match (self, other) {
            (Self::Int(one), Self::Int(other)) | (Self::Duration(one), Self::Duration(other)) => {
                one.cmp(other)
            }
            (Self::Text(one), Self::Text(other)) => one.as_bytes().cmp(other.as_bytes()),
            (Self::Bytes(one), Self::Bytes(other)) => one.cmp(other),
            (Self::Time(one), Self::Time(other)) => one.cmp(other),
            _ => compare_numbers(self.number()?, other.number()?),
        })
    }
}

/// Exact, whatever the sizes.
#[inline]
pub(super) fn compare_numbers(one: Number, other: Number) -> Ordering {
    match (one, other) {
        (Number::Int(one), Number::Int(other)) => one.cmp(&other),
        (Number::Float(one), Number::Float(other)) => {
            one.partial_cmp(&other).unwrap_or(Ordering::Equal)
        }
        (Number::Int(one), Number::Float(other)) => int_with_float(one, other),
        (Number::Float(one), Number::Int(other)) => int_with_float(other, one).reverse(),
    }
}

fn int_with_float(int: i64, float: f64) -> Ordering {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if float >= BEYOND {
        return Ordering::Less;
    }
    if float < -BEYOND {
        return Ordering::Greater;
    }
    let whole = float.trunc();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "whole and within the bounds"
    )]
    let order = int.cmp(&(whole as i64));
    order.then_with(|| whole.partial_cmp(&float).unwrap_or(Ordering::Equal))
}

/// The kinds in their order: where kinds meet in one aggregate, the first of
/// them is what counts.
fn kind(scalar: &Scalar) -> u8 {
    match scalar {
        Scalar::Int(_) | Scalar::Float(_) => 0,
        Scalar::Duration(_) => 1,
        Scalar::Time(_) => 2,
        Scalar::Text(_) => 3,
        Scalar::Bytes(_) => 4,
        Scalar::Bool(_) => 5,
    }
}

/// The smaller number of a kind that is the same; the kinds' own order is not
/// turned around with `descending`. Equal only for the same.
pub(super) fn order(one: &Scalar, other: &Scalar, descending: bool) -> Ordering {
    kind(one).cmp(&kind(other)).then_with(|| {
        let by_value = by_value(one, other);
        if descending {
            by_value.reverse()
        } else {
            by_value
        }
    })
}

fn by_value(one: &Scalar, other: &Scalar) -> Ordering {
    match (one, other) {
        (Scalar::Text(one), Scalar::Text(other)) => one.as_bytes().cmp(other.as_bytes()),
        (Scalar::Bytes(one), Scalar::Bytes(other)) => one.cmp(other),
        (Scalar::Time(one), Scalar::Time(other)) => one.cmp(other),
        (Scalar::Duration(one), Scalar::Duration(other)) => one.cmp(other),
        (Scalar::Bool(one), Scalar::Bool(other)) => one.cmp(other),
        (one, other) => match (number(one), number(other)) {
            (Some(a), Some(b)) => compare_numbers(a, b)
                .then_with(|| matches!(a, Number::Float(_)).cmp(&matches!(b, Number::Float(_)))),
            _ => Ordering::Equal,
        },
    }
}

fn number(scalar: &Scalar) -> Option<Number> {
    match scalar {
        Scalar::Int(number) => Some(Number::Int(*number)),
        Scalar::Float(number) => Some(Number::Float(*number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers() -> impl Strategy<Value = Number> {
        prop_oneof![
            any::<i64>().prop_map(Number::Int),
            (-3_i64..3).prop_map(Number::Int),
            any::<f64>()
                .prop_filter("finite", |float| float.is_finite())
                .prop_map(Number::Float),
            (-6_i32..6).prop_map(|half| Number::Float(f64::from(half) / 2.0)),
            any::<i64>().prop_map(|int| Number::Float(float_of(int))),
        ]
    }

    proptest! {
        #[test]
        fn numbers_are_ordered(a in numbers(), b in numbers(), c in numbers()) {
            prop_assert_eq!(compare_numbers(a, b), compare_numbers(b, a).reverse());
            if compare_numbers(a, b).is_le() && compare_numbers(b, c).is_le() {
                prop_assert!(compare_numbers(a, c).is_le());
            }
        }
    }

    #[test]
    fn large_integers_are_not_rounded_to_be_compared() {
        let (int, float) = (
            Number::Int(i64::MAX),
            Number::Float(9_223_372_036_854_775_808.0),
        );
        assert_eq!(compare_numbers(int, float), Ordering::Less);
        let near = Number::Int((1 << 53) + 1);
        assert_eq!(
            compare_numbers(near, Number::Float(9_007_199_254_740_992.0)),
            Ordering::Greater
        );
        assert_eq!(
            compare_numbers(Number::Int(-1), Number::Float(-1.5)),
            Ordering::Greater
        );
    }
}
