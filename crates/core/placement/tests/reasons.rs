//! What plans say of their choices and refusals is true.

mod common;

use common::{Size, disturb, name, node, random, scoped, service, world, zone};
use kernel::{Bytes, NodeId, ScopedName};
use placement::{
    Constraint, Failed, Lack, Node, Plan, Resources, Service, WhyNot, Without, World, cluster,
    what_if, why_not,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn missing(plan: &Plan<NodeId>, service: &ScopedName) -> u32 {
    let refused = plan
        .refused
        .iter()
        .filter(|refusal| refusal.service == *service);
    refused.map(|refusal| refusal.missing).sum()
}

fn more(node: &mut Node, more: Resources) {
    for has in [&mut node.capacity, &mut node.free] {
        has.cpu_thousandths += more.cpu_thousandths;
        has.memory.0 += more.memory.0;
        has.disk.0 += more.disk.0;
    }
}

/// More is assigned than fits: what it lacks is more than a replica's need.
fn is_over(world: &World, id: NodeId) -> bool {
    let node = &world.nodes[&id];
    let sum = |need: &dyn Fn(&Service) -> u64| -> u64 {
        let on = world.running.iter().filter_map(|(name, on)| {
            Some(need(world.services.get(name)?) * u64::from(*on.get(&id)?))
        });
        on.sum()
    };
    let gpus = |service: &Service| u64::from(service.devices.contains_key(&name("gpu")));
    sum(&|service| service.need.cpu_thousandths) > node.capacity.cpu_thousandths
        || sum(&|service| service.need.memory.0) > node.capacity.memory.0
        || sum(&gpus) > node.devices.values().map(|count| u64::from(*count)).sum()
}

/// Takes away what a node lacks for a service.
fn lift(world: &mut World, service: &ScopedName, at: NodeId, lack: &Lack) {
    let node = world.nodes.get_mut(&at).expect("it is there");
    let told = world.services.get_mut(service).expect("it is there");
    let nothing = Resources::default();
    match lack {
        Lack::Pin { .. } => told.node = None,
        Lack::Zone { .. } => told.zone = None,
        Lack::Reachable => node.reachable = true,
        Lack::Draining => node.draining = false,
        Lack::Architecture { .. } => told.architecture = None,
        Lack::Device { name, need, free } => {
            *node.devices.entry(name.clone()).or_default() += need - free;
        }
        Lack::AntiAffinity { .. } => {
            told.anti_affinity.clear();
            for other in world.services.values_mut() {
                other.anti_affinity.remove(service);
            }
        }
        Lack::SoleHolder => node.outbound_only = false,
        Lack::Cpu { need, free } => more(
            node,
            Resources {
                cpu_thousandths: need - free,
                ..nothing
            },
        ),
        Lack::Memory { need, free } => more(
            node,
            Resources {
                memory: Bytes(need.0 - free.0),
                ..nothing
            },
        ),
        Lack::Disk { need, free } => more(
            node,
            Resources {
                disk: Bytes(need.0 - free.0),
                ..nothing
            },
        ),
        other @ Lack::OtherNode => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_node_that_gets_what_it_lacks_takes_the_replica(seed: u64) {
        let mut world = random(seed, Size { nodes: 6, services: 6, replicas: 4 });
        for service in world.services.values_mut() {
            service.availability = None;
        }
        world.running = cluster(&world).assigned;
        disturb(&mut world, seed);
        let plan = cluster(&world);
        // Nobody else is in want.
        world.running = plan.assigned.clone();
        for (service, told) in &mut world.services {
            if missing(&plan, service) > 0 {
                told.replicas = common::count(&plan, service);
            }
        }
        let settled = cluster(&world);
        for refusal in &plan.refused {
            let mut world = world.clone();
            let told = world.services.get_mut(&refusal.service).expect("it is there");
            told.replicas += refusal.missing - u32::try_from(refusal.stay.len()).expect("few");
            let refused = cluster(&world);
            let others = |plan: &Plan<NodeId>| {
                let mut missing: BTreeMap<ScopedName, u32> = BTreeMap::new();
                for other in plan.refused.iter().filter(|other| other.service != refusal.service) {
                    *missing.entry(other.service.clone()).or_default() += other.missing;
                }
                missing
            };
            // What stays for want of a place is in want itself, and may come first.
            if others(&settled) != BTreeMap::new() || others(&refused) != BTreeMap::new() {
                continue;
            }
            let Some(again) = refused.refused.first() else { continue };
            let is_pin = |lack: &Lack| lack.constraint() == Constraint::Pin;
            let mut all = again.closest.iter();
            let Some(near) = all.find(|near| !near.lacks.iter().any(is_pin)) else { continue };
            // Who moves anyhow may take what is given.
            if is_over(&world, near.place) || !refused.choices.is_empty() {
                continue;
            }
            prop_assert!(!near.lacks.is_empty());
            let before = again.missing;
            let mut lifted = world.clone();
            for lack in &near.lacks {
                lift(&mut lifted, &again.service, near.place, lack);
            }
            let after = missing(&cluster(&lifted), &again.service);
            prop_assert!(after < before, "{again}: {near}");
        }
    }

    #[test]
    fn constraints_are_counted_over_all_nodes(seed: u64) {
        let world = random(seed, Size { nodes: 6, services: 6, replicas: 4 });
        for refusal in cluster(&world).refused {
            prop_assert_eq!(refusal.places, 6);
            let deciding = refusal.deciding().expect("there are nodes");
            for failed in refusal.failed.values() {
                prop_assert!(failed.only <= failed.places && failed.places <= 6);
            }
            let told = &world.services[&refusal.service];
            let count = |fails: &dyn Fn(&Node) -> bool| {
                u32::try_from(world.nodes.values().filter(|node| fails(node)).count()).expect("few")
            };
            let of = |constraint| refusal.failed.get(&constraint).map_or(0, |failed: &Failed| failed.places);
            prop_assert_eq!(of(Constraint::Reachable), count(&|node| !node.reachable));
            prop_assert_eq!(of(Constraint::Draining), count(&|node| node.draining));
            prop_assert_eq!(of(Constraint::Pin), count(&|node| {
                told.node.as_ref().is_some_and(|pin| *pin != node.name)
            }));
            prop_assert_eq!(of(Constraint::Architecture), count(&|node| {
                told.architecture.as_ref().is_some_and(|needed| *needed != node.architecture)
            }));
            let is_met_nowhere = |constraint| of(constraint) == refusal.places;
            let all = refusal.failed.keys().any(|constraint| is_met_nowhere(*constraint));
            prop_assert_eq!(all, is_met_nowhere(deciding));
        }
    }

    #[test]
    fn scores_are_the_sum_of_their_terms_and_the_runner_up_has_less(seed: u64) {
        for choice in cluster(&random(seed, Size { nodes: 9, services: 6, replicas: 4 })).choices {
            let sum: i32 = choice.score.terms().iter().map(|(_, value)| value).sum();
            prop_assert_eq!(sum, choice.score.total());
            if let Some(next) = choice.runner_up {
                prop_assert!(next.score.total() <= choice.score.total());
            }
        }
    }

    #[test]
    fn what_would_be_lost_and_moved_is_what_ran_there(seed: u64) {
        let mut world = random(seed, Size { nodes: 7, services: 6, replicas: 4 });
        for service in world.services.values_mut() {
            service.availability = None;
        }
        let now = cluster(&world).assigned;
        for id in world.nodes.keys() {
            let there: u32 = now.values().filter_map(|on| on.get(id)).sum();
            let asked = what_if(&world, &Without::Node(*id));
            let lost: u32 = asked.lost.values().sum();
            prop_assert_eq!(asked.moved() + lost as usize, there as usize);
            prop_assert!(asked.plan.assigned.values().all(|on| !on.contains_key(id)));
        }
    }
}

/// Whether `node` takes a copy that is missing, where nobody else can.
fn takes(world: &World, service: &ScopedName, id: NodeId, from: NodeId) -> bool {
    let mut world = world.clone();
    let on = world.running.get_mut(service).expect("it runs");
    let count = on.get_mut(&from).expect("it runs there");
    *count -= 1;
    for (other, node) in &mut world.nodes {
        node.reachable &= *other == id;
    }
    let plan = cluster(&world);
    let on = plan.assigned.get(service).and_then(|on| on.get(&id));
    on.is_some_and(|count| *count > 0)
}

proptest! {
    #[test]
    fn a_node_could_take_a_copy_exactly_where_nothing_is_said_to_lack(seed: u64) {
        let mut world = random(seed, Size { nodes: 6, services: 6, replicas: 4 });
        for service in world.services.values_mut() {
            service.availability = None;
        }
        let plan = cluster(&world);
        // Others in want might take the room.
        prop_assume!(plan.refused.is_empty());
        world.running = plan.assigned;
        for (service, on) in &world.running {
            for id in world.nodes.keys() {
                let why = why_not(&world, service, *id).expect("both are there");
                let could = || on.keys().any(|from| takes(&world, service, *id, *from));
                match why {
                    WhyNot::Runs(count) => prop_assert_eq!(on.get(id), Some(&count)),
                    WhyNot::Lacks(lacks) => {
                        prop_assert!(!lacks.is_empty());
                        prop_assert!(!could(), "{service} on {id}: {lacks:?}");
                    }
                    WhyNot::Behind { than, .. } => {
                        prop_assert!(on.contains_key(&than));
                        prop_assert!(takes(&world, service, *id, than), "{service} on {id}");
                    }
                    WhyNot::Unwanted => prop_assert!(false, "{service} runs"),
                }
            }
        }
    }
}

#[test]
fn why_not_there_is_what_the_choice_itself_said() {
    let nodes =
        [(1, "/a"), (2, "/a"), (3, "/b")].map(|(id, zone)| node(id, zone, 1_000 * id, 1 << 30));
    let mut world = world(nodes, [("web", service(1, 100, 1 << 20))]);
    let web = scoped("web");
    let plan = cluster(&world);
    let choice = &plan.choices[0];
    let next = choice.runner_up.as_ref().expect("others could");
    let wanted = WhyNot::Behind {
        score: next.score,
        than: choice.place,
        its: choice.score,
    };
    assert_eq!(why_not(&world, &web, next.place), Some(wanted.clone()));
    // Also once it runs; and nothing moves when another becomes the better place.
    world.running = plan.assigned.clone();
    assert_eq!(why_not(&world, &web, next.place), Some(wanted));
    assert_eq!(why_not(&world, &web, choice.place), Some(WhyNot::Runs(1)));
    world.nodes.get_mut(&choice.place).expect("there").failure =
        Some(placement::Failure::Probability(0.9));
    let Some(WhyNot::Behind { score, its, .. }) = why_not(&world, &web, next.place) else {
        panic!("it runs where it ran");
    };
    assert!(score.total() > its.total());
    world.nodes.get_mut(&next.place).expect("there").draining = true;
    let lacks = why_not(&world, &web, next.place);
    assert_eq!(lacks, Some(WhyNot::Lacks(vec![Lack::Draining])));
    world.services.get_mut(&web).expect("there").replicas = 0;
    world.running.clear();
    let other = NodeId(6 - choice.place.0 - next.place.0);
    assert_eq!(why_not(&world, &web, other), Some(WhyNot::Unwanted));
    assert_eq!(why_not(&world, &scoped("none"), other), None);
    assert_eq!(why_not(&world, &web, NodeId(9)), None);
}

/// A cluster of two, and what makes them unfit for the service.
fn only(spoil: impl Fn(&mut Node), ask: impl FnOnce(&mut Service)) -> Plan<NodeId> {
    let nodes = (1..=2).map(|id| {
        let (id, mut node) = node(id, "/a", 1_000, 1 << 30);
        spoil(&mut node);
        (id, node)
    });
    let mut told = service(1, 100, 1 << 20);
    ask(&mut told);
    cluster(&world(nodes, [("web", told)]))
}

#[test]
fn each_constraint_is_named() {
    let asks_nothing = |_: &mut Service| {};
    let whole = |_: &mut Node| {};
    let cases = [
        (
            Constraint::Pin,
            only(whole, |told| told.node = Some(name("n9"))),
        ),
        (
            Constraint::Zone,
            only(whole, |told| told.zone = Some(zone("/b"))),
        ),
        (
            Constraint::Reachable,
            only(|node| node.reachable = false, asks_nothing),
        ),
        (
            Constraint::Draining,
            only(|node| node.draining = true, asks_nothing),
        ),
        (
            Constraint::Architecture,
            only(whole, |told| told.architecture = Some("riscv64".to_owned())),
        ),
        (
            Constraint::Device,
            only(whole, |told| {
                told.devices = BTreeMap::from([(name("gpu"), 1)]);
            }),
        ),
        (
            Constraint::SoleHolder,
            only(|node| node.outbound_only = true, asks_nothing),
        ),
        (
            Constraint::Cpu,
            only(whole, |told| told.need.cpu_thousandths = 1_001),
        ),
        (
            Constraint::Memory,
            only(whole, |told| told.need.memory = Bytes(2 << 30)),
        ),
        (
            Constraint::Disk,
            only(whole, |told| told.need.disk = Bytes(1)),
        ),
        (
            Constraint::AntiAffinity,
            only(whole, |told| {
                told.replicas = 3;
                told.anti_affinity = [scoped("web")].into();
            }),
        ),
    ];
    for (constraint, plan) in cases {
        let refusal = plan.refused.first().expect("there is no place");
        assert_eq!(refusal.deciding(), Some(constraint), "{refusal}");
        assert_eq!(refusal.failed[&constraint], Failed { places: 2, only: 2 });
        assert_eq!(refusal.closest[0].lacks[0].constraint(), constraint);
    }
}

#[test]
fn a_refusal_reads_as_a_sentence() {
    let plan = only(|_| {}, |told| told.need.memory = Bytes(3 << 29));
    let refusal = &plan.refused[0];
    assert_eq!(
        refusal.to_string(),
        "no place for 1 of `p/web`: 2 of 2 lack memory, 2 of them nothing else"
    );
    assert_eq!(
        refusal.closest[0].lacks[0].to_string(),
        "1 GiB of memory free, 1.5 GiB needed"
    );
    assert_eq!(refusal.hint(), "lower `memory`, or join a node");
    let none = cluster(&world([], [("web", service(1, 0, 0))]));
    assert_eq!(
        none.refused[0].to_string(),
        "no place for 1 of `p/web`: there are no nodes"
    );
}

#[test]
fn a_choice_names_the_winner_its_terms_and_the_next() {
    let plan = only(|_| {}, |_| {});
    let text = plan.choices[0].to_string();
    assert!(text.starts_with("`p/web` on 000000000000000"), "{text}");
    assert!(
        text.contains(": 3560 = fit +3600 failure -40; next 000000000000000"),
        "{text}"
    );
}

#[test]
fn a_zone_that_is_gone_takes_the_zones_below_it_along() {
    let nodes = [
        node(1, "/a/x", 1_000, 10),
        node(2, "/a/y", 1_000, 10),
        node(3, "/b", 1_000, 10),
    ];
    let world = world(nodes, [("web", service(3, 400, 1))]);
    let asked = what_if(&world, &Without::Zone(zone("/a")));
    assert_eq!(
        asked.plan.assigned[&scoped("web")],
        BTreeMap::from([(NodeId(3), 2)])
    );
    assert_eq!((asked.moved(), asked.lost[&scoped("web")]), (1, 1));
}
