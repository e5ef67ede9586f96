//! A service that speaks no HTTP: found by name and address, and found there
//! still when its node is emptied.

use crate::Told;
use crate::neighbours::Neighbours;
use crate::stage::{Stage, expect};
use black_box::{TestNode, callers, until};
use serde_json::Value;
use std::time::Instant;

/// Where its services find the one that is called.
fn address(node: &TestNode) -> String {
    until("it is told", || {
        let told = callers::variable(node, "calls", "HOMEOSTAT_SERVICE_DB");
        (!told.is_empty()).then_some(told)
    })
}

/// Where the one that is called runs, once it is there alone.
fn runs_on(by: &TestNode, other_than: &str) -> String {
    until("the one that is called is in place", || {
        let shown = by.run(&["get", "replicas", "-o", "json"]);
        let all: Vec<Value> = serde_json::from_slice(&shown.stdout).ok()?;
        let mut its = all.iter().filter(|one| {
            let name = one["name"].as_str().unwrap_or_default();
            name.starts_with("calls.db")
        });
        let (one, more) = (its.next()?, its.next());
        let (_, on) = one["summary"].as_str()?.split_once("on ")?;
        let on = on.split(',').next()?.to_owned();
        (more.is_none() && one["state"] == "ready" && on != other_than).then_some(on)
    })
}

pub fn found(stage: &Stage, neighbours: &Neighbours) -> Told<String> {
    let directory = callers::project(&neighbours.second, "calls", "", "replicas = 3", "");
    stage.node.apply(&directory);
    let nodes = [
        ("one", &stage.node),
        ("two", &neighbours.second),
        ("three", &neighbours.third),
    ];
    let on = runs_on(&stage.node, "");
    // Who calls from the machine that is emptied leaves it too.
    let callers = nodes.iter().filter(|(name, _)| *name != on);
    let callers: Vec<_> = callers
        .map(|(name, node)| (name, node, address(node)))
        .collect();
    for (_, node, address) in &callers {
        callers::until_repeated(node, "calls", address);
    }
    let began = Instant::now();
    stage.ok(&["node", "drain", &on])?;
    let next = runs_on(&stage.node, &on);
    let took = began.elapsed().as_secs_f64();
    for (name, node, address) in &callers {
        callers::until_repeated(node, "calls", address);
        let now = self::address(node);
        expect(now == *address, || {
            format!("on `{name}` it is at {now}, and was at {address}")
        })?;
    }
    stage.ok(&["node", "drain", &on, "--end"])?;
    Ok(format!(
        "called from two machines while it ran on `{on}`; the machine was emptied, and it was on `{next}` after {took:.1} s, at the same address for both"
    ))
}
