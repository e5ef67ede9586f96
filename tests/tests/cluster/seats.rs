//! Seats of zones: a zone repairs itself, and its seat moves when its holder is lost,
//! stands still, or dies together with the leader.

use super::members::until_voters;
use super::{join, state, text, token_for, until_seen};
use black_box::processes::Stopped;
use black_box::{TestNode, project, says, until};
use serde_json::Value;

const ZONE: &str = "/eu/1";

fn seat(by: &TestNode, zone: &str) -> Option<Value> {
    let shown = by.run(&["seats", "-o", "json"]);
    let seats: Vec<Value> = serde_json::from_slice(&shown.stdout).ok()?;
    seats.into_iter().find(|one| one["seat"] == zone)
}

/// Its holder and epoch, once another than `before` is at work.
fn held(by: &TestNode, zone: &str, before: &str) -> (String, u64) {
    until("the zone's seat is held", || {
        let seat = seat(by, zone)?;
        let holder = seat["holder"].as_str()?;
        let is_held = seat["at_work"] == true && holder != before;
        is_held.then(|| (holder.to_owned(), seat["epoch"].as_u64().unwrap_or(0)))
    })
}

#[test]
fn a_zone_repairs_itself_and_its_seat_moves_when_its_holder_is_lost_or_stands_still() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = join(&first, "two", &["--owner", "admin"]);
    let third = join(&first, "three", &["--owner", "admin"]);
    let fourth = join(&first, "four", &["--owner", "admin"]);
    let zone = [("two", &second), ("three", &third), ("four", &fourth)];
    let node = |name: &str| zone.iter().find(|it| it.0 == name).expect("of it").1;
    for (name, _) in zone {
        until_seen(&first, name, "alive");
    }
    // Two in the zone, on two of its nodes: what is lost has a place in it.
    let directory = project(&first, "page", 3, "");
    first.ok(&["apply", text(&directory)]);
    let on = until("two in the zone", || {
        let on = first.ready_on("echo", &["one", "two", "three", "four"]);
        (on[0] == 1 && on.iter().sum::<usize>() == 3).then_some(on)
    });

    let (holder, epoch) = held(&first, ZONE, "");
    let has_one = on[1..].iter().map(|count| *count == 1);
    let mut lost = zone.iter().zip(has_one).filter(|(_, has_one)| *has_one);
    let (lost, _) = lost.find(|it| it.0.0 != holder).expect("another");
    lost.1.power_off();
    let left: Vec<&str> = zone
        .iter()
        .map(|it| it.0)
        .filter(|it| *it != lost.0)
        .collect();
    until("the zone has two again", || {
        (first.ready_on("echo", &left) == [1, 1]).then_some(())
    });
    assert_eq!(
        first.ready_on("echo", &["one"]),
        [1],
        "nothing left the zone"
    );
    let why = until("it is told who decided", || {
        let why = first.run(&["why", "service/test/echo"]);
        let why = String::from_utf8_lossy(&why.stdout).into_owned();
        why.contains(&format!("elsewhere in {ZONE}")).then_some(why)
    });
    assert!(!why.contains("loop on cluster/cluster"), "{why}");
    lost.1.ok(&["up"]);
    until_seen(&first, lost.0, "alive");
    assert_eq!(held(&first, ZONE, ""), (holder.clone(), epoch), "it stays");

    // Its holder has no power.
    node(&holder).power_off();
    let (next, later) = held(&first, ZONE, &holder);
    assert!(later > epoch);
    node(&holder).ok(&["up"]);
    until_seen(&first, &holder, "alive");
    assert_eq!(held(&first, ZONE, ""), (next.clone(), later), "it stays");

    // Its holder stands still, and goes on.
    let still = Stopped::new(node(&next).pids().1);
    let (third_holder, latest) = held(&first, ZONE, &next);
    assert!(latest > later);
    drop(still);
    until_seen(&first, &next, "alive");
    assert_eq!(
        held(&first, ZONE, ""),
        (third_holder, latest),
        "it is not taken back"
    );
    until("as many as were wished", || {
        let on = first.ready_on("echo", &["one", "two", "three", "four"]);
        (on.iter().sum::<usize>() == 3).then_some(())
    });
}

#[test]
fn a_seat_moves_when_its_holder_dies_together_with_the_leader() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let away = TestNode::new().named("away");
    away.ok(&["up", "--join", &token_for(&first, "/us/1", &["--no-vote"])]);
    let told = first.ok(&["seats"]);
    assert!(told.contains("root") && !told.contains("/here"), "{told}");
    let joined = |name: &str| {
        let node = TestNode::new().named(name);
        let line = token_for(&first, "/", &["--owner", "admin"]);
        node.ok(&["up", "--join", &line]);
        node
    };
    // Beside the other zone these are a zone of their own, and the leader is of it.
    let second = joined("two");
    let third = joined("three");
    until_voters(&first, &["one", "two", "three"]);
    let (holder, epoch) = held(&first, "/here", "");
    assert_eq!(holder, "one", "it asked first");
    first.power_off();
    let (next, later) = held(&second, "/here", "one");
    assert!(later > epoch && ["two", "three"].contains(&next.as_str()));
    until_seen(&third, "one", "dead");
    let _ = first.run(&["up"]);
    until_seen(&second, "one", "alive");
    assert_eq!(held(&second, "/here", "one"), (next, later), "it stays");
}

/// Four nodes where three are as many as may know all of all.
#[test]
fn in_a_large_cluster_a_zone_repairs_what_the_root_does_not_see() {
    let small = || TestNode::new().set("HOMEOSTAT_WHOLE_MAX", "3");
    let first = small();
    first.ok(&["up"]);
    let joined = |name: &str, zone: &str| {
        let node = small().named(name);
        let line = token_for(&first, zone, &["--owner", "admin"]);
        node.ok(&["up", "--join", &line]);
        node
    };
    let three = joined("three", "/us/1");
    let (two, four) = (joined("two", ZONE), joined("four", ZONE));
    until_seen(&two, "four", "alive");
    for name in ["two", "three", "four"] {
        until_seen(&first, name, "zone-alive");
    }
    let directory = project(&first, "page", 4, "");
    first.ok(&["apply", text(&directory)]);
    until("one on each", || {
        let on = first.ready_on("echo", &["one", "two", "three", "four"]);
        (on == [1, 1, 1, 1]).then_some(())
    });
    let (holder, _) = held(&first, ZONE, "");
    let (lost, left) = match holder.as_str() {
        "two" => (&four, "two"),
        _ => (&two, "four"),
    };
    lost.power_off();
    until("the zone has two again", || {
        (first.ready_on("echo", &[left]) == [2]).then_some(())
    });
    assert_eq!(
        first.ready_on("echo", &["one"]),
        [1],
        "nothing left the zone"
    );
    assert_eq!(three.get("/echo").expect("an answer").status, 200);
}

#[test]
fn where_there_is_one_zone_the_root_does_all() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = TestNode::new().named("two");
    second.ok(&["up", "--join", &token_for(&first, "/", &[])]);
    until("both are there", || {
        (state(&first, "two").as_deref() == Some("alive")).then_some(())
    });
    let shown = second.run(&["seats", "-o", "json"]);
    let seats: Vec<Value> = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(seats.len(), 1, "{}", says(&shown));
    assert_eq!(seats[0]["seat"], "root");
    assert_eq!(seats[0]["holder"], "one");
}
