//! Programs that spread: installed once, known everywhere, tried first,
//! quarantined, replaced, removed.

use crate::spreading::SECOND;
use crate::sql::{comes_true, program, root, settled, zone};
use aggregation::tree::Standing;
use sim::tree::{TreeWorld, id};
use wire::attributes::Value;
use wire::tree::{Notice, Says};

const COUNT: &str = "SELECT COUNT(*) AS nodes FROM children";
const WRONG: &str = "SELECT COUNT(* AS nodes FROM children";

/// Version and standing of that program at a node.
fn standings(world: &TreeWorld, node: usize, name: &str) -> Vec<(u64, Standing)> {
    let programs = world.nodes[node].tree.programs();
    let those = programs
        .into_iter()
        .filter(|one| one.notice.notice.program.as_str() == name);
    let mut found: Vec<_> = those
        .map(|one| (one.notice.notice.version, one.standing))
        .collect();
    found.sort_by_key(|(version, _)| *version);
    found
}

fn running(world: &TreeWorld) -> impl Iterator<Item = usize> {
    (0..world.nodes.len()).filter(|node| world.nodes[*node].alive)
}

fn all_run(world: &TreeWorld, version: u64) -> bool {
    running(world).all(|node| {
        let standings = standings(world, node, "count");
        standings.contains(&(version, Standing::Runs))
    })
}

fn none_has_any(world: &TreeWorld) -> bool {
    running(world).all(|node| standings(world, node, "count").is_empty())
}

fn removal(version: u64) -> Notice {
    let mut notice = program("count", version, COUNT);
    notice.says = Says::Remove;
    notice
}

/// Tried in `/z1` for that long.
fn tried(version: u64, text: &str, canary_ms: u64) -> Notice {
    let mut notice = program("count", version, text);
    if let Says::Run(run) = &mut notice.says {
        run.canary = zone("/z1");
        run.canary_ms = canary_ms;
    }
    notice
}

fn counted(world: &mut TreeWorld, node: usize) -> Option<Value> {
    root(world, node).get("nodes").cloned()
}

#[test]
fn a_program_is_known_everywhere_and_gives_its_number() {
    let mut world = settled(&[3, 3], 4, 1);
    world
        .install(17, &program("count", 1, COUNT))
        .expect("fits");
    assert!(comes_true(&mut world, 3, |world| all_run(world, 1)));
    assert!(comes_true(&mut world, 6, |world| {
        (0..36).all(|node| counted(world, node) == Some(Value::Int(36)))
    }));
}

#[test]
fn a_program_runs_at_its_zone_and_below_alone() {
    let mut world = settled(&[2, 2], 3, 1);
    let mut notice = program("count", 1, COUNT);
    notice.zone = zone("/z1");
    if let Says::Run(run) = &mut notice.says {
        run.canary = zone("/z1");
    }
    // Who does not belong there does not take it.
    world.install(0, &notice).expect("fits");
    world.install(7, &notice).expect("fits");
    world.pass(SECOND * 5);
    let has = |node| !standings(&world, node, "count").is_empty();
    assert_eq!((0..12).map(has).collect::<Vec<_>>(), {
        (0..12).map(|node| node >= 6).collect::<Vec<_>>()
    });
    assert_eq!(counted(&mut world, 0), None);
    let row = world.nodes[0].tree.view(&zone("/z1")).expect("known").row;
    let row = wire::attributes::Row::decode(&row.row.attributes).expect("a row");
    assert_eq!(row.get("nodes"), Some(&Value::Int(6)));
}

#[test]
fn nobody_but_the_authority_installs() {
    let mut world = settled(&[2], 3, 1);
    let mut notice = program("count", 1, COUNT);
    notice.issuer = id(2);
    world.install(0, &notice).expect("fits");
    notice.says = Says::Remove;
    world.install(0, &notice).expect("fits");
    world.pass(SECOND * 3);
    assert!(none_has_any(&world));
    assert_eq!(world.nodes[0].tree.counts().forged, 2);
}

#[test]
fn a_newer_version_is_tried_first_and_takes_over() {
    let mut world = settled(&[3], 4, 1);
    world.install(0, &program("count", 1, COUNT)).expect("fits");
    assert!(comes_true(&mut world, 3, |world| all_run(world, 1)));
    let newer = "SELECT COUNT(*) AS nodes, MAX(cpu) AS busiest FROM children";
    world.install(9, &tried(2, newer, 10_000)).expect("fits");
    world.pass(SECOND * 5);
    for node in 0..12 {
        let canary = Standing::Canary { alone: false };
        let expected = [(1, Standing::Runs), (2, canary)];
        assert_eq!(standings(&world, node, "count"), expected);
        assert_eq!(counted(&mut world, node), Some(Value::Int(12)));
    }
    assert!(comes_true(&mut world, 15, |world| {
        all_run(world, 2)
            && (0..12).all(|node| {
                let row = root(world, node);
                row.get("busiest").is_some() && row.get("nodes") == Some(&Value::Int(12))
            })
    }));
    // The older one is forgotten, and does not come back.
    world.pass(SECOND * 20);
    let left = (0..12).map(|node| standings(&world, node, "count"));
    assert!(left.into_iter().all(|left| left == [(2, Standing::Runs)]));
}

#[test]
fn one_that_fails_where_it_is_tried_is_quarantined_everywhere() {
    let mut world = settled(&[3], 4, 1);
    world.install(0, &program("count", 1, COUNT)).expect("fits");
    assert!(comes_true(&mut world, 3, |world| all_run(world, 1)));
    world.install(0, &tried(2, WRONG, 10_000)).expect("fits");
    let is_in_quarantine = |world: &mut TreeWorld| {
        (0..12).all(|node| {
            let found = standings(world, node, "count");
            let last = found.last().map(|(_, standing)| standing.clone());
            matches!(last, Some(Standing::Quarantined { .. }))
        })
    };
    assert!(comes_true(&mut world, 6, is_in_quarantine));
    world.pass(SECOND * 15);
    assert!(all_run(&world, 1));
    assert_eq!(counted(&mut world, 2), Some(Value::Int(12)));
    world.install(0, &tried(3, COUNT, 1_000)).expect("fits");
    assert!(comes_true(&mut world, 6, |world| all_run(world, 3)));
}

#[test]
fn what_is_removed_does_not_come_back_from_those_who_were_away() {
    let mut world = settled(&[2], 4, 1);
    world.install(0, &program("count", 1, COUNT)).expect("fits");
    assert!(comes_true(&mut world, 3, |world| all_run(world, 1)));
    world.sides = Some((0..8).map(|node| u8::from(node >= 4)).collect());
    world.pass(SECOND);
    world.install(0, &removal(1)).expect("fits");
    world.pass(SECOND * 60);
    assert!(standings(&world, 1, "count").is_empty());
    assert!(!standings(&world, 6, "count").is_empty());
    world.sides = None;
    assert!(comes_true(&mut world, 6, |world| none_has_any(world)));
    // Nor by being installed again, nor to one who starts anew.
    world.install(6, &program("count", 1, COUNT)).expect("fits");
    world.kill(2);
    world.pass(SECOND);
    world.start(2);
    world.pass(SECOND * 20);
    assert!(none_has_any(&world));
    assert_eq!(counted(&mut world, 2), None);
    world.install(6, &program("count", 2, COUNT)).expect("fits");
    assert!(comes_true(&mut world, 6, |world| all_run(world, 2)));
}

#[test]
fn a_program_ends_when_its_time_is_over_whatever_clocks_say() {
    let mut world = settled(&[2], 3, 1);
    for (node, off) in [(1, 3_600_000), (4, -3_600_000)] {
        world.kill(node);
        world.start_with(node, off);
    }
    let mut notice = program("count", 1, COUNT);
    notice.lifetime_ms = 20_000;
    world.install(0, &notice).expect("fits");
    world.pass(SECOND * 15);
    assert!(all_run(&world, 1));
    world.pass(SECOND * 7);
    assert!(none_has_any(&world));
    world.pass(SECOND * 10);
    assert!(none_has_any(&world));
    assert_eq!(counted(&mut world, 0), None);
}

#[test]
fn a_program_reaches_all_though_packets_are_lost() {
    let mut world = settled(&[3, 3], 4, 1);
    world.loss = 0.2;
    world
        .install(17, &program("count", 1, COUNT))
        .expect("fits");
    assert!(comes_true(&mut world, 6, |world| all_run(world, 1)));
}
