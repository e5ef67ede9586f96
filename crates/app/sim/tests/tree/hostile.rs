//! Rows that were forged, altered, replayed or come from nowhere.

use crate::spreading::{SECOND, settled};
use aggregation::tree::Event;
use kernel::{NodeId, Rng, ZonePath};
use sim::tree::{TreeWorld, contact, id, signature};
use std::sync::Arc;
use wire::tree::{Part, Row, SignedRow, Writer};

fn zone(text: &str) -> ZonePath {
    text.parse().expect("a zone")
}

fn packet(rows: &[&[u8]]) -> Vec<u8> {
    let mut writer = Writer::new(0, &[]);
    for bytes in rows {
        let (asked, age_ms) = (true, 0);
        writer.push(&Part::Row {
            asked,
            age_ms,
            bytes,
        });
    }
    writer.into_bytes()
}

fn held(world: &TreeWorld, node: usize, name: &str) -> Arc<SignedRow> {
    world.nodes[node].tree.view(&zone(name)).expect("known").row
}

/// As the issuer, or another, would sign it.
fn signed_by(node: NodeId, row: &Row) -> SignedRow {
    let encoded = row.encode().expect("within limits");
    let signature = signature(node, &encoded);
    SignedRow::new(row.clone(), encoded, &signature)
}

fn later(row: &Row, epochs: u64) -> Row {
    let mut row = row.clone();
    row.stamp.epoch += epochs;
    row
}

#[test]
fn an_altered_row_is_never_accepted() {
    let mut world = settled(&[3], 4, 1);
    let known = held(&world, 0, "/z1");
    let accepted = world.nodes[0].tree.counts().accepted;
    let good = signed_by(known.row.stamp.issuer, &later(&known.row, 1));
    let mut rng = Rng::seeded(5);
    for _ in 0..20_000 {
        let mut bytes = good.bytes().to_vec();
        let at = usize::try_from(rng.below(bytes.len() as u64)).expect("small");
        bytes[at] ^= 1 << rng.below(8);
        let payload = packet(&[&bytes]);
        let _ = world.tree(
            0,
            Event::Received {
                from: contact(4),
                payload,
            },
        );
    }
    assert_eq!(world.nodes[0].tree.counts().accepted, accepted);
    assert_eq!(held(&world, 0, "/z1"), known);
    let payload = packet(&[good.bytes()]);
    let _ = world.tree(
        0,
        Event::Received {
            from: contact(4),
            payload,
        },
    );
    assert_eq!(world.nodes[0].tree.counts().accepted, accepted + 1);
}

#[test]
fn only_nodes_of_a_zone_speak_for_it() {
    let mut world = settled(&[3], 4, 1);
    let known = held(&world, 0, "/z1");
    let before = world.nodes[0].tree.counts();
    let mut row = later(&known.row, 1);
    row.stamp.issuer = id(9);
    let stranger = signed_by(id(9), &row);
    let other_key = signed_by(id(9), &later(&known.row, 1));
    let payload = packet(&[stranger.bytes(), other_key.bytes()]);
    let _ = world.tree(
        0,
        Event::Received {
            from: contact(8),
            payload,
        },
    );
    let after = world.nodes[0].tree.counts();
    assert_eq!(
        (after.accepted, after.forged),
        (before.accepted, before.forged + 2)
    );
}

#[test]
fn rows_of_the_future_and_of_dead_epochs_are_refused_and_counted() {
    let mut world = settled(&[3], 4, 1);
    let known = held(&world, 0, "/z1");
    let before = world.nodes[0].tree.counts();
    let issuer = known.row.stamp.issuer;
    let future = signed_by(issuer, &later(&known.row, 1 << 40));
    let mut old = known.row.clone();
    old.stamp.epoch -= 1;
    let old = signed_by(issuer, &old);
    let payload = packet(&[future.bytes(), old.bytes()]);
    let told = world.tree(
        0,
        Event::Received {
            from: contact(5),
            payload,
        },
    );
    let after = world.nodes[0].tree.counts();
    assert_eq!(
        (after.future, after.outdated),
        (before.future + 1, before.outdated + 1)
    );
    assert_eq!(held(&world, 0, "/z1"), known);
    assert!(
        told.contains(&id(5)),
        "whoever is behind is told the newer row"
    );
}

#[test]
fn a_row_of_a_zone_that_is_no_neighbour_is_not_kept() {
    let mut world = settled(&[2, 2], 3, 1);
    let far = held(&world, 6, "/z1/z0");
    let payload = packet(&[far.bytes()]);
    let _ = world.tree(
        0,
        Event::Received {
            from: contact(6),
            payload,
        },
    );
    assert_eq!(world.nodes[0].tree.counts().strange, 1);
    assert!(world.nodes[0].tree.view(&zone("/z1/z0")).is_none());
}

#[test]
fn a_row_waits_for_its_issuers_certificate() {
    let mut world = settled(&[3], 4, 1);
    let known = held(&world, 0, "/z1");
    let issuer = known.row.stamp.issuer;
    let new = signed_by(issuer, &later(&known.row, 1));
    world.unproven.borrow_mut().insert(issuer);
    let payload = packet(&[new.bytes()]);
    let _ = world.tree(
        0,
        Event::Received {
            from: contact(4),
            payload,
        },
    );
    assert_eq!(held(&world, 0, "/z1"), known);
    world.unproven.borrow_mut().clear();
    let _ = world.tree(0, Event::KeyLearned(issuer));
    assert_eq!(held(&world, 0, "/z1").row.stamp, new.row.stamp);
}

#[test]
fn bent_packets_do_no_harm() {
    let mut world = settled(&[2, 2], 3, 1);
    world.kept = Some(Vec::new());
    world.watch(0);
    world.pass(SECOND * 3);
    let kept = world.kept.take().expect("kept");
    let mut rng = Rng::seeded(7);
    for round in 0..20_000 {
        let (from, to, payload) = &kept[round % kept.len()];
        let mut payload = payload.clone();
        let at = usize::try_from(rng.below(payload.len() as u64)).expect("small");
        payload[at] ^= 1 << rng.below(8);
        let node = usize::try_from(to.node.0).expect("small") - 1;
        world.packet(node, *from, payload);
    }
    let whole = world.until(SECOND * 20, |world| {
        world.all_count(12) && world.all_agree()
    });
    assert!(whole.is_some(), "{:?}", world.counts());
    assert_eq!(world.lies, []);
}
