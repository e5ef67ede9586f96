//! Distances between simulated nodes.
//!
//! In: round trips that were recorded between real hosts, or one distance.
//! Out: how long a packet is under way.

use super::shape::{Shape, draw};
use crate::network::part;
use kernel::Rng;
use std::path::Path;
use std::time::Duration;

/// One way, within a leaf zone of recorded distances.
const NEAR: Duration = Duration::from_micros(500);

#[derive(Clone, Debug)]
pub enum Ways {
    /// Between any two nodes, one way.
    Alike(Duration),
    /// One way, between hosts; a leaf zone stands at one of them.
    Hosts {
        micros: Vec<Vec<u32>>,
        of_leaf: Vec<u16>,
    },
}

impl Ways {
    /// Each leaf zone at a host that is drawn for it, whatever zones it lies
    /// in: no worse placement is likely.
    ///
    /// # Errors
    /// The file is not a square of round trips in milliseconds.
    pub fn recorded(file: &Path, shape: &Shape, seed: u64) -> Result<Self, String> {
        let text = std::fs::read_to_string(file)
            .map_err(|why| format!("cannot read {}: {why}", file.display()))?;
        let wrong = || format!("{} is no square of milliseconds", file.display());
        let mut micros: Vec<Vec<u32>> = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let row = line.split_whitespace().map(|word| {
                let trip: f64 = word.parse().map_err(|_| wrong())?;
                let way = Duration::try_from_secs_f64(trip / 2_000.0).map_err(|_| wrong())?;
                u32::try_from(way.as_micros()).map_err(|_| wrong())
            });
            micros.push(row.collect::<Result<_, String>>()?);
        }
        let size = micros.len();
        if size == 0 || micros.iter().any(|row| row.len() != size) {
            return Err(wrong());
        }
        Ok(Self::hosts(micros, shape, seed))
    }

    /// In the place of recorded ones: hosts at random in a rectangle of 160 by
    /// 80 ms, the median of round trips 136 ms and a hundredth over 298 ms.
    pub fn drawn(shape: &Shape, seed: u64) -> Self {
        let mut rng = Rng::seeded(seed ^ 0x9d15);
        let hosts: Vec<(f64, f64)> = (0..490)
            .map(|_| (rng.unit() * 160_000.0, rng.unit() * 80_000.0))
            .collect();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "under a second, in microseconds"
        )]
        let way = |one: &(f64, f64), other: &(f64, f64)| {
            ((one.0 - other.0).hypot(one.1 - other.1)) as u32 + 1_000
        };
        let micros = hosts
            .iter()
            .map(|one| hosts.iter().map(|other| way(one, other)).collect());
        Self::hosts(micros.collect(), shape, seed)
    }

    fn hosts(micros: Vec<Vec<u32>>, shape: &Shape, seed: u64) -> Self {
        let mut rng = Rng::seeded(seed ^ 0x40575);
        let hosts = micros.len().min(usize::from(u16::MAX));
        let of_leaf =
            (0..shape.leaves()).map(|_| u16::try_from(draw(hosts, &mut rng)).unwrap_or_default());
        Self::Hosts {
            of_leaf: of_leaf.collect(),
            micros,
        }
    }

    /// A tenth more at most.
    pub fn way(&self, shape: &Shape, from: usize, to: usize, rng: &mut Rng) -> Duration {
        let way = match self {
            Self::Alike(way) => *way,
            Self::Hosts { micros, of_leaf } => {
                let (from, to) = (shape.leaf_of(from), shape.leaf_of(to));
                let (one, other) = (usize::from(of_leaf[from]), usize::from(of_leaf[to]));
                if from == to {
                    NEAR
                } else {
                    NEAR + Duration::from_micros(micros[one][other].into())
                }
            }
        };
        way + part(way / 10, rng)
    }
}
