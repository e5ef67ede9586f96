//! Which faults are in force, and when each is to be undone.
//!
//! In: faults that began, the time. Out: faults that are over.
//! Holds: a number is given once; a fault with an end is over then, whoever
//! began it may have gone.

use kernel::Time;
use std::time::Duration;
use wire::lab::{ActiveFault, Fault};

/// More at once would be a mistake.
pub const FAULTS_MAX: usize = 64;

#[derive(Debug, Default)]
pub struct Ledger {
    entries: Vec<Entry>,
    last: u64,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    fault: Fault,
    end: Option<Time>,
}

impl Ledger {
    /// Its number; none when there are [`FAULTS_MAX`] already.
    pub fn begin(&mut self, fault: Fault, span: Option<Duration>, now: Time) -> Option<u64> {
        if self.entries.len() >= FAULTS_MAX {
            return None;
        }
        self.last += 1;
        self.entries.push(Entry {
            id: self.last,
            fault,
            end: span.map(|span| now + span),
        });
        Some(self.last)
    }

    /// Takes out one, or all.
    pub fn end(&mut self, id: Option<u64>) -> Vec<Fault> {
        self.take(|entry| id.is_none_or(|id| entry.id == id))
    }

    /// Takes out those whose time is over.
    pub fn over(&mut self, now: Time) -> Vec<Fault> {
        self.take(|entry| entry.end.is_some_and(|end| end <= now))
    }

    fn take(&mut self, chosen: impl Fn(&Entry) -> bool) -> Vec<Fault> {
        let taken = self.entries.extract_if(.., |entry| chosen(entry));
        taken.map(|entry| entry.fault).collect()
    }

    /// When the next is over.
    pub fn next(&self) -> Option<Time> {
        self.entries.iter().filter_map(|entry| entry.end).min()
    }

    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.entries.iter().map(|entry| &entry.fault)
    }

    pub fn active(&self, now: Time) -> Vec<ActiveFault> {
        let left = |end: Time| u64::try_from(end.since(now).as_millis()).unwrap_or(u64::MAX);
        self.entries
            .iter()
            .map(|entry| ActiveFault {
                id: entry.id,
                fault: entry.fault.clone(),
                left_ms: entry.end.map(left),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::Name;

    fn off(node: &str) -> Fault {
        Fault::PowerOff {
            node: Name::new(node).expect("a name"),
        }
    }

    #[test]
    fn a_fault_is_over_at_its_end_and_once() {
        let mut ledger = Ledger::default();
        let span = |count| Some(Duration::from_nanos(count));
        assert_eq!(ledger.begin(off("a"), span(10), Time(5)), Some(1));
        assert_eq!(ledger.begin(off("b"), None, Time(5)), Some(2));
        assert_eq!(ledger.next(), Some(Time(15)));
        assert_eq!(ledger.over(Time(14)), []);
        assert_eq!(ledger.over(Time(15)), [off("a")]);
        assert_eq!(ledger.over(Time(99)), []);
        assert_eq!(ledger.next(), None);
        assert_eq!(ledger.active(Time(99)).len(), 1);
        assert_eq!(ledger.end(Some(1)), []);
        assert_eq!(ledger.end(None), [off("b")]);
    }

    #[test]
    fn faults_are_bounded() {
        let mut ledger = Ledger::default();
        for _ in 0..FAULTS_MAX {
            assert!(ledger.begin(off("a"), None, Time(0)).is_some());
        }
        assert_eq!(ledger.begin(off("a"), None, Time(0)), None);
    }
}
