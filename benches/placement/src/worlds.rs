//! Clusters of thousands of nodes that are not alike, and services that ask for
//! all kinds of things.

use kernel::{Bytes, Hash, Name, NodeId, Rng, ScopedName};
use placement::{Failure, Node, Resources, Service, Spread, World};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub const NODES: u64 = 5_000;
const SERVICES: u64 = 10_000;
/// Programs that services share.
const PROGRAMS: u64 = 500;
const GIBIBYTE: u64 = 1 << 30;

/// * `zones`: over which the nodes are dealt.
pub fn world(zones: u64, seed: u64) -> World {
    let rng = &mut Rng::seeded(seed);
    let nodes = (1..=NODES).map(|id| (NodeId(id), node(rng, id, zones)));
    let nodes = nodes.collect();
    let services = (0..SERVICES).map(|number| (scoped(number), service(rng, zones)));
    World {
        services: services.collect(),
        nodes,
        ..World::default()
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap_or_else(|why| panic!("`{text}`: {why}"))
}

fn scoped(number: u64) -> ScopedName {
    ScopedName::new(name("bench"), name(&format!("service-{number}")))
}

fn one_in(rng: &mut Rng, of: u64) -> bool {
    rng.below(of) == 0
}

fn zone(number: u64) -> String {
    format!("/r{}/z{number}", number % 8)
}

fn program(number: u64) -> Hash {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    Hash(hash)
}

fn node(rng: &mut Rng, id: u64, zones: u64) -> Node {
    let cores = 2 << rng.below(4);
    let capacity = Resources {
        cpu_thousandths: cores * 1_000,
        memory: Bytes(cores * (1 + rng.below(3)) * GIBIBYTE),
        disk: Bytes(100 * GIBIBYTE),
    };
    Node {
        name: name(&format!("node-{id}")),
        zone: zone(id % zones)
            .parse()
            .unwrap_or_else(|why| panic!("{why}")),
        domain: Some(name(&format!("rack-{}", id / 16))),
        capacity,
        free: capacity,
        architecture: if one_in(rng, 4) { "aarch64" } else { "x86_64" }.to_owned(),
        devices: one_in(rng, 20)
            .then(|| (name("gpu"), 4))
            .into_iter()
            .collect(),
        failure: Some(Failure::Probability(0.002 + rng.unit() * 0.02)),
        price_per_hour: Some(0.01 + rng.unit() * 0.2),
        outbound_only: one_in(rng, 10),
        reachable: !one_in(rng, 100),
        draining: one_in(rng, 200),
        content: (0..5).map(|_| program(rng.below(PROGRAMS))).collect(),
    }
}

fn service(rng: &mut Rng, zones: u64) -> Service {
    let other = |rng: &mut Rng| scoped(rng.below(SERVICES));
    let singleton = one_in(rng, 10);
    Service {
        replicas: if singleton {
            1
        } else {
            1 + u32::try_from(rng.below(8)).unwrap_or(0)
        },
        need: Resources {
            cpu_thousandths: 50 + rng.below(900),
            memory: Bytes::mebibytes(64 + rng.below(900)),
            disk: Bytes::mebibytes(if one_in(rng, 3) { 500 } else { 0 }),
        },
        devices: one_in(rng, 100)
            .then(|| (name("gpu"), 1))
            .into_iter()
            .collect(),
        architecture: one_in(rng, 3).then(|| "x86_64".to_owned()),
        singleton,
        affinity: one_in(rng, 5).then(|| other(rng)).into_iter().collect(),
        anti_affinity: one_in(rng, 5).then(|| other(rng)).into_iter().collect(),
        spread: if one_in(rng, 4) {
            Spread::Domain
        } else {
            Spread::Zone
        },
        availability: one_in(rng, 10).then_some(0.9999),
        content: BTreeMap::from([(program(rng.below(PROGRAMS)), Bytes::mebibytes(20))]),
        latency: if one_in(rng, 5) {
            latency(rng, zones)
        } else {
            BTreeMap::new()
        },
        ..Service::default()
    }
}

fn latency(rng: &mut Rng, zones: u64) -> BTreeMap<kernel::ZonePath, Duration> {
    let regions: BTreeSet<u64> = (0..8.min(zones)).collect();
    let each = regions.into_iter().filter_map(|region| {
        let region = format!("/r{region}").parse().ok()?;
        Some((region, Duration::from_millis(10 + rng.below(200))))
    });
    each.collect()
}
