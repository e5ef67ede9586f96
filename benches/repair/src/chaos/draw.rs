//! Draws what befalls a cluster next.
//!
//! In: a seed, who leads, where replicas run. Out: a deed, where it is felt, for
//! how long.
//! Holds: the same of these draw the same; at most two nodes, or a zone, are struck
//! at once.

use fastrand::Rng;
use kernel::{Bytes, Name, ZonePath};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;
use wire::lab::{Between, Fault, Part, Place};

/// What is struck: a node's place in the lab, its name, its zone.
#[derive(Clone, Debug)]
pub struct Struck {
    pub name: Name,
    pub zone: ZonePath,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    Faults(Vec<Fault>),
    /// By people: another version of what runs.
    Apply,
    /// By people: a node is emptied, and then taken back.
    Drain(usize),
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Faults(faults) => {
                let words: Vec<String> = faults.iter().map(ToString::to_string).collect();
                f.write_str(&words.join(" and "))
            }
            Self::Apply => f.write_str("apply another version"),
            Self::Drain(_) => f.write_str("drain"),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// By which it is counted.
    pub kind: &'static str,
    pub deed: Deed,
    /// Whose own clients may feel it.
    pub at: BTreeSet<usize>,
    /// None: it is over at once.
    pub span: Option<Duration>,
}

const KINDS: [&str; 19] = [
    "kill an agent",
    "kill an edge",
    "kill a supervisor",
    "kill replicas",
    "cut a node's power",
    "cut two nodes' power",
    "cut a zone's power",
    "pause a node",
    "cut a node off",
    "cut a zone off",
    "cut one way",
    "lose packets",
    "add distance",
    "take bandwidth",
    "take cores",
    "fill a disk",
    "slow a disk",
    "apply a version",
    "drain a node",
];
const LEAST_MS: u64 = 1_000;
const MOST_MS: u64 = 10_000;

/// * `nodes`: in the lab's order.
/// * `leader`: struck more often than the others.
/// * `running`: nodes with replicas, one at least.
pub fn draw(seed: u64, nodes: &[Struck], leader: usize, running: &[usize]) -> Drawn {
    let mut rng = Rng::with_seed(seed);
    let kind = KINDS[rng.usize(..KINDS.len())];
    let span = Duration::from_millis(rng.u64(LEAST_MS..=MOST_MS));
    let one = match (kind, rng.u8(..3)) {
        // Elsewhere are none.
        ("kill replicas", _) => running[rng.usize(..running.len())],
        (_, 0) => leader,
        _ => rng.usize(..nodes.len()),
    };
    let other = (one + rng.usize(1..nodes.len())) % nodes.len();
    let mut field = Field {
        nodes,
        one,
        other,
        rng,
    };
    let (deed, at) = field.strike(kind);
    let is_over_at_once = match &deed {
        Deed::Apply => true,
        Deed::Drain(_) => false,
        Deed::Faults(faults) => faults
            .iter()
            .all(|fault| matches!(fault, Fault::Kill { part, .. } if *part != Part::Supervisor)),
    };
    Drawn {
        kind,
        deed,
        at,
        span: (!is_over_at_once).then_some(span),
    }
}

fn between(from: Place, to: Option<Place>, one_way: bool) -> Between {
    Between { from, to, one_way }
}

struct Field<'a> {
    nodes: &'a [Struck],
    one: usize,
    other: usize,
    rng: Rng,
}

impl Field<'_> {
    fn name(&self, at: usize) -> Name {
        self.nodes[at].name.clone()
    }

    fn zone(&self) -> BTreeSet<usize> {
        let zone = &self.nodes[self.one].zone;
        let all = 0..self.nodes.len();
        all.filter(|at| self.nodes[*at].zone == *zone).collect()
    }

    fn all_off(&self, at: BTreeSet<usize>) -> (Vec<Fault>, BTreeSet<usize>) {
        let faults = at.iter().map(|at| Fault::PowerOff {
            node: self.name(*at),
        });
        (faults.collect(), at)
    }

    fn strike(&mut self, kind: &str) -> (Deed, BTreeSet<usize>) {
        let (one, other) = (self.one, self.other);
        let alone = BTreeSet::from([one]);
        let node = self.name(one);
        let own = Place::Node(node.clone());
        let kill = |part| Fault::Kill {
            node: node.clone(),
            part,
        };
        let (faults, at) = match kind {
            "kill an agent" => (vec![kill(Part::Agent)], alone),
            "kill an edge" => (vec![kill(Part::Edge)], alone),
            "kill a supervisor" => (vec![kill(Part::Supervisor)], alone),
            "kill replicas" => (vec![kill(Part::Replica)], alone),
            "cut a node's power" => self.all_off(alone),
            "cut two nodes' power" => self.all_off([one, other].into()),
            "cut a zone's power" => self.all_off(self.zone()),
            "pause a node" => (vec![Fault::Pause { node }], alone),
            "cut a node off" => (vec![Fault::Cut(between(own, None, false))], alone),
            "cut a zone off" => {
                let zone = Place::Zone(self.nodes[one].zone.clone());
                let cut = Fault::Cut(between(zone, None, false));
                (vec![cut], self.zone())
            }
            "cut one way" => {
                let to = Place::Node(self.name(other));
                let cut = Fault::Cut(between(own, Some(to), true));
                (vec![cut], [one, other].into())
            }
            "lose packets" => {
                let share = 0.01 * f64::from(self.rng.u8(5..=30));
                let around = between(own, None, false);
                (
                    vec![Fault::Loss {
                        between: around,
                        share,
                    }],
                    alone,
                )
            }
            "add distance" => {
                let by_ms = f64::from(self.rng.u16(50..=500));
                let around = between(own, None, false);
                (
                    vec![Fault::Slow {
                        between: around,
                        by_ms,
                    }],
                    alone,
                )
            }
            "take bandwidth" => {
                let bits_per_s = self.rng.u64(1..=20) * 250_000;
                (vec![Fault::Rate { node, bits_per_s }], alone)
            }
            "take cores" => (vec![Fault::Cpu { node, cores: 0.1 }], alone),
            "fill a disk" => {
                let leave = Bytes(self.rng.u64(..=1) << 20);
                (vec![Fault::Fill { node, leave }], alone)
            }
            "slow a disk" => {
                let writes_per_s = self.rng.u32(4..=40);
                (vec![Fault::Disk { node, writes_per_s }], alone)
            }
            "drain a node" => return (Deed::Drain(one), BTreeSet::new()),
            _ => return (Deed::Apply, BTreeSet::new()),
        };
        (Deed::Faults(faults), at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Vec<Struck> {
        let node = |at: usize| Struck {
            name: Name::new(format!("n{}", at + 1)).expect("a name"),
            zone: ["/a", "/b", "/c"][at % 3].parse().expect("a zone"),
        };
        (0..6).map(node).collect()
    }

    #[test]
    fn every_kind_comes_and_the_same_seed_draws_the_same() {
        let nodes = nodes();
        let mut kinds = BTreeSet::new();
        for seed in 0..1_000 {
            let drawn = draw(seed, &nodes, 2, &[1, 4]);
            assert_eq!(drawn, draw(seed, &nodes, 2, &[1, 4]));
            assert!(drawn.at.len() <= 2, "{drawn:?}");
            if let Deed::Faults(faults) = &drawn.deed {
                assert!(!faults.is_empty() && !drawn.at.is_empty(), "{drawn:?}");
            }
            kinds.insert(drawn.kind);
        }
        assert_eq!(kinds.len(), KINDS.len());
    }
}
