//! Decides when a node's readings are worth telling, and what of them fits its
//! row.
//!
//! In: readings, each with what step of it matters and how much it matters.
//! Out: the row to tell, or that the last one will do.
//! Holds: a reading within its step of what was told last stays as it was told,
//! so that a row changes by little; readings alone change it only so often; a
//! row keeps within its bytes: what matters least is left out, and the row says
//! how many were.
//! Never: leaves out what is fixed.

use kernel::Time;
use std::cmp::Reverse;
use std::time::Duration;
use wire::attributes::{AttributeName, Row, Value};

/// The attribute that counts readings which did not fit.
pub const LEFT_OUT: &str = "left_out";

/// What of a change is worth telling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Anything.
    Any,
    /// Nothing by itself: it is told when another is.
    WithOthers,
    /// Of a number, more than this.
    Over(f64),
    /// More than this part of the larger of both, and more than `least`.
    Share { part: f64, least: f64 },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    pub name: AttributeName,
    pub value: Value,
    pub step: Step,
    /// Those with less are left out first.
    pub priority: u8,
}

#[derive(Clone, Debug, Default)]
pub struct Readings {
    told: Option<Told>,
}

/// Between two rows that differ in readings alone …
const EVERY: Duration = Duration::from_secs(5);
/// … where they differ by much: what is just over its step waits so long, what
/// is twice its step away half of it.
const AT_EASE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
struct Told {
    at: Time,
    fixed: Row,
    row: Row,
    /// As they were told, also what did not fit.
    readings: Row,
}

impl Readings {
    /// The row to tell, if it is worth it. `fixed` comes first and whole.
    pub fn look(
        &mut self,
        fixed: &Row,
        readings: &[Reading],
        bytes_max: usize,
        now: Time,
    ) -> Option<&Row> {
        let mut told = Row::default();
        if let Some(last) = &self.told {
            let others = last.readings.0.len() != readings.len();
            let steps = readings.iter().map(|one| one.steps(&last.readings));
            let steps = if others {
                f64::INFINITY
            } else {
                steps.fold(0.0, f64::max)
            };
            let wait = AT_EASE.div_f64(steps.max(1.0)).max(EVERY);
            let is_due = steps > 1.0 && now.since(last.at) >= wait;
            if last.fixed == *fixed && !is_due {
                return None;
            }
            told.clone_from(&last.readings);
        }
        let as_told = readings.iter().map(|one| {
            let stays = one.step != Step::WithOthers && one.steps(&told) <= 1.0;
            let last = told.get(one.name.as_str()).filter(|_| stays);
            Reading {
                value: last.unwrap_or(&one.value).clone(),
                ..one.clone()
            }
        });
        let as_told: Vec<Reading> = as_told.collect();
        let all = as_told
            .iter()
            .map(|one| (one.name.clone(), one.value.clone()));
        let told = Told {
            at: now,
            fixed: fixed.clone(),
            row: fit(fixed, &as_told, bytes_max),
            readings: Row(all.collect()),
        };
        Some(&self.told.insert(told).row)
    }
}

impl Reading {
    /// How many of its steps it is away from what was told: over one is news.
    fn steps(&self, told: &Row) -> f64 {
        let Some(last) = told.get(self.name.as_str()) else {
            return f64::INFINITY;
        };
        let (old, new) = (number(last), number(&self.value));
        match (self.step, old, new) {
            (Step::WithOthers, ..) => 0.0,
            (Step::Over(step), Some(old), Some(new)) => (new - old).abs() / step,
            (Step::Share { part, least }, Some(old), Some(new)) => {
                let step = (old.abs().max(new.abs()) * part).max(least);
                (new - old).abs() / step
            }
            _ if *last == self.value => 0.0,
            _ => f64::INFINITY,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "compared with a step")]
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(int) => Some(*int as f64),
        Value::Float(float) => Some(*float),
        _ => None,
    }
}

fn fit(fixed: &Row, readings: &[Reading], bytes_max: usize) -> Row {
    let mut row = fixed.clone();
    let fits = |row: &Row| row.encode().is_ok_and(|bytes| bytes.len() <= bytes_max);
    let mut ordered: Vec<&Reading> = readings.iter().collect();
    ordered.sort_by_key(|one| (Reverse(one.priority), one.name.clone()));
    let left_out: AttributeName = LEFT_OUT.parse().expect("a name");
    for (at, reading) in ordered.iter().enumerate() {
        row.0.insert(reading.name.clone(), reading.value.clone());
        // Room for saying so is kept, whatever comes after.
        let rest = i64::try_from(ordered.len() - at).unwrap_or(i64::MAX);
        let mut said = row.clone();
        said.0.insert(left_out.clone(), Value::Int(rest));
        let is_last = at + 1 == ordered.len();
        if fits(&said) || (is_last && fits(&row)) {
            continue;
        }
        row.0.remove(reading.name.as_str());
        row.0.insert(left_out, Value::Int(rest));
        break;
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reading(name: &str, value: f64, step: Step) -> Reading {
        Reading {
            name: name.parse().expect("a name"),
            value: Value::Float(value),
            step,
            priority: 1,
        }
    }

    fn fixed() -> Row {
        let name = "version".parse().expect("a name");
        Row([(name, Value::Text("1".to_owned()))].into())
    }

    /// Looks each twenty seconds.
    #[derive(Default)]
    struct Looks {
        readings: Readings,
        seconds: u64,
    }

    impl Looks {
        fn look(&mut self, fixed: &Row, all: &[Reading], bytes_max: usize) -> Option<Row> {
            self.seconds += 20;
            let now = Time(self.seconds * 1_000_000_000);
            self.readings.look(fixed, all, bytes_max, now).cloned()
        }
    }

    #[test]
    fn small_steps_are_not_told_until_they_add_up() {
        let mut looks = Looks::default();
        let mut look = |cpu: f64, other: f64| {
            let step = Step::Over(0.1);
            let all = [reading("cpu", cpu, step), reading("other", other, step)];
            let row = looks.look(&fixed(), &all, 1_000)?;
            let value = |name: &str| row.get(name).cloned();
            Some((value("cpu")?, value("other")?))
        };
        let both = |cpu, other| Some((Value::Float(cpu), Value::Float(other)));
        assert_eq!(look(0.5, 0.5), both(0.5, 0.5));
        assert_eq!(look(0.55, 0.5), None);
        assert_eq!(look(0.6, 0.5), None);
        assert_eq!(look(0.61, 0.55), both(0.61, 0.5));
        assert_eq!(look(0.55, 0.5), None);
    }

    #[test]
    fn a_share_has_a_least_step() {
        let step = Step::Share {
            part: 0.5,
            least: 1.0,
        };
        let mut looks = Looks::default();
        let mut tells = |rate: f64| {
            let all = [reading("rate", rate, step)];
            looks.look(&fixed(), &all, 1_000).is_some()
        };
        assert!(tells(0.0));
        assert!(!tells(0.9));
        assert!(tells(10.0));
        assert!(!tells(14.0));
        assert!(tells(21.0));
    }

    #[test]
    fn what_is_fixed_or_new_or_gone_is_told() {
        let mut looks = Looks::default();
        let one = reading("a", 1.0, Step::WithOthers);
        let two = reading("b", 1.0, Step::WithOthers);
        let both = [one.clone(), two];
        let one = [one];
        assert!(looks.look(&fixed(), &one, 1_000).is_some());
        assert!(looks.look(&fixed(), &one, 1_000).is_none());
        assert!(looks.look(&fixed(), &both, 1_000).is_some());
        assert!(looks.look(&fixed(), &one, 1_000).is_some());
        assert!(looks.look(&Row::default(), &one, 1_000).is_some());
    }

    #[test]
    fn readings_alone_are_told_only_so_often() {
        let mut readings = Readings::default();
        let mut tells = |fixed: &Row, cpu: f64, seconds: u64| {
            let all = [reading("cpu", cpu, Step::Any)];
            let now = Time(seconds * 1_000_000_000);
            readings.look(fixed, &all, 1_000, now).is_some()
        };
        assert!(tells(&fixed(), 0.1, 0));
        assert!(!tells(&fixed(), 0.9, 2));
        assert!(tells(&fixed(), 0.9, 5));
        assert!(tells(&Row::default(), 0.9, 6), "a person does not wait");
    }

    #[test]
    fn the_farther_from_what_was_told_the_sooner() {
        for (cpu, waits) in [(0.61, 19), (0.72, 10), (0.81, 7), (0.95, 5), (1.0, 5)] {
            let mut readings = Readings::default();
            let mut tells = |cpu: f64, seconds: u64| {
                let all = [reading("cpu", cpu, Step::Over(0.1))];
                let now = Time(seconds * 1_000_000_000);
                readings.look(&fixed(), &all, 1_000, now).is_some()
            };
            assert!(tells(0.5, 0));
            let told = (1..60).find(|seconds| tells(cpu, *seconds));
            assert_eq!(told, Some(waits), "{cpu}");
        }
    }

    #[test]
    fn the_least_important_is_left_out_and_counted() {
        let mut looks = Looks::default();
        let all: Vec<Reading> = (0..20_u8)
            .map(|at| Reading {
                priority: at,
                ..reading(&format!("reading_{at}"), f64::from(at), Step::Any)
            })
            .collect();
        let row = looks.look(&fixed(), &all, 150).expect("first");
        assert!(row.encode().expect("a row").len() <= 150);
        assert!(row.get("reading_19").is_some() && row.get("reading_0").is_none());
        let shown = row.0.keys().filter(|it| it.as_str().starts_with("reading"));
        let shown = i64::try_from(shown.count()).expect("few");
        assert_eq!(row.get(LEFT_OUT), Some(&Value::Int(20 - shown)));
        // It is not told again because something is left out.
        assert!(looks.look(&fixed(), &all, 150).is_none());
    }

    proptest! {
        #[test]
        fn a_row_keeps_within_its_bytes(
            lengths in proptest::collection::vec(0_usize..80, 0..40),
            bytes_max in 40_usize..600,
        ) {
            let all: Vec<Reading> = lengths.iter().enumerate().map(|(at, length)| Reading {
                value: Value::Text("x".repeat(*length)),
                ..reading(&format!("r{at}"), 0.0, Step::Any)
            }).collect();
            let mut readings = Readings::default();
            let row = readings.look(&fixed(), &all, bytes_max, Time(0)).expect("first");
            prop_assert!(row.encode().expect("a row").len() <= bytes_max);
            let shown = row.0.keys().filter(|it| it.as_str().starts_with('r')).count();
            let said = row.get(LEFT_OUT).cloned().unwrap_or(Value::Int(0));
            prop_assert_eq!(said, Value::Int(i64::try_from(all.len() - shown).expect("few")));
        }
    }
}
