//! How a service gets from one generation to the next.

use crate::model::optional_duration_text;
use kernel::duration_text;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rollout {
    /// Each node puts the new replicas into the routes once all of its own are ready.
    #[default]
    Rolling,
    Batches(Batches),
    Canary(Canary),
    BlueGreen(BlueGreen),
}

/// So many at a time take the places of old ones, which leave once they are ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batches {
    /// Of the replicas, 0 to 1; at least one of them.
    pub share: f64,
}

/// A few of the new generation take requests beside all of the old one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// Of the replicas, 0 to 1; at least one of them.
    pub share: f64,
    /// How long it must be good; `None`: a person says when.
    #[serde(default, with = "optional_duration_text")]
    pub good_for: Option<Duration>,
    /// By how much its share of errors may exceed the old one's, 0 to 1.
    pub max_error_rate: f64,
    /// By how much its 99th percentile may exceed the old one's.
    #[serde(default, with = "optional_duration_text")]
    pub max_latency: Option<Duration>,
    /// Fewer are not judged.
    pub min_requests: u64,
}

/// The whole new generation comes up beside the old one, then takes all requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlueGreen {
    /// How long the old one stays, so that it can be gone back to at once.
    #[serde(with = "duration_text")]
    pub keep: Duration,
}

impl Rollout {
    pub fn is_rolling(&self) -> bool {
        *self == Self::Rolling
    }
}

impl Batches {
    /// Replicas in each batch, where there are to be so many in all.
    pub fn of(&self, replicas: u32) -> u32 {
        part(self.share, replicas)
    }
}

impl Canary {
    /// Replicas of the new generation, where there are to be so many in all.
    pub fn of(&self, replicas: u32) -> u32 {
        part(self.share, replicas)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a small count"
)]
fn part(share: f64, replicas: u32) -> u32 {
    let count = (f64::from(replicas) * share).round() as u32;
    count.clamp(1, replicas.max(1))
}
