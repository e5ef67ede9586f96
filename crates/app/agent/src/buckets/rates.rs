//! How often buckets may be called: a bucket of tokens for each subject, full
//! after a second of silence.
//!
//! Holds: a call that is refused takes nothing; one that weighs more than a
//! second's worth is let through when all is there, and the next ones wait.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub struct Rates(BTreeMap<String, Level>);

#[derive(Debug)]
struct Level {
    tokens: f64,
    at: Instant,
}

/// What is asked of one subject.
#[derive(Clone, Debug)]
pub struct Ask {
    /// `bucket/comments`, with its project.
    pub subject: String,
    pub per_second: u32,
}

/// Which of the asks was too much, and when to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuch {
    pub which: usize,
    pub wait: Duration,
}

impl Rates {
    /// Takes `weight` from each of them, or nothing from any.
    pub fn take(&mut self, asks: &[Ask], weight: u32, now: Instant) -> Result<(), TooMuch> {
        for (which, ask) in asks.iter().enumerate() {
            let full = f64::from(ask.per_second);
            let level = self.0.entry(ask.subject.clone()).or_insert(Level {
                tokens: full,
                at: now,
            });
            let since = now.saturating_duration_since(level.at).as_secs_f64();
            level.tokens = (level.tokens + since * full).min(full);
            level.at = now;
            let missing = f64::from(weight).min(full.max(1.0)) - level.tokens;
            if missing > 0.0 {
                let wait = Duration::try_from_secs_f64(missing / full).unwrap_or(Duration::MAX);
                return Err(TooMuch { which, wait });
            }
        }
        for ask in asks {
            if let Some(level) = self.0.get_mut(&ask.subject) {
                level.tokens -= f64::from(weight);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(subject: &str, per_second: u32) -> Ask {
        Ask {
            subject: subject.to_owned(),
            per_second,
        }
    }

    #[test]
    fn a_second_gives_what_a_second_takes() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let asks = [ask("project", 100), ask("bucket", 10)];
        for _ in 0..10 {
            rates.take(&asks, 1, start).expect("within");
        }
        let refused = rates.take(&asks, 1, start).expect_err("too much");
        assert_eq!(refused.which, 1);
        let later = start + Duration::from_millis(101);
        rates.take(&asks, 1, later).expect("one is there again");
        assert!(rates.take(&asks, 1, later).is_err());
        // What was refused took nothing of the project's either.
        rates.take(&asks[..1], 89, later).expect("is left");
    }

    #[test]
    fn a_large_batch_passes_when_all_is_there_and_is_paid_for_after() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let asks = [ask("bucket", 10)];
        rates.take(&asks, 25, start).expect("all was there");
        assert!(
            rates
                .take(&asks, 1, start + Duration::from_secs(1))
                .is_err()
        );
        rates
            .take(&asks, 1, start + Duration::from_secs(2))
            .expect("paid");
        assert!(Rates::default().take(&[ask("none", 0)], 1, start).is_err());
    }
}
