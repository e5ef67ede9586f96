//! Numbers, spans and times.
//!
//! Holds: integers stay integers and are exact or NULL; floats are rounded as
//! IEEE 754 says, in one step each.

use super::Meter;
use crate::program::cell::{Cell, Number, float_of, whole};
use crate::program::plan::Binary;

pub(super) fn binary(op: Binary, one: &Cell, other: &Cell, meter: &mut Meter) -> Cell<'static> {
    match (one, other) {
        (Cell::Int(one), Cell::Int(other)) => integers(op, *one, *other),
        (Cell::Float(one), Cell::Float(other)) => floats(op, *one, *other),
        (Cell::Null, _) | (_, Cell::Null) => Cell::Null,
        _ => mixed(op, one, other).unwrap_or_else(|| meter.wrong()),
    }
}

fn integers(op: Binary, one: i64, other: i64) -> Cell<'static> {
    let result = match op {
        Binary::Add => one.checked_add(other),
        Binary::Subtract => one.checked_sub(other),
        Binary::Multiply => one.checked_mul(other),
        Binary::Divide => one.checked_div(other),
        // The smallest by -1 has the remainder 0, though its quotient is none.
        Binary::Remainder if other == -1 => Some(0),
        _ => one.checked_rem(other),
    };
    result.map_or(Cell::Null, Cell::Int)
}

fn floats(op: Binary, one: f64, other: f64) -> Cell<'static> {
    match op {
        Binary::Add => Cell::float(one + other),
        Binary::Subtract => Cell::float(one - other),
        Binary::Multiply => Cell::float(one * other),
        Binary::Divide => Cell::float(one / other),
        // Exact, on every machine.
        _ => Cell::float(one % other),
    }
}

/// `None` for kinds that do not go together.
fn mixed(op: Binary, one: &Cell, other: &Cell) -> Option<Cell<'static>> {
    use Binary::{Add, Divide, Multiply, Subtract};
    Some(match (op, one, other) {
        (Add, Cell::Time(at), Cell::Duration(by)) | (Add, Cell::Duration(by), Cell::Time(at)) => {
            moved(*at, *by)
        }
        (Subtract, Cell::Time(at), Cell::Duration(by)) => {
            by.checked_neg().map_or(Cell::Null, |by| moved(*at, by))
        }
        (Subtract, Cell::Time(one), Cell::Time(other)) => between(*one, *other),
        (Add | Subtract, Cell::Duration(one), Cell::Duration(other)) => {
            match integers(op, *one, *other) {
                Cell::Int(nanos) => Cell::Duration(nanos),
                _ => Cell::Null,
            }
        }
        (Divide, Cell::Duration(one), Cell::Duration(other)) => {
            Cell::float(float_of(*one) / float_of(*other))
        }
        (Multiply | Divide, Cell::Duration(nanos), by) | (Multiply, by, Cell::Duration(nanos)) => {
            scaled(op, *nanos, by.number()?)
        }
        _ => match (one.number()?, other.number()?) {
            (Number::Int(one), Number::Int(other)) => integers(op, one, other),
            (one, other) => floats(op, one.as_float(), other.as_float()),
        },
    })
}

fn moved(millis: u64, by_nanos: i64) -> Cell<'static> {
    let moved = millis.checked_add_signed(by_nanos.div_euclid(1_000_000));
    moved.map_or(Cell::Null, Cell::Time)
}

fn between(one: u64, other: u64) -> Cell<'static> {
    let millis = i128::from(one) - i128::from(other);
    let nanos = i64::try_from(millis * 1_000_000);
    nanos.map_or(Cell::Null, Cell::Duration)
}

fn scaled(op: Binary, nanos: i64, by: Number) -> Cell<'static> {
    let scaled = match (op, by) {
        (Binary::Multiply, Number::Int(by)) => nanos.checked_mul(by),
        (_, Number::Int(by)) => nanos.checked_div(by),
        (Binary::Multiply, Number::Float(by)) => whole(float_of(nanos) * by),
        (_, Number::Float(by)) => whole(float_of(nanos) / by),
    };
    scaled.map_or(Cell::Null, Cell::Duration)
}

pub(super) fn negative(cell: &Cell, meter: &mut Meter) -> Cell<'static> {
    match cell {
        Cell::Null => Cell::Null,
        Cell::Int(int) => int.checked_neg().map_or(Cell::Null, Cell::Int),
        Cell::Float(float) => Cell::float(-float),
        Cell::Bool(truth) => Cell::Int(-i64::from(*truth)),
        Cell::Duration(nanos) => nanos.checked_neg().map_or(Cell::Null, Cell::Duration),
        _ => meter.wrong(),
    }
}

pub(super) fn absolute(cell: &Cell, meter: &mut Meter) -> Cell<'static> {
    match cell {
        Cell::Int(int) => int.checked_abs().map_or(Cell::Null, Cell::Int),
        Cell::Float(float) => Cell::float(float.abs()),
        Cell::Duration(nanos) => nanos.checked_abs().map_or(Cell::Null, Cell::Duration),
        Cell::Null => Cell::Null,
        _ => meter.wrong(),
    }
}

pub(super) fn sign(cell: &Cell, meter: &mut Meter) -> Cell<'static> {
    match cell {
        Cell::Int(int) | Cell::Duration(int) => Cell::Int(int.signum()),
        Cell::Float(float) if *float == 0.0 => Cell::Int(0),
        Cell::Float(float) => Cell::Int(if *float < 0.0 { -1 } else { 1 }),
        Cell::Null => Cell::Null,
        _ => meter.wrong(),
    }
}

/// To this many decimals, halves away from zero.
pub(super) fn round(cell: &Cell, decimals: &Cell, meter: &mut Meter) -> Cell<'static> {
    /// Powers of ten that a float holds exactly.
    const EXACT_MAX: i64 = 15;
    let (float, decimals) = match (cell, decimals) {
        (Cell::Null, _) | (_, Cell::Null) => return Cell::Null,
        (Cell::Int(int), Cell::Int(0..)) => return Cell::Int(*int),
        (Cell::Float(float), Cell::Int(decimals)) => (*float, (*decimals).clamp(0, EXACT_MAX)),
        _ => return meter.wrong(),
    };
    let scale = (0..decimals).fold(1.0, |scale, _| scale * 10.0);
    // Where nothing is left to round, scaling would only lose digits.
    if float.abs() >= 4_503_599_627_370_496.0 / scale {
        return Cell::float(float);
    }
    Cell::float((float * scale).round() / scale)
}

/// One of the functions that IEEE 754 fixes to the last bit.
pub(super) fn exact(cell: &Cell, of: fn(f64) -> f64, meter: &mut Meter) -> Cell<'static> {
    match cell {
        Cell::Null => Cell::Null,
        Cell::Int(int) => Cell::Int(*int),
        Cell::Float(float) => Cell::float(of(*float)),
        _ => meter.wrong(),
    }
}

pub(super) fn square_root(cell: &Cell, meter: &mut Meter) -> Cell<'static> {
    match cell.number() {
        Some(number) => Cell::float(number.as_float().sqrt()),
        None if cell.is_null() => Cell::Null,
        None => meter.wrong(),
    }
}

pub(super) fn to_int(cell: &Cell, meter: &mut Meter) -> Cell<'static> {
    match cell {
        Cell::Null => Cell::Null,
        Cell::Text(text) => text.trim().parse().map_or(Cell::Null, Cell::Int),
        _ => match cell.number() {
            Some(Number::Int(int)) => Cell::Int(int),
            Some(Number::Float(float)) => whole(float).map_or(Cell::Null, Cell::Int),
            None => meter.wrong(),
        },
    }
}

pub(super) fn to_float(cell: &Cell, meter: &mut Meter) -> Cell<'static> {
    match cell {
        Cell::Null => Cell::Null,
        Cell::Text(text) => text.trim().parse().map_or(Cell::Null, Cell::float),
        _ => match cell.number() {
            Some(number) => Cell::float(number.as_float()),
            None => meter.wrong(),
        },
    }
}
