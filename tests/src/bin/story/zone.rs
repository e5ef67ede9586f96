//! A zone of two machines: it mends itself when one of them is lost, and is done
//! without when both are.

use crate::Told;
use crate::neighbours::{Neighbours, join, states};
use crate::stage::{Stage, expect};
use black_box::{Load, TestNode, says, until};
use serde_json::Value;
use std::time::Instant;

const ZONE: &str = "/as/1";
const REPLICAS: usize = 4;

fn is_held(by: &TestNode) -> bool {
    let shown = by.run(&["seats", "-o", "json"]);
    let seats: Vec<Value> = serde_json::from_slice(&shown.stdout).unwrap_or_default();
    seats
        .iter()
        .any(|seat| seat["seat"] == ZONE && seat["at_work"] == true)
}

fn until_alive(by: &TestNode, count: usize) {
    until("all are alive", || {
        let alive = states(by).filter(|state| state == "alive").count();
        (alive == count).then_some(())
    });
}

pub fn lost(stage: &Stage, neighbours: &Neighbours) -> Told<String> {
    let zone = ["four", "five"].map(|name| TestNode::new().named(name));
    for node in &zone {
        join(stage, node, ZONE)?;
    }
    let first = &stage.node;
    until_alive(first, 5);
    let replicas = format!("replicas = {REPLICAS}");
    let four = stage.manifest.replace("replicas = 2", &replicas);
    stage.write_manifest(&four)?;
    stage.ok(&["apply", stage.news()])?;
    let on = until("one of all is in the zone", || {
        let on = first.ready_on("search", &["four", "five"]);
        let others = first.ready_on("search", &["one", "two", "three"]);
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
        (first.ready_on("search", &[names[1 - lost]]) == [1]).then_some(())
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
        let all = first.ready_on("search", &["one", "two", "three"]);
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
