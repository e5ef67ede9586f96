//! Computes an expression, over one row or over what was gathered.
//!
//! Holds: total: each operator gives a value or NULL. NULL stands for what is
//! not known, and for what cannot be said: a division by zero, a number out of
//! range, a value of a type that the operator does not take (which is counted).
//! Each step costs fuel.
//! Never: calls a function of the machine's mathematics library but those that
//! IEEE 754 fixes to the last bit.

mod arithmetic;
mod call;
mod text;
mod time;

use super::cell::Cell;
use super::error::OutOfFuel;
use super::plan::{Binary, Expression, Is};
use crate::program::gather;
use std::cmp::Ordering;
use wire::attributes::Value;

pub(super) type Computed<'a> = Result<Cell<'a>, OutOfFuel>;

/// What is left to spend, and what could not be used.
#[derive(Debug)]
pub(super) struct Meter {
    pub fuel: u64,
    pub ignored: u64,
}

impl Meter {
    #[inline]
    pub(super) fn spend(&mut self, units: u64) -> Result<(), OutOfFuel> {
        let left = self.fuel.checked_sub(units);
        self.fuel = left.unwrap_or(0);
        left.map(drop).ok_or(OutOfFuel)
    }

    /// For what touches that many bytes.
    #[inline]
    pub(super) fn spend_bytes(&mut self, bytes: usize) -> Result<(), OutOfFuel> {
        self.spend(u64::try_from(bytes / 16).unwrap_or(u64::MAX))
    }

    /// A value of a wrong type: NULL.
    fn wrong(&mut self) -> Cell<'static> {
        self.ignored = self.ignored.saturating_add(1);
        Cell::Null
    }
}

/// What columns and states stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    /// By the plan's numbers, then by row.
    pub columns: &'a [&'a [Option<Value>]],
    pub row: usize,
    /// What each state came to; empty below.
    pub results: &'a [gather::Gathered],
    /// Milliseconds since 1970.
    pub now: u64,
}

impl<'a> Scope<'a> {
    #[inline]
    pub(super) fn column(&self, index: usize) -> Cell<'a> {
        let column = self.columns.get(index);
        match column.and_then(|column| column.get(self.row)) {
            Some(Some(value)) => Cell::of(value),
            _ => Cell::Null,
        }
    }

    #[inline]
    pub(super) fn compute(&self, of: &'a Expression, meter: &mut Meter) -> Computed<'a> {
        match of {
            Expression::Column(index) => {
                meter.spend(1)?;
                Ok(self.column(*index))
            }
            Expression::Constant(value) => Ok(Cell::of(value)),
            other => self.compute_node(other, meter),
        }
    }

    fn compute_node(&self, of: &'a Expression, meter: &mut Meter) -> Computed<'a> {
        meter.spend(1)?;
        match of {
            Expression::Null => Ok(Cell::Null),
            Expression::Constant(value) => Ok(Cell::of(value)),
            Expression::Column(index) => Ok(self.column(*index)),
            Expression::State(index) => Ok(self.result(*index)),
            Expression::Quantile(index, share) => {
                meter.spend(8)?;
                Ok(self.quantile(*index, *share))
            }
            Expression::Not(of) => {
                let truth = self.truth(of, meter)?;
                Ok(truth.map_or(Cell::Null, |truth| Cell::Bool(!truth)))
            }
            Expression::Negative(of) => {
                let cell = self.compute(of, meter)?;
                Ok(arithmetic::negative(&cell, meter))
            }
            Expression::And(one, other) => self.and(one, other, false, meter),
            Expression::Or(one, other) => self.and(one, other, true, meter),
            Expression::Binary(op, one, other) => {
                let one = self.compute(one, meter)?;
                let other = self.compute(other, meter)?;
                binary(*op, &one, &other, meter)
            }
            Expression::Is(is, of) => self.is(*is, of, meter),
            Expression::Between(value, low, high) => {
                let value = self.compute(value, meter)?;
                let low = self.compute(low, meter)?;
                let from = comparison(Binary::GreaterOrEqual, &value, &low, meter)?;
                let high = self.compute(high, meter)?;
                let to = comparison(Binary::LessOrEqual, &value, &high, meter)?;
                Ok(both(from, to))
            }
            Expression::In(value, list) => self.is_in(value, list, meter),
            Expression::Like(value, pattern) => {
                let value = self.compute(value, meter)?;
                let pattern = self.compute(pattern, meter)?;
                text::like(&value, &pattern, meter)
            }
            Expression::Case {
                operand,
                branches,
                otherwise,
            } => self.case(operand.as_deref(), branches, otherwise, meter),
            Expression::Call(function, arguments) => self.call(*function, arguments, meter),
        }
    }

    fn result(&self, index: usize) -> Cell<'a> {
        match self.results.get(index) {
            Some(gather::Gathered::Value(value)) => Cell::of(value),
            _ => Cell::Null,
        }
    }

    fn quantile(&self, index: usize, share: f64) -> Cell<'a> {
        match self.results.get(index) {
            Some(gather::Gathered::Quantiles(all)) => gather::quantile(all, share),
            _ => Cell::Null,
        }
    }

    /// Whether a condition holds; `None` when that is not known.
    #[inline]
    pub(super) fn truth(
        &self,
        of: &'a Expression,
        meter: &mut Meter,
    ) -> Result<Option<bool>, OutOfFuel> {
        let cell = self.compute(of, meter)?;
        Ok(cell.truth().unwrap_or_else(|()| {
            let _ = meter.wrong();
            None
        }))
    }

    /// AND, and OR, which is the same with truth turned around.
    fn and(
        &self,
        one: &'a Expression,
        other: &'a Expression,
        decides: bool,
        meter: &mut Meter,
    ) -> Computed<'a> {
        let one = self.truth(one, meter)?;
        if one == Some(decides) {
            return Ok(Cell::Bool(decides));
        }
        let other = self.truth(other, meter)?;
        Ok(match (one, other) {
            (_, Some(other)) if other == decides => Cell::Bool(decides),
            (Some(_), Some(_)) => Cell::Bool(!decides),
            _ => Cell::Null,
        })
    }

    fn is(&self, is: Is, of: &'a Expression, meter: &mut Meter) -> Computed<'a> {
        Ok(Cell::Bool(match is {
            Is::Null => self.compute(of, meter)?.is_null(),
            Is::True => self.truth(of, meter)? == Some(true),
            Is::False => self.truth(of, meter)? == Some(false),
        }))
    }

    fn is_in(
        &self,
        value: &'a Expression,
        list: &'a [Expression],
        meter: &mut Meter,
    ) -> Computed<'a> {
        let value = self.compute(value, meter)?;
        let mut known = true;
        for one in list {
            let one = self.compute(one, meter)?;
            match comparison(Binary::Equal, &value, &one, meter)? {
                Some(true) => return Ok(Cell::Bool(true)),
                Some(false) => {}
                None => known = false,
            }
        }
        Ok(if known { Cell::Bool(false) } else { Cell::Null })
    }

    fn case(
        &self,
        operand: Option<&'a Expression>,
        branches: &'a [(Expression, Expression)],
        otherwise: &'a Expression,
        meter: &mut Meter,
    ) -> Computed<'a> {
        let operand = operand.map(|of| self.compute(of, meter)).transpose()?;
        for (condition, result) in branches {
            let holds = match &operand {
                None => self.truth(condition, meter)?,
                Some(operand) => {
                    let condition = self.compute(condition, meter)?;
                    comparison(Binary::Equal, operand, &condition, meter)?
                }
            };
            if holds == Some(true) {
                return self.compute(result, meter);
            }
        }
        self.compute(otherwise, meter)
    }
}

#[inline]
fn binary<'a>(op: Binary, one: &Cell<'a>, other: &Cell<'a>, meter: &mut Meter) -> Computed<'a> {
    match op {
        Binary::Add | Binary::Subtract | Binary::Multiply | Binary::Divide | Binary::Remainder => {
            Ok(arithmetic::binary(op, one, other, meter))
        }
        Binary::Join => text::join(one, other, meter),
        Binary::Same if one.is_null() || other.is_null() => {
            Ok(Cell::Bool(one.is_null() && other.is_null()))
        }
        Binary::Same => {
            let same = comparison(Binary::Equal, one, other, meter)?;
            Ok(Cell::Bool(same == Some(true)))
        }
        _ => Ok(comparison(op, one, other, meter)?.map_or(Cell::Null, Cell::Bool)),
    }
}

/// Of kinds that cannot be compared nothing is known.
#[inline]
fn comparison(
    op: Binary,
    one: &Cell,
    other: &Cell,
    meter: &mut Meter,
) -> Result<Option<bool>, OutOfFuel> {
    if one.is_null() || other.is_null() {
        return Ok(None);
    }
    let Some(order) = one.compare(other) else {
        let _ = meter.wrong();
        return Ok(None);
    };
    meter.spend_bytes(one.length().min(other.length()))?;
    Ok(Some(match op {
        Binary::Unequal => order != Ordering::Equal,
        Binary::Less => order == Ordering::Less,
        Binary::LessOrEqual => order != Ordering::Greater,
        Binary::Greater => order == Ordering::Greater,
        Binary::GreaterOrEqual => order != Ordering::Less,
        _ => order == Ordering::Equal,
    }))
}

fn both(one: Option<bool>, other: Option<bool>) -> Cell<'static> {
    match (one, other) {
        (Some(false), _) | (_, Some(false)) => Cell::Bool(false),
        (Some(true), Some(true)) => Cell::Bool(true),
        _ => Cell::Null,
    }
}
