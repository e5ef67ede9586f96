//! When a job is due: a cron pattern on the clock of a time zone.
//!
//! In: five fields, or six that begin with the second, and a zone's name. Out:
//! instants, in milliseconds since 1970.
//! Holds: the pattern was read once and is due at some time; the time zones are
//! those this program was built with, the same on every node.
//! Never: asks what time it is, or the machine for its time zones.

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::time::{CivilDate, CivilDateTime, CivilTime, CronDateTime, Resolution, Weekday};
use croner::{Cron, Direction};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ZonedDateTime};
use kernel::UnixMillis;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;

/// A pattern that is longer is no person's.
const PATTERN_BYTES_MAX: usize = 200;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// As it was written: `0 3 * * *`.
    pub pattern: String,
    /// `Europe/Vienna`.
    pub time_zone: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    #[error("this is no cron pattern: {0}")]
    Pattern(String),
    #[error("it is never due: no such day comes")]
    Never,
    #[error("there is no time zone of that name")]
    TimeZone,
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pattern, self.time_zone)
    }
}

impl Schedule {
    /// # Errors
    /// What is wrong with it.
    pub fn new(pattern: &str, time_zone: &str) -> Result<Self, ScheduleError> {
        let schedule = Self {
            pattern: pattern.to_owned(),
            time_zone: time_zone.to_owned(),
        };
        let cron = schedule.cron()?;
        schedule.zone().ok_or(ScheduleError::TimeZone)?;
        let epoch = Timestamp::UNIX_EPOCH.to_zoned_datetime(TimeZone::UTC);
        let first = cron.find_next_occurrence(&At(epoch), true);
        first.map_err(|_| ScheduleError::Never)?;
        Ok(schedule)
    }

    /// The last instant up to `until`, itself included.
    pub fn last(&self, until: UnixMillis) -> Option<UnixMillis> {
        self.find(until, Direction::Backward)
    }

    /// The first instant after `after`.
    pub fn next(&self, after: UnixMillis) -> Option<UnixMillis> {
        self.find(after, Direction::Forward)
    }

    fn cron(&self) -> Result<Cron, ScheduleError> {
        let wrong = |error: CronError| ScheduleError::Pattern(told(&error));
        if self.pattern.len() > PATTERN_BYTES_MAX {
            let message = format!("it is longer than {PATTERN_BYTES_MAX} bytes");
            return Err(ScheduleError::Pattern(message));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build();
        parser.parse(&self.pattern).map_err(wrong)
    }

    fn zone(&self) -> Option<TimeZone> {
        match self.time_zone.as_str() {
            "UTC" => Some(TimeZone::UTC),
            name => TimeZone::get(name).ok(),
        }
    }

    fn find(&self, from: UnixMillis, direction: Direction) -> Option<UnixMillis> {
        // Instants are whole seconds, and the search leaves off what is below one.
        let second = i64::try_from(from.0 / 1_000).ok()?;
        let from = Timestamp::from_second(second)
            .ok()?
            .to_zoned_datetime(self.zone()?);
        let cron = self.cron().ok()?;
        let found = match direction {
            Direction::Forward => cron.find_next_occurrence(&At(from), false),
            Direction::Backward => cron.find_previous_occurrence(&At(from), true),
        };
        let milliseconds = found.ok()?.0.timestamp().as_millisecond();
        u64::try_from(milliseconds).ok().map(UnixMillis)
    }
}

/// The parser's own words, without its names for itself.
fn told(error: &CronError) -> String {
    let text = match error {
        CronError::EmptyPattern => "it is empty".to_owned(),
        CronError::InvalidPattern(why)
        | CronError::IllegalCharacters(why)
        | CronError::ComponentError(why) => why.clone(),
        other => other.to_string(),
    };
    let text = text.trim_end_matches('.');
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}

/// The calendar that the search walks.
#[derive(Clone)]
struct At(ZonedDateTime);

impl CronDateTime for At {
    fn to_civil(&self) -> CivilDateTime {
        let at = self.0.datetime();
        let part = |value: i8| u32::try_from(value).unwrap_or_default();
        CivilDateTime::new(
            CivilDate::from_parts_unchecked(i32::from(at.year()), part(at.month()), part(at.day())),
            CivilTime::from_parts_unchecked(part(at.hour()), part(at.minute()), part(at.second())),
        )
    }

    fn civil_weekday(&self) -> Weekday {
        let day = self.0.weekday().to_sunday_zero_offset();
        Weekday::from_days_from_sunday(u32::try_from(day).unwrap_or_default())
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let part = |value: u32| i8::try_from(value).map_err(|_| CronError::InvalidDate);
        let year = i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?;
        let (month, day) = (part(civil.month())?, part(civil.day())?);
        let (hour, minute, second) = (
            part(civil.hour())?,
            part(civil.minute())?,
            part(civil.second())?,
        );
        let at = DateTime::new(year, month, day, hour, minute, second, 0);
        let at = at.map_err(|_| CronError::InvalidDate)?;
        let found = self.0.time_zone().to_ambiguous_zoned_datetime(at);
        let sure =
            |at: Result<ZonedDateTime, jiff::Error>| at.map(At).map_err(|_| CronError::InvalidTime);
        match found.offset() {
            AmbiguousOffset::Unambiguous { .. } => {
                Ok(Resolution::Single(sure(found.unambiguous())?))
            }
            AmbiguousOffset::Fold { .. } => {
                let earlier = sure(found.clone().earlier())?;
                Ok(Resolution::Ambiguous(earlier, sure(found.later())?))
            }
            AmbiguousOffset::Gap { .. } => Ok(Resolution::Gap),
        }
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        let span = SignedDuration::from_secs(seconds);
        self.0.checked_add(span).ok().map(At)
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.0.timestamp().cmp(&other.0.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(text: &str) -> UnixMillis {
        let at: Timestamp = text.parse().expect("a time");
        UnixMillis(u64::try_from(at.as_millisecond()).expect("after 1970"))
    }

    fn text(at: Option<UnixMillis>) -> String {
        let at = at.expect("some time");
        let at = Timestamp::from_millisecond(i64::try_from(at.0).expect("fits"));
        at.expect("fits").to_string()
    }

    #[test]
    fn the_next_and_the_last_time_are_those_of_the_pattern() {
        let nightly = Schedule::new("0 3 * * *", "UTC").expect("a schedule");
        let noon = millis("2026-03-01T12:00:00Z");
        assert_eq!(text(nightly.next(noon)), "2026-03-02T03:00:00Z");
        assert_eq!(text(nightly.last(noon)), "2026-03-01T03:00:00Z");
        let at = millis("2026-03-01T03:00:00Z");
        assert_eq!(nightly.last(at), Some(at), "itself included");
        assert_eq!(text(nightly.next(at)), "2026-03-02T03:00:00Z");
        let often = Schedule::new("*/2 * * * * *", "UTC").expect("with seconds");
        let odd = UnixMillis(at.0 + 1_900);
        assert_eq!(text(often.last(odd)), "2026-03-01T03:00:00Z");
        assert_eq!(text(often.next(odd)), "2026-03-01T03:00:02Z");
    }

    #[test]
    fn a_day_on_which_clocks_are_set_has_each_night_once() {
        // 02:30 is not there on 29 March 2026, and is there twice on 25 October.
        let nightly = Schedule::new("30 2 * * *", "Europe/Vienna").expect("a schedule");
        for (from, days) in [("2026-03-27T12:00:00Z", 5), ("2026-10-23T12:00:00Z", 5)] {
            let mut at = millis(from);
            let end = UnixMillis(at.0 + days * 86_400_000);
            let mut times = Vec::new();
            while let Some(next) = nightly.next(at).filter(|next| *next <= end) {
                assert_eq!(nightly.last(next), Some(next), "both ways alike");
                times.push(next);
                at = next;
            }
            assert_eq!(times.len(), 5, "from {from}: {times:?}");
        }
    }

    #[test]
    fn what_is_no_pattern_or_never_due_is_refused() {
        for (pattern, zone) in [
            ("", "UTC"),
            ("* * * *", "UTC"),
            ("61 * * * *", "UTC"),
            ("0 0 30 2 *", "UTC"),
            ("0 3 * * *", "Europe/Atlantis"),
            ("0 0 0 1 1 * 2019", "UTC"),
            ("x y z a b", "UTC"),
        ] {
            assert!(Schedule::new(pattern, zone).is_err(), "{pattern} {zone}");
        }
        let long = "1,".repeat(200) + " * * * *";
        assert!(Schedule::new(&long, "UTC").is_err());
    }
}
