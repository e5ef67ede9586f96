//! What placement is told: services, nodes, zones, and what runs where.
//!
//! Holds: any value is acceptable; numbers that mean nothing (not a number,
//! below nothing) count as the default of what they stand for.

use crate::score::{Fit, Weights};
use kernel::{Bytes, Hash, Name, NodeId, ScopedName, ZonePath};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What one replica needs, or what a node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_thousandths: u64,
    pub memory: Bytes,
    pub disk: Bytes,
}

/// Over what a service's copies are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    #[default]
    Zone,
    /// The nodes' `domain`; nodes without one share their zone's.
    Domain,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// At least so many; an availability goal can ask for more.
    pub replicas: u32,
    /// Of one replica.
    pub need: Resources,
    /// By name, how many of each one replica takes for itself.
    pub devices: BTreeMap<Name, u32>,
    /// None runs anywhere.
    pub architecture: Option<String>,
    /// One copy at most in the cluster, an actor's for instance.
    pub singleton: bool,
    /// Services that it is better near to.
    pub affinity: BTreeSet<ScopedName>,
    /// Services that it never shares a node with, whichever of the two names
    /// the other; its own name makes one copy a node the most.
    pub anti_affinity: BTreeSet<ScopedName>,
    pub spread: Spread,
    /// Share of the time that at least one copy's node is up, 0 to 1.
    pub availability: Option<f64>,
    /// The only node it may run on; that one may hold it alone even if it can
    /// only call out.
    pub node: Option<Name>,
    /// The only zone at or below which it may run.
    pub zone: Option<ZonePath>,
    /// What a replica needs on its node to start, and how large it is.
    pub content: BTreeMap<Hash, Bytes>,
    /// From its users to a zone and all below it; a zone of which nothing is said
    /// counts as the farthest that is.
    pub latency: BTreeMap<ZonePath, Duration>,
    /// Whether a node that can be called holds a copy outside of what this plan
    /// is about.
    pub held_elsewhere: bool,
}

/// How often something is down.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// Share of the time that it is down, 0 to 1.
    Probability(f64),
    /// Mean times from a repair to the next failure, and from there to the repair.
    Times { between: Duration, repair: Duration },
}

impl Failure {
    /// Of a node of which nothing is known: about 7 hours a month.
    pub const NODE: Self = Self::Probability(0.01);
    /// Of a zone of which nothing is known: about 40 minutes a month.
    pub const ZONE: Self = Self::Probability(0.001);

    /// Share of the time that it is down, 0 to 1; `otherwise` where the numbers
    /// mean nothing.
    ///
    /// Steady state of an alternating renewal process: repair / (between + repair).
    pub fn probability(self, otherwise: f64) -> f64 {
        let share = match self {
            Self::Probability(share) => share,
            Self::Times { between, repair } => {
                repair.as_secs_f64() / (between.as_secs_f64() + repair.as_secs_f64())
            }
        };
        if share.is_nan() {
            otherwise
        } else {
            share.clamp(0.0, 1.0)
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub name: Name,
    pub zone: ZonePath,
    /// What fails with it: a rack, a circuit, a host of virtual machines.
    pub domain: Option<Name>,
    /// What replicas may use in all.
    pub capacity: Resources,
    /// What is left, as measured, of `capacity` while all that is told to run
    /// here runs. Never more is believed free than replicas' needs leave.
    pub free: Resources,
    pub architecture: String,
    /// In all, whether taken or not.
    pub devices: BTreeMap<Name, u32>,
    /// None is [`Failure::NODE`].
    pub failure: Option<Failure>,
    /// In the operator's currency.
    pub price_per_hour: Option<f64>,
    pub outbound_only: bool,
    /// What is on one that cannot be reached stays, and nothing comes to it.
    /// Whoever knows that it is dead leaves it out.
    pub reachable: bool,
    pub draining: bool,
    /// Files, programs and images that it holds already.
    pub content: BTreeSet<Hash>,
}

/// What is known of a zone beside its nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Zone {
    /// Of the zone as a whole, with all that is in it; none is
    /// [`Failure::ZONE`].
    pub failure: Option<Failure>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    pub weights: Weights,
    pub fit: Fit,
}

/// By service and by node or zone, how many replicas.
pub type Running<P> = BTreeMap<ScopedName, BTreeMap<P, u32>>;

/// All that a plan over nodes follows from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct World {
    pub services: BTreeMap<ScopedName, Service>,
    pub nodes: BTreeMap<NodeId, Node>,
    pub zones: BTreeMap<ZonePath, Zone>,
    /// Everything that takes room on these nodes. What is no service any more
    /// is removed.
    pub running: Running<NodeId>,
    pub policy: Policy,
}
