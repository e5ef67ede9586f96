//! What is remembered of one other node, and which of two sayings prevails.

use super::event::Reach;
use kernel::{NodeId, Time};
use std::collections::BTreeSet;
use std::time::Duration;
use wire::gossip::{AttributesVersion, Life, Said};

#[derive(Clone, Debug, Default)]
pub struct Member {
    pub life: Life,
    pub reach: Reach,
    pub since: Time,
    pub version: AttributesVersion,
    pub attributes: Vec<u8>,
    pub suspicion: Option<Suspicion>,
    pub round_trip: RoundTrip,
    /// The run before this one.
    pub nonce_before: Option<u32>,
    /// A clone was reported.
    pub cloned: bool,
}

/// Sayings about a node form a line, of which the last prevails: the later
/// run; in it, having left; else the later incarnation; else the worse.
pub type Rank = (u64, u32, bool, u32, Said);

pub fn rank(life: Life, said: Said) -> Rank {
    let left = said == Said::Left;
    (life.epoch, life.nonce, left, life.incarnation, said)
}

impl Member {
    pub fn said(&self) -> Option<Said> {
        match self.reach {
            Reach::Unheard => None,
            Reach::Alive => Some(Said::Alive),
            Reach::Suspect => Some(Said::Suspect),
            Reach::Dead => Some(Said::Dead),
            Reach::Left => Some(Said::Left),
        }
    }

    pub fn rank(&self) -> Option<Rank> {
        self.said().map(|said| rank(self.life, said))
    }
}

pub fn reach(said: Said) -> Reach {
    match said {
        Said::Alive => Reach::Alive,
        Said::Suspect => Reach::Suspect,
        Said::Dead => Reach::Dead,
        Said::Left => Reach::Left,
    }
}

#[derive(Clone, Debug)]
pub struct Suspicion {
    pub began: Time,
    pub deadline: Time,
    /// Who found it silent.
    pub by: BTreeSet<NodeId>,
    /// How many beyond the first make it as short as it gets.
    pub wanted: usize,
}

/// `ln(c + 1) / ln(k + 1)` in thousandths, by `k` and `c`: the share of the
/// way from the longest wait to the shortest (Lifeguard, section IV.B).
const SHARE: [[u32; 4]; 4] = [
    [1_000, 1_000, 1_000, 1_000],
    [0, 1_000, 1_000, 1_000],
    [0, 631, 1_000, 1_000],
    [0, 500, 792, 1_000],
];

pub fn suspicion_wait(min: Duration, max: Duration, wanted: usize, confirmed: usize) -> Duration {
    let share = SHARE[wanted.min(3)][confirmed.min(3)];
    max.saturating_sub(max.saturating_sub(min) * share / 1_000)
        .max(min)
}

/// Smoothed round trip and its deviation (RFC 6298).
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundTrip {
    smoothed: Option<Duration>,
    deviation: Duration,
}

impl RoundTrip {
    pub fn sample(&mut self, found: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(found);
                self.deviation = found / 2;
            }
            Some(smoothed) => {
                self.deviation = (self.deviation * 3 + smoothed.abs_diff(found)) / 4;
                self.smoothed = Some((smoothed * 7 + found) / 8);
            }
        }
    }

    pub fn wait(&self) -> Option<Duration> {
        self.smoothed.map(|smoothed| smoothed + self.deviation * 4)
    }

    /// For who would rather send twice than wait: the first sample's guess of
    /// how much trips differ is twice what most turn out to.
    pub fn short_wait(&self) -> Option<Duration> {
        self.smoothed
            .map(|smoothed| smoothed + (self.deviation * 4).min(smoothed / 2))
    }
}
