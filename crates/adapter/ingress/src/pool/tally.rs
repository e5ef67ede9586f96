//! What one replica answered, so that two generations can be compared.
//!
//! Holds: a request counts where its replica is, whoever sent it here.

use super::{EndpointState, Place};
use crate::latency::Latencies;
use kernel::Revision;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use wire::edge::{GenerationReadings, add_counts};

#[derive(Debug, Default)]
pub struct Tally {
    requests: AtomicU64,
    errors: AtomicU64,
    latencies: Latencies,
}

impl Tally {
    pub fn add(&self, failed: bool, took: Duration) {
        self.requests.fetch_add(1, Relaxed);
        if failed {
            self.errors.fetch_add(1, Relaxed);
        }
        self.latencies.add(took);
    }
}

/// None while there is one generation only.
pub fn generations(endpoints: &[Arc<EndpointState>]) -> BTreeMap<Revision, GenerationReadings> {
    let mut all: BTreeMap<Revision, GenerationReadings> = BTreeMap::new();
    let first = endpoints.first().map(|one| one.replica.generation);
    if endpoints
        .iter()
        .all(|one| Some(one.replica.generation) == first)
    {
        return all;
    }
    for endpoint in endpoints {
        let one = all.entry(endpoint.replica.generation).or_default();
        if matches!(endpoint.place, Place::Peer(_)) {
            continue;
        }
        let tally = &endpoint.tally;
        one.requests += tally.requests.load(Relaxed);
        one.errors += tally.errors.load(Relaxed);
        add_counts(&mut one.latency_ms, &tally.latencies.counts());
    }
    all
}
