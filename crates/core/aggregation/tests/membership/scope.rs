//! A cluster that grows too large for all to know all.

use crate::world::{SECOND, World};
use aggregation::membership::{Event, Reach};
use kernel::NodeId;
use std::sync::Arc;

const ZONES: [&str; 2] = ["/eu/1", "/us/1"];

/// Three nodes in each of two zones: as many as may know all.
fn full(seed: u64) -> World {
    let mut world = World::new(seed);
    world.parameters.whole_max = 6;
    for (at, zone) in (0_u64..).zip(ZONES) {
        for index in 1..=3 {
            let node = NodeId(at * 1_000 + index);
            world.belongs(node, zone);
            world.start(node);
        }
    }
    world.until(SECOND * 8, World::all_alive);
    world.seen.clear();
    world
}

#[test]
fn beyond_so_many_each_knows_its_leaf_zone() {
    let mut world = full(1);
    let (here, far) = (NodeId(1), NodeId(1_001));
    assert_eq!(world.reach(here, far), Reach::Alive);
    world.belongs(NodeId(4), ZONES[0]);
    world.start(NodeId(4));
    world.pass(SECOND * 20);
    let seen = |node| world.core(node).views().count();
    assert_eq!([here, NodeId(4), far].map(seen), [3, 3, 2]);
    assert!(world.core(here).view(far).is_none());
    assert_eq!(world.deaths(), []);
    let before = world.core(far).counts();
    let sent_to_far = before.received;
    world.kill(NodeId(1_002));
    world.kill(NodeId(1_003));
    world.pass(SECOND * 20);
    assert_eq!(world.reach(far, NodeId(1_002)), Reach::Dead);
    // Nobody of the other zone speaks to it.
    let after = world.core(far).counts();
    assert!(after.received - sent_to_far < 50, "{after:?}");
    assert_eq!(after.outside, before.outside);
}

#[test]
fn who_hears_of_it_late_takes_nobody_for_dead() {
    for seed in 0..10 {
        let mut world = full(seed);
        let late = world.run_of(NodeId(1_001));
        let old = Arc::new(world.table.clone());
        world.belongs(NodeId(4), ZONES[0]);
        world.tell(late, Event::Table(old));
        world.start(NodeId(4));
        world.pass(SECOND * 30);
        assert_eq!(world.deaths(), [], "seed {seed}");
        let asked = world.core(NodeId(1)).counts().outside;
        let others = (2..=3).map(|node| world.core(NodeId(node)).counts().outside);
        assert!(asked + others.sum::<u64>() > 0);
        world.tell_table();
        world.pass(SECOND * 10);
        assert_eq!(world.core(NodeId(1_001)).views().count(), 2);
        assert_eq!(world.deaths(), [], "seed {seed}");
    }
}

#[test]
fn a_cluster_that_shrinks_knows_all_of_all_again() {
    let mut world = full(2);
    world.belongs(NodeId(4), ZONES[0]);
    world.pass(SECOND * 5);
    world.table.remove(&NodeId(4));
    world.tell_table();
    world.until(SECOND * 8, World::all_alive);
}
