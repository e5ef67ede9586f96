//! A new version in stages: a worse one shows itself to a few and goes by itself,
//! a good one takes all requests at once, and gives them back.

use crate::Told;
use crate::neighbours::Neighbours;
use crate::stage::{Stage, expect};
use black_box::{Load, TestNode, program, until};
use serde_json::Value;
use std::time::Instant;

const SERVICE: &str = "stages/page";
const CANARY: &str = r#"{ strategy = "canary", share = "34%", for = "10m", min_requests = 20 }"#;
const BLUE_GREEN: &str = r#"{ strategy = "blue-green", keep = "10m" }"#;

fn until_only(nodes: &[&TestNode], version: &str) {
    for node in nodes {
        until(&format!("version {version} alone"), || {
            let all = (0..12).all(|_| {
                node.get("/page").is_ok_and(|answer| {
                    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                    answer.status == 200 && body["version"] == version
                })
            });
            all.then_some(())
        });
    }
}

pub fn played(stage: &Stage, neighbours: &Neighbours) -> Told<String> {
    let directory = neighbours.second.scratch().join("stages");
    let wrong = |error: std::io::Error| error.to_string();
    std::fs::create_dir_all(&directory).map_err(wrong)?;
    let service = program("black-box-service");
    let apply = |environment: &str, rollout: &str| -> Told {
        let manifest = format!(
            r#"[project]
name = "stages"

[service.page]
run = {{ process = ["{service}"] }}
replicas = 3
routes = [{{ host = "localhost", path = "/page" }}]
environment = {{ {environment} }}
rollout = {rollout}

[service.page.probes]
readiness = {{ http = "/", every = "200ms" }}
"#,
            service = service.display()
        );
        std::fs::write(directory.join("homeostat.toml"), manifest).map_err(wrong)?;
        stage.node.apply(&directory);
        Ok(())
    };
    let nodes = [&stage.node, &neighbours.second, &neighbours.third];
    apply("VERSION = \"1\"", CANARY)?;
    until_only(&nodes, "1");

    apply("VERSION = \"2\", STATUS = \"500 Broken\"", CANARY)?;
    let began = Instant::now();
    let readers = nodes.map(|node| Load::of(node.http, "/page"));
    until("the worse one is given up", || {
        stage.node.rolls_nothing_out(SERVICE).then_some(())
    });
    let given_up = began.elapsed().as_secs_f64();
    let good: u64 = readers.map(Load::stop).iter().map(|it| it.good).sum();
    until_only(&nodes, "1");

    apply("VERSION = \"3\"", BLUE_GREEN)?;
    let readers = nodes.map(|node| Load::of(node.http, "/page"));
    until("it has switched", || {
        let view = stage.node.rollout(SERVICE)?;
        (view["stage"] == "switched" && view["old"]["ready"] == 3).then_some(())
    });
    until_only(&nodes, "3");
    stage.ok(&["rollout", "abort", SERVICE])?;
    until_only(&nodes, "1");
    for reader in readers {
        let outcome = reader.stop();
        expect(outcome.bad.is_empty(), || {
            format!("readers saw {:?}", outcome.bad)
        })?;
    }
    Ok(format!(
        "a worse version was given up by itself after {given_up:.1} s, while {good} requests were answered by the old one; a good one was switched to and back, and nobody saw it"
    ))
}
