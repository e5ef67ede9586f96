//! Gathers nodes' rows: once, in the leaf zone. Above, only parts are merged.
//!
//! Holds: what a row adds depends on that row alone, so that it makes no
//! difference which rows it is gathered with.

use super::cell::Cell;
use super::error::OutOfFuel;
use super::evaluate::{Meter, Scope};
use super::gather::{
    First, Growing, add_number, bloom_add, bloom_merge, hash, histogram_add, histogram_merge, keep,
    merge_quantiles, mix, weighted,
};
use super::plan::{Aggregate, Expression, Kind, Plan};
use kernel::NodeId;
use wire::attributes::{Entry, KEPT_BYTES_MAX, Scalar, Value};

pub(super) struct Lift<'a> {
    pub plan: &'a Plan,
    pub scope: Scope<'a>,
    pub nodes: &'a [NodeId],
    /// Of `RANDOM`.
    pub seed: u64,
}

impl<'a> Lift<'a> {
    /// Places of the rows that `WHERE` lets through.
    pub(super) fn matching(&self, meter: &mut Meter) -> Result<Vec<usize>, OutOfFuel> {
        let all = 0..self.nodes.len();
        let Some(filter) = &self.plan.filter else {
            return Ok(all.collect());
        };
        let mut scope = self.scope;
        let mut matching = Vec::with_capacity(all.len());
        for row in all {
            scope.row = row;
            if scope.truth(filter, meter)? == Some(true) {
                matching.push(row);
            }
        }
        Ok(matching)
    }

    pub(super) fn gather(
        &self,
        rows: &[usize],
        growing: &mut [Growing],
        meter: &mut Meter,
    ) -> Result<(), OutOfFuel> {
        let pairs = self.plan.aggregates.iter().zip(growing);
        pairs
            .into_iter()
            .try_for_each(|(aggregate, growing)| match &aggregate.arguments[..] {
                [] => self.count_rows(aggregate, rows, growing, meter),
                [value] => self.values(aggregate, value, rows, growing, meter),
                [value, rest @ ..] => self.pairs(aggregate, value, rest, rows, growing, meter),
            })
    }

    /// Calls with each row that counts for this aggregate.
    #[inline]
    fn each(
        &self,
        aggregate: &'a Aggregate,
        rows: &[usize],
        meter: &mut Meter,
        mut take: impl FnMut(&Scope<'a>, &mut Meter) -> Result<(), OutOfFuel>,
    ) -> Result<(), OutOfFuel> {
        let mut scope = self.scope;
        for row in rows {
            scope.row = *row;
            if let Some(filter) = &aggregate.filter
                && scope.truth(filter, meter)? != Some(true)
            {
                continue;
            }
            take(&scope, meter)?;
        }
        Ok(())
    }

    fn count_rows(
        &self,
        aggregate: &'a Aggregate,
        rows: &[usize],
        growing: &mut Growing,
        meter: &mut Meter,
    ) -> Result<(), OutOfFuel> {
        let Growing::Count(count) = growing else {
            return Ok(());
        };
        if aggregate.filter.is_none() {
            *count += u64::try_from(rows.len()).unwrap_or(u64::MAX);
            return meter.spend(1);
        }
        self.each(aggregate, rows, meter, |_, _| {
            *count += 1;
            Ok(())
        })
    }

    fn values(
        &self,
        aggregate: &'a Aggregate,
        value: &'a Expression,
        rows: &[usize],
        growing: &mut Growing,
        meter: &mut Meter,
    ) -> Result<(), OutOfFuel> {
        match growing {
            Growing::Count(count) => self.each(aggregate, rows, meter, |scope, meter| {
                *count += u64::from(!scope.compute(value, meter)?.is_null());
                Ok(())
            }),
            Growing::Sum(sum) => self.each(aggregate, rows, meter, |scope, meter| {
                let cell = scope.compute(value, meter)?;
                match cell.number() {
                    Some(number) => sum.add(number),
                    None => ignore(&cell, meter),
                }
                Ok(())
            }),
            Growing::Average { values, weights } => {
                self.each(aggregate, rows, meter, |scope, meter| {
                    let cell = scope.compute(value, meter)?;
                    match weighted(&cell, None) {
                        Some((value, weight)) => {
                            values.add(value);
                            weights.add(weight);
                        }
                        None => ignore(&cell, meter),
                    }
                    Ok(())
                })
            }
            Growing::Extreme { kept, largest } => {
                self.each(aggregate, rows, meter, |scope, meter| {
                    let cell = scope.compute(value, meter)?;
                    if can_be_kept(&cell) {
                        meter.spend_bytes(cell.length())?;
                        keep(kept, &cell, *largest);
                    } else {
                        ignore(&cell, meter);
                    }
                    Ok(())
                })
            }
            Growing::First(first) => self.by_value_or_lot(aggregate, value, rows, first, meter),
            sketch => self.sketch(aggregate, value, rows, sketch, meter),
        }
    }

    fn by_value_or_lot(
        &self,
        aggregate: &'a Aggregate,
        value: &'a Expression,
        rows: &[usize],
        first: &mut First,
        meter: &mut Meter,
    ) -> Result<(), OutOfFuel> {
        let is_lot = matches!(aggregate.kind, Kind::Random { .. });
        self.each(aggregate, rows, meter, |scope, meter| {
            let cell = scope.compute(value, meter)?;
            let lot = is_lot.then(|| self.lot(scope.row));
            meter.spend(2)?;
            if !can_be_kept(&cell) {
                ignore(&cell, meter);
            } else if first.may_enter(lot.as_ref().unwrap_or(&cell)) {
                let key = lot.as_ref().unwrap_or(&cell).scalar();
                enter(&cell, vec![key], meter, first)?;
            }
            Ok(())
        })
    }

    /// The smallest of a hash that each node has by itself are drawn.
    fn lot(&self, row: usize) -> Cell<'static> {
        let node = self.nodes.get(row).map_or(0, |node| node.0);
        Cell::Int(mix(self.seed ^ mix(node)).cast_signed())
    }

    fn sketch(
        &self,
        aggregate: &'a Aggregate,
        value: &'a Expression,
        rows: &[usize],
        growing: &mut Growing,
        meter: &mut Meter,
    ) -> Result<(), OutOfFuel> {
        self.each(aggregate, rows, meter, |scope, meter| {
            let cell = scope.compute(value, meter)?;
            meter.spend_bytes(128 + 8 * cell.length())?;
            match (&mut *growing, &cell) {
                (_, Cell::Null) => {}
                (Growing::Quantiles(all), Cell::Whole(Value::Quantiles(other))) => {
                    meter.spend(u64::try_from(other.buckets.len()).unwrap_or(u64::MAX))?;
                    merge_quantiles(all, other);
                }
                (Growing::Quantiles(all), cell) => match cell.number() {
                    Some(number) => add_number(all, number.as_float()),
                    None => ignore(cell, meter),
                },
                (Growing::Distinct(seen), Cell::Whole(Value::Distinct(other))) => {
                    meter.spend(128)?;
                    seen.merge(other);
                }
                (Growing::Distinct(seen), cell) => match hash(cell) {
                    Some(hash) => seen.add(hash),
                    None => ignore(cell, meter),
                },
                (Growing::Bloom(bloom), Cell::Whole(Value::Bloom(other)))
                    if bloom.is_like(other) =>
                {
                    meter.spend_bytes(4 * bloom.bits.len())?;
                    bloom_merge(bloom, other);
                }
                (Growing::Bloom(bloom), cell) => match hash(cell) {
                    Some(hash) => bloom_add(bloom, hash),
                    None => ignore(cell, meter),
                },
                (Growing::Histogram(own), Cell::Whole(Value::Histogram(other)))
                    if own.bounds == other.bounds =>
                {
                    meter.spend(8)?;
                    histogram_merge(own, other);
                }
                (Growing::Histogram(own), cell) => match cell.number() {
                    Some(number) => histogram_add(own, number.as_float()),
                    None => ignore(cell, meter),
                },
                _ => {}
            }
            Ok(())
        })
    }

    /// A value with a weight, or with the keys of an order.
    fn pairs(
        &self,
        aggregate: &'a Aggregate,
        value: &'a Expression,
        rest: &'a [Expression],
        rows: &[usize],
        growing: &mut Growing,
        meter: &mut Meter,
    ) -> Result<(), OutOfFuel> {
        match (growing, rest) {
            (Growing::Average { values, weights }, [weight]) => {
                self.each(aggregate, rows, meter, |scope, meter| {
                    let cell = scope.compute(value, meter)?;
                    let weight = scope.compute(weight, meter)?;
                    if cell.is_null() || weight.is_null() {
                        return Ok(());
                    }
                    match weighted(&cell, Some(&weight)) {
                        Some((value, weight)) => {
                            values.add(value);
                            weights.add(weight);
                        }
                        None => ignore(&cell, meter),
                    }
                    Ok(())
                })
            }
            (Growing::First(first), [key, more @ ..]) => {
                self.each(aggregate, rows, meter, |scope, meter| {
                    // All is computed, also where the first key decides: what
                    // was ignored must not depend on the order of rows.
                    let key = scope.compute(key, meter)?;
                    let mut others = Vec::new();
                    for key in more {
                        let key = scope.compute(key, meter)?;
                        others.push(kept_key(&key, meter));
                    }
                    let cell = scope.compute(value, meter)?;
                    if !can_be_kept(&cell) {
                        ignore(&cell, meter);
                        return Ok(());
                    }
                    let is_kept = can_be_kept(&key);
                    if !is_kept {
                        ignore(&key, meter);
                    }
                    let key = if is_kept { key } else { Cell::Null };
                    if !first.may_enter(&key) {
                        return Ok(());
                    }
                    others.insert(0, key.scalar());
                    enter(&cell, others, meter, first)
                })
            }
            _ => Ok(()),
        }
    }
}

fn ignore(cell: &Cell, meter: &mut Meter) {
    if !cell.is_null() {
        meter.ignored = meter.ignored.saturating_add(1);
    }
}

fn can_be_kept(cell: &Cell) -> bool {
    cell.length() <= KEPT_BYTES_MAX && !matches!(cell, Cell::Null | Cell::Whole(_))
}

fn kept_key(key: &Cell, meter: &mut Meter) -> Option<Scalar> {
    if can_be_kept(key) {
        return key.scalar();
    }
    ignore(key, meter);
    None
}

fn enter(
    cell: &Cell,
    keys: Vec<Option<Scalar>>,
    meter: &mut Meter,
    first: &mut First,
) -> Result<(), OutOfFuel> {
    meter.spend(12)?;
    meter.spend_bytes(4 * cell.length())?;
    if let Some(value) = cell.scalar() {
        first.add(Entry { keys, value });
    }
    Ok(())
}
