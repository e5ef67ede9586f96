//! Decides on which nodes replicas run: of one zone, or of a whole small cluster.

use crate::engine::{self, Inputs, Place};
use crate::model::{Failure, Node, Running, World};
use crate::plan::{Plan, WhyNot};
use kernel::{NodeId, Rng, ScopedName, ZonePath};

/// Assigns a zone's share of replicas to its nodes.
///
/// * `world`: services with the replicas that are this zone's, and
///   `held_elsewhere` where other zones have some. Nodes of other zones and what
///   runs there are not looked at; what runs on no node that there is, is missing
///   here.
pub fn nodes(world: &World, zone: &ZonePath) -> Plan<NodeId> {
    let places = world.nodes.iter().filter(|(_, node)| node.zone == *zone);
    let places = places.map(|(id, node)| place(*id, node)).collect();
    let is_here = |id: &NodeId| world.nodes.get(id).is_none_or(|node| node.zone == *zone);
    let mut running: Running<NodeId> = world.running.clone();
    for on in running.values_mut() {
        on.retain(|id, _| is_here(id));
    }
    plan(world, places, &running)
}

/// Decides zone and node of each replica at once, from the rows of all nodes: for
/// a cluster small enough that one seat sees them.
pub fn cluster(world: &World) -> Plan<NodeId> {
    let places = world
        .nodes
        .iter()
        .map(|(id, node)| place(*id, node))
        .collect();
    plan(world, places, &world.running)
}

/// Why a service would have no replica on `node` once [`cluster`]'s plan is carried
/// out. None: there is no such service, or no such node.
pub fn why_not(world: &World, service: &ScopedName, node: NodeId) -> Option<WhyNot<NodeId>> {
    let places = world.nodes.iter().map(|(id, node)| place(*id, node));
    let inputs = inputs(world, places.collect(), &world.running);
    engine::why_not(inputs, service, &node)
}

fn plan(world: &World, places: Vec<Place<NodeId>>, running: &Running<NodeId>) -> Plan<NodeId> {
    engine::plan(inputs(world, places, running))
}

fn inputs<'a>(
    world: &'a World,
    places: Vec<Place<NodeId>>,
    running: &'a Running<NodeId>,
) -> Inputs<'a, NodeId> {
    Inputs {
        services: &world.services,
        places,
        zones: &world.zones,
        running,
        policy: world.policy,
        are_nodes: true,
    }
}

/// Of a node, as far as it is known.
pub(crate) fn failure(told: Option<Failure>) -> f64 {
    let otherwise = Failure::NODE.probability(0.0);
    told.map_or(otherwise, |told| told.probability(otherwise))
}

fn place(id: NodeId, node: &Node) -> Place<NodeId> {
    Place {
        id,
        name: Some(node.name.clone()),
        key: Rng::seeded(id.0).next_u64(),
        zone: node.zone.clone(),
        domain: node.domain.clone(),
        capacity: node.capacity,
        free: node.free,
        largest: node.capacity,
        machines: 1,
        reachable: node.reachable,
        draining: node.draining,
        outbound_only: node.outbound_only,
        architectures: [node.architecture.clone()].into(),
        devices: node.devices.clone(),
        failure: failure(node.failure),
        price: node.price_per_hour,
        content: node.content.clone(),
    }
}
