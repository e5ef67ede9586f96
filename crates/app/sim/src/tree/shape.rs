//! How many zones of how many nodes, and where each stands.

use kernel::{NodeId, Rng, ZonePath};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use wire::tree::Contact;

/// A tree with as many children at each level; nodes are numbered leaf zone by
/// leaf zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Children of the root, of each of these, …; empty where the root is the
    /// only zone.
    pub branching: Vec<usize>,
    /// Nodes of a leaf zone.
    pub leaf: usize,
    zones: Vec<ZonePath>,
}

impl Shape {
    pub fn new(branching: &[usize], leaf: usize) -> Self {
        let branching = branching.to_vec();
        let mut made = Self {
            branching,
            leaf,
            zones: Vec::new(),
        };
        made.zones = (0..made.leaves()).map(|leaf| made.named(leaf)).collect();
        made
    }

    pub fn leaves(&self) -> usize {
        self.branching.iter().product()
    }

    pub fn nodes(&self) -> usize {
        self.zones.len() * self.leaf
    }

    pub fn depth(&self) -> usize {
        self.branching.len()
    }

    /// Nodes below one zone of this depth.
    pub fn below(&self, depth: usize) -> usize {
        self.branching.iter().skip(depth).product::<usize>() * self.leaf
    }

    pub fn leaf_of(&self, node: usize) -> usize {
        node / self.leaf
    }

    /// The path of a leaf zone.
    pub fn zone(&self, leaf: usize) -> ZonePath {
        self.zones[leaf].clone()
    }

    pub fn zone_of(&self, node: usize) -> &ZonePath {
        &self.zones[self.leaf_of(node)]
    }

    fn named(&self, leaf: usize) -> ZonePath {
        let mut text = String::new();
        for depth in 1..=self.depth() {
            let zones = self.below(depth) / self.leaf;
            let at = leaf / zones % self.branching[depth - 1];
            let _ = write!(text, "/z{at}");
        }
        let text = if text.is_empty() { "/" } else { &text };
        text.parse().unwrap_or_default()
    }

    /// Of other zones, some at each level.
    pub fn strangers(&self, node: usize, each: usize, rng: &mut Rng) -> Vec<Contact> {
        let mut found = Vec::new();
        for depth in 0..self.depth() {
            let (inside, below) = (self.below(depth), self.below(depth + 1));
            let first = node / inside * inside;
            for _ in 0..each {
                let other = first + draw(inside, rng);
                if other / below != node / below {
                    found.push(contact(other));
                }
            }
        }
        found
    }
}

pub fn draw(below: usize, rng: &mut Rng) -> usize {
    usize::try_from(rng.below(below as u64)).unwrap_or_default()
}

pub fn id(at: usize) -> NodeId {
    NodeId(at as u64 + 1)
}

pub fn at(node: NodeId) -> usize {
    usize::try_from(node.0)
        .unwrap_or(usize::MAX)
        .wrapping_sub(1)
}

pub fn contact(at: usize) -> Contact {
    let bits = u32::try_from(at).unwrap_or_default() + (10 << 24);
    Contact {
        node: id(at),
        address: SocketAddr::from((Ipv4Addr::from_bits(bits), 7_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_numbered_from_the_root() {
        let shape = Shape::new(&[3, 2], 4);
        assert_eq!((shape.nodes(), shape.leaves()), (24, 6));
        assert_eq!(shape.zone(0).to_string(), "/z0/z0");
        assert_eq!(shape.zone(5).to_string(), "/z2/z1");
        assert_eq!((shape.below(0), shape.below(1), shape.below(2)), (24, 8, 4));
        assert_eq!(Shape::new(&[], 4).zone(0), ZonePath::root());
    }
}
