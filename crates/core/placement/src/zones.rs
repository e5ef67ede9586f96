//! Decides how many replicas each leaf zone gets, from the zones' aggregates.
//!
//! Holds: a zone gets no more than its sums allow, and nothing that is larger
//! than what its emptiest node has free. Whether it all fits node by node only
//! the zone's own plan tells; what it refuses comes back to be placed elsewhere.
//! Never: looks at a service's named node: who asks knows its zone, and tells that.

use crate::engine::{self, Inputs, Place, key_of_text};
use crate::model::{Failure, Node, Policy, Resources, Running, Service, World, Zone};
use crate::nodes::failure;
use crate::plan::Plan;
use kernel::{Bytes, Hash, Name, NodeId, ScopedName, ZonePath};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A zone's nodes in sum.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Aggregate {
    /// That take replicas: none of those that drain or cannot be reached.
    pub nodes: u32,
    /// Of those, the ones that can be called.
    pub dialable: u32,
    /// Of all nodes.
    pub capacity: Resources,
    /// Of the nodes that take replicas.
    pub free: Resources,
    /// Of each kind, the most that is free on one node.
    pub largest: Resources,
    pub architectures: BTreeSet<String>,
    /// In all, whether taken or not.
    pub devices: BTreeMap<Name, u32>,
    /// Of one node in the mean; none is [`Failure::NODE`].
    pub node_failure: Option<Failure>,
    /// Of the zone as a whole; none is [`Failure::ZONE`].
    pub failure: Option<Failure>,
    /// Of one node in the mean.
    pub price_per_hour: Option<f64>,
    /// On one node at least.
    pub content: BTreeSet<Hash>,
    /// What is in a zone that is silent stays, and nothing comes to it.
    pub reachable: bool,
}

/// All that a plan over zones follows from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ZoneWorld {
    pub services: BTreeMap<ScopedName, Service>,
    pub zones: BTreeMap<ZonePath, Aggregate>,
    pub running: Running<ZonePath>,
    pub policy: Policy,
}

/// Assigns replicas to leaf zones. Services keep apart from others (and are
/// refused for that) on nodes only; of their own copies a zone gets one a node at
/// most where they keep apart from themselves.
pub fn zones(world: &ZoneWorld) -> Plan<ZonePath> {
    let facts = |aggregate: &Aggregate| Zone {
        failure: aggregate.failure,
    };
    let facts = world
        .zones
        .iter()
        .map(|(path, aggregate)| (path.clone(), facts(aggregate)));
    engine::plan(Inputs {
        services: &world.services,
        places: world
            .zones
            .iter()
            .map(|(path, zone)| place(path, zone))
            .collect(),
        zones: &facts.collect(),
        running: &world.running,
        policy: world.policy,
        are_nodes: false,
    })
}

fn place(path: &ZonePath, zone: &Aggregate) -> Place<ZonePath> {
    Place {
        id: path.clone(),
        name: None,
        key: key_of_text(&path.to_string()),
        zone: path.clone(),
        domain: None,
        capacity: zone.capacity,
        free: zone.free,
        largest: zone.largest,
        machines: zone.nodes,
        reachable: zone.reachable && zone.nodes > 0,
        draining: false,
        outbound_only: zone.dialable == 0,
        architectures: zone.architectures.clone(),
        devices: zone.devices.clone(),
        failure: failure(zone.node_failure),
        price: zone.price_per_hour,
        content: zone.content.clone(),
    }
}

/// What each leaf zone's nodes come to.
pub fn aggregates(world: &World) -> BTreeMap<ZonePath, Aggregate> {
    let mut taken: BTreeMap<NodeId, Resources> = BTreeMap::new();
    for (name, on) in &world.running {
        let need = world
            .services
            .get(name)
            .map(|service| service.need)
            .unwrap_or_default();
        for (id, count) in on {
            let taken = taken.entry(*id).or_default();
            *taken = add(*taken, times(need, *count));
        }
    }
    let mut zones: BTreeMap<ZonePath, Vec<(&Node, Resources)>> = BTreeMap::new();
    for (id, node) in &world.nodes {
        let left = less(node.capacity, taken.get(id).copied().unwrap_or_default());
        let free = each(node.free, left, u64::min);
        zones
            .entry(node.zone.clone())
            .or_default()
            .push((node, free));
    }
    let sums = zones.into_iter().map(|(path, nodes)| {
        let failure = world.zones.get(&path).and_then(|zone| zone.failure);
        (path, aggregate(&nodes, failure))
    });
    sums.collect()
}

fn aggregate(nodes: &[(&Node, Resources)], zone: Option<Failure>) -> Aggregate {
    let mut sum = Aggregate {
        failure: zone,
        ..Aggregate::default()
    };
    let mut prices: Vec<f64> = Vec::new();
    let mut failures: Vec<f64> = Vec::new();
    for (node, free) in nodes {
        sum.capacity = add(sum.capacity, node.capacity);
        for (name, count) in &node.devices {
            *sum.devices.entry(name.clone()).or_default() += count;
        }
        sum.reachable |= node.reachable;
        if !node.reachable || node.draining {
            continue;
        }
        sum.nodes += 1;
        sum.dialable += u32::from(!node.outbound_only);
        sum.free = add(sum.free, *free);
        sum.largest = each(sum.largest, *free, u64::max);
        sum.architectures.insert(node.architecture.clone());
        sum.content.extend(&node.content);
        failures.push(failure(node.failure));
        prices.extend(node.price_per_hour);
    }
    sum.node_failure = mean(&failures).map(Failure::Probability);
    sum.price_per_hour = mean(&prices);
    sum
}

fn mean(values: &[f64]) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a zone's nodes are few")]
    let count = values.len() as f64;
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / count)
}

fn each(one: Resources, other: Resources, join: impl Fn(u64, u64) -> u64) -> Resources {
    Resources {
        cpu_thousandths: join(one.cpu_thousandths, other.cpu_thousandths),
        memory: Bytes(join(one.memory.0, other.memory.0)),
        disk: Bytes(join(one.disk.0, other.disk.0)),
    }
}

fn add(one: Resources, other: Resources) -> Resources {
    each(one, other, u64::saturating_add)
}

fn less(one: Resources, other: Resources) -> Resources {
    each(one, other, u64::saturating_sub)
}

fn times(one: Resources, count: u32) -> Resources {
    each(one, one, |amount, _| {
        amount.saturating_mul(u64::from(count))
    })
}
