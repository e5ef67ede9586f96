//! Sums and weighted averages.

use super::wide::{WideSum, rounded};
use crate::program::cell::{Cell, Number};
use wire::attributes::{Average, COUNT_MAX, Total, Value};

#[derive(Clone, Debug, Default)]
pub(in crate::program) struct Sum {
    count: u64,
    whole: i128,
    floats: Option<Box<WideSum>>,
}

impl Sum {
    #[inline]
    pub(in crate::program) fn add(&mut self, number: Number) {
        self.count += 1;
        match number {
            Number::Int(int) => self.whole += i128::from(int),
            Number::Float(float) => self.floats.get_or_insert_default().add(float),
        }
    }

    pub(super) fn merge(&mut self, total: &Total) {
        self.count = self.count.saturating_add(total.count);
        self.whole = self.whole.saturating_add(total.whole);
        if let Some(wide) = &total.floats {
            self.floats.get_or_insert_default().merge(wide);
        }
    }

    pub(super) fn total(self) -> Total {
        let largest = i128::from(COUNT_MAX) << 63;
        Total {
            count: self.count.min(COUNT_MAX),
            whole: self.whole.clamp(-largest, largest),
            floats: self.floats.map(|mut floats| floats.wide()),
        }
    }
}

/// NULL of nothing and beyond what a number can be; an integer while all were.
pub(super) fn of(total: &Total) -> Cell<'static> {
    match (&total.floats, total.count) {
        (_, 0) => Cell::Null,
        (None, _) => i64::try_from(total.whole).map_or(Cell::Null, Cell::Int),
        (Some(_), _) => as_float(total).map_or(Cell::Null, Cell::float),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "rounds to the nearest, the same on every machine"
)]
fn as_float(total: &Total) -> Option<f64> {
    match &total.floats {
        None => Some(total.whole as f64),
        Some(wide) if total.whole == 0 => rounded(wide),
        Some(wide) => {
            let mut sum = WideSum::default();
            sum.merge(wide);
            sum.add_whole(total.whole);
            rounded(&sum.wide())
        }
    }
}

/// Of values times weights by weights: both exact, so rounded once each and
/// once divided.
pub(super) fn mean(values: &Total, weights: &Total) -> Cell<'static> {
    match (as_float(values), as_float(weights)) {
        (Some(values), Some(weights)) => Cell::float(values / weights),
        _ => Cell::Null,
    }
}

/// What a row adds to an average: a number, or an average that weights itself.
/// `None` for what is neither.
#[inline]
pub(in crate::program) fn weighted(
    value: &Cell,
    weight: Option<&Cell>,
) -> Option<(Number, Number)> {
    if let Cell::Whole(Value::Average(Average { sum, weight: own })) = value {
        let sound = sum.is_finite() && own.is_finite() && *own >= 0.0;
        return (sound && weight.is_none()).then_some((Number::Float(*sum), Number::Float(*own)));
    }
    let value = value.number()?;
    let Some(weight) = weight else {
        return Some((value, Number::Int(1)));
    };
    let weight = weight.number()?;
    let product = match (value, weight) {
        (Number::Int(value), Number::Int(weight)) => value.checked_mul(weight).map(Number::Int),
        _ => None,
    };
    let product = product.unwrap_or(Number::Float(value.as_float() * weight.as_float()));
    let usable = product.as_float().is_finite() && weight.as_float() >= 0.0;
    usable.then_some((product, weight))
}
