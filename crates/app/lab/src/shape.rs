//! What the network between places is like, faults counted in.
//!
//! In: a lab's plan, the faults in force. Out: delay, jitter, loss and cut for
//! each ordered pair of ends, a rate for each node.
//! Holds: an end is a node, or this machine's programs as if they were in one
//! zone; nodes come first, in the plan's order.
//! Never: acts; the relay and the transport do.

use kernel::{Name, ZonePath};
use std::net::IpAddr;
use std::time::Duration;
use wire::lab::{Between, Fault, Impairment, Impairments, LAB_VERSION, LabPlan, Place};

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    /// One way.
    pub delay: Duration,
    pub jitter: Duration,
    /// Share of packets, 0 to 1.
    pub loss: f64,
    pub cut: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    ends: usize,
    /// Shape `[from][to]`, flat.
    links: Vec<Link>,
    /// Bits per second of each end, each way.
    rates: Vec<Option<u64>>,
}

struct End<'a> {
    zone: &'a ZonePath,
    /// None: a client.
    node: Option<&'a Name>,
    address: IpAddr,
}

fn ends(plan: &LabPlan) -> Vec<End<'_>> {
    let nodes = plan.nodes.iter().map(|node| End {
        zone: &node.zone,
        node: Some(&node.name),
        address: node.address,
    });
    let clients = plan.clients.iter().map(|client| End {
        zone: &client.zone,
        node: None,
        address: client.address,
    });
    nodes.chain(clients).collect()
}

impl End<'_> {
    fn is_in(&self, place: &Place) -> bool {
        match place {
            Place::Zone(zone) => zone.contains(self.zone),
            Place::Node(name) => self.node == Some(name),
        }
    }
}

/// Whether the fault is on the way from one end to another.
fn concerns(between: &Between, from: &End, to: &End) -> bool {
    let one = |from: &End, to: &End| {
        let arrives = match &between.to {
            Some(place) => to.is_in(place),
            None => !to.is_in(&between.from),
        };
        from.is_in(&between.from) && arrives
    };
    one(from, to) || (!between.one_way && one(to, from))
}

impl Shape {
    pub fn of<'a>(plan: &LabPlan, faults: impl Iterator<Item = &'a Fault>) -> Self {
        let ends = ends(plan);
        let mut shape = Self::calm(plan, &ends);
        for fault in faults {
            shape.add(fault, &ends);
        }
        shape
    }

    fn calm(plan: &LabPlan, ends: &[End]) -> Self {
        let zone = |end: &End| plan.zones.iter().position(|zone| zone == end.zone);
        let link = |from: &End, to: &End| {
            let round_trip_ms = zone(from)
                .zip(zone(to))
                .and_then(|(from, to)| plan.round_trip_ms.get(from)?.get(to).copied())
                .unwrap_or(0.0);
            Link {
                delay: millis(round_trip_ms / 2.0),
                jitter: millis(plan.jitter_ms),
                loss: plan.loss,
                cut: false,
            }
        };
        let pairs = ends
            .iter()
            .flat_map(|from| ends.iter().map(move |to| link(from, to)));
        Self {
            ends: ends.len(),
            links: pairs.collect(),
            rates: ends
                .iter()
                .map(|end| end.node.and(plan.rate_bits_per_s))
                .collect(),
        }
    }

    fn add(&mut self, fault: &Fault, ends: &[End]) {
        match fault {
            Fault::Cut(between) => self.on(between, ends, |link| link.cut = true),
            Fault::Slow { between, by_ms } => {
                self.on(between, ends, |link| link.delay += millis(*by_ms));
            }
            Fault::Loss { between, share } => self.on(between, ends, |link| {
                link.loss = 1.0 - (1.0 - link.loss) * (1.0 - share);
            }),
            Fault::PowerOff { node } => {
                let all = Between {
                    from: Place::Node(node.clone()),
                    to: None,
                    one_way: false,
                };
                self.on(&all, ends, |link| link.cut = true);
            }
            Fault::Rate { node, bits_per_s } => {
                for (end, rate) in ends.iter().zip(&mut self.rates) {
                    if end.node == Some(node) {
                        *rate = Some(rate.map_or(*bits_per_s, |rate| rate.min(*bits_per_s)));
                    }
                }
            }
            // Not the network's.
            Fault::Cpu { .. }
            | Fault::Disk { .. }
            | Fault::Kill { .. }
            | Fault::Fill { .. }
            | Fault::Pause { .. } => {}
        }
    }

    fn on(&mut self, between: &Between, ends: &[End], mut change: impl FnMut(&mut Link)) {
        for (i, from) in ends.iter().enumerate() {
            for (j, to) in ends.iter().enumerate() {
                if i != j && concerns(between, from, to) {
                    change(&mut self.links[i * self.ends + j]);
                }
            }
        }
    }

    pub fn ends(&self) -> usize {
        self.ends
    }

    /// The link from one end to another; an unknown one is cut.
    pub fn link(&self, from: usize, to: usize) -> Link {
        let known = from < self.ends && to < self.ends;
        let at = known.then(|| from * self.ends + to);
        at.and_then(|at| self.links.get(at).copied())
            .unwrap_or(Link {
                cut: true,
                ..Link::default()
            })
    }

    pub fn rate(&self, end: usize) -> Option<u64> {
        self.rates.get(end).copied().flatten()
    }

    /// The same for a transport that imposes it itself, nodes only.
    pub fn impairments(&self, plan: &LabPlan) -> Impairments {
        let ends = ends(plan);
        let nodes = || {
            ends.iter()
                .enumerate()
                .filter(|(_, end)| end.node.is_some())
        };
        let pairs = nodes().flat_map(|from| nodes().map(move |to| (from, to)));
        let links = pairs.filter(|((i, _), (j, _))| i != j);
        Impairments {
            version: LAB_VERSION,
            links: links
                .map(|((i, from), (j, to))| {
                    let link = self.link(i, j);
                    Impairment {
                        from: from.address,
                        to: to.address,
                        one_way_ms: link.delay.as_secs_f64() * 1e3,
                        jitter_ms: link.jitter.as_secs_f64() * 1e3,
                        loss: link.loss,
                        cut: link.cut,
                    }
                })
                .collect(),
        }
    }
}

fn millis(count: f64) -> Duration {
    Duration::try_from_secs_f64(count / 1e3).unwrap_or_default()
}

/// Whether a fault's places and nodes are in the plan; the first that is not.
pub fn unknown(plan: &LabPlan, fault: &Fault) -> Option<String> {
    let ends = ends(plan);
    let missing = |place: &Place| {
        let found = ends.iter().any(|end| end.is_in(place));
        (!found).then(|| place.to_string())
    };
    match fault {
        Fault::Cut(between) | Fault::Slow { between, .. } | Fault::Loss { between, .. } => {
            missing(&between.from).or_else(|| between.to.as_ref().and_then(missing))
        }
        Fault::Rate { node, .. }
        | Fault::Cpu { node, .. }
        | Fault::Disk { node, .. }
        | Fault::Kill { node, .. }
        | Fault::Fill { node, .. }
        | Fault::PowerOff { node }
        | Fault::Pause { node } => missing(&Place::Node(node.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    fn plan() -> LabPlan {
        Options::new("/bin/true").plan(1, "/x".as_ref())
    }

    fn between(from: &str, to: Option<&str>, one_way: bool) -> Between {
        Between {
            from: from.parse().expect("a place"),
            to: to.map(|to| to.parse().expect("a place")),
            one_way,
        }
    }

    fn cut(shape: &Shape) -> Vec<(usize, usize)> {
        let pairs = (0..shape.ends()).flat_map(|i| (0..shape.ends()).map(move |j| (i, j)));
        pairs.filter(|(i, j)| shape.link(*i, *j).cut).collect()
    }

    #[test]
    fn distances_are_half_of_the_round_trips() {
        let plan = plan();
        let shape = Shape::of(&plan, std::iter::empty());
        // Three nodes in three zones, then a client in each.
        assert_eq!(shape.ends(), 6);
        assert_eq!(
            shape.link(0, 1).delay,
            millis(plan.round_trip_ms[0][1] / 2.0)
        );
        assert_eq!(shape.link(0, 1), shape.link(1, 0));
        assert_eq!(
            shape.link(3, 0).delay,
            millis(plan.round_trip_ms[0][0] / 2.0)
        );
        assert_eq!(cut(&shape), []);
    }

    #[test]
    fn a_cut_between_zones_leaves_the_third_alone() {
        let plan = plan();
        let both = Fault::Cut(between("/eu", Some("/us/1"), false));
        let shape = Shape::of(&plan, std::iter::once(&both));
        let expected = [
            (0, 1),
            (0, 4),
            (1, 0),
            (1, 3),
            (3, 1),
            (3, 4),
            (4, 0),
            (4, 3),
        ];
        assert_eq!(cut(&shape), expected);
        let one = Fault::Cut(between("/eu/1", Some("n2"), true));
        assert_eq!(
            cut(&Shape::of(&plan, std::iter::once(&one))),
            [(0, 1), (3, 1)]
        );
    }

    #[test]
    fn a_cut_from_all_others_leaves_what_is_inside() {
        let plan = plan();
        let alone = Fault::Cut(between("/ap/1", None, false));
        let shape = Shape::of(&plan, std::iter::once(&alone));
        assert!(!shape.link(2, 5).cut && !shape.link(0, 1).cut);
        assert!(shape.link(2, 0).cut && shape.link(1, 5).cut);
        let off = Fault::PowerOff {
            node: plan.nodes[2].name.clone(),
        };
        let shape = Shape::of(&plan, std::iter::once(&off));
        assert!(shape.link(2, 5).cut && shape.link(0, 2).cut && !shape.link(0, 5).cut);
    }

    #[test]
    fn faults_on_one_link_add_up() {
        let plan = plan();
        let faults = [
            Fault::Slow {
                between: between("n1", Some("n2"), true),
                by_ms: 100.0,
            },
            Fault::Loss {
                between: between("n1", None, true),
                share: 0.5,
            },
            Fault::Loss {
                between: between("n1", Some("/us"), true),
                share: 0.5,
            },
        ];
        let calm = Shape::of(&plan, std::iter::empty());
        let shape = Shape::of(&plan, faults.iter());
        assert_eq!(
            shape.link(0, 1).delay,
            calm.link(0, 1).delay + millis(100.0)
        );
        assert!((shape.link(0, 1).loss - 0.75).abs() < 1e-9);
        assert_eq!(shape.link(1, 0), calm.link(1, 0));
        let told = shape.impairments(&plan);
        assert_eq!(told.links.len(), 6);
        assert!((told.links[0].loss - 0.75).abs() < 1e-9);
    }

    #[test]
    fn places_that_are_not_there_are_named() {
        let plan = plan();
        let fault = Fault::Cut(between("/eu/1", Some("/mars"), false));
        assert_eq!(unknown(&plan, &fault).as_deref(), Some("/mars"));
        let fault = Fault::Cut(between("/eu/1", Some("n3"), false));
        assert_eq!(unknown(&plan, &fault), None);
    }
}
