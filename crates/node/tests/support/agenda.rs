//! The clock of a world in a test, and what is yet to happen in it.
//!
//! Holds: time never goes back; what was said for the same moment happens in
//! the order in which it was said.

use kernel::Time;
use std::collections::BTreeMap;
use std::time::Duration;

pub struct Agenda<T> {
    pub now: Time,
    later: BTreeMap<(Time, u64), T>,
    order: u64,
}

/// What comes next, at `now`.
pub enum Next<T> {
    Happens(T),
    /// The machine asked to be called.
    Wakes,
}

impl<T> Agenda<T> {
    pub fn new() -> Self {
        Self {
            now: Time(1),
            later: BTreeMap::new(),
            order: 0,
        }
    }

    pub fn after(&mut self, wait: Duration, what: T) {
        self.order += 1;
        self.later.insert((self.now + wait, self.order), what);
    }

    pub fn keep(&mut self, keeps: impl Fn(&T) -> bool) {
        self.later.retain(|_, what| keeps(what));
    }

    /// Goes on to what comes first, or to `until` when nothing comes before.
    ///
    /// * `wake`: when the machine wants to be called.
    pub fn next(&mut self, wake: Option<Time>, until: Time) -> Option<Next<T>> {
        let due = self.later.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = due.into_iter().chain(wake).min().filter(|at| *at <= until) else {
            self.now = self.now.max(until);
            return None;
        };
        self.now = self.now.max(next);
        if due.is_some_and(|due| due <= self.now) {
            return self.later.pop_first().map(|(_, what)| Next::Happens(what));
        }
        // A machine that asks to be woken now must go on.
        self.now = self.now + Duration::from_micros(1);
        Some(Next::Wakes)
    }
}
