//! Questions to a tree: the answer is that of one zone with all the nodes, or
//! says what is missing.

use crate::spreading::SECOND;
use crate::sql::{settled, zone};
use aggregation::question::Done;
use kernel::UnixMillis;
use sim::tree::{TreeWorld, ask, id};
use std::time::Duration;
use wire::attributes::{Row, Value};
use wire::tree::question::{Answer, Question};

fn question(text: &str, of: &str) -> Question {
    Question {
        zone: zone(of),
        text: text.to_owned(),
        fresh_ms: None,
        rows: 0,
        asked_at: UnixMillis(1),
        within_ms: 5_000,
        hops: 0,
    }
}

fn answered(
    world: &mut TreeWorld,
    node: usize,
    question: &Question,
) -> (Vec<Option<Value>>, Box<Answer>, Duration) {
    match ask(world, node, question).expect("an answer") {
        (Done::Answered { outcome, answer }, took) => (outcome.values, answer, took),
        (other, _) => panic!("{other:?}"),
    }
}

/// The sum of an attribute that nodes publish, of those that run.
fn sum(world: &TreeWorld, name: &str, of: std::ops::Range<usize>) -> f64 {
    let nodes = world.nodes[of].iter().filter(|one| one.alive);
    let rows = nodes.map(|one| Row::decode(&one.attributes).expect("a row"));
    rows.map(|row| match row.get(name) {
        Some(Value::Float(value)) => *value,
        _ => 0.0,
    })
    .sum()
}

fn check(values: &[Option<Value>], nodes: usize, requests: f64) {
    let [Some(Value::Int(count)), Some(Value::Float(found))] = values else {
        panic!("{values:?}");
    };
    assert_eq!(usize::try_from(*count), Ok(nodes));
    assert!((found - requests).abs() < 1e-6, "{found} {requests}");
}

const SUM: &str = "SELECT COUNT(*) AS nodes, SUM(requests) AS requests";

#[test]
fn every_node_is_in_the_answer_once_whoever_is_asked() {
    let mut world = settled(&[3, 4], 6, 5);
    let all = world.nodes.len();
    let requests = sum(&world, "requests", 0..all);
    for node in [0, all / 2, all - 1] {
        let (values, answer, took) = answered(&mut world, node, &question(SUM, "/"));
        check(&values, all, requests);
        assert_eq!(answer.coverage.expected, all as u64);
        assert_eq!(answer.coverage.reporting, all as u64);
        assert!(answer.silent.shown.is_empty());
        assert!(took < SECOND * 2, "{took:?}");
    }
}

#[test]
fn an_answer_from_nodes_that_go_by_different_layouts_says_so() {
    let mut world = settled(&[3, 4], 6, 5);
    let all = world.nodes.len();
    let moving = |world: &mut TreeWorld| {
        let (_, answer, _) = answered(world, 0, &question(SUM, "/"));
        answer.moving
    };
    assert!(!moving(&mut world));
    let laid = || aggregation::tree::Event::Laid(7);
    // Two levels down; then, of all.
    for node in all - 6..all {
        world.tree(node, laid());
    }
    assert!(moving(&mut world));
    for node in 0..all - 6 {
        world.tree(node, laid());
    }
    assert!(!moving(&mut world));
}

#[test]
fn one_zone_is_asked_from_anywhere_and_a_zone_that_is_not_is_named() {
    let mut world = settled(&[3, 4], 6, 6);
    let last = world.nodes.len() - 1;
    let leaf = world.shape.zone(0);
    let requests = sum(&world, "requests", 0..6);
    let of_leaf = question(SUM, &leaf.to_string());
    for node in [0, 8, last] {
        let (values, answer, _) = answered(&mut world, node, &of_leaf);
        check(&values, 6, requests);
        assert_eq!(answer.coverage.expected, 6);
    }
    for (node, of) in [(0, "/no/such"), (last, &*format!("{leaf}/below"))] {
        let done = ask(&mut world, node, &question(SUM, of)).expect("an answer");
        assert_eq!(done.0, Done::NoZone(zone(of)));
    }
}

#[test]
fn contacts_that_are_gone_are_passed_over_and_a_zone_that_is_cut_is_named() {
    let mut world = settled(&[3, 4], 6, 7);
    let all = world.nodes.len() as u64;
    // Two of three contacts of another zone, this moment.
    let own = world.shape.zone(0).ancestor(1);
    let other = {
        let root = zone("/");
        let mut beside = world.nodes[0].tree.children(&root);
        let view = beside.find(|view| view.row.row.zone != own);
        view.expect("a zone beside").row
    };
    for contact in &other.row.contacts[..2] {
        let at = (0..world.nodes.len()).find(|at| id(*at) == contact.node);
        world.kill(at.expect("a node"));
    }
    let (_, answer, took) = answered(&mut world, 0, &question(SUM, "/"));
    assert!(answer.coverage.reporting >= all - 2 - 6, "{answer:?}");
    assert!(took < SECOND * 2, "{took:?}");

    // The rest of that zone too: what is missing is said, in time.
    let zone_of: Vec<_> = (0..world.nodes.len())
        .map(|at| world.shape.zone(world.shape.leaf_of(at)))
        .collect();
    let sides = zone_of
        .iter()
        .map(|one| u8::from(other.row.zone.contains(one)));
    let sides: Vec<u8> = sides.collect();
    let cut = sides.iter().map(|side| u64::from(*side)).sum::<u64>();
    world.sides = Some(sides);
    let (_, answer, took) = answered(&mut world, 0, &question(SUM, "/"));
    assert_eq!(answer.coverage.expected, all);
    assert!(answer.coverage.reporting <= all - cut);
    assert_eq!(answer.silent.shown.len(), 1, "{answer:?}");
    assert_eq!(answer.silent.shown[0].zone, other.row.zone);
    assert!(took <= SECOND * 5, "{took:?}");
}

#[test]
fn the_rows_behind_a_number_are_shown_up_to_their_limit() {
    let mut world = settled(&[3, 4], 6, 8);
    let all = world.nodes.len() as u64;
    let asked = Question {
        rows: 10,
        ..question("SELECT COUNT(*) WHERE requests >= 0", "/")
    };
    let (_, answer, _) = answered(&mut world, 3, &asked);
    assert_eq!(answer.rows.shown.len(), 10);
    assert_eq!(answer.rows.more, all - 10);
    for row in &answer.rows.shown {
        assert!(row.attributes.get("requests").is_some(), "{row:?}");
        assert_eq!(row.attributes.0.len(), 1, "only what was read: {row:?}");
    }
}
