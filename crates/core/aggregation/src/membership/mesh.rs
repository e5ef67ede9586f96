//! Decides with whom a node speaks: a bounded, fixed set, so that connections
//! last.
//!
//! In: the node table and who is up. Out: neighbours.
//! Holds: a leaf zone up to 32 nodes is a full mesh; a larger one is a ring
//! with chords at powers of two, so that two neighbours have neighbours in
//! common who can ask for one another. Zones form the same ring, and two that
//! touch are kept together by three nodes of each; where those fall silent,
//! twice as many of the next step in, so that a dead zone is known in a few
//! steps. Nodes that can only call out are none of these, unless their zone has
//! no others.

use super::event::Reach;
use super::parameters::Parameters;
use super::table::Table;
use kernel::{NodeId, ZonePath, fnv1a};
use std::collections::{BTreeMap, BTreeSet};

/// How a node counts among those who keep two zones together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Up,
    /// Kept, and another beside it.
    Doubtful,
    Down,
}

impl Standing {
    pub fn of(reach: Reach) -> Self {
        match reach {
            Reach::Dead | Reach::Left => Self::Down,
            Reach::Suspect => Self::Doubtful,
            Reach::Alive | Reach::Unheard => Self::Up,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Mesh {
    /// Of this node's leaf zone, as the table has it.
    pub near: Vec<NodeId>,
    /// The same, in the order of the ring from this node on.
    pub ring: Vec<NodeId>,
    /// Of other zones, as things are.
    pub far: Vec<NodeId>,
    /// Those of other zones if all were up: where a healed cut is noticed.
    pub far_at_best: Vec<NodeId>,
    /// Who can ask one of another zone in this node's stead: those of this
    /// zone that speak with that one, and its own neighbours.
    allies: BTreeMap<NodeId, Vec<NodeId>>,
    /// Whether the leaf zone is a full mesh.
    pub full: bool,
    /// All of the leaf zone but this node.
    pub zone_size: usize,
}

impl Mesh {
    pub fn new(
        own: NodeId,
        table: &Table,
        standing: impl Fn(NodeId) -> Standing,
        parameters: &Parameters,
    ) -> Self {
        let Some(here) = table.get(&own).filter(|one| !one.revoked) else {
            return Self::default();
        };
        let mut zones: BTreeMap<&ZonePath, Vec<NodeId>> = BTreeMap::new();
        for (node, one) in table.iter().filter(|(_, one)| !one.revoked) {
            zones.entry(&one.zone).or_default().push(*node);
        }
        let linking = |zone: &ZonePath| -> Vec<NodeId> {
            let called = |node: &&NodeId| !table[*node].outbound_only;
            let able: Vec<NodeId> = zones[zone].iter().filter(called).copied().collect();
            if able.is_empty() {
                zones[zone].clone()
            } else {
                able
            }
        };
        let names: Vec<&ZonePath> = zones.keys().copied().collect();
        let mut mesh = Self::default();
        if let Some(zone) = zones.get(&here.zone) {
            mesh.zone_size = zone.len() - 1;
            mesh.full = zone.len() <= parameters.full_mesh_max;
            mesh.near = near(own, zone, mesh.full);
            mesh.ring = ring(own, &mesh.near);
        }
        let at = names.iter().position(|name| **name == here.zone);
        for other in chords(names.len(), at.unwrap_or_default()) {
            let far = names[other];
            let (ours, theirs) = (&linking(&here.zone), &linking(far));
            let at_best = |_: NodeId| Standing::Up;
            let best_ours = linkers(ours, far, &at_best, parameters.links);
            let best_theirs = linkers(theirs, &here.zone, &at_best, parameters.links);
            mesh.far_at_best
                .extend(linked(own, &best_ours, &best_theirs));
            let ours = linkers(ours, far, &standing, parameters.links);
            let theirs = linkers(theirs, &here.zone, &standing, parameters.links);
            let far = linked(own, &ours, &theirs);
            for one in &far {
                let allies = ours.iter().chain(&far);
                let allies = allies.copied().filter(|ally| ally != one && *ally != own);
                mesh.allies.insert(*one, allies.collect());
            }
            mesh.far.extend(far);
        }
        mesh
    }

    pub fn allies(&self, far: NodeId) -> &[NodeId] {
        self.allies.get(&far).map_or(&[], Vec::as_slice)
    }

    pub fn all(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.near.iter().chain(&self.far).copied()
    }

    /// Whom to knock at: those who are neighbours at best and as things are.
    pub fn knockable(&self) -> BTreeSet<NodeId> {
        self.all().chain(self.far_at_best.iter().copied()).collect()
    }

    pub fn size(&self) -> usize {
        self.near.len() + self.far.len()
    }

    /// Whether whoever of this zone knows something first tells all whom this
    /// node speaks with.
    pub fn tells_all(&self) -> bool {
        self.full && self.far.is_empty()
    }
}

fn near(own: NodeId, zone: &[NodeId], full: bool) -> Vec<NodeId> {
    if full {
        return zone.iter().copied().filter(|node| *node != own).collect();
    }
    // By hash, so that those who joined together are not each other's only
    // neighbours.
    let mut ring: Vec<(u64, NodeId)> = zone.iter().map(|node| (mixed(*node, 0), *node)).collect();
    ring.sort_unstable();
    let at = ring.iter().position(|(_, node)| *node == own);
    let around = chords(ring.len(), at.unwrap_or_default());
    around.into_iter().map(|index| ring[index].1).collect()
}

fn ring(own: NodeId, near: &[NodeId]) -> Vec<NodeId> {
    let own = mixed(own, 0);
    let mut ring = near.to_vec();
    ring.sort_by_key(|node| mixed(*node, 0).wrapping_sub(own));
    ring
}

/// The places at distances of powers of two on both sides.
fn chords(size: usize, at: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut step = 1;
    while step < size {
        found.insert((at + step) % size);
        found.insert((at + size - step) % size);
        step *= 2;
    }
    found
}

fn mixed(node: NodeId, salt: u64) -> u64 {
    let bytes = node.0.to_be_bytes().into_iter().chain(salt.to_be_bytes());
    fnv1a(bytes)
}

/// Who of `zone` keeps it together with `other`, best first.
fn linkers(
    zone: &[NodeId],
    other: &ZonePath,
    standing: &dyn Fn(NodeId) -> Standing,
    links: usize,
) -> Vec<NodeId> {
    let salt = fnv1a(other.to_string().into_bytes());
    let mut ranked: Vec<(u64, NodeId)> = zone
        .iter()
        .map(|node| (mixed(*node, salt), *node))
        .collect();
    ranked.sort_unstable();
    let (mut kept, mut up, mut silent) = (Vec::new(), 0, 0);
    for (_, node) in ranked {
        if up >= links + silent {
            break;
        }
        let standing = standing(node);
        if standing == Standing::Up {
            up += 1;
        } else {
            silent += 1;
        }
        if standing != Standing::Down {
            kept.push(node);
        }
    }
    kept
}

/// Each linker has two of the other side.
fn linked(own: NodeId, ours: &[NodeId], theirs: &[NodeId]) -> Vec<NodeId> {
    let Some(at) = ours.iter().position(|node| *node == own) else {
        return Vec::new();
    };
    let longer = ours.len().max(theirs.len()).max(1);
    // Both sides must find the same pairs.
    let touches = |index: usize, other: usize| {
        (0..longer).any(|step| {
            step % ours.len() == index
                && (step % theirs.len() == other || (step + 1) % theirs.len() == other)
        }) || (0..longer)
            .any(|step| step % theirs.len() == other && (step + 1) % ours.len() == index)
    };
    theirs
        .iter()
        .enumerate()
        .filter(|(other, _)| touches(at, *other))
        .map(|(_, node)| *node)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::table::Belongs;
    use super::*;
    use proptest::prelude::*;

    fn table(sizes: &[usize]) -> Table {
        let mut table = Table::new();
        for (at, size) in sizes.iter().enumerate() {
            for index in 0..*size {
                let node = NodeId((at * 1_000 + index + 1) as u64);
                let one = Belongs {
                    zone: format!("/z/{at}").parse().expect("a zone"),
                    revoked: false,
                    outbound_only: false,
                };
                table.insert(node, one);
            }
        }
        table
    }

    fn meshes(
        table: &Table,
        standing: &dyn Fn(NodeId) -> Standing,
    ) -> BTreeMap<NodeId, BTreeSet<NodeId>> {
        let parameters = Parameters::default();
        let nodes = table
            .keys()
            .filter(|node| standing(**node) != Standing::Down);
        let mesh = |node: &NodeId| {
            let mesh = Mesh::new(*node, table, standing, &parameters);
            let up = mesh.all().filter(|node| standing(*node) != Standing::Down);
            (*node, up.collect())
        };
        nodes.map(mesh).collect()
    }

    fn reached(meshes: &BTreeMap<NodeId, BTreeSet<NodeId>>) -> usize {
        let mut open: Vec<NodeId> = meshes.keys().take(1).copied().collect();
        let mut found: BTreeSet<NodeId> = open.iter().copied().collect();
        while let Some(node) = open.pop() {
            for next in &meshes[&node] {
                if found.insert(*next) {
                    open.push(*next);
                }
            }
        }
        found.len()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn neighbours_are_mutual_few_and_lead_to_all(
            sizes in prop::collection::vec(1_usize..50, 1..12),
            dead in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        ) {
            let table = table(&sizes);
            let all: Vec<NodeId> = table.keys().copied().collect();
            let dead: BTreeSet<NodeId> = dead.iter().map(|at| *at.get(&all)).collect();
            // A large zone's ring may be torn where half of it is dead.
            let torn = sizes.iter().any(|size| *size > 32);
            let standing = |node| {
                if dead.contains(&node) { Standing::Down } else { Standing::Up }
            };
            let meshes = meshes(&table, &standing);
            for (node, neighbours) in &meshes {
                prop_assert!(!neighbours.contains(node));
                for other in neighbours {
                    prop_assert!(meshes[other].contains(node), "{node} and {other}");
                }
            }
            if dead.is_empty() {
                let most = meshes.values().map(BTreeSet::len).max();
                prop_assert!(most <= Some(31 + 8 * 2), "{most:?}");
            }
            if dead.is_empty() || !torn {
                // Whole dead zones may part what is left.
                let whole = sizes.iter().enumerate().all(|(at, size)| {
                    (0..*size).any(|index| {
                        standing(NodeId((at * 1_000 + index + 1) as u64)) == Standing::Up
                    })
                });
                prop_assert!(!whole || reached(&meshes) == meshes.len());
            }
        }
    }

    #[test]
    fn who_can_only_call_out_does_not_keep_zones_together() {
        let mut table = table(&[8, 8]);
        let hidden: BTreeSet<NodeId> = (1..=7).map(NodeId).collect();
        for node in &hidden {
            table.get_mut(node).expect("there").outbound_only = true;
        }
        let up = |_: NodeId| Standing::Up;
        let far = |node| Mesh::new(NodeId(node), &table, up, &Parameters::default()).far;
        assert!((1..=7).all(|node| far(node).is_empty()));
        assert!(!far(8).is_empty());
        assert!((1_001..=1_008).all(|node| far(node).iter().all(|one| *one == NodeId(8))));
        // Of a zone that has no others, they do.
        table.get_mut(&NodeId(8)).expect("there").outbound_only = true;
        let far = |node| Mesh::new(NodeId(node), &table, up, &Parameters::default()).far;
        assert!((1..=8).any(|node| !far(node).is_empty()));
    }

    #[test]
    fn neighbours_in_a_ring_have_neighbours_in_common() {
        let table = table(&[100]);
        let meshes = meshes(&table, &|_| Standing::Up);
        for (node, neighbours) in &meshes {
            for other in neighbours {
                let common = meshes[other].intersection(neighbours).count();
                assert!(common >= 2, "{node} and {other} have {common}");
            }
        }
    }
}
