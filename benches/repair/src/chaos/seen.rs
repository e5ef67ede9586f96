//! What users saw of each kind of fault, as a table.
//!
//! Holds: clients of the nodes that were struck are counted apart: an edge without
//! power answers nobody.

use crate::load::Seen;
use bench_common::figure::quantile;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Of one fault.
pub struct One {
    pub kind: &'static str,
    /// From its end until all was as wished; none where that did not come.
    pub whole_after: Option<Duration>,
    /// At the edges that were not struck, and how long it took from the fault's
    /// begin until they answered well again.
    pub others: Counted,
    pub well_after: Duration,
    pub struck: Counted,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub asked: usize,
    pub bad: usize,
}

impl Counted {
    pub fn of(seen: &Seen) -> Self {
        Self {
            asked: seen.count(),
            bad: seen.bad(),
        }
    }

    fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.bad += other.bad;
    }

    fn percent(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "there are millions at most")]
        let percent = 100.0 * self.bad as f64 / self.asked.max(1) as f64;
        percent
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} ({:.2} %)",
            self.bad,
            self.asked,
            self.percent()
        )
    }
}

#[derive(Default)]
struct Kind {
    whole_after_s: Vec<f64>,
    not_whole: usize,
    others: Counted,
    well_after_s: f64,
    struck: Counted,
}

#[derive(Default)]
pub struct Report {
    kinds: BTreeMap<&'static str, Kind>,
}

impl Report {
    pub fn add(&mut self, one: &One) {
        let kind = self.kinds.entry(one.kind).or_default();
        match one.whole_after {
            Some(span) => kind.whole_after_s.push(span.as_secs_f64()),
            None => kind.not_whole += 1,
        }
        kind.others.add(one.others);
        kind.struck.add(one.struck);
        kind.well_after_s = kind.well_after_s.max(one.well_after.as_secs_f64());
    }

    /// Of how many faults all was not as wished afterwards.
    pub fn not_whole(&self) -> usize {
        self.kinds.values().map(|kind| kind.not_whole).sum()
    }

    pub fn others(&self) -> Counted {
        let mut all = Counted::default();
        for kind in self.kinds.values() {
            all.add(kind.others);
        }
        all
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<22} {:>6} {:>11} {:>17} {:>28} {:>14} {:>28}",
            "fault",
            "times",
            "not whole",
            "whole, median/max",
            "not well at other edges",
            "well again",
            "not well where it struck"
        )?;
        for (name, kind) in &self.kinds {
            let spans = &kind.whole_after_s;
            let whole = format!("{:.1}/{:.1} s", quantile(spans, 0.5), quantile(spans, 1.0));
            writeln!(
                f,
                "{name:<22} {:>6} {:>11} {whole:>17} {:>28} {:>14} {:>28}",
                spans.len() + kind.not_whole,
                kind.not_whole,
                kind.others.to_string(),
                format!("{:.1} s", kind.well_after_s),
                kind.struck.to_string(),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_summed_and_what_was_not_whole_is_told() {
        let one = |whole: Option<u64>, bad| One {
            kind: "kill an edge",
            whole_after: whole.map(Duration::from_secs),
            others: Counted { asked: 100, bad },
            well_after: Duration::from_millis(700),
            struck: Counted { asked: 10, bad: 10 },
        };
        let mut report = Report::default();
        report.add(&one(Some(2), 0));
        report.add(&one(None, 5));
        assert_eq!(report.not_whole(), 1);
        let others = report.others();
        assert_eq!((others.asked, others.bad), (200, 5));
        let text = report.to_string();
        assert!(text.contains("5 of 200 (2.50 %)"), "{text}");
        assert!(text.contains("20 of 20 (100.00 %)"), "{text}");
    }
}
