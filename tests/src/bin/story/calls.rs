//! A service that speaks no HTTP: found by name and address, and found there
//! still when its node is emptied.

use crate::Told;
use crate::neighbours::Neighbours;
use crate::stage::{Stage, expect};
use black_box::{TestNode, program, until};
use serde_json::Value;
use std::time::Instant;

/// What the service on each node finds in its environment.
fn variable(node: &TestNode, name: &str) -> String {
    until("its environment", || {
        let answer = node.get(&format!("/calls/environment?{name}")).ok()?;
        let said = String::from_utf8(answer.body).ok()?;
        (answer.status == 200 && !said.is_empty()).then_some(said)
    })
}

fn is_reached(node: &TestNode, address: &str) -> bool {
    let asked = node.get(&format!("/calls/call?{address}"));
    asked.is_ok_and(|answer| answer.body.starts_with(b"repeated"))
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
    let directory = neighbours.second.scratch().join("calls");
    let wrong = |error: std::io::Error| error.to_string();
    std::fs::create_dir_all(&directory).map_err(wrong)?;
    let service = program("black-box-service");
    let manifest = format!(
        r#"[project]
name = "calls"

[service.web]
run = {{ process = ["{service}"] }}
replicas = 3
routes = [{{ host = "localhost", path = "/calls" }}]

[service.web.probes]
readiness = {{ http = "/", every = "200ms" }}

[service.db]
run = {{ process = ["{service}"] }}
environment = {{ REPEAT = "1" }}
port = 5432

[service.db.probes]
readiness = {{ tcp = true, every = "200ms" }}
"#,
        service = service.display()
    );
    std::fs::write(directory.join("homeostat.toml"), manifest).map_err(wrong)?;
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
        .map(|(name, node)| (name, node, variable(node, "HOMEOSTAT_SERVICE_DB")))
        .collect();
    for (_, node, address) in &callers {
        until("it answers", || is_reached(node, address).then_some(()));
    }
    let began = Instant::now();
    stage.ok(&["node", "drain", &on])?;
    let next = runs_on(&stage.node, &on);
    let took = began.elapsed().as_secs_f64();
    for (name, node, address) in &callers {
        until("it answers where it was", || {
            is_reached(node, address).then_some(())
        });
        let now = variable(node, "HOMEOSTAT_SERVICE_DB");
        expect(now == *address, || {
            format!("on `{name}` it is at {now}, and was at {address}")
        })?;
    }
    stage.ok(&["node", "drain", &on, "--end"])?;
    Ok(format!(
        "called from two machines while it ran on `{on}`; the machine was emptied, and it was on `{next}` after {took:.1} s, at the same address for both"
    ))
}
