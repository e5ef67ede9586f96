//! All nodes go over to another program, one by one, while readers read.

use crate::Told;
use crate::acts::replicas;
use crate::neighbours::Neighbours;
use crate::stage::{Stage, expect};
use black_box::Load;
use std::time::Instant;

pub fn rolling(stage: &Stage, neighbours: &Neighbours) -> Told<String> {
    let next = stage.node.scratch().join("homeostat-next");
    black_box::copy_of_program(&next).map_err(|why| why.to_string())?;
    let next = next.to_str().ok_or("no path")?;
    let nodes = [&stage.node, &neighbours.second, &neighbours.third];
    let before = replicas(stage, "search");
    let readers = nodes.map(|node| {
        [
            Load::of(node.http, "/published.html"),
            Load::of(node.http, "/search?q=market"),
        ]
    });
    let began = Instant::now();
    stage.ok(&["upgrade", "--all", "--program", next])?;
    let took = began.elapsed().as_secs_f64();
    let mut good = 0;
    for reader in readers.into_iter().flatten() {
        let outcome = reader.stop();
        expect(outcome.bad.is_empty(), || {
            format!("readers saw {:?}", outcome.bad)
        })?;
        good += outcome.good;
    }
    for node in nodes {
        let (supervisor, agent, edge) = node.pids();
        for pid in [supervisor, agent, edge] {
            let file = std::fs::read_link(format!("/proc/{pid}/exe"));
            let file = file.map_err(|why| why.to_string())?;
            expect(file.ends_with("homeostat-next"), || {
                format!("{pid} is {} still", file.display())
            })?;
        }
    }
    let after = replicas(stage, "search");
    expect(before == after, || format!("{before:?} became {after:?}"))?;
    Ok(format!(
        "3 nodes in {took:.1} s, their replicas untouched; {good} of {good} requests answered"
    ))
}
