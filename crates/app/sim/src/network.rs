//! The network: distances between zones, loss, duplicates, reordering, cuts in
//! one direction, slow machines.
//!
//! In: who sends to whom. Out: when each copy arrives, if any does.

use kernel::{Rng, ZonePath};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Network {
    /// Of all packets, 0 to 1.
    pub loss: f64,
    pub duplicates: f64,
    /// Packets that are held up by up to `hold_up`, and so overtaken.
    pub reordered: f64,
    pub hold_up: Duration,
    /// From and to, by machine.
    pub cuts: BTreeSet<(usize, usize)>,
    /// One way, between zones by number.
    distances: Vec<Vec<Duration>>,
    zones: BTreeMap<ZonePath, usize>,
}

const NEAR: Duration = Duration::from_micros(500);
const FAR: Duration = Duration::from_millis(20);

impl Default for Network {
    fn default() -> Self {
        Self {
            loss: 0.0,
            duplicates: 0.001,
            reordered: 0.01,
            hold_up: Duration::from_millis(30),
            cuts: BTreeSet::new(),
            distances: Vec::new(),
            zones: BTreeMap::new(),
        }
    }
}

impl Network {
    /// The zone's number.
    pub fn zone(&mut self, zone: &ZonePath) -> usize {
        if let Some(known) = self.zones.get(zone) {
            return *known;
        }
        let number = self.zones.len();
        self.zones.insert(zone.clone(), number);
        for row in &mut self.distances {
            row.push(FAR);
        }
        let mut row = vec![FAR; number];
        row.push(NEAR);
        self.distances.push(row);
        number
    }

    pub fn set_distance(&mut self, one: &ZonePath, other: &ZonePath, distance: Duration) {
        let (one, other) = (self.zone(one), self.zone(other));
        self.distances[one][other] = distance;
        self.distances[other][one] = distance;
    }

    /// One way, without what varies.
    pub fn distance(&self, from_zone: usize, to_zone: usize) -> Duration {
        self.distances[from_zone][to_zone]
    }

    /// After how long each copy of a packet arrives.
    pub fn delays(
        &self,
        (from, from_zone): (usize, usize),
        (to, to_zone): (usize, usize),
        slowness: Duration,
        rng: &mut Rng,
    ) -> [Option<Duration>; 2] {
        let copies = 1 + usize::from(self.duplicates > 0.0 && rng.unit() < self.duplicates);
        let mut delays = [None; 2];
        let is_cut = !self.cuts.is_empty() && self.cuts.contains(&(from, to));
        for delay in delays.iter_mut().take(copies) {
            if is_cut || (self.loss > 0.0 && rng.unit() < self.loss) {
                continue;
            }
            let distance = self.distance(from_zone, to_zone);
            // A tenth more at most, and what a busy machine adds.
            let mut found = distance + part(distance / 10, rng) + part(NEAR, rng);
            if self.reordered > 0.0 && rng.unit() < self.reordered {
                found += part(self.hold_up, rng);
            }
            if slowness > Duration::ZERO {
                found += part(slowness, rng);
            }
            *delay = Some(found);
        }
        delays
    }
}

/// Uniform from nothing to `most`.
pub fn part(most: Duration, rng: &mut Rng) -> Duration {
    let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(rng.below(most.max(1)))
}
