//! How long answers took, counted by buckets of a quantile sketch.
//!
//! Holds: adding to it takes no lock; what is shorter or longer than the outer
//! buckets counts there.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use wire::attributes::Quantiles;
use wire::edge::LATENCY_LEVEL;

/// In milliseconds: 2^-4, and twenty powers of two up to 65 s.
const SHORTEST_MS: f64 = 0.062_5;
/// With three bits of a mantissa.
const BUCKETS: usize = 20 * 8;

#[derive(Debug)]
pub struct Latencies([AtomicU64; BUCKETS]);

impl Default for Latencies {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Latencies {
    pub fn add(&self, took: Duration) {
        let index = Quantiles::bucket(took.as_secs_f64() * 1e3, LATENCY_LEVEL);
        let at = usize::try_from(index - first()).unwrap_or(0);
        self.0[at.min(BUCKETS - 1)].fetch_add(1, Relaxed);
    }

    /// Those that are not empty, by index.
    pub fn counts(&self) -> Vec<(i32, u64)> {
        let counts = (first()..).zip(&self.0);
        let counts = counts.map(|(index, count)| (index, count.load(Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

fn first() -> i32 {
    Quantiles::bucket(SHORTEST_MS, LATENCY_LEVEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_has_a_bucket_that_holds_it() {
        let latencies = Latencies::default();
        for micros in [63, 100, 1_000, 1_500, 20_000, 65_000_000] {
            latencies.add(Duration::from_micros(micros));
            let ms = Duration::from_micros(micros).as_secs_f64() * 1e3;
            let found = latencies.counts().into_iter().any(|(index, _)| {
                let (low, high) = Quantiles::bounds(index, LATENCY_LEVEL);
                (low..high).contains(&ms)
            });
            assert!(found, "{micros}");
        }
        for beyond in [Duration::ZERO, Duration::from_hours(1)] {
            latencies.add(beyond);
        }
        let counts = latencies.counts();
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 8);
    }
}
