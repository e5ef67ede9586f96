//! How often nodes are down, as whoever led has seen it.
//!
//! In: whether a node is there, and when. Out: the share of the time that it is
//! down, for placement.
//! Holds: little that was seen weighs little: [`PRIOR`] of what is usual is counted
//! with it; what was long ago weighs less; a node that left cleanly is not watched.

use aggregation::membership::Reach;
use kernel::{NodeId, UnixMillis};
use placement::Failure;
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub const PREFIX: &str = "/uptime/";
/// For how long a usual node is thought to have been watched before.
const PRIOR: Duration = Duration::from_hours(30 * 24);
/// Once it was watched for longer, all before counts half.
const REMEMBERED: Duration = Duration::from_hours(180 * 24);
/// Steps of what placement is told: a moment more or less moves nothing.
const STEP: f64 = 0.001;

pub fn key(node: NodeId) -> String {
    format!("{PREFIX}{node}")
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Up,
    Down,
    /// Nobody waits for it, or it was never heard.
    #[default]
    Away,
}

impl Standing {
    /// None: nothing new is known.
    pub fn of(reach: Reach) -> Option<Self> {
        match reach {
            Reach::Alive => Some(Self::Up),
            Reach::Dead => Some(Self::Down),
            Reach::Left => Some(Self::Away),
            // It may refute it, or was not asked yet.
            Reach::Suspect | Reach::Unheard => None,
        }
    }
}

/// Of one node, in the control group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uptime {
    standing: Standing,
    since: UnixMillis,
    /// Before that, in all.
    up_ms: u64,
    down_ms: u64,
    /// How often it went down.
    times: u32,
}

impl Uptime {
    /// Returns whether that is news, to be written down.
    pub fn seen(&mut self, standing: Standing, now: UnixMillis) -> bool {
        if standing == self.standing {
            return false;
        }
        let (up_ms, down_ms) = self.until(now);
        (self.up_ms, self.down_ms) = (up_ms, down_ms);
        if u128::from(up_ms) + u128::from(down_ms) > REMEMBERED.as_millis() {
            self.up_ms /= 2;
            self.down_ms /= 2;
        }
        self.times = self
            .times
            .saturating_add(u32::from(standing == Standing::Down));
        (self.standing, self.since) = (standing, now);
        true
    }

    /// Milliseconds up and down. A clock that was set back counts nothing.
    fn until(&self, now: UnixMillis) -> (u64, u64) {
        let since = now.0.saturating_sub(self.since.0);
        match self.standing {
            Standing::Up => (self.up_ms.saturating_add(since), self.down_ms),
            Standing::Down => (self.up_ms, self.down_ms.saturating_add(since)),
            Standing::Away => (self.up_ms, self.down_ms),
        }
    }

    /// How often it went down, for how long in all, and of how long a time.
    pub fn downs(&self, now: UnixMillis) -> (u32, Duration, Duration) {
        let (up, down) = self.until(now);
        let all = Duration::from_millis(up.saturating_add(down));
        (self.times, Duration::from_millis(down), all)
    }

    pub fn failure(&self, now: UnixMillis) -> Failure {
        let (_, down, watched) = self.downs(now);
        let usual = Failure::NODE.probability(0.0);
        let down = down.as_secs_f64() + usual * PRIOR.as_secs_f64();
        let share = down / (watched + PRIOR).as_secs_f64();
        Failure::Probability((share / STEP).round().max(1.0) * STEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn at(hours: u64) -> UnixMillis {
        UnixMillis(1_700_000_000_000 + hours * HOUR_MS)
    }

    /// In thousandths.
    fn share(uptime: &Uptime, hours: u64) -> u32 {
        let failure = uptime.failure(at(hours));
        let share = format!("{:.0}", failure.probability(f64::NAN) * 1e3);
        share.parse().expect("a number")
    }

    #[test]
    fn what_is_seen_for_long_counts_more_than_what_is_usual() {
        let mut uptime = Uptime::default();
        assert_eq!(share(&uptime, 0), 10);
        assert!(uptime.seen(Standing::Up, at(0)));
        assert!(!uptime.seen(Standing::Up, at(1)));
        // A moment's absence changes nothing for anybody.
        assert_eq!(share(&uptime, 1), 10);
        assert!(uptime.seen(Standing::Down, at(1)));
        assert_eq!(share(&uptime, 1), 10);
        assert_eq!(uptime.downs(at(2)).0, 1);
        // Down for 80 of 800 hours, of 30 days more it is thought to have been 7.2.
        assert!(uptime.seen(Standing::Up, at(81)));
        assert_eq!(share(&uptime, 800), 57);
        // It has been good for half a year.
        assert!(share(&uptime, 800 + 180 * 24) < 20);
        let (times, down, all) = uptime.downs(at(800));
        assert_eq!(
            (times, down.as_secs() / 3_600, all.as_secs() / 3_600),
            (1, 80, 800)
        );
    }

    #[test]
    fn who_leaves_is_not_down_and_long_ago_weighs_less() {
        let mut uptime = Uptime::default();
        uptime.seen(Standing::Up, at(0));
        uptime.seen(Standing::Away, at(10));
        assert_eq!(
            uptime.downs(at(900)),
            (0, Duration::ZERO, Duration::from_hours(10))
        );
        uptime.seen(Standing::Down, at(1_000));
        uptime.seen(Standing::Up, at(1_000 + 90 * 24));
        let bad = share(&uptime, 1_000 + 90 * 24);
        uptime.seen(Standing::Down, at(1_000 + 300 * 24));
        uptime.seen(Standing::Up, at(1_000 + 300 * 24));
        assert!(share(&uptime, 1_000 + 400 * 24) < bad / 2);
    }

    #[test]
    fn clocks_that_jump_count_nothing_or_are_forgotten() {
        let mut uptime = Uptime::default();
        uptime.seen(Standing::Up, at(100));
        uptime.seen(Standing::Down, at(0));
        assert_eq!(uptime.downs(at(0)), (1, Duration::ZERO, Duration::ZERO));
        uptime.seen(Standing::Up, UnixMillis(u64::MAX));
        uptime.seen(Standing::Down, UnixMillis(u64::MAX));
        uptime.seen(Standing::Up, UnixMillis(u64::MAX));
        let failure = uptime.failure(UnixMillis(u64::MAX)).probability(f64::NAN);
        assert!((0.0..=1.0).contains(&failure), "{failure}");
    }

    #[test]
    fn a_nodes_record_is_read_as_it_was_written() {
        let mut uptime = Uptime::default();
        uptime.seen(Standing::Down, at(3));
        let text = serde_json::to_string(&uptime).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Uptime>(&text).expect("the same"),
            uptime
        );
    }
}
