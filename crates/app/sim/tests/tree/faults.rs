//! Representatives die, links lose, halves are cut, clocks are wrong.

use crate::spreading::{SECOND, settled, world};
use kernel::ZonePath;
use sim::tree::{TreeWorld, id};
use std::time::Duration;

fn zone(text: &str) -> ZonePath {
    text.parse().expect("a zone")
}

fn at(node: kernel::NodeId) -> usize {
    usize::try_from(node.0).expect("small") - 1
}

/// Whoever issues its row.
fn leader(world: &TreeWorld, zone: &ZonePath) -> usize {
    let mut nodes = world.nodes.iter();
    let leads = |one: &sim::tree::Node| one.alive && one.tree.leads(zone);
    nodes.position(leads).expect("somebody leads")
}

/// All nodes that run know of a row of the zone that living nodes stand by.
fn is_led(world: &TreeWorld, zone: &ZonePath) -> bool {
    let mut nodes = world.nodes.iter().filter(|one| one.alive);
    nodes.all(|one| {
        let view = one.tree.view(zone);
        view.is_some_and(|view| {
            let contacts = &view.row.row.contacts;
            let alive = |node: kernel::NodeId| world.nodes[at(node)].alive;
            !view.unknown
                && alive(view.row.row.stamp.issuer)
                && !contacts.is_empty()
                && contacts.iter().all(|one| alive(one.node))
        })
    })
}

#[test]
fn when_all_representatives_are_killed_others_take_over() {
    let mut world = settled(&[4], 12, 1);
    let zone = zone("/z1");
    for node in world.nodes[12].tree.representatives(&zone) {
        world.kill(at(node));
    }
    let left = world.alive();
    assert_eq!(left, 45);
    let led = world.until(SECOND * 5, |world| is_led(world, &zone));
    assert!(led.is_some(), "nobody took over");
    let counted = world.until(SECOND * 10, |world| world.all_count(left));
    assert!(counted.is_some(), "{:?}", world.counts());
}

#[test]
fn representatives_of_an_upper_zone_are_replaced_too() {
    let mut world = settled(&[2, 3], 6, 1);
    let zone = zone("/z1");
    for node in world.nodes[18].tree.representatives(&zone) {
        world.kill(at(node));
    }
    let led = world.until(SECOND * 8, |world| is_led(world, &zone));
    assert!(led.is_some(), "nobody took over");
}

#[test]
fn halves_cut_for_ten_minutes_heal_by_themselves() {
    let mut world = settled(&[2, 2], 5, 1);
    let half = |node: usize| u8::from(node % 20 >= 10);
    world.sides = Some((0..20).map(half).collect());
    world.pass(SECOND * 600);
    let root = ZonePath::root();
    let coverage = world.nodes[0].tree.coverage_of(&root).expect("the root");
    assert_eq!((coverage.expected, coverage.reporting), (20, 10));
    let view = world.nodes[0].tree.view(&zone("/z1")).expect("kept");
    assert!(view.unknown && view.age > SECOND * 590, "{:?}", view.age);
    world.sides = None;
    let healed = world.until(SECOND * 5, |world| world.all_count(20) && world.all_agree());
    assert!(healed.is_some(), "{:?}", world.counts());
}

#[test]
fn a_zone_that_is_gone_is_unknown_and_counted_and_comes_back() {
    let mut world = settled(&[3], 5, 1);
    for node in 5..10 {
        world.kill(node);
    }
    let unknown = world.until(SECOND * 10, |world| world.all_count(10));
    assert!(unknown.is_some(), "{:?}", world.counts());
    world.pass(SECOND * 30);
    let before = world.nodes[0].tree.view(&zone("/z1")).expect("kept");
    assert!(before.unknown && before.age > SECOND * 30);
    // They have forgotten everything, also which epoch they were at.
    for node in 5..10 {
        world.start(node);
    }
    let back = world.until(SECOND * 20, |world| {
        world.all_count(15) && world.all_agree()
    });
    assert!(back.is_some(), "{:?}", world.counts());
    let after = world.nodes[0].tree.view(&zone("/z1")).expect("known");
    assert!(after.row.row.stamp.epoch > before.row.row.stamp.epoch);
}

#[test]
fn a_change_reaches_all_though_packets_are_lost() {
    let mut world = settled(&[3, 3], 6, 1);
    world.loss = 0.15;
    for node in [0, 17, 40] {
        world.watch(node);
        world.pass(SECOND);
    }
    let seen = world.until(SECOND * 10, |world| {
        world.watches.iter().all(|one| one.left == 0)
    });
    assert!(seen.is_some());
    assert!(
        world
            .until(SECOND * 10, |world| world.all_count(54))
            .is_some()
    );
}

#[test]
fn a_clock_an_hour_off_poisons_nothing() {
    const HOUR_MS: i64 = 3_600_000;
    let mut world = world(&[2, 2], 4, 1);
    for node in 0..16 {
        let off = [0, HOUR_MS, -HOUR_MS][node % 3];
        world.start_with(node, off);
    }
    let whole = world.until(SECOND * 20, |world| {
        world.all_count(16) && world.all_agree()
    });
    assert!(whole.is_some(), "{:?}", world.counts());
    world.watch(3);
    assert!(
        world
            .until(SECOND * 5, |world| world.watches[0].left == 0)
            .is_some()
    );
    world.pass(SECOND * 20);
    assert_eq!(world.unknown, 0);
    let ages = world.nodes.iter().map(|one| one.tree.view(&zone("/z1")));
    assert!(ages.flatten().all(|view| view.age < SECOND * 6));
}

#[test]
fn a_leader_that_lies_is_named_by_those_who_compute_the_same() {
    let mut world = settled(&[3], 6, 1);
    let zone = zone("/z0");
    let liar = leader(&world, &zone);
    world.nodes[liar].programs.lies = true;
    world.change(liar, 1);
    let named = world.until(SECOND * 5, |world| !world.lies.is_empty());
    assert!(named.is_some());
    assert!(
        world
            .lies
            .iter()
            .all(|(by, of, stamp)| { *of == zone && stamp.issuer == id(liar) && *by != id(liar) })
    );
}

#[test]
fn a_quiet_tree_finds_nobody_unknown_and_names_nobody() {
    let mut world = settled(&[3, 3], 4, 1);
    world.unknown = 0;
    world.pass(SECOND * 120);
    assert_eq!((world.unknown, world.lies.len()), (0, 0));
    let counts = world.counts();
    assert_eq!((counts.forged, counts.forged_beats), (0, 0));
}

#[test]
fn zones_of_one_node_and_of_many_work() {
    let mut lonely = settled(&[4], 1, 1);
    lonely.watch(2);
    assert!(
        lonely
            .until(SECOND * 5, |world| world.watches[0].left == 0)
            .is_some()
    );
    assert_eq!(lonely.warned, 0);
    let mut large = settled(&[2], 100, 1);
    assert_eq!(large.warned, 200);
    large.watch(150);
    assert!(
        large
            .until(SECOND * 5, |world| world.watches[0].left == 0)
            .is_some()
    );
    let root_only = settled(&[], 6, 1);
    assert_eq!(root_only.alive(), 6);
}

#[test]
fn a_leaf_zone_of_five_hundred_is_warned_of_and_works() {
    let mut world = settled(&[1], 500, 1);
    assert_eq!(world.warned, 500);
    world.watch(77);
    let seen = world.until(SECOND * 5, |world| world.watches[0].left == 0);
    assert!(seen.is_some(), "{} do not know", world.watches[0].left);
    for node in world.nodes[0].tree.representatives(&zone("/z0")) {
        world.kill(at(node));
    }
    let led = world.until(SECOND * 10, |world| is_led(world, &zone("/z0")));
    assert!(led.is_some(), "nobody took over");
}

#[test]
fn an_ended_zone_is_counted_no_more() {
    let mut world = settled(&[3], 4, 1);
    for node in 8..12 {
        world.kill(node);
    }
    let ended = zone("/z2");
    world.tree(0, aggregation::tree::Event::Ended(ended.clone()));
    let told = world.until(SECOND * 10, |world| {
        let mut nodes = world.nodes.iter().filter(|one| one.alive);
        nodes.all(|one| one.tree.view(&ended).is_some_and(|view| view.ended))
    });
    assert!(told.is_some());
    world.pass(Duration::from_secs(20));
    let root = ZonePath::root();
    let coverage = world.nodes[5].tree.coverage_of(&root).expect("the root");
    assert_eq!((coverage.expected, coverage.reporting), (8, 8));
}
