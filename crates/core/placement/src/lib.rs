//! Decides on which zones and nodes replicas run: incremental bin packing that
//! tells why.
//!
//! In: services, nodes' rows or zones' aggregates, what runs where. Out: a
//! [`Plan`]: what is assigned, each choice with its score and its runner-up, each
//! refusal with what left no place.
//! Holds: what runs stays unless its node is gone, drained or unfit, or a hard
//! rule is broken; what has to leave stays until there is a place for it; a plan
//! follows from the inputs' content, not from their order.
//! Never: reads a clock, does I/O, draws unseeded randomness, packs anew what runs.

mod availability;
mod display;
mod engine;
mod model;
mod nodes;
mod plan;
mod score;
mod what_if;
mod zones;

pub use availability::{AvailabilityError, COPIES_MAX, Copies, Domain, availability, copies_for};
pub use model::{Failure, Node, Policy, Resources, Running, Service, Spread, World, Zone};
pub use nodes::{cluster, nodes, why_not};
pub use plan::{
    Choice, Constraint, Failed, Lack, Leaving, Near, Plan, Reached, Refusal, Removal, RunnerUp,
    WhyNot,
};
pub use score::{Fit, Score, Weights};
pub use what_if::{WhatIf, Without, what_if};
pub use zones::{Aggregate, ZoneWorld, aggregates, zones};
