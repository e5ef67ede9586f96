//! Restarts with and without memory, clean leaving, clones, attributes.

use crate::world::{SECOND, World, ms};
use aggregation::membership::{Effect, Event, Reach};
use kernel::{NodeId, UnixMillis};

const ZONE: [&str; 1] = ["/eu"];

fn attributes(world: &World, observer: NodeId, of: NodeId) -> Vec<u8> {
    let core = world.core(observer);
    core.view(of).expect("it belongs").attributes.to_vec()
}

fn set(world: &mut World, node: NodeId, text: &str) {
    world.tell_node(node, Event::Attributes(text.as_bytes().to_vec()));
}

#[test]
fn a_restart_with_memory_outdoes_the_life_before() {
    for down in [100, 1_000, 20_000] {
        let mut world = World::settled(down, &ZONE, 4);
        let before = world.core(NodeId(1)).life();
        world.kill(NodeId(1));
        world.pass(ms(down));
        world.start(NodeId(1));
        world.until(SECOND * 3, |world| {
            world.all_alive()
                && (2..=4).all(|one| {
                    let seen = world.core(NodeId(one)).view(NodeId(1)).expect("belongs");
                    seen.life.epoch == before.epoch + 1
                })
        });
    }
}

#[test]
fn a_restart_without_memory_outdoes_it_too_however_wrong_its_clock() {
    for wall in [0, 1_699_996_400_000, 1_800_000_000_000] {
        let mut world = World::settled(wall, &ZONE, 4);
        let before = world.core(NodeId(1)).life();
        world.kill(NodeId(1));
        world.pass(SECOND);
        world.start_with(NodeId(1), None, UnixMillis(wall));
        world.until(SECOND * 3, |world| {
            world.all_alive()
                && (2..=4).all(|one| {
                    let seen = world.core(NodeId(one)).view(NodeId(1)).expect("belongs");
                    seen.life.epoch > before.epoch
                        && seen.life.is_same_run(&world.core(NodeId(1)).life())
                })
        });
        world.pass(SECOND * 10);
        let cloned = world.seen.iter().any(|seen| {
            matches!(
                seen.effect,
                Effect::Cloned { .. } | Effect::Superseded { .. }
            )
        });
        assert!(!cloned, "the earlier life is over: nobody is a clone");
    }
}

#[test]
fn one_who_leaves_is_not_called_dead() {
    for seed in 0..10 {
        let mut world = World::settled(seed, &["/eu", "/us"], 5);
        world.loss = 0.02;
        world.tell_node(NodeId(1), Event::Leaving);
        world.pass(SECOND);
        assert!(!world.living().contains(&NodeId(1)));
        world.until(SECOND * 12, |world| world.all_see(NodeId(1), Reach::Left));
        world.pass(SECOND * 20);
        assert_eq!(world.deaths(), []);
        world.start(NodeId(1));
        world.until(SECOND * 3, World::all_alive);
    }
}

#[test]
fn two_runs_with_one_key_are_named_and_one_falls_silent() {
    for seed in 0..20 {
        let mut world = World::settled(seed, &ZONE, 5);
        let remembered = world.core(NodeId(1)).life().epoch;
        // A copy of its directory, started beside it.
        let first = world.run_of(NodeId(1));
        let copy = world.start_with(NodeId(1), Some(remembered - 1 + seed % 3), UnixMillis(0));
        world.pass(SECOND * 10);
        let named = |observer| {
            let mut seen = world.seen.iter();
            seen.any(|seen| {
                let named = matches!(
                    seen.effect,
                    Effect::Cloned {
                        node: NodeId(1),
                        ..
                    }
                );
                named && observer == seen.observer
            })
        };
        assert!(named(NodeId(1)), "seed {seed}: no run says so");
        let silent = world
            .seen
            .iter()
            .filter(|seen| matches!(seen.effect, Effect::Superseded { .. }));
        assert_eq!(silent.count(), 1, "seed {seed}");
        let prevails = [first, copy]
            .into_iter()
            .find(|run| world.lives(*run))
            .expect("one goes on");
        let life = world.core_of(prevails).life();
        for node in 2..=5 {
            let seen = world.core(NodeId(node)).view(NodeId(1)).expect("belongs");
            assert_eq!((seen.reach, seen.life.nonce), (Reach::Alive, life.nonce));
        }
        world.seen.clear();
        world.pass(SECOND * 60);
        assert_eq!(world.turns(NodeId(1)), [], "seed {seed}: it flaps");
    }
}

#[test]
fn changed_attributes_are_known_to_all_at_once() {
    for (zones, per_zone) in [(&["/eu"][..], 30), (&["/eu/1", "/eu/2", "/us"][..], 10)] {
        for seed in 0..10 {
            let mut world = World::settled(seed, zones, per_zone);
            let long = format!("{seed:0512}");
            set(&mut world, NodeId(1), &long);
            let known = |world: &World| {
                let others = world.living().into_iter().filter(|one| *one != NodeId(1));
                others
                    .into_iter()
                    .all(|one| attributes(world, one, NodeId(1)) == long.as_bytes())
            };
            let took = world.until(SECOND * 2, known);
            assert!(took <= ms(300), "seed {seed}: {took:?}");
        }
    }
}

fn sent(world: &World) -> u64 {
    let nodes = world.living().into_iter();
    nodes.map(|node| world.core(node).counts().sent_bytes).sum()
}

#[test]
fn what_changes_of_attributes_is_told_and_no_more() {
    let mut world = World::settled(3, &ZONE, 20);
    // Besides what is said anyway.
    let quiet = sent(&world);
    world.pass(SECOND * 2);
    let quiet = sent(&world) - quiet;
    let row = |step: u32| format!("{}{step:04}{}", "a".repeat(400), "b".repeat(400));
    let mut bytes = Vec::new();
    for step in 0..6 {
        let before = sent(&world);
        set(&mut world, NodeId(1), &row(step));
        world.pass(SECOND * 2);
        bytes.push((sent(&world) - before).saturating_sub(quiet));
        for node in world.living() {
            if node != NodeId(1) {
                assert_eq!(attributes(&world, node, NodeId(1)), row(step).as_bytes());
            }
        }
    }
    // The first time it is all of it; what is sent besides is small.
    assert!(
        bytes[1..].iter().all(|later| later * 3 < bytes[0]),
        "{bytes:?}"
    );

    // Who missed one meanwhile asks for all.
    let others: Vec<NodeId> = world.living();
    let others: Vec<NodeId> = others.into_iter().filter(|one| *one != NodeId(5)).collect();
    world.cut_between(&[NodeId(5)], &others);
    set(&mut world, NodeId(1), &row(7));
    world.pass(ms(300));
    world.cuts.clear();
    set(&mut world, NodeId(1), &row(8));
    world.pass(SECOND * 3);
    assert_eq!(attributes(&world, NodeId(5), NodeId(1)), row(8).as_bytes());
}

#[test]
fn attributes_over_the_limit_are_refused_and_counted() {
    let mut world = World::settled(1, &ZONE, 2);
    set(&mut world, NodeId(1), &"x".repeat(1_025));
    world.pass(SECOND);
    assert_eq!(world.core(NodeId(1)).counts().oversized, 1);
    assert_eq!(
        attributes(&world, NodeId(2), NodeId(1)),
        b"first of 0000000000000001"
    );
}

#[test]
fn who_joins_late_knows_all_soon() {
    let mut world = World::settled(3, &["/eu/1", "/eu/2", "/eu/3", "/us"], 30);
    world.pass(SECOND * 20);
    world.belongs(NodeId(7_777), "/us");
    world.start(NodeId(7_777));
    world.until(SECOND * 5, |world| {
        world.core(NodeId(7_777)).views().all(|(node, view)| {
            view.reach == Reach::Alive && view.attributes == format!("first of {node}").as_bytes()
        })
    });
    world.until(SECOND * 5, World::all_alive);
}

#[test]
fn news_that_were_lost_are_found_by_comparing() {
    let mut world = World::settled(5, &ZONE, 10);
    let others: Vec<NodeId> = (1..=9).map(NodeId).collect();
    world.cut_between(&[NodeId(10)], &others);
    world.pass(ms(500));
    set(&mut world, NodeId(1), "changed in the meantime");
    world.pass(SECOND);
    world.cuts.clear();
    world.until(SECOND * 25, |world| {
        attributes(world, NodeId(10), NodeId(1)) == b"changed in the meantime"
    });
    world.until(SECOND * 5, World::all_alive);
}
