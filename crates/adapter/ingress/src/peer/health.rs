//! Decides whether another node's edge is asked.
//!
//! In: what came of each request to it, and the time. Out: whether the next one
//! may go there, and whether a failure is news.
//! Holds: the first failure takes the node out; after a probation, which grows
//! with each failure in a row, one request at a time tries it; the first sign
//! of life brings it back. What was begun before the last change says nothing
//! against it.
//! Never: reads a clock.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
pub struct Probation {
    pub first: Duration,
    pub longest: Duration,
    /// A trial that came to nothing, neither good nor bad, counts no more.
    pub trial: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Well,
    Out { until: Instant },
    Trial { until: Instant },
}

#[derive(Debug)]
pub struct Health {
    probation: Probation,
    state: State,
    /// When it became so.
    since: Instant,
    /// In a row.
    failures: u32,
}

impl Health {
    pub fn new(probation: Probation, now: Instant) -> Self {
        Self {
            probation,
            state: State::Well,
            since: now,
            failures: 0,
        }
    }

    /// Whether a request would be let through.
    pub fn admits(&self, now: Instant) -> bool {
        match self.state {
            State::Well => true,
            State::Out { until } | State::Trial { until } => now >= until,
        }
    }

    /// Lets a request through, or not.
    pub fn admit(&mut self, now: Instant) -> bool {
        if !self.admits(now) {
            return false;
        }
        if self.state != State::Well {
            let until = now + self.probation.trial;
            self.change(State::Trial { until }, now);
        }
        true
    }

    /// The node said something.
    pub fn heard(&mut self, now: Instant) {
        self.failures = 0;
        if self.state != State::Well {
            self.change(State::Well, now);
        }
    }

    /// It lives but is about to be succeeded: no failure, yet nothing to ask
    /// for a moment.
    pub fn steps_aside(&mut self, now: Instant) {
        let until = now + self.probation.first;
        self.change(State::Out { until }, now);
    }

    /// A request let through at `begun` found it dead. Whether that is news.
    pub fn failed(&mut self, begun: Instant, now: Instant) -> bool {
        if matches!(self.state, State::Out { .. }) || begun < self.since {
            return false;
        }
        let doubled = 2_u32.saturating_pow(self.failures);
        let span = self.probation.first.saturating_mul(doubled);
        let until = now + span.min(self.probation.longest);
        self.failures = self.failures.saturating_add(1);
        self.change(State::Out { until }, now);
        true
    }

    fn change(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PROBATION: Probation = Probation {
        first: Duration::from_millis(500),
        longest: Duration::from_secs(4),
        trial: Duration::from_secs(1),
    };

    fn new() -> (Health, Instant) {
        let now = Instant::now();
        (Health::new(PROBATION, now), now)
    }

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn first_failure_takes_it_out_for_the_probation() {
        let (mut health, now) = new();
        assert!(health.admit(now) && health.failed(now, now + ms(5)));
        assert!(!health.admits(now + ms(504)));
        assert!(health.admits(now + ms(505)));
    }

    #[test]
    fn one_request_tries_it_and_a_sign_of_life_brings_it_back() {
        let (mut health, now) = new();
        assert!(health.failed(now, now));
        let later = now + ms(500);
        assert!(health.admit(later));
        assert!(!health.admit(later + ms(10)));
        health.heard(later + ms(20));
        assert!(health.admit(later + ms(20)) && health.admit(later + ms(20)));
    }

    #[test]
    fn probation_doubles_up_to_its_bound_and_starts_anew_after_life() {
        let (mut health, mut now) = new();
        for span in [500, 1000, 2000, 4000, 4000] {
            assert!(health.admit(now) && health.failed(now, now));
            assert!(!health.admits(now + ms(span - 1)), "{span}");
            now += ms(span);
        }
        assert!(health.admit(now));
        health.heard(now);
        assert!(health.failed(now, now) && health.admits(now + ms(500)));
    }

    #[test]
    fn late_failures_of_earlier_requests_say_nothing() {
        let (mut health, now) = new();
        assert!(health.failed(now, now + ms(1)));
        assert!(!health.failed(now, now + ms(2)));
        let trial = now + ms(501);
        assert!(health.admit(trial));
        assert!(!health.failed(now, trial + ms(1)), "not of the trial");
        health.heard(trial + ms(2));
        assert!(!health.failed(now, trial + ms(3)));
        assert!(health.admits(trial + ms(3)));
    }

    #[test]
    fn trial_without_an_outcome_gives_way_to_another() {
        let (mut health, now) = new();
        assert!(health.failed(now, now));
        let trial = now + ms(500);
        assert!(health.admit(trial));
        assert!(!health.admit(trial + ms(999)));
        assert!(health.admit(trial + ms(1000)));
    }

    #[test]
    fn one_that_steps_aside_is_asked_again_soon() {
        let (mut health, now) = new();
        health.steps_aside(now);
        assert!(!health.admits(now + ms(499)) && health.admits(now + ms(500)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Ask,
        Hear,
        Fail(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..700_u64).prop_map(Step::Wait),
            Just(Step::Ask),
            Just(Step::Hear),
            (0..8_usize).prop_map(Step::Fail),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn between_failure_and_life_at_most_one_is_let_through_at_a_time(steps in steps()) {
            let (mut health, mut now) = new();
            let mut begun = vec![now];
            let (mut out, mut tried) = (false, None);
            for step in steps {
                match step {
                    Step::Wait(span) => now += ms(span),
                    Step::Ask => if health.admit(now) {
                        if out {
                            let free = tried.is_none_or(|at| now >= at + PROBATION.trial);
                            prop_assert!(free);
                            tried = Some(now);
                        }
                        begun.push(now);
                    },
                    Step::Hear => {
                        health.heard(now);
                        (out, tried) = (false, None);
                    }
                    Step::Fail(which) => if health.failed(begun[which % begun.len()], now) {
                        prop_assert!(!health.admits(now));
                        (out, tried) = (true, None);
                    },
                }
            }
            prop_assert!(health.admits(now + PROBATION.longest.max(PROBATION.trial)));
        }
    }
}
