//! What a plan says: where replicas go, why there, and why not elsewhere.
//!
//! `P` is what replicas are assigned to: a node's id or a zone's path.

use crate::model::Running;
use crate::score::Score;
use kernel::{Bytes, Name, ScopedName, ZonePath};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound(deserialize = "P: Ord + serde::de::DeserializeOwned"))]
pub struct Plan<P: Ord> {
    /// Where every replica is to be once the plan is carried out.
    pub assigned: Running<P>,
    pub choices: Vec<Choice<P>>,
    /// What leaves and comes nowhere else.
    pub removed: Vec<Removal<P>>,
    pub refused: Vec<Refusal<P>>,
    /// Of each service with an availability goal.
    pub availability: BTreeMap<ScopedName, Reached>,
}

/// One replica's new place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice<P> {
    pub service: ScopedName,
    pub place: P,
    pub score: Score,
    /// The best of the others, if any other could take it.
    pub runner_up: Option<RunnerUp<P>>,
    /// The place that it leaves, and why; none for a replica that ran nowhere.
    pub from: Option<(P, Leaving)>,
    /// The copy before it may still run where nobody can ask: this one starts
    /// once that one's lease is over.
    pub waits_for_lease: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunnerUp<P> {
    pub place: P,
    pub score: Score,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Removal<P> {
    pub service: ScopedName,
    pub place: P,
    pub why: Leaving,
}

/// Why a replica cannot stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leaving {
    /// The place is not among those that there are.
    Gone,
    /// The place meets the service's needs no longer.
    Unfit(Lack),
    /// Only nodes that cannot be called had it.
    SoleHolder,
    /// More run than are wanted.
    Surplus,
    /// The service is wanted no longer.
    NotWanted,
}

/// Replicas that have no place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal<P> {
    pub service: ScopedName,
    /// How many.
    pub missing: u32,
    /// Of those, the ones that should leave where they run and have to stay.
    pub stay: Vec<(P, Leaving)>,
    /// How many places were looked at.
    pub places: u32,
    pub failed: BTreeMap<Constraint, Failed>,
    /// What came closest, the closest first, [`Refusal::CLOSEST_MAX`] at most.
    pub closest: Vec<Near<P>>,
}

/// Why a service has no replica on one place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyNot<P> {
    /// It has: so many.
    Runs(u32),
    /// It could take none.
    Lacks(Vec<Lack>),
    /// It could. Both scores are as if the copy on `than` were to be placed again;
    /// where its own is the greater, what runs stays where it is.
    Behind { score: Score, than: P, its: Score },
    /// None is wanted, or none has a place.
    Unwanted,
}

/// How many places do not meet a constraint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    pub places: u32,
    /// Those that meet all others.
    pub only: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Near<P> {
    pub place: P,
    pub lacks: Vec<Lack>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    Pin,
    Zone,
    Reachable,
    Draining,
    Architecture,
    Device,
    AntiAffinity,
    SoleHolder,
    OtherNode,
    Cpu,
    Memory,
    Disk,
}

/// What a place lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lack {
    /// It is not the named node.
    Pin {
        node: Name,
    },
    Zone {
        zone: ZonePath,
    },
    Reachable,
    /// It is being emptied.
    Draining,
    Architecture {
        need: String,
    },
    Device {
        name: Name,
        need: u32,
        free: u32,
    },
    AntiAffinity {
        with: ScopedName,
    },
    /// It cannot be called, and no other place has a copy.
    SoleHolder,
    /// It has a copy, and a second there makes the service no more available.
    OtherNode,
    /// Thousandths of a core.
    Cpu {
        need: u64,
        free: u64,
    },
    Memory {
        need: Bytes,
        free: Bytes,
    },
    Disk {
        need: Bytes,
        free: Bytes,
    },
}

/// What a service's copies come to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    /// Share of the time with at least one up.
    pub goal: f64,
    pub reached: f64,
    pub copies: u32,
}

impl Reached {
    pub fn is_met(&self) -> bool {
        self.reached + crate::availability::EPSILON >= self.goal
    }
}

impl<P: Ord> Default for Plan<P> {
    fn default() -> Self {
        Self {
            assigned: Running::new(),
            choices: Vec::new(),
            removed: Vec::new(),
            refused: Vec::new(),
            availability: BTreeMap::new(),
        }
    }
}

impl<P> Refusal<P> {
    pub const CLOSEST_MAX: usize = 3;

    /// The constraint that left no place: the one that no place meets; if each is
    /// met somewhere, the one that most places lack alone, else that most lack.
    pub fn deciding(&self) -> Option<Constraint> {
        let rank = |failed: &Failed| (failed.places == self.places, failed.only, failed.places);
        let best = self
            .failed
            .iter()
            .rev()
            .max_by_key(|(_, failed)| rank(failed));
        best.map(|(constraint, _)| *constraint)
    }
}

impl Lack {
    pub fn constraint(&self) -> Constraint {
        match self {
            Self::Pin { .. } => Constraint::Pin,
            Self::Zone { .. } => Constraint::Zone,
            Self::Reachable => Constraint::Reachable,
            Self::Draining => Constraint::Draining,
            Self::Architecture { .. } => Constraint::Architecture,
            Self::Device { .. } => Constraint::Device,
            Self::AntiAffinity { .. } => Constraint::AntiAffinity,
            Self::SoleHolder => Constraint::SoleHolder,
            Self::OtherNode => Constraint::OtherNode,
            Self::Cpu { .. } => Constraint::Cpu,
            Self::Memory { .. } => Constraint::Memory,
            Self::Disk { .. } => Constraint::Disk,
        }
    }

    /// How much of the need is not there, 0 to 1; 1 for what is there or not.
    pub fn gap(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "to compare, not to count")]
        let share = |need: u64, free: u64| need.saturating_sub(free) as f64 / need.max(1) as f64;
        match self {
            Self::Cpu { need, free } => share(*need, *free),
            Self::Memory { need, free } | Self::Disk { need, free } => share(need.0, free.0),
            Self::Device { need, free, .. } => share(u64::from(*need), u64::from(*free)),
            _ => 1.0,
        }
    }
}
