//! A node that can call others and that nobody can call, with real packets: in a
//! network of its own behind a firewall.

use black_box::firewall::Firewall;
use black_box::{Answer, TestNode, project, says, until};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn token(node: &TestNode, zone: &str) -> String {
    let words = ["token", "create", "--zone", zone, "--owner", "operator"];
    node.ok(&words).trim().to_owned()
}

/// The node called `name`, as `by` sees it.
fn seen(by: &TestNode, name: &str) -> Option<Value> {
    let all = by.run(&["node", "ls", "-o", "json"]);
    let all: Vec<Value> = serde_json::from_slice(&all.stdout).ok()?;
    all.into_iter().find(|one| one["name"] == name)
}

fn until_state(by: &TestNode, name: &str, wanted: &str) {
    until(&format!("{name} is {wanted}"), || {
        (seen(by, name)?["state"] == wanted).then_some(())
    });
}

fn relays(by: &TestNode, name: &str) -> Option<Vec<String>> {
    let seen = seen(by, name)?;
    let relays = seen["relays"].as_array()?.iter();
    let mut relays: Vec<String> = relays
        .filter_map(|one| Some(one.as_str()?.to_owned()))
        .collect();
    relays.sort();
    Some(relays)
}

fn good(node: &TestNode, path: &str) -> Answer {
    until(&format!("{path} answers well"), || {
        node.get(path).ok().filter(|answer| answer.status == 200)
    })
}

#[test]
fn a_node_that_nobody_can_call_is_reached_through_relays() {
    let Some(wall) = Firewall::new() else {
        return;
    };
    let first = TestNode::new().at(wall.outside);
    first.ok(&["up"]);
    let second = TestNode::new().named("two").at(wall.outside);
    second.ok(&["up", "--join", &token(&first, "/eu/1")]);
    let third = TestNode::new().named("three").at(wall.outside);
    third.ok(&["up", "--join", &token(&first, "/us/1")]);
    let hidden = TestNode::new().named("hidden").behind(&wall);
    let line = token(&first, "/ap/1");
    hidden.ok(&["up", "--join", &line, "--outbound-only"]);
    for node in [&first, &second, &third, &hidden] {
        until_state(node, "hidden", "alive");
        until("all three are its relays", || {
            (relays(node, "hidden")? == ["one", "three", "two"]).then_some(())
        });
        let seen = seen(node, "hidden").expect("listed");
        assert_eq!(seen["outbound_only"], true);
        assert_eq!(seen["addresses"], Value::Array(Vec::new()));
    }
    let table = second.ok(&["node", "ls"]);
    assert!(table.contains("alive, outbound-only"), "{table}");

    // What it applies is fetched from its disk by all others.
    let directory = project(&hidden, "page", 1, "node = \"hidden\"");
    let large: Vec<u8> = (0..500_000_u32).flat_map(u32::to_be_bytes).collect();
    std::fs::write(directory.join("site/large"), &large).expect("a file");
    hidden.ok(&["apply", text(&directory)]);
    for node in [&first, &second, &third, &hidden] {
        assert_eq!(good(node, "/").body, b"page");
        assert_eq!(good(node, "/large").body, large);
        // Its replica answers what came in elsewhere.
        good(node, "/echo");
    }
    let replicas = first.ok(&["get", "replicas"]);
    assert!(replicas.contains("on hidden"), "{replicas}");
    // The holder asks it on a stream of its own.
    let lines = first.ok(&["logs", "echo"]);
    assert!(lines.contains("listening"), "{lines}");

    second.power_off();
    until_state(&first, "two", "dead");
    for node in [&first, &third] {
        until("the dead relay is replaced", || {
            (relays(node, "hidden")? == ["one", "three"]).then_some(())
        });
        good(node, "/echo");
        until_state(node, "hidden", "alive");
    }
    // Those who start anew find it, too.
    third.ok(&["down"]);
    third.ok(&["up"]);
    until_state(&third, "hidden", "alive");
    good(&third, "/echo");
}

#[test]
fn an_address_that_a_machine_gains_is_in_the_node_table() {
    let Some(wall) = Firewall::new() else {
        return;
    };
    let anywhere = Ipv4Addr::UNSPECIFIED.into();
    let node = TestNode::new().behind(&wall).at(anywhere);
    node.ok(&["up"]);
    let known = |address: IpAddr| {
        until(&format!("{address} in the table"), || {
            let seen = seen(&node, "one")?;
            let mut known = seen["addresses"].as_array()?.iter();
            let start = format!("{address}:");
            let is_it = |one: &Value| one.as_str().is_some_and(|one| one.starts_with(&start));
            known.any(is_it).then_some(())
        });
    };
    known(wall.inside);
    let gained = Ipv4Addr::new(203, 0, 113, 7).into();
    wall.gain(gained);
    known(gained);
}

#[test]
fn the_node_that_holds_the_store_can_be_called() {
    let node = TestNode::new();
    let refused = node.run(&["up", "--outbound-only"]);
    assert_eq!(refused.status.code(), Some(5), "{}", says(&refused));
    assert!(says(&refused).contains("--join"), "{}", says(&refused));
    node.ok(&["up"]);
    let refused = node.run(&["up", "--outbound-only"]);
    assert_eq!(refused.status.code(), Some(5), "{}", says(&refused));
}
