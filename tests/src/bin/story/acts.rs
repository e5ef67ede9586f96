//! The acts: each does one thing to the node and says what a client saw of it.

use crate::Told;
use crate::stage::{Stage, expect};
use black_box::{kill, until};
use serde_json::Value;
use std::time::Instant;
use wire::decision::JournalEntry;

pub fn up(stage: &mut Stage) -> Told<String> {
    let began = Instant::now();
    let addresses = stage.ok(&["up", stage.news()])?;
    let page = stage.get("/")?;
    let took = began.elapsed();
    expect(page.status == 200, || format!("/ answers {}", page.status))?;
    let found = stage.get("/search?q=market&format=json")?;
    expect(found.status == 200, || {
        format!("/search answers {}", found.status)
    })?;
    expect(
        addresses.contains(&stage.node.https.port().to_string()),
        || format!("no clickable address in {addresses}"),
    )?;
    Ok(format!(
        "first page {:.2} s after the command",
        took.as_secs_f64()
    ))
}

pub fn bad_manifest(stage: &Stage) -> Told<String> {
    let before = stage.ok(&["get", "revisions", "-o", "name"])?;
    stage.write_manifest(
        &stage
            .manifest
            .replace("replicas = 2", "replica = 2\nlimit = 3"),
    )?;
    let said = stage.refused(&["apply", stage.news()], 1)?;
    for word in ["2 mistakes", "replicas", "limits"] {
        expect(said.contains(word), || {
            format!("`{word}` is not in: {said}")
        })?;
    }
    let after = stage.ok(&["get", "revisions", "-o", "name"])?;
    expect(before == after, || "something was changed".to_owned())?;
    Ok("both mistakes are named, nothing changed".to_owned())
}

pub fn bad_deployment(stage: &Stage) -> Told<String> {
    let version = "VERSION = \"2\", FAIL_START = \"1\"";
    stage.write_manifest(&stage.manifest.replace("VERSION = \"1\"", version))?;
    let said = stage.refused(&["apply", stage.news()], 1)?;
    expect(said.contains("taken back"), || said.clone())?;
    search_version(stage, "1")?;
    Ok("version 1 goes on".to_owned())
}

pub fn good_deployment(stage: &Stage) -> Told<String> {
    stage.write_manifest(&stage.manifest.replace("VERSION = \"1\"", "VERSION = \"2\""))?;
    let page = stage.news.join("site/published.html");
    std::fs::write(page, "<title>New</title>").map_err(|why| why.to_string())?;
    stage.refused(&["plan", stage.news()], 8)?;
    stage.ok(&["apply", stage.news()])?;
    search_version(stage, "2")?;
    let page = stage.get("/published.html")?;
    expect(page.body == b"<title>New</title>", || {
        format!("the new page is {}", page.status)
    })?;
    Ok("version 2 answers, the new page is there".to_owned())
}

fn search_version(stage: &Stage, version: &str) -> Told {
    let answer = stage.get("/search?q=market")?;
    let header = format!("version: {version}");
    expect(
        answer.status == 200 && answer.head.to_lowercase().contains(&header),
        || format!("not of {header}: {}", answer.head),
    )
}

/// The ready replicas of a service, with their processes.
pub fn replicas(stage: &Stage, service: &str) -> Vec<(String, u64)> {
    let output = stage.node.run(&["get", "replicas", "-o", "json"]);
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    found
        .iter()
        .filter(|replica| replica["state"] == "ready")
        .filter(|replica| replica["desired"]["service"] == service)
        .filter_map(|replica| {
            let name = replica["name"].as_str()?;
            Some((name.to_owned(), replica["observed"]["pid"].as_u64()?))
        })
        .collect()
}

pub fn agent_killed(stage: &Stage) -> Told<String> {
    let before = replicas(stage, "search");
    expect(before.len() == 2, || {
        format!("not two replicas: {before:?}")
    })?;
    let (_, agent, _) = stage.node.pids();
    let killed = Instant::now();
    kill(agent);
    until("an agent with the same replicas", || {
        (replicas(stage, "search") == before).then_some(())
    });
    let took = killed.elapsed();
    expect(stage.node.pids().1 != agent, || {
        "the same agent answers".to_owned()
    })?;
    Ok(format!(
        "back after {:.2} s with the same processes",
        took.as_secs_f64()
    ))
}

pub fn service_killed(stage: &Stage) -> Told<String> {
    let before = replicas(stage, "search");
    // All at once: whoever asks now must be held.
    for (_, pid) in &before {
        kill(u32::try_from(*pid).map_err(|why| why.to_string())?);
    }
    until("other processes", || {
        let now = replicas(stage, "search");
        let fresh = now.iter().all(|one| !before.contains(one));
        (now.len() == before.len() && fresh).then_some(())
    });
    let name = &before.first().ok_or("no replica")?.0;
    let told = until("the observed effect in why", || {
        let told = stage.ok(&["why", &format!("replica/{name}")]).ok()?;
        let restart = told.split("restart loop").nth(1)?;
        restart.contains("worked").then_some(told)
    });
    expect(told.contains("signal"), || {
        format!("why does not tell the signal: {told}")
    })?;
    Ok("restarted; seen, decided and done are told".to_owned())
}

pub fn supervisor_killed(stage: &Stage) -> Told<String> {
    let before = stage.node.pids();
    kill(before.0);
    stage.ok(&["up", stage.news()])?;
    let after = stage.node.pids();
    expect(
        after.0 != before.0 && (after.1, after.2) == (before.1, before.2),
        || format!("{before:?} became {after:?}"),
    )?;
    Ok("the second one adopted agent and edge".to_owned())
}

pub fn replayed(stage: &Stage) -> Told<String> {
    let entries =
        telemetry::read_all(&stage.node.layout.journal()).map_err(|why| why.to_string())?;
    let mut count = 0;
    for entry in &entries {
        if let JournalEntry::Decision(decision) = entry {
            node::replay(decision).map_err(|why| format!("{}: {why}", decision.id))?;
            count += 1;
        }
    }
    expect(count >= 10, || {
        format!("only {count} decisions were recorded")
    })?;
    Ok(format!("{count} of {count}"))
}

pub fn down(stage: &Stage) -> Told<String> {
    let mut running = replicas(stage, "search");
    running.extend(replicas(stage, "visitors"));
    let (supervisor, agent, edge) = stage.node.pids();
    stage.ok(&["down"])?;
    let parts = [supervisor, agent, edge].map(u64::from);
    for pid in running.iter().map(|(_, pid)| *pid).chain(parts) {
        expect(!is_alive(pid), || format!("process {pid} lives on"))?;
    }
    Ok(format!("{} processes ended", running.len() + parts.len()))
}

/// One that has ended keeps its number until its parent looks.
fn is_alive(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|state| !state.starts_with(['Z', 'X']))
}
