//! Decides what one measured number means, and says it in one line.
//!
//! In: our number, the peer's, the two goals. Out: `figure NAME ours=… peer=…
//! ratio=… closes=… final=… ok|short`.
//! Holds: `ok` is judged against `closes`; without a peer that is needed, a
//! figure is `short`.

use std::fmt;

/// What a goal is about: the number itself, or its ratio to the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Number,
    Ratio,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Less,
    More,
}

/// One row of the table of goals.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    pub name: &'static str,
    pub unit: &'static str,
    pub of: Of,
    pub better: Better,
    pub closes: f64,
    pub last: f64,
}

impl Goal {
    /// Of a number that should be small.
    pub const fn number(name: &'static str, unit: &'static str, closes: f64, last: f64) -> Self {
        Self {
            name,
            unit,
            of: Of::Number,
            better: Better::Less,
            closes,
            last,
        }
    }

    /// Of ours to the peer's; the unit is that of both.
    pub const fn ratio(
        name: &'static str,
        unit: &'static str,
        better: Better,
        closes: f64,
        last: f64,
    ) -> Self {
        Self {
            name,
            unit,
            of: Of::Ratio,
            better,
            closes,
            last,
        }
    }
}

/// A goal with what was measured.
#[derive(Clone, Debug)]
pub struct Figure {
    pub goal: Goal,
    /// Not a number where it could not be measured: the figure is short.
    pub ours: f64,
    pub peer: Option<f64>,
}

impl Figure {
    /// Without a peer.
    pub fn alone(goal: Goal, ours: f64) -> Self {
        Self {
            goal,
            ours,
            peer: None,
        }
    }

    pub fn ratio(&self) -> Option<f64> {
        self.peer
            .filter(|peer| *peer > 0.0)
            .map(|peer| self.ours / peer)
    }

    pub fn is_ok(&self) -> bool {
        let judged = match self.goal.of {
            Of::Number => Some(self.ours),
            Of::Ratio => self.ratio(),
        };
        judged.is_some_and(|found| match self.goal.better {
            Better::Less => found <= self.goal.closes,
            Better::More => found >= self.goal.closes,
        })
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let goal = &self.goal;
        let sign = match goal.better {
            Better::Less => "<=",
            Better::More => ">=",
        };
        let unit = match goal.of {
            Of::Number => goal.unit,
            Of::Ratio => "x",
        };
        let measured = |value: f64| format!("{}{}", digits(value), goal.unit);
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let ours = (!self.ours.is_nan()).then_some(self.ours);
        write!(
            f,
            "figure {} ours={} peer={} ratio={} closes={sign}{}{unit} final={sign}{}{unit} {}",
            goal.name,
            or_none(ours.map(measured)),
            or_none(self.peer.map(measured)),
            or_none(self.ratio().map(|ratio| format!("{ratio:.2}"))),
            goal.closes,
            goal.last,
            if self.is_ok() { "ok" } else { "short" },
        )
    }
}

/// Three digits that count, or all before the point.
fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// The middle of what was measured; of an even count, the mean of the two.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The smallest value that at least this share of all does not exceed.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mut seen = 0.0;
    #[expect(clippy::cast_precision_loss, reason = "there are a few hundred")]
    let wanted = share * sorted.len() as f64;
    for value in sorted {
        seen += 1.0;
        if seen >= wanted {
            return value;
        }
    }
    f64::NAN
}

#[cfg(test)]
mod tests {
    use super::*;

    const LESS: Goal = Goal {
        name: "cpu",
        unit: "s",
        of: Of::Ratio,
        better: Better::Less,
        closes: 2.0,
        last: 0.8,
    };

    fn figure(goal: Goal, ours: f64, peer: Option<f64>) -> Figure {
        Figure { goal, ours, peer }
    }

    #[test]
    fn a_line_says_all_and_is_judged_against_what_closes() {
        assert_eq!(
            figure(LESS, 30.0, Some(20.0)).to_string(),
            "figure cpu ours=30.0s peer=20.0s ratio=1.50 closes=<=2x final=<=0.8x ok"
        );
        assert!(!figure(LESS, 41.0, Some(20.0)).is_ok());
    }

    #[test]
    fn more_can_be_better_and_a_number_can_be_judged_alone() {
        let more = Goal {
            better: Better::More,
            closes: 0.9,
            ..LESS
        };
        assert!(figure(more, 95.0, Some(100.0)).is_ok());
        assert!(!figure(more, 80.0, Some(100.0)).is_ok());
        let alone = Goal {
            of: Of::Number,
            ..LESS
        };
        assert_eq!(
            figure(alone, 2.5, None).to_string(),
            "figure cpu ours=2.50s peer=- ratio=- closes=<=2s final=<=0.8s short"
        );
    }

    #[test]
    fn what_could_not_be_measured_is_short_and_said() {
        let goal = Goal::number("power", "s", 6.0, 4.0);
        assert_eq!(
            Figure::alone(goal, f64::NAN).to_string(),
            "figure power ours=- peer=- ratio=- closes=<=6s final=<=4s short"
        );
    }

    #[test]
    fn a_ratio_without_its_peer_is_short() {
        assert!(!figure(LESS, 0.1, None).is_ok());
        assert!(!figure(LESS, 0.1, Some(0.0)).is_ok());
    }

    #[test]
    fn medians_and_quantiles_are_of_sorted_values() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert!((quantile(&hundred, 0.99) - 99.0).abs() < 1e-9);
        assert!((quantile(&[5.0, 7.0], 0.99) - 7.0).abs() < 1e-9);
    }
}
