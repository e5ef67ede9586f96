//! Decides how good a place is: the terms, what each measures, and their weights.
//!
//! A place's score is the sum of its terms; the greatest wins, and of equal ones
//! the first that the service's hash meets on a ring of the places' hashes.
//! Each term is its weight times a measure of 0 to 1,000, or its negative:
//!
//! | term | measure | sign | weight |
//! |---|---|---|---|
//! | spread | 1,000 for each copy that its zone or domain has already | − | 10 |
//! | stacking | 1,000 for each copy that the node itself has already | − | 10 |
//! | affinity | mean over the named services: 1,000 where one is on the node, 500 in its zone | + | 6 |
//! | latency | users' latency, 1,000 at 500 ms or more | − | 5 |
//! | fit | free after it, see [`Fit`], in steps of 50 | + | 4 |
//! | failure | probability that the node is down, in thousandths | − | 4 |
//! | content | share of the needed bytes that is there | + | 3 |
//! | price | against the dearest node's | − | 2 |
//!
//! So one more copy in a zone outweighs everything but a near neighbour and users
//! close by together. Steps keep noise in what is free from deciding.

use serde::{Deserialize, Serialize};

/// What a good fit is. What is free is the scarcest of cpu, memory and, for who
/// needs some, disk, as a share of the node's capacity; for a service that says
/// no needs, it sinks by 2 % for each replica on the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// The most free: load is even, and a node that dies takes little with it.
    #[default]
    Balance,
    /// The least free: nodes are filled, and others can be switched off.
    Pack,
}

/// Of the score's terms; more than [`Weights::MAX`] counts as that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    pub spread: u16,
    pub stacking: u16,
    pub affinity: u16,
    pub latency: u16,
    pub fit: u16,
    pub failure: u16,
    pub content: u16,
    pub price: u16,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            spread: 10,
            stacking: 10,
            affinity: 6,
            latency: 5,
            fit: 4,
            failure: 4,
            content: 3,
            price: 2,
        }
    }
}

impl Weights {
    pub const MAX: u16 = 1_000;

    pub(crate) fn measures(self, measures: &Measures) -> Score {
        let term = |weight: u16, measure: i32| i32::from(weight.min(Self::MAX)) * measure;
        Score {
            spread: -term(
                self.spread,
                measures.domain_copies.min(COPIES_COUNTED) * FULL,
            ),
            stacking: -term(
                self.stacking,
                measures.own_copies.min(COPIES_COUNTED) * FULL,
            ),
            affinity: term(self.affinity, measures.affinity),
            latency: -term(self.latency, measures.latency),
            fit: term(self.fit, measures.fit),
            failure: -term(self.failure, measures.failure),
            content: term(self.content, measures.content),
            price: -term(self.price, measures.price),
        }
    }
}

/// A measure at its most.
pub(crate) const FULL: i32 = 1_000;
/// More copies in one place make it no worse.
const COPIES_COUNTED: i32 = 100;
const STEPS: f64 = 20.0;
const STEP: i32 = 50;
const LATENCY_MS_MAX: u128 = 500;
/// By which a replica of a service without needs counts.
const SHARE_PER_REPLICA: f64 = 0.02;

/// What is measured of one place, before weights.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measures {
    pub domain_copies: i32,
    pub own_copies: i32,
    pub affinity: i32,
    pub latency: i32,
    pub fit: i32,
    pub failure: i32,
    pub content: i32,
    pub price: i32,
}

/// * `free`: share of the scarcest resource that is free with the replica there.
pub(crate) fn fit(kind: Fit, free: f64) -> i32 {
    let share = match kind {
        Fit::Balance => free,
        Fit::Pack => 1.0 - free,
    };
    // A division's last bit decides no step.
    #[expect(clippy::cast_possible_truncation, reason = "0 to 20")]
    let steps = (share.clamp(0.0, 1.0) * STEPS + 1e-6) as i32;
    steps * STEP
}

/// What is free, as a share, for services that say no needs.
pub(crate) fn free_by_count(replicas_per_machine: f64) -> f64 {
    1.0 - (replicas_per_machine + 1.0) * SHARE_PER_REPLICA
}

/// A share of 0 to 1 as a measure.
pub(crate) fn measure(share: f64) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "0 to 1,000")]
    let thousandths = (share.clamp(0.0, 1.0) * f64::from(FULL)).round() as i32;
    thousandths
}

pub(crate) fn latency(latency: std::time::Duration) -> i32 {
    let whole = latency.as_millis().min(LATENCY_MS_MAX) * 1_000 / LATENCY_MS_MAX;
    i32::try_from(whole).unwrap_or(FULL)
}

/// A place's score, weighted, term by term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    pub spread: i32,
    pub stacking: i32,
    pub affinity: i32,
    pub latency: i32,
    pub fit: i32,
    pub failure: i32,
    pub content: i32,
    pub price: i32,
}

impl Score {
    pub fn total(&self) -> i32 {
        self.terms().iter().map(|(_, value)| value).sum()
    }

    /// Each term with its name.
    pub fn terms(&self) -> [(&'static str, i32); 8] {
        [
            ("spread", self.spread),
            ("stacking", self.stacking),
            ("affinity", self.affinity),
            ("latency", self.latency),
            ("fit", self.fit),
            ("failure", self.failure),
            ("content", self.content),
            ("price", self.price),
        ]
    }
}
