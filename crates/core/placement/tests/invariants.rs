//! What holds of every plan, whatever the cluster.

mod common;

use common::{Size, count, disturb, name, random, scoped, zone};
use kernel::{NodeId, ScopedName};
use placement::{
    Leaving, Node, Plan, Resources, Running, Service, Spread, World, ZoneWorld, aggregates,
    cluster, nodes, zones,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const SIZE: Size = Size {
    nodes: 9,
    services: 8,
    replicas: 5,
};

fn amounts(resources: Resources) -> [u64; 3] {
    [
        resources.cpu_thousandths,
        resources.memory.0,
        resources.disk.0,
    ]
}

/// By kind, and by device, what is assigned to a node and does not fit there.
fn over(world: &World, assigned: &Running<NodeId>, id: NodeId) -> BTreeMap<String, u64> {
    let node = &world.nodes[&id];
    let mut used: BTreeMap<String, u64> = BTreeMap::new();
    for (service, on) in assigned {
        let Some(told) = world.services.get(service) else {
            continue;
        };
        let count = u64::from(on.get(&id).copied().unwrap_or(0));
        for (kind, need) in amounts(told.need).into_iter().enumerate() {
            *used.entry(kind.to_string()).or_default() += need * count;
        }
        for (device, need) in &told.devices {
            *used.entry(device.to_string()).or_default() += u64::from(*need) * count;
        }
    }
    let has = amounts(node.capacity).into_iter().enumerate();
    let mut has: BTreeMap<String, u64> = has.map(|(kind, has)| (kind.to_string(), has)).collect();
    has.extend(
        node.devices
            .iter()
            .map(|(name, count)| (name.to_string(), u64::from(*count))),
    );
    used.into_iter()
        .filter_map(|(kind, used)| {
            let over = used.saturating_sub(has.get(&kind).copied().unwrap_or(0));
            (over > 0).then_some((kind, over))
        })
        .collect()
}

fn keep_apart(world: &World, one: &ScopedName, other: &ScopedName) -> bool {
    let names = |a: &ScopedName, b: &ScopedName| {
        world
            .services
            .get(a)
            .is_some_and(|service| service.anti_affinity.contains(b))
    };
    names(one, other) || names(other, one)
}

/// Whether the service may run there, company and room aside.
fn suits(service: &Service, node: &Node) -> bool {
    service
        .architecture
        .as_ref()
        .is_none_or(|needed| *needed == node.architecture)
        && service.node.as_ref().is_none_or(|pin| *pin == node.name)
        && service
            .zone
            .as_ref()
            .is_none_or(|zone| zone.contains(&node.zone))
        && service
            .devices
            .keys()
            .all(|device| node.devices.contains_key(device))
}

fn meets_enemy(
    world: &World,
    assigned: &Running<NodeId>,
    service: &ScopedName,
    id: NodeId,
) -> bool {
    assigned.iter().any(|(other, on)| {
        let there = on.get(&id).copied().unwrap_or(0);
        let most = u32::from(other == service);
        there > most && keep_apart(world, service, other)
    })
}

/// Places of replicas that are no worse than they were.
fn check(world: &World, plan: &Plan<NodeId>) -> Result<(), TestCaseError> {
    for id in world.nodes.keys() {
        let before = over(world, &world.running, *id);
        for (kind, over) in over(world, &plan.assigned, *id) {
            prop_assert!(
                over <= before.get(&kind).copied().unwrap_or(0),
                "{kind} on {id}"
            );
        }
    }
    for choice in &plan.choices {
        let node = &world.nodes[&choice.place];
        let told = &world.services[&choice.service];
        prop_assert!(node.reachable && !node.draining);
        prop_assert!(suits(told, node), "{choice}");
        prop_assert!(
            !meets_enemy(world, &plan.assigned, &choice.service, choice.place),
            "{choice}"
        );
        if let Some(next) = &choice.runner_up {
            prop_assert!(next.score.total() <= choice.score.total());
            prop_assert!(next.place != choice.place);
        }
    }
    for (service, told) in &world.services {
        let on = plan.assigned.get(service).cloned().unwrap_or_default();
        let is_refused = plan
            .refused
            .iter()
            .any(|refusal| refusal.service == *service);
        let wanted = if told.singleton {
            told.replicas.min(1)
        } else {
            told.replicas
        };
        let all: u32 = on.values().sum();
        prop_assert!(is_refused || all >= wanted);
        if told.availability.is_none() || told.singleton {
            prop_assert!(all <= wanted, "{service}: {all} of {wanted}");
            let refused = plan
                .refused
                .iter()
                .filter(|refusal| refusal.service == *service);
            let absent: u32 = refused
                .map(|refusal| refusal.missing - u32::try_from(refusal.stay.len()).expect("few"))
                .sum();
            prop_assert_eq!(all + absent, wanted);
        }
        let is_dialable = |id: &NodeId| !world.nodes[id].outbound_only;
        if !on.is_empty() && told.node.is_none() && !is_refused {
            prop_assert!(
                on.keys().any(is_dialable),
                "{service} is held by who only calls out"
            );
        }
    }
    Ok(())
}

/// What left had a reason, and what had none stayed.
fn check_moves(world: &World, plan: &Plan<NodeId>) -> Result<(), TestCaseError> {
    let moved = plan
        .choices
        .iter()
        .filter_map(|choice| Some((&choice.service, choice.from.as_ref()?)));
    let removed = plan.removed.iter();
    let moved: Vec<(ScopedName, NodeId, Leaving)> = moved
        .map(|(service, (from, why))| (service.clone(), *from, why.clone()))
        .chain(removed.map(|gone| (gone.service.clone(), gone.place, gone.why.clone())))
        .collect();
    let mut expected = world.running.clone();
    for on in expected.values_mut() {
        on.retain(|id, _| world.nodes.contains_key(id));
    }
    for (service, from, why) in &moved {
        let node = world.nodes.get(from);
        match why {
            Leaving::Gone => prop_assert!(node.is_none()),
            Leaving::NotWanted => prop_assert!(!world.services.contains_key(service)),
            Leaving::SoleHolder => prop_assert!(node.is_some_and(|node| node.outbound_only)),
            Leaving::Surplus => {
                let ran: u32 = world.running[service].values().sum();
                let told = &world.services[service];
                prop_assert!(ran > told.replicas || told.singleton);
            }
            Leaving::Unfit(lack) => {
                let node = node.expect("it is there");
                let is_over = !over(world, &world.running, *from).is_empty();
                let has_company = meets_enemy(world, &world.running, service, *from);
                let is_unsuited = !suits(&world.services[service], node) || node.draining;
                prop_assert!(
                    is_over || has_company || is_unsuited,
                    "{service} left {from}: {lack}"
                );
            }
        }
        if let Some(count) = expected.get_mut(service).and_then(|on| on.get_mut(from)) {
            *count -= 1;
        }
    }
    for choice in &plan.choices {
        *expected
            .entry(choice.service.clone())
            .or_default()
            .entry(choice.place)
            .or_default() += 1;
    }
    for on in expected.values_mut() {
        on.retain(|_, count| *count > 0);
    }
    expected.retain(|service, on| !on.is_empty() && world.services.contains_key(service));
    prop_assert_eq!(&expected, &plan.assigned);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_plan_overcommits_nothing_and_keeps_the_rules(seed: u64) {
        let mut world = random(seed, SIZE);
        for step in 0..4 {
            let plan = cluster(&world);
            check(&world, &plan)?;
            check_moves(&world, &plan)?;
            world.running = plan.assigned;
            disturb(&mut world, seed ^ step);
        }
    }

    #[test]
    fn what_was_planned_stays_when_nothing_changes(seed: u64) {
        let mut world = random(seed, SIZE);
        let plan = cluster(&world);
        world.running = plan.assigned.clone();
        let again = cluster(&world);
        prop_assert_eq!(&again.assigned, &plan.assigned);
        prop_assert!(again.choices.is_empty() && again.removed.is_empty());
    }

    #[test]
    fn one_input_one_plan(seed: u64) {
        let mut world = random(seed, SIZE);
        world.running = cluster(&world).assigned;
        disturb(&mut world, seed);
        prop_assert_eq!(cluster(&world), cluster(&world.clone()));
    }

    /// How slots lie in blocks decides nothing.
    #[test]
    fn a_node_that_cannot_take_anything_changes_no_choice(seed: u64) {
        let world = random(seed, SIZE);
        let mut more = world.clone();
        let (id, mut idle) = common::node(1_000, "/a", 1, 1);
        idle.draining = true;
        more.nodes.insert(id, idle);
        let (plan, other) = (cluster(&world), cluster(&more));
        prop_assert_eq!(plan.choices, other.choices);
        prop_assert_eq!(plan.assigned, other.assigned);
    }

    /// The root's plan over zones, and each zone's over its nodes.
    #[test]
    fn two_levels_keep_the_rules_too(seed: u64) {
        let mut world = random(seed, SIZE);
        // Which zone a named node is in is known where the zones are assigned.
        for service in world.services.values_mut() {
            service.availability = None;
            if let Some(pin) = &service.node {
                let found = world.nodes.values().find(|node| node.name == *pin);
                service.zone = Some(found.map_or(zone("/none"), |node| node.zone.clone()));
            }
        }
        let above = ZoneWorld {
            services: world.services.clone(),
            zones: aggregates(&world),
            running: BTreeMap::new(),
            policy: world.policy,
        };
        let shares = zones(&above);
        prop_assert_eq!(&shares, &zones(&above));
        for path in above.zones.keys() {
            let mut part = world.clone();
            for (service, told) in &mut part.services {
                let on = shares.assigned.get(service);
                told.replicas = on.and_then(|on| on.get(path)).copied().unwrap_or(0);
                let elsewhere = on.into_iter().flatten().filter(|(zone, _)| *zone != path);
                told.held_elsewhere = elsewhere.into_iter().any(|(zone, _)| above.zones[zone].dialable > 0);
            }
            let plan = nodes(&part, path);
            for on in plan.assigned.values() {
                prop_assert!(on.keys().all(|id| world.nodes[id].zone == *path));
            }
            for id in world.nodes.keys() {
                prop_assert!(over(&part, &plan.assigned, *id).is_empty());
            }
            for service in part.services.keys() {
                prop_assert!(count(&plan, service) <= part.services[service].replicas);
            }
        }
    }
}

#[test]
fn replicas_spread_over_zones_then_nodes() {
    let all = (1..=6).map(|id| common::node(id, common::in_turn(id), 1_000, 10));
    let world = common::world(all, [("web", common::service(6, 100, 1))]);
    let plan = cluster(&world);
    let on = &plan.assigned[&scoped("web")];
    assert_eq!(on.len(), 6);
    assert!(on.values().all(|count| *count == 1));
}

#[test]
fn a_spread_over_domains_does_not_share_a_rack() {
    let all = (1..=6).map(|id| {
        let (id, mut node) = common::node(id, "/a", 1_000, 10);
        node.domain = Some(name(if id.0 <= 4 { "left" } else { "right" }));
        (id, node)
    });
    let mut told = common::service(2, 100, 1);
    told.spread = Spread::Domain;
    let world = common::world(all, [("web", told)]);
    let plan = cluster(&world);
    let racks: BTreeSet<_> = plan.assigned[&scoped("web")]
        .keys()
        .map(|id| world.nodes[id].domain.clone())
        .collect();
    assert_eq!(racks.len(), 2);
}

#[test]
fn a_silent_node_keeps_what_it_has_and_gets_nothing() {
    let mut world = common::world(
        (1..=2).map(|id| common::node(id, "/a", 1_000, 10)),
        [("web", common::service(2, 100, 1))],
    );
    world.running = cluster(&world).assigned;
    world.nodes.get_mut(&NodeId(1)).expect("a node").reachable = false;
    world
        .services
        .get_mut(&scoped("web"))
        .expect("a service")
        .replicas = 4;
    let plan = cluster(&world);
    assert_eq!(common::on(&plan, "web", &NodeId(1)), 1);
    assert_eq!(common::on(&plan, "web", &NodeId(2)), 3);
}

#[test]
fn a_drain_that_has_nowhere_to_go_stops_nothing() {
    let mut world = common::world(
        (1..=2).map(|id| common::node(id, "/a", 1_000, 10)),
        [("web", common::service(2, 1_000, 1))],
    );
    world.running = cluster(&world).assigned;
    world.nodes.get_mut(&NodeId(1)).expect("a node").draining = true;
    let plan = cluster(&world);
    assert_eq!(plan.assigned, world.running);
    assert_eq!(plan.refused.len(), 1);
    assert_eq!(plan.refused[0].stay.len(), 1);
    assert_eq!(plan.refused[0].stay[0].0, NodeId(1));
}

#[test]
fn a_singleton_waits_for_the_lease_of_one_that_may_still_run() {
    let mut told = common::service(1, 100, 1);
    told.singleton = true;
    let mut world = common::world(
        (1..=2).map(|id| common::node(id, "/a", 1_000, 10)),
        [("actor", told)],
    );
    world.running = Running::from([(scoped("actor"), BTreeMap::from([(NodeId(7), 1)]))]);
    let plan = cluster(&world);
    assert!(plan.choices[0].waits_for_lease);
    assert_eq!(plan.choices[0].from, Some((NodeId(7), Leaving::Gone)));
    // From a node that drains it is moved in order.
    world.running = plan.assigned;
    let at = plan.choices[0].place;
    world.nodes.get_mut(&at).expect("a node").draining = true;
    assert!(!cluster(&world).choices[0].waits_for_lease);
}
