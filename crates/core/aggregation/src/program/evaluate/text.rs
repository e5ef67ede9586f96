//! Texts: characters are Unicode's, cases are ASCII's alone, since the rest
//! changes with Unicode's versions.
//!
//! Holds: no text that is made is longer than [`Limits::MADE_BYTES_MAX`]; a
//! longer one is NULL.

use super::{Computed, Meter};
use crate::program::cell::Cell;
use crate::program::error::OutOfFuel;
use crate::program::limits::Limits;
use std::borrow::Cow;
use wire::attributes::Value;

fn made(text: String) -> Cell<'static> {
    if text.len() > Limits::MADE_BYTES_MAX {
        return Cell::Null;
    }
    Cell::Text(Cow::Owned(text))
}

/// Part of a text: borrowed where that one was.
fn part<'a>(of: &Cell<'a>, from: usize, to: usize) -> Cell<'a> {
    match of {
        Cell::Text(Cow::Borrowed(text)) => text
            .get(from..to)
            .map_or(Cell::Null, |part| Cell::Text(Cow::Borrowed(part))),
        Cell::Text(Cow::Owned(text)) => text
            .get(from..to)
            .map_or(Cell::Null, |part| made(part.to_owned())),
        _ => Cell::Null,
    }
}

/// `None`, which is NULL, unless all are texts; other types are counted.
fn all<'b, const N: usize>(cells: [&'b Cell; N], meter: &mut Meter) -> Option<[&'b str; N]> {
    let mut texts = [""; N];
    for (text, cell) in texts.iter_mut().zip(cells) {
        match cell.text() {
            Some(found) => *text = found,
            None if cell.is_null() || cells.iter().any(|cell| cell.is_null()) => return None,
            None => {
                let _ = meter.wrong();
                return None;
            }
        }
    }
    Some(texts)
}

pub(super) fn join<'a>(one: &Cell, other: &Cell, meter: &mut Meter) -> Computed<'a> {
    if one.is_null() || other.is_null() {
        return Ok(Cell::Null);
    }
    let (Some(one), Some(other)) = (spelt(one), spelt(other)) else {
        return Ok(meter.wrong());
    };
    let length = one.len() + other.len();
    if length > Limits::MADE_BYTES_MAX {
        return Ok(Cell::Null);
    }
    meter.spend_bytes(64 + length)?;
    Ok(made([one, other].concat()))
}

pub(super) fn to_text<'a>(cell: &Cell<'a>, meter: &mut Meter) -> Computed<'a> {
    match cell {
        Cell::Text(_) | Cell::Null => Ok(cell.clone()),
        _ => {
            meter.spend(16)?;
            let spelt = spelt(cell).map(|text| made(text.into_owned()));
            Ok(spelt.unwrap_or_else(|| meter.wrong()))
        }
    }
}

/// As it is written in a program; a float by the fewest digits that are it.
fn spelt<'b>(cell: &'b Cell) -> Option<Cow<'b, str>> {
    Some(match cell {
        Cell::Text(text) => Cow::Borrowed(text.as_ref()),
        Cell::Bool(truth) => Cow::Borrowed(if *truth { "true" } else { "false" }),
        Cell::Int(int) => Cow::Owned(int.to_string()),
        Cell::Float(float) => Cow::Owned(format!("{float:?}")),
        _ => return None,
    })
}

pub(super) fn length<'a>(cell: &Cell, meter: &mut Meter) -> Computed<'a> {
    let count = match cell {
        Cell::Null => return Ok(Cell::Null),
        Cell::Text(text) => {
            meter.spend_bytes(text.len())?;
            text.chars().count()
        }
        Cell::Bytes(bytes) => bytes.len(),
        Cell::Whole(Value::Set(set)) => set.len(),
        Cell::Whole(Value::List(list)) => list.len(),
        _ => return Ok(meter.wrong()),
    };
    Ok(Cell::Int(i64::try_from(count).unwrap_or(i64::MAX)))
}

pub(super) fn cased<'a>(cell: &Cell<'a>, upper: bool, meter: &mut Meter) -> Computed<'a> {
    let Some([text]) = all([cell], meter) else {
        return Ok(Cell::Null);
    };
    meter.spend_bytes(64 + text.len())?;
    if text.len() > Limits::MADE_BYTES_MAX {
        return Ok(Cell::Null);
    }
    Ok(made(if upper {
        text.to_ascii_uppercase()
    } else {
        text.to_ascii_lowercase()
    }))
}

/// Spaces at the ends.
pub(super) fn trimmed<'a>(
    cell: &Cell<'a>,
    left: bool,
    right: bool,
    meter: &mut Meter,
) -> Computed<'a> {
    let Some([text]) = all([cell], meter) else {
        return Ok(Cell::Null);
    };
    meter.spend_bytes(text.len())?;
    let from = if left {
        text.len() - text.trim_start_matches(' ').len()
    } else {
        0
    };
    let to = if right {
        text.trim_end_matches(' ').len()
    } else {
        text.len()
    };
    Ok(part(cell, from, to.max(from)))
}

/// From the `from`th character, the first being 1; SQL counts those before the
/// text too.
pub(super) fn substr<'a>(
    cell: &Cell<'a>,
    from: &Cell,
    count: Option<&Cell>,
    meter: &mut Meter,
) -> Computed<'a> {
    if from.is_null() || count.is_some_and(Cell::is_null) {
        return Ok(Cell::Null);
    }
    let Some([text]) = all([cell], meter) else {
        return Ok(Cell::Null);
    };
    let (Cell::Int(from), None | Some(Cell::Int(_))) = (from, count) else {
        return Ok(meter.wrong());
    };
    let end = match count {
        Some(Cell::Int(count)) if *count < 0 => return Ok(Cell::Null),
        Some(Cell::Int(count)) => from.saturating_add(*count),
        _ => i64::MAX,
    };
    meter.spend_bytes(text.len())?;
    let place = |character: i64| {
        let skipped = usize::try_from(character - 1).unwrap_or(0);
        text.char_indices()
            .nth(skipped)
            .map_or(text.len(), |(at, _)| at)
    };
    let from = place((*from).max(1));
    Ok(part(cell, from, place(end.max(1)).max(from)))
}

pub(super) fn replace<'a>(cell: &Cell, old: &Cell, new: &Cell, meter: &mut Meter) -> Computed<'a> {
    let Some([text, old, new]) = all([cell, old, new], meter) else {
        return Ok(Cell::Null);
    };
    search_cost(text, old, meter)?;
    let grown = if old.is_empty() {
        0
    } else {
        text.matches(old).count()
    };
    let length = text.len() - grown * old.len() + grown * new.len();
    if length > Limits::MADE_BYTES_MAX {
        return Ok(Cell::Null);
    }
    meter.spend_bytes(64 + length)?;
    if old.is_empty() {
        return Ok(made(text.to_owned()));
    }
    Ok(made(text.replace(old, new)))
}

/// The standard library searches in linear time; setting up costs some.
fn search_cost(text: &str, part: &str, meter: &mut Meter) -> Result<(), OutOfFuel> {
    meter.spend_bytes(256 + 4 * (text.len() + part.len()))
}

/// Which character a part begins at, from 1; 0 when it is not there.
pub(super) fn instr<'a>(cell: &Cell, wanted: &Cell, meter: &mut Meter) -> Computed<'a> {
    let Some([text, wanted]) = all([cell, wanted], meter) else {
        return Ok(Cell::Null);
    };
    search_cost(text, wanted, meter)?;
    let before = text.find(wanted).map(|at| text[..at].chars().count() + 1);
    Ok(Cell::Int(
        i64::try_from(before.unwrap_or(0)).unwrap_or(i64::MAX),
    ))
}

pub(super) fn at_end<'a>(
    cell: &Cell,
    wanted: &Cell,
    start: bool,
    meter: &mut Meter,
) -> Computed<'a> {
    let Some([text, wanted]) = all([cell, wanted], meter) else {
        return Ok(Cell::Null);
    };
    meter.spend_bytes(wanted.len())?;
    Ok(Cell::Bool(if start {
        text.starts_with(wanted)
    } else {
        text.ends_with(wanted)
    }))
}

/// The `n`th part between separators, from 1; empty beyond.
pub(super) fn split_part<'a>(
    cell: &Cell<'a>,
    separator: &Cell,
    number: &Cell,
    meter: &mut Meter,
) -> Computed<'a> {
    if number.is_null() {
        return Ok(Cell::Null);
    }
    let Some([text, separator]) = all([cell, separator], meter) else {
        return Ok(Cell::Null);
    };
    let Cell::Int(number) = number else {
        return Ok(meter.wrong());
    };
    search_cost(text, separator, meter)?;
    let index = usize::try_from(number.saturating_sub(1))
        .ok()
        .filter(|_| !separator.is_empty());
    let Some(index) = index else {
        return Ok(Cell::Null);
    };
    let found = text.split(separator).nth(index).unwrap_or_default();
    // Where it stands, to borrow it again.
    let from = (found.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    let from = if found.is_empty() { 0 } else { from };
    Ok(part(cell, from, from + found.len()))
}

/// `%` for any text, `_` for any character. Greedy, going back to the last `%`
/// only, so its time is the product of the lengths; each step is paid for.
pub(super) fn like<'a>(cell: &Cell, pattern: &Cell, meter: &mut Meter) -> Computed<'a> {
    let Some([text, pattern]) = all([cell, pattern], meter) else {
        return Ok(Cell::Null);
    };
    let (mut at, mut wanted) = (text.chars(), pattern.chars());
    let mut again: Option<(std::str::Chars, std::str::Chars)> = None;
    let mut steps = 0_u64;
    loop {
        steps += 1;
        if steps.is_multiple_of(2) {
            meter.spend(1)?;
        }
        let (here, next) = (at.clone().next(), wanted.clone().next());
        match (here, next) {
            (_, Some('%')) => {
                wanted.next();
                again = Some((at.clone(), wanted.clone()));
            }
            (None, None) => return Ok(Cell::Bool(true)),
            (Some(here), Some(next)) if next == '_' || next == here => {
                at.next();
                wanted.next();
            }
            _ => {
                let Some((from, rest)) = &mut again else {
                    return Ok(Cell::Bool(false));
                };
                if from.next().is_none() {
                    return Ok(Cell::Bool(false));
                }
                (at, wanted) = (from.clone(), rest.clone());
            }
        }
    }
}
