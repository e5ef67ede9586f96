//! A zone of two machines: it mends itself when one of them is lost, and is done
//! without when both are.

use crate::Told;
use crate::neighbours::Neighbours;
use crate::stage::{Stage, expect};
use black_box::{Load, TestNode, says, until};
use serde_json::Value;
use std::time::Instant;

const ZONE: &str = "/as/1";
const REPLICAS: usize = 4;

/// Ready replicas of search on each of these, as `by` sees them.
fn ready_on(by: &TestNode, names: &[&str]) -> Vec<usize> {
    let shown = by.run(&["get", "replicas"]);
    let replicas = String::from_utf8_lossy(&shown.stdout).into_owned();
    let ready: Vec<&str> = replicas
        .lines()
        .filter(|line| line.contains("search") && line.contains("ready"))
        .collect();
    let on = |name: &&str| {
        let word = format!("on {name},");
        ready.iter().filter(|line| line.contains(&word)).count()
    };
    names.iter().map(on).collect()
}

fn is_held(by: &TestNode) -> bool {
    let shown = by.run(&["seats", "-o", "json"]);
    let seats: Vec<Value> = serde_json::from_slice(&shown.stdout).unwrap_or_default();
    seats
        .iter()
        .any(|seat| seat["seat"] == ZONE && seat["at_work"] == true)
}

fn until_alive(by: &TestNode, count: usize) {
    until("all are alive", || {
        let shown = by.run(&["node", "ls", "-o", "json"]);
        let nodes: Vec<Value> = serde_json::from_slice(&shown.stdout).ok()?;
        let alive = nodes.iter().filter(|node| node["state"] == "alive");
        (alive.count() == count).then_some(())
    });
}

pub fn lost(stage: &Stage, neighbours: &Neighbours) -> Told<String> {
    let zone = ["four", "five"].map(|name| TestNode::new().named(name));
    for node in &zone {
        let words = ["token", "create", "--ttl", "5m", "--owner", "admin"];
        let line = stage.ok(&[&words[..], &["--zone", ZONE]].concat())?;
        let output = node.run(&["up", "--join", line.trim()]);
        expect(output.status.success(), || says(&output))?;
    }
    let first = &stage.node;
    until_alive(first, 5);
    let replicas = format!("replicas = {REPLICAS}");
    let four = stage.manifest.replace("replicas = 2", &replicas);
    stage.write_manifest(&four)?;
    stage.ok(&["apply", stage.news()])?;
    let on = until("one of all is in the zone", || {
        let on = ready_on(first, &["four", "five"]);
        let others = ready_on(first, &["one", "two", "three"]);
        let (on_both, elsewhere) = (on.iter().sum::<usize>(), others.iter().sum::<usize>());
        (on_both == 1 && on_both + elsewhere == REPLICAS).then_some(on)
    });
    until("the zone's seat is held", || is_held(first).then_some(()));
    let lost = usize::from(on[1] == 1);
    let names = ["four", "five"];
    let readers = [first, &neighbours.second, &neighbours.third]
        .map(|node| Load::of(node.http, "/search?q=market"));
    let cut = Instant::now();
    zone[lost].power_off();
    until("what was lost is elsewhere in the zone", || {
        (ready_on(first, &[names[1 - lost]]) == [1]).then_some(())
    });
    let mended = cut.elapsed().as_secs_f64();
    until("who decided is told", || {
        let why = first.run(&["why", "service/search"]);
        String::from_utf8_lossy(&why.stdout)
            .contains(&format!("elsewhere in {ZONE}"))
            .then_some(())
    });
    let output = zone[lost].run(&["up"]);
    expect(output.status.success(), || says(&output))?;
    until_alive(first, 5);

    let cut = Instant::now();
    zone.iter().for_each(TestNode::power_off);
    until("what was in the zone is elsewhere", || {
        let all = ready_on(first, &["one", "two", "three"]);
        (all.iter().sum::<usize>() == REPLICAS).then_some(())
    });
    let without = cut.elapsed().as_secs_f64();
    let mut good = 0;
    for reader in readers {
        let outcome = reader.stop();
        expect(outcome.good > 0 && outcome.bad.is_empty(), || {
            format!("readers saw {:?}", outcome.bad)
        })?;
        good += outcome.good;
    }
    Ok(format!(
        "one of two machines lost: whole again in the zone after {mended:.1} s; both lost: elsewhere after {without:.1} s; {good} of {good} requests answered at the others"
    ))
}
