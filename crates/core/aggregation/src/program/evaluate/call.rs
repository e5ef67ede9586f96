//! Calls of functions by their number.

use super::{Computed, Meter, Scope, arithmetic, comparison, text, time};
use crate::program::cell::Cell;
use crate::program::functions::Function;
use crate::program::gather;
use crate::program::plan::{Binary, Expression};
use std::cmp::Ordering;
use wire::attributes::{Scalar, Value};

impl<'a> Scope<'a> {
    pub(super) fn call(
        &self,
        function: Function,
        arguments: &'a [Expression],
        meter: &mut Meter,
    ) -> Computed<'a> {
        match (function, arguments) {
            (Function::Coalesce, all) => self.coalesce(all, meter),
            (Function::Least, all) => self.extreme(all, Ordering::Less, meter),
            (Function::Greatest, all) => self.extreme(all, Ordering::Greater, meter),
            (Function::Now, _) => Ok(Cell::Time(self.now)),
            (_, [one]) => {
                let one = self.compute(one, meter)?;
                of_one(function, &one, meter)
            }
            (_, [one, other]) => {
                let one = self.compute(one, meter)?;
                let other = self.compute(other, meter)?;
                of_two(function, &one, &other, meter)
            }
            (_, [one, other, third]) => {
                let one = self.compute(one, meter)?;
                let other = self.compute(other, meter)?;
                let third = self.compute(third, meter)?;
                match function {
                    Function::Substr => text::substr(&one, &other, Some(&third), meter),
                    Function::Replace => text::replace(&one, &other, &third, meter),
                    _ => text::split_part(&one, &other, &third, meter),
                }
            }
            _ => Ok(Cell::Null),
        }
    }

    fn coalesce(&self, all: &'a [Expression], meter: &mut Meter) -> Computed<'a> {
        for one in all {
            let cell = self.compute(one, meter)?;
            if !cell.is_null() {
                return Ok(cell);
            }
        }
        Ok(Cell::Null)
    }

    /// NULL when any is, as in SQL; of equals the first.
    fn extreme(&self, all: &'a [Expression], wanted: Ordering, meter: &mut Meter) -> Computed<'a> {
        let mut best: Option<Cell> = None;
        let mut known = true;
        for one in all {
            let cell = self.compute(one, meter)?;
            known &= !cell.is_null();
            best = Some(match best {
                None => cell,
                Some(best) => match (comparison(Binary::Less, &cell, &best, meter)?, wanted) {
                    (None, _) => {
                        known = false;
                        best
                    }
                    (Some(_), _) if cell.compare(&best) == Some(wanted) => cell,
                    _ => best,
                },
            });
        }
        Ok(best.filter(|_| known).unwrap_or(Cell::Null))
    }
}

fn of_one<'a>(function: Function, one: &Cell<'a>, meter: &mut Meter) -> Computed<'a> {
    Ok(match function {
        Function::Abs => arithmetic::absolute(one, meter),
        Function::Sign => arithmetic::sign(one, meter),
        Function::Round => arithmetic::round(one, &Cell::Int(0), meter),
        Function::Floor => arithmetic::exact(one, f64::floor, meter),
        Function::Ceil => arithmetic::exact(one, f64::ceil, meter),
        Function::Sqrt => arithmetic::square_root(one, meter),
        Function::Int => {
            meter.spend_bytes(one.length())?;
            arithmetic::to_int(one, meter)
        }
        Function::Float => {
            meter.spend_bytes(8 * one.length())?;
            arithmetic::to_float(one, meter)
        }
        Function::Text => return text::to_text(one, meter),
        Function::Length => return text::length(one, meter),
        Function::Lower => return text::cased(one, false, meter),
        Function::Upper => return text::cased(one, true, meter),
        Function::Trim => return text::trimmed(one, true, true, meter),
        Function::TrimLeft => return text::trimmed(one, true, false, meter),
        Function::TrimRight => return text::trimmed(one, false, true, meter),
        Function::Time => time::from_unix(one, meter),
        Function::UnixSeconds => time::unix_seconds(one, meter),
        Function::Seconds => time::seconds(one, meter),
        Function::Duration => time::duration(one, meter),
        _ => Cell::Null,
    })
}

fn of_two<'a>(
    function: Function,
    one: &Cell<'a>,
    other: &Cell<'a>,
    meter: &mut Meter,
) -> Computed<'a> {
    match function {
        Function::Round => Ok(arithmetic::round(one, other, meter)),
        Function::NullIf => Ok(match comparison(Binary::Equal, one, other, meter)? {
            Some(true) => Cell::Null,
            _ => one.clone(),
        }),
        Function::Substr => text::substr(one, other, None, meter),
        Function::Instr => text::instr(one, other, meter),
        Function::StartsWith => text::at_end(one, other, true, meter),
        Function::EndsWith => text::at_end(one, other, false, meter),
        Function::Contains => contains(one, other, meter),
        Function::DatePart => time::part(one, other, meter),
        Function::DateTrunc => Ok(time::truncated(one, other, meter)),
        _ => Ok(Cell::Null),
    }
}

/// Whether a set or a list has a value, or a Bloom filter may have it; of a
/// text, whether it has a part.
fn contains<'a>(whole: &Cell, wanted: &Cell, meter: &mut Meter) -> Computed<'a> {
    if whole.is_null() || wanted.is_null() {
        return Ok(Cell::Null);
    }
    let found = match (whole, wanted) {
        (Cell::Text(_), Cell::Text(_)) => {
            let at = text::instr(whole, wanted, meter)?;
            matches!(at, Cell::Int(1..))
        }
        (Cell::Whole(Value::Set(set)), Cell::Text(wanted)) => {
            meter.spend_bytes(64 + 8 * wanted.len())?;
            set.contains(wanted.as_ref())
        }
        (Cell::Whole(Value::List(list)), wanted) => {
            let bytes: usize = list.iter().map(length).sum();
            meter.spend_bytes(16 * list.len() + bytes)?;
            let wanted = wanted.scalar();
            list.iter().any(|one| Some(one) == wanted.as_ref())
        }
        (Cell::Whole(Value::Bloom(bloom)), wanted) => {
            meter.spend_bytes(128 + 4 * wanted.length())?;
            match gather::hash(wanted) {
                Some(hash) => gather::bloom_has(bloom, hash),
                None => return Ok(meter.wrong()),
            }
        }
        _ => return Ok(meter.wrong()),
    };
    Ok(Cell::Bool(found))
}

fn length(scalar: &Scalar) -> usize {
    match scalar {
        Scalar::Text(text) => text.len(),
        Scalar::Bytes(bytes) => bytes.len(),
        _ => 0,
    }
}
