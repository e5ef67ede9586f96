//! Plans of small clusters, beside all that could be done in them.
//!
//! What the greedy search promises: of one service, the best total score there
//! is, since each copy makes the next in the same zone or node worth less
//! (separable concave gains over nested sets, where greedy is optimal); of
//! services of one size, as many replicas as fit. Of services of several sizes or
//! with rules between them it promises no optimum; there the rate is compared.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "small numbers, rounded as the score's are"
)]

mod common;

use common::{Size, count, name, node, random, scoped, service, world, zone};
use kernel::{NodeId, Rng, ScopedName};
use placement::{Failure, Node, Plan, Running, Service, World, Zone, cluster};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// By node in order, how many replicas of the one service.
type Counts = Vec<u32>;

fn all_counts(nodes: usize, most: u32) -> Vec<Counts> {
    let mut all: Vec<Counts> = vec![Vec::new()];
    for _ in 0..nodes {
        all = all
            .into_iter()
            .flat_map(|counts| {
                let left = most - counts.iter().sum::<u32>();
                (0..=left).map(move |next| [counts.clone(), vec![next]].concat())
            })
            .collect();
    }
    all
}

fn fit_of(node: &Node, service: &Service, copies: u32) -> i64 {
    let free =
        |capacity: u64, need: u64| (capacity - need * u64::from(copies)) as f64 / capacity as f64;
    let cpu = free(node.capacity.cpu_thousandths, service.need.cpu_thousandths);
    let memory = free(node.capacity.memory.0, service.need.memory.0);
    ((cpu.min(memory) * 20.0 + 1e-6) as i64) * 50
}

/// The documented score, summed over the copies.
fn total(world: &World, service: &Service, counts: &Counts) -> Option<i64> {
    let dearest = world
        .nodes
        .values()
        .filter_map(|node| node.price_per_hour)
        .fold(0.0, f64::max);
    let mut sum = 0;
    let mut zones: BTreeMap<&kernel::ZonePath, i64> = BTreeMap::new();
    for (node, copies) in world
        .nodes
        .values()
        .zip(counts)
        .filter(|(_, copies)| **copies > 0)
    {
        let each = service.need;
        let fits = each.cpu_thousandths * u64::from(*copies) <= node.capacity.cpu_thousandths
            && each.memory.0 * u64::from(*copies) <= node.capacity.memory.0;
        if !fits || !node.reachable || node.draining {
            return None;
        }
        let Some(Failure::Probability(failure)) = node.failure else {
            return None;
        };
        let price = node
            .price_per_hour
            .map_or(0, |price| (price / dearest * 1_000.0).round() as i64);
        for copy in 1..=*copies {
            sum += 4 * fit_of(node, service, copy) - 10_000 * i64::from(copy - 1);
            sum -= 2 * price + 4 * (failure * 1_000.0).round() as i64;
            let in_zone = zones.entry(&node.zone).or_default();
            sum -= 10_000 * *in_zone;
            *in_zone += 1;
        }
    }
    Some(sum)
}

fn small(rng: &mut Rng) -> BTreeMap<NodeId, Node> {
    let nodes = (1..=1 + rng.below(4)).map(|id| {
        let at = ["/a", "/b"][usize::from(rng.below(2) == 0)];
        let (id, mut node) = node(id, at, 100 * (1 + rng.below(10)), 1 + rng.below(10));
        node.failure = Some(Failure::Probability(rng.unit() * 0.3));
        node.price_per_hour = (rng.below(2) == 0).then(|| rng.unit());
        node.reachable = rng.below(8) > 0;
        node.draining = rng.below(8) == 0;
        (id, node)
    });
    nodes.collect()
}

/// One replica after the other on any node or none: the most that can be placed.
fn most_placed(world: &World) -> u32 {
    let wanted: Vec<&ScopedName> = world
        .services
        .iter()
        .flat_map(|(name, service)| (0..service.replicas).map(move |_| name))
        .collect();
    let mut best = 0;
    go(world, &wanted, &mut Running::new(), 0, &mut best);
    best
}

fn go(
    world: &World,
    wanted: &[&ScopedName],
    assigned: &mut Running<NodeId>,
    placed: u32,
    best: &mut u32,
) {
    let Some((service, rest)) = wanted.split_first() else {
        if holds(world, assigned) {
            *best = (*best).max(placed);
        }
        return;
    };
    if placed + u32::try_from(wanted.len()).expect("few") <= *best {
        return;
    }
    for id in world.nodes.keys() {
        *assigned
            .entry((*service).clone())
            .or_default()
            .entry(*id)
            .or_default() += 1;
        if fits(world, assigned, *id) {
            go(world, rest, assigned, placed + 1, best);
        }
        let on = assigned.get_mut(*service).expect("it was put there");
        *on.get_mut(id).expect("it was put there") -= 1;
        on.retain(|_, count| *count > 0);
    }
    go(world, rest, assigned, placed, best);
}

/// The node's part of the rules, as they are written down.
fn fits(world: &World, assigned: &Running<NodeId>, id: NodeId) -> bool {
    let node = &world.nodes[&id];
    let here: Vec<(&ScopedName, &Service, u32)> = assigned
        .iter()
        .filter_map(|(name, on)| Some((name, &world.services[name], *on.get(&id)?)))
        .filter(|(_, _, count)| *count > 0)
        .collect();
    let sum = |need: &dyn Fn(&Service) -> u64| -> u64 {
        here.iter()
            .map(|(_, service, count)| need(service) * u64::from(*count))
            .sum()
    };
    let gpus = node.devices.get(&name("gpu")).copied().unwrap_or(0);
    let apart =
        |one: &ScopedName, other: &ScopedName| world.services[one].anti_affinity.contains(other);
    let meets = here.iter().any(|(one, _, count)| {
        (*count > 1 && apart(one, one))
            || here
                .iter()
                .any(|(other, _, _)| one != other && apart(one, other))
    });
    let suits = here.iter().all(|(_, service, _)| {
        service
            .architecture
            .as_ref()
            .is_none_or(|needed| *needed == node.architecture)
            && service.node.as_ref().is_none_or(|pin| *pin == node.name)
            && service
                .zone
                .as_ref()
                .is_none_or(|zone| zone.contains(&node.zone))
    });
    if here.is_empty() {
        return true;
    }
    sum(&|service| service.need.cpu_thousandths) <= node.capacity.cpu_thousandths
        && sum(&|service| service.need.memory.0) <= node.capacity.memory.0
        && sum(&|service| u64::from(service.devices.get(&name("gpu")).copied().unwrap_or(0)))
            <= u64::from(gpus)
        && node.reachable
        && !node.draining
        && suits
        && !meets
}

/// The rules over nodes.
fn holds(world: &World, assigned: &Running<NodeId>) -> bool {
    assigned
        .iter()
        .filter(|(_, on)| !on.is_empty())
        .all(|(name, on)| {
            world.services[name].node.is_some()
                || on.keys().any(|id| !world.nodes[id].outbound_only)
        })
}

fn placed(world: &World, plan: &Plan<NodeId>) -> u32 {
    world.services.keys().map(|name| count(plan, name)).sum()
}

fn small_random(seed: u64) -> World {
    let rng = &mut Rng::seeded(seed);
    let size = Size {
        nodes: 1 + rng.below(4),
        services: 1 + rng.below(3),
        replicas: 2,
    };
    let mut world = random(seed, size);
    let mut left = 4;
    for service in world.services.values_mut() {
        service.availability = None;
        service.replicas = service
            .replicas
            .min(left)
            .min(if service.singleton { 1 } else { 2 });
        left -= service.replicas;
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn one_service_gets_the_best_total_score_there_is(seed: u64) {
        let rng = &mut Rng::seeded(seed);
        let told = service(1 + u32::try_from(rng.below(4)).expect("small"), 50 * rng.below(9), 1 + rng.below(4));
        let world = world(small(rng), [("web", told.clone())]);
        let plan = cluster(&world);
        let got: i64 = plan.choices.iter().map(|choice| i64::from(choice.score.total())).sum();
        let all = all_counts(world.nodes.len(), told.replicas);
        let scored = all.iter().filter_map(|counts| {
            Some((counts.iter().sum::<u32>(), total(&world, &told, counts)?))
        });
        // As many as can be, then as well as can be.
        prop_assert_eq!((placed(&world, &plan), got), scored.max().expect("none at least"));
    }

    #[test]
    fn services_of_one_size_get_all_that_fits(seed: u64) {
        let rng = &mut Rng::seeded(seed);
        let (cpu, memory) = (100 + 100 * rng.below(4), 1 + rng.below(3));
        let names = ["a", "b", "c"];
        let services = names.map(|name| {
            (name, service(u32::try_from(rng.below(3)).expect("small"), cpu, memory))
        });
        let world = world(small(rng), services);
        prop_assert_eq!(placed(&world, &cluster(&world)), most_placed(&world));
    }

    #[test]
    fn a_small_plan_is_one_that_the_rules_allow(seed: u64) {
        let world = small_random(seed);
        let plan = cluster(&world);
        for id in world.nodes.keys() {
            prop_assert!(fits(&world, &plan.assigned, *id));
        }
        prop_assert!(holds(&world, &plan.assigned));
        prop_assert!(placed(&world, &plan) <= most_placed(&world));
    }
}

#[test]
fn with_rules_and_sizes_that_mix_few_replicas_are_missed() {
    let (mut got, mut most, mut whole) = (0, 0, 0);
    let cases = 3_000;
    for seed in 0..cases {
        let world = small_random(seed);
        let (plan, best) = (placed(&world, &cluster(&world)), most_placed(&world));
        got += plan;
        most += best;
        whole += u64::from(plan == best);
    }
    let rates = format!("{got} of {most} replicas, {whole} of {cases} plans as many as can be");
    assert!(f64::from(got) >= 0.98 * f64::from(most), "{rates}");
    assert!(whole * 100 >= cases * 98, "{rates}");
}

#[test]
fn copies_are_as_few_as_the_goal_needs() {
    for goal in [0.5, 0.9, 0.99, 0.999, 0.9999] {
        let nodes = (1..=9).map(|id| {
            let (id, mut node) = node(id, common::in_turn(id), 1_000, 10);
            node.failure = Some(Failure::Probability(0.1));
            (id, node)
        });
        let mut told = service(1, 10, 1);
        told.availability = Some(goal);
        let mut world = world(nodes, [("web", told)]);
        let failure = Some(Failure::Probability(0.01));
        world.zones = ["/a", "/b", "/c"]
            .map(|path| (zone(path), Zone { failure }))
            .into();
        let domain = placement::Domain {
            failure: 0.01,
            nodes: vec![0.1; 3],
        };
        let needed = placement::copies_for(goal, &[domain.clone(), domain.clone(), domain]);
        let plan = cluster(&world);
        let reached = plan.availability[&scoped("web")];
        let needed = needed.expect("nine nodes reach it");
        assert_eq!(reached.copies, needed.count, "{goal}");
        assert!(reached.is_met() && (reached.reached - needed.reached).abs() < 1e-9);
    }
}

#[test]
fn a_goal_out_of_reach_adds_no_copies_and_says_what_is_reached() {
    let mut told = service(2, 10, 1);
    told.availability = Some(0.999_999);
    let world = world((1..=9).map(|id| node(id, "/a", 1_000, 10)), [("web", told)]);
    let plan = cluster(&world);
    let reached = plan.availability[&scoped("web")];
    assert_eq!(reached.copies, 2);
    assert!(!reached.is_met() && reached.reached > 0.99);
}

#[test]
fn rates_that_waver_add_and_remove_nothing_in_turn() {
    let all = (1..=4).map(|id| node(id, if id % 2 == 0 { "/a" } else { "/b" }, 1_000, 10));
    let mut told = service(1, 10, 1);
    told.availability = Some(0.999);
    let mut world = world(all, [("web", told)]);
    let mut rate = |percent: f64| {
        for node in world.nodes.values_mut() {
            node.failure = Some(Failure::Probability(percent / 100.0));
        }
        let plan = cluster(&world);
        world.running = plan.assigned.clone();
        count(&plan, &scoped("web"))
    };
    // Two copies are down for 0.1 % at 3.05 % each, zones included.
    assert_eq!(rate(3.0), 2);
    assert_eq!(rate(3.2), 3);
    assert_eq!(rate(3.0), 3);
    assert_eq!(rate(1.5), 2);
}
