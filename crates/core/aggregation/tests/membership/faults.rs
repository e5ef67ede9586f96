//! Deaths, cuts, loss, slowness: who is found dead, and who is not.

use crate::world::{SECOND, World, ms};
use aggregation::membership::{Event, Reach};
use kernel::NodeId;
use std::time::Duration;

const THREE: [&str; 3] = ["/eu/1", "/eu/2", "/us/1"];

#[test]
fn those_who_join_see_each_other() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        for node in 1..=3 {
            world.belongs(NodeId(node), "/eu");
            world.start(NodeId(node));
        }
        let took = world.until(SECOND * 2, World::all_alive);
        assert!(took <= SECOND, "seed {seed}: {took:?}");
    }
}

fn longest_to_death(zones: &[&str], per_zone: u64, tries: u64) -> Duration {
    let mut longest = Duration::ZERO;
    for seed in 0..tries {
        let mut world = World::settled(seed, zones, per_zone);
        world.delay = (ms(1), ms(50));
        world.pass(SECOND * 2);
        let wait = world.rng.below(1_000);
        world.pass(ms(wait));
        let victim = NodeId(1);
        world.kill(victim);
        let took = world.until(SECOND * 10, |world| world.all_see(victim, Reach::Dead));
        longest = longest.max(took);
        let others = world.deaths();
        assert!(others.iter().all(|(_, dead)| *dead == victim));
    }
    longest
}

#[test]
fn a_power_cut_is_known_to_all_within_four_seconds() {
    for (zones, per_zone) in [
        (&THREE[..1], 2),
        (&THREE[..1], 3),
        (&THREE[..], 2),
        (&THREE[..1], 30),
        (&THREE[..], 10),
    ] {
        let longest = longest_to_death(zones, per_zone, 20);
        assert!(longest <= SECOND * 4, "{zones:?} × {per_zone}: {longest:?}");
    }
}

#[test]
fn silence_removes_nobody() {
    let mut world = World::settled(1, &THREE[..1], 3);
    world.kill(NodeId(3));
    world.pass(SECOND * 3_600);
    assert_eq!(world.reach(NodeId(1), NodeId(3)), Reach::Dead);
    world.start(NodeId(3));
    world.until(SECOND * 3, World::all_alive);
}

#[test]
fn loss_and_slow_nodes_kill_nobody() {
    for seed in 0..3 {
        let mut world = World::settled(seed, &THREE, 10);
        world.loss = 0.05;
        world.duplicates = 0.01;
        world.slowness = ms(300);
        world.slow(NodeId(1));
        world.pass(SECOND * 600);
        assert_eq!(world.deaths(), []);
        world.until(SECOND * 5, World::all_alive);
    }
}

#[test]
fn a_link_cut_one_way_kills_nobody() {
    let mut world = World::settled(1, &THREE[..1], 5);
    world.cuts.insert((NodeId(1), NodeId(2)));
    world.cuts.insert((NodeId(3), NodeId(2)));
    world.pass(SECOND * 300);
    assert_eq!(world.deaths(), []);
}

#[test]
fn a_node_that_is_deaf_is_dead_and_does_not_flap() {
    let mut world = World::settled(1, &THREE[..1], 5);
    for other in 2..=5 {
        world.cuts.insert((NodeId(other), NodeId(1)));
    }
    world.pass(SECOND * 10);
    let dead =
        |world: &World| (2..=5).all(|one| world.reach(NodeId(one), NodeId(1)) == Reach::Dead);
    assert!(dead(&world));
    world.seen.clear();
    world.pass(SECOND * 120);
    assert_eq!(world.turns(NodeId(1)), []);
    world.cuts.clear();
    world.until(SECOND * 5, World::all_alive);
}

#[test]
fn a_cut_zone_heals_within_five_seconds() {
    for (per_zone, seeds) in [(2, 10), (10, 3), (30, 1)] {
        for seed in 0..seeds {
            let mut world = World::settled(seed, &THREE, per_zone);
            let cut = world.of_zone("/us/1");
            let mut rest = world.of_zone("/eu/1");
            rest.extend(world.of_zone("/eu/2"));
            world.cut_between(&cut, &rest);
            let known = world.until(SECOND * 60, |world| {
                cut.iter().all(|one| {
                    let far = rest.iter();
                    let mut both =
                        far.map(|two| (world.reach(*one, *two), world.reach(*two, *one)));
                    both.all(|both| both == (Reach::Dead, Reach::Dead))
                })
            });
            assert!(known <= SECOND * 8, "{per_zone}, seed {seed}: {known:?}");
            world.pass(SECOND * 30);
            // Nobody is found dead on its own side.
            for (observer, dead) in world.deaths() {
                assert_ne!(cut.contains(&observer), cut.contains(&dead));
            }
            world.cuts.clear();
            let took = world.until(SECOND * 10, World::all_alive);
            assert!(took <= SECOND * 5, "{per_zone}, seed {seed}: {took:?}");
        }
    }
}

#[test]
fn one_who_slept_accuses_nobody_of_it() {
    for seed in 0..10 {
        let mut world = World::settled(seed, &THREE[..1], 10);
        for _ in 0..20 {
            world.pause(NodeId(1), ms(900));
            world.pass(SECOND * 5);
        }
        assert_eq!(world.deaths(), []);
    }
}

#[test]
fn a_doubted_node_is_found_dead_sooner() {
    let took = |doubt: bool| {
        let mut sum = Duration::ZERO;
        for seed in 0..20 {
            let mut world = World::settled(seed, &THREE[..1], 10);
            world.kill(NodeId(1));
            if doubt {
                for node in 2..=10 {
                    world.tell_node(NodeId(node), Event::Doubted(NodeId(1)));
                }
            }
            sum += world.until(SECOND * 10, |world| world.all_see(NodeId(1), Reach::Dead));
        }
        sum
    };
    assert!(took(true) < took(false));
}

#[test]
fn a_quiet_cluster_says_little() {
    let mut world = World::settled(1, &THREE[..1], 30);
    world.pass(SECOND * 30);
    (world.packets, world.packet_bytes) = (0, 0);
    world.pass(SECOND * 60);
    let per_node = |count: u64| count / 30 / 60;
    assert!(per_node(world.packets) <= 8, "{}", per_node(world.packets));
    assert!(
        per_node(world.packet_bytes) <= 250,
        "{}",
        per_node(world.packet_bytes)
    );
}

#[test]
fn large_zones_are_a_partial_mesh_and_work_all_the_same() {
    let mut world = World::settled(1, &THREE[..1], 100);
    for node in world.living() {
        assert!(world.neighbours(node).len() <= 14);
    }
    world.kill(NodeId(1));
    world.until(SECOND * 8, |world| world.all_see(NodeId(1), Reach::Dead));
    assert!(world.deaths().iter().all(|(_, dead)| *dead == NodeId(1)));
}

#[test]
fn long_round_trips_are_learned_and_raise_no_suspicion() {
    let mut world = World::settled(1, &THREE[..1], 8);
    world.delay = (ms(200), ms(220));
    world.pass(SECOND * 30);
    world.seen.clear();
    world.pass(SECOND * 300);
    for node in world.living() {
        assert_eq!(world.turns(node), []);
    }
}
