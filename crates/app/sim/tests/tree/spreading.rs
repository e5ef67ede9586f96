//! What is known where, when nothing goes wrong.

use sim::tree::{Shape, TreeWorld, Ways, WorldStart};
use std::time::Duration;

pub const SECOND: Duration = Duration::from_secs(1);

pub fn world(branching: &[usize], leaf: usize, seed: u64) -> TreeWorld {
    TreeWorld::new(WorldStart::new(
        Shape::new(branching, leaf),
        Ways::Alike(Duration::from_millis(20)),
        seed,
    ))
}

/// All started, and everybody knows of everybody.
pub fn settled(branching: &[usize], leaf: usize, seed: u64) -> TreeWorld {
    let mut world = world(branching, leaf, seed);
    world.start_all(SECOND);
    let all = world.alive();
    let whole = world.until(SECOND * 30, |world| {
        world.all_count(all) && world.all_agree()
    });
    assert!(whole.is_some(), "seed {seed}: {:?}", world.counts());
    world
}

#[test]
fn a_change_reaches_all_and_coverage_is_right() {
    let mut world = settled(&[2, 2], 8, 1);
    world.watch(5);
    let seen = world.until(SECOND * 5, |world| world.watches[0].left == 0);
    assert!(seen.is_some());
    assert!(world.all_count(32));
    assert_eq!(world.lies, []);
    assert_eq!(world.counts().forged, 0);
}

#[test]
fn one_seed_is_one_history() {
    let hash = |seed| {
        let mut world = settled(&[3], 4, seed);
        world.watch(2);
        world.pass(SECOND * 5);
        world.trace.hash
    };
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4));
}
