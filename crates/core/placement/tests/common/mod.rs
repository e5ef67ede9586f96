//! Worlds for the tests: by hand, and at random from a seed.
#![allow(dead_code, reason = "each test file uses its part")]

use kernel::{Bytes, Hash, Name, NodeId, Rng, ScopedName, ZonePath};
use placement::{Failure, Fit, Node, Plan, Policy, Resources, Service, Spread, World, Zone};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

pub fn scoped(text: &str) -> ScopedName {
    ScopedName::new(name("p"), name(text))
}

pub fn zone(text: &str) -> ZonePath {
    text.parse().expect("a zone")
}

pub fn resources(cpu: u64, memory: u64) -> Resources {
    Resources {
        cpu_thousandths: cpu,
        memory: Bytes(memory),
        disk: Bytes(0),
    }
}

pub fn node(id: u64, at: &str, cpu: u64, memory: u64) -> (NodeId, Node) {
    let node = Node {
        name: name(&format!("n{id}")),
        zone: zone(at),
        domain: None,
        capacity: resources(cpu, memory),
        free: resources(cpu, memory),
        architecture: "x86_64".to_owned(),
        devices: BTreeMap::new(),
        failure: None,
        price_per_hour: None,
        outbound_only: false,
        reachable: true,
        draining: false,
        content: BTreeSet::new(),
    };
    (NodeId(id), node)
}

pub fn service(replicas: u32, cpu: u64, memory: u64) -> Service {
    Service {
        replicas,
        need: resources(cpu, memory),
        ..Service::default()
    }
}

pub fn world(
    nodes: impl IntoIterator<Item = (NodeId, Node)>,
    services: impl IntoIterator<Item = (&'static str, Service)>,
) -> World {
    let services = services
        .into_iter()
        .map(|(text, service)| (scoped(text), service));
    World {
        services: services.collect(),
        nodes: nodes.into_iter().collect(),
        ..World::default()
    }
}

/// Three zones in turn.
pub fn in_turn(id: u64) -> &'static str {
    ["/a", "/b", "/c"][usize::try_from(id % 3).expect("small")]
}

pub fn on<P: Ord>(plan: &Plan<P>, service: &str, place: &P) -> u32 {
    let on = plan.assigned.get(&scoped(service));
    on.and_then(|on| on.get(place)).copied().unwrap_or(0)
}

pub fn count<P: Ord>(plan: &Plan<P>, service: &ScopedName) -> u32 {
    plan.assigned.get(service).map_or(0, |on| on.values().sum())
}

/// How much a random world has in it.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub nodes: u64,
    pub services: u64,
    pub replicas: u64,
}

pub fn random(seed: u64, size: Size) -> World {
    let rng = &mut Rng::seeded(seed);
    let nodes = (1..=size.nodes).map(|id| random_node(rng, id)).collect();
    let services = 0..size.services;
    let services =
        services.map(|number| (scoped(&format!("s{number}")), random_service(rng, size)));
    let services = services.collect();
    let zones = ["/a", "/b"].map(|path| {
        (
            zone(path),
            Zone {
                failure: Some(Failure::Probability(rng.unit() * 0.05)),
            },
        )
    });
    World {
        services,
        nodes,
        zones: zones.into(),
        running: BTreeMap::new(),
        policy: Policy {
            fit: if one_in(rng, 2) {
                Fit::Pack
            } else {
                Fit::Balance
            },
            ..Policy::default()
        },
    }
}

fn one_in(rng: &mut Rng, of: u64) -> bool {
    rng.below(of) == 0
}

pub fn random_node(rng: &mut Rng, id: u64) -> (NodeId, Node) {
    let at = ["/a", "/b", "/b/c"][usize::try_from(rng.below(3)).expect("small")];
    let (id, mut node) = node(id, at, 500 + rng.below(3) * 500, 2 + rng.below(8));
    node.domain = one_in(rng, 2).then(|| name(&format!("d{}", rng.below(3))));
    if one_in(rng, 4) {
        "aarch64".clone_into(&mut node.architecture);
    }
    if one_in(rng, 4) {
        node.devices = BTreeMap::from([(name("gpu"), 1)]);
    }
    node.failure = one_in(rng, 2).then(|| Failure::Probability(rng.unit() * 0.3));
    node.price_per_hour = one_in(rng, 2).then(|| rng.unit());
    node.outbound_only = one_in(rng, 4);
    node.reachable = !one_in(rng, 6);
    node.draining = one_in(rng, 8);
    if one_in(rng, 3) {
        node.content = BTreeSet::from([Hash([1; 32])]);
    }
    (id, node)
}

fn random_service(rng: &mut Rng, size: Size) -> Service {
    let other = |rng: &mut Rng| scoped(&format!("s{}", rng.below(size.services)));
    Service {
        replicas: u32::try_from(rng.below(size.replicas + 1)).expect("small"),
        need: if one_in(rng, 5) {
            Resources::default()
        } else {
            resources(rng.below(5) * 100, rng.below(4))
        },
        devices: one_in(rng, 8)
            .then(|| (name("gpu"), 1))
            .into_iter()
            .collect(),
        architecture: one_in(rng, 5).then(|| "x86_64".to_owned()),
        singleton: one_in(rng, 6),
        affinity: one_in(rng, 4).then(|| other(rng)).into_iter().collect(),
        anti_affinity: one_in(rng, 4).then(|| other(rng)).into_iter().collect(),
        spread: if one_in(rng, 3) {
            Spread::Domain
        } else {
            Spread::Zone
        },
        availability: one_in(rng, 4).then(|| 0.9 + rng.unit() * 0.0999),
        node: one_in(rng, 10).then(|| name(&format!("n{}", rng.below(size.nodes + 2)))),
        zone: one_in(rng, 8).then(|| zone("/b")),
        content: one_in(rng, 3)
            .then_some((Hash([1; 32]), Bytes(9)))
            .into_iter()
            .collect(),
        latency: one_in(rng, 3)
            .then(|| (zone("/a"), Duration::from_millis(rng.below(200))))
            .into_iter()
            .collect(),
        held_elsewhere: false,
    }
}

/// What time and people do to a cluster.
pub fn disturb(world: &mut World, seed: u64) {
    let rng = &mut Rng::seeded(seed);
    let ids: Vec<NodeId> = world.nodes.keys().copied().collect();
    for id in ids {
        match rng.below(12) {
            0 => drop(world.nodes.remove(&id)),
            1 => {
                if let Some(node) = world.nodes.get_mut(&id) {
                    node.draining = !node.draining;
                }
            }
            2 => {
                if let Some(node) = world.nodes.get_mut(&id) {
                    node.reachable = !node.reachable;
                }
            }
            3 => {
                let (_, fresh) = random_node(rng, id.0);
                world.nodes.insert(id, fresh);
            }
            4 => {
                if let Some(node) = world.nodes.get_mut(&id) {
                    node.outbound_only = true;
                }
            }
            _ => {}
        }
    }
    for service in world.services.values_mut() {
        if one_in(rng, 4) {
            service.replicas = u32::try_from(rng.below(6)).expect("small");
        }
    }
    if one_in(rng, 3) {
        world.services.pop_first();
    }
}
