//! Times, all in UTC, and spans.

use super::{Computed, Meter};
use crate::program::cell::{Cell, float_of, whole};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

const NANOS_PER_SECOND: f64 = 1e9;

pub(super) fn seconds(cell: &Cell, meter: &mut Meter) -> Cell<'static> {
    match cell {
        Cell::Null => Cell::Null,
        Cell::Duration(nanos) => Cell::float(float_of(*nanos) / NANOS_PER_SECOND),
        _ => meter.wrong(),
    }
}

pub(super) fn duration(cell: &Cell, meter: &mut Meter) -> Cell<'static> {
    match cell.number() {
        Some(seconds) => {
            whole(seconds.as_float() * NANOS_PER_SECOND).map_or(Cell::Null, Cell::Duration)
        }
        None if cell.is_null() => Cell::Null,
        None => meter.wrong(),
    }
}

pub(super) fn unix_seconds(cell: &Cell, meter: &mut Meter) -> Cell<'static> {
    match cell {
        Cell::Null => Cell::Null,
        Cell::Time(millis) => i64::try_from(millis / SECOND).map_or(Cell::Null, Cell::Int),
        _ => meter.wrong(),
    }
}

pub(super) fn from_unix(cell: &Cell, meter: &mut Meter) -> Cell<'static> {
    match cell {
        Cell::Null => Cell::Null,
        Cell::Int(seconds) => {
            let millis = u64::try_from(*seconds)
                .ok()
                .and_then(|s| s.checked_mul(SECOND));
            millis.map_or(Cell::Null, Cell::Time)
        }
        Cell::Float(seconds) => {
            let millis = whole(seconds * 1e3).and_then(|ms| u64::try_from(ms).ok());
            millis.map_or(Cell::Null, Cell::Time)
        }
        _ => meter.wrong(),
    }
}

/// A part of a date by its name; NULL for a name that is none.
pub(super) fn part<'a>(name: &Cell, time: &Cell, meter: &mut Meter) -> Computed<'a> {
    if name.is_null() || time.is_null() {
        return Ok(Cell::Null);
    }
    let (Some(name), Cell::Time(millis)) = (name.text(), time) else {
        return Ok(meter.wrong());
    };
    meter.spend(4)?;
    let (year, month, day) = civil(millis / DAY);
    let number = match name {
        "year" => year,
        "month" => month,
        "day" => day,
        "hour" => millis % DAY / HOUR,
        "minute" => millis % HOUR / MINUTE,
        "second" => millis % MINUTE / SECOND,
        // Monday is 1: the first of 1970 was a Thursday.
        "weekday" => (millis / DAY + 3) % 7 + 1,
        _ => return Ok(Cell::Null),
    };
    Ok(i64::try_from(number).map_or(Cell::Null, Cell::Int))
}

pub(super) fn truncated(name: &Cell, time: &Cell, meter: &mut Meter) -> Cell<'static> {
    if name.is_null() || time.is_null() {
        return Cell::Null;
    }
    let (Some(name), Cell::Time(millis)) = (name.text(), time) else {
        return meter.wrong();
    };
    let step = match name {
        "second" => SECOND,
        "minute" => MINUTE,
        "hour" => HOUR,
        "day" => DAY,
        _ => return Cell::Null,
    };
    Cell::Time(millis - millis % step)
}

/// Year, month and day of a day since 1970 (Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms", 2013, for days at or after that).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::civil;

    #[test]
    fn days_are_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_782), (2026, 11, 25));
        assert_eq!(civil(47_540), (2100, 2, 28));
        assert_eq!(civil(47_541), (2100, 3, 1));
    }
}
