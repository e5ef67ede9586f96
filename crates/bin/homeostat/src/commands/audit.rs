//! The audit log: listed, and looked through, also while no node runs.

use super::Context;
use super::inspect::clock;
use crate::arguments::{Audit, Format};
use crate::failure::{FAILED, Failure};
use crate::output::{self, say};
use agent::audit::{Entry, Outcome, Verdict, verify};
use client::ClientError;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

pub async fn run(context: &Context, what: &Audit) -> Result<ExitCode, Failure> {
    match what {
        Audit::Ls { limit } => list(context, *limit).await?,
        Audit::Verify { file } => check(context, file.as_deref()).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(context: &Context, limit: usize) -> Result<(), Failure> {
    let path = format!("/v1/audit?limit={limit}");
    let entries: Vec<Entry> = context.client.get(&path).await?;
    // What has ended is told once, by its end.
    let ended: BTreeSet<u64> = entries.iter().map(|entry| entry.change).collect();
    let told = entries
        .iter()
        .filter(|entry| !ended.contains(&entry.number));
    let rows = told.map(|entry| {
        [
            entry.number.to_string(),
            clock(entry.at_unix_ms),
            entry.who.clone(),
            entry.act.clone(),
            entry.object.clone(),
            outcome(entry),
        ]
    });
    let name = |entry: &Entry| format!("audit/{}", entry.number);
    let head = ["LINE", "WHEN", "WHO", "ACT", "OBJECT", "OUTCOME"];
    output::list(&entries, context.output, name, (head, rows))
}

fn outcome(entry: &Entry) -> String {
    let told = match entry.outcome {
        Outcome::Asked => "not known",
        Outcome::Done => "done",
        Outcome::Failed => "failed",
    };
    match &entry.why {
        Some(why) => format!("{told}: {why}"),
        None => told.to_owned(),
    }
}

async fn check(context: &Context, file: Option<&Path>) -> Result<(), Failure> {
    let verdict = match file {
        Some(file) => alone(file)?,
        None => match context.client.get::<Verdict>("/v1/audit/verify").await {
            Err(ClientError::NotRunning { source, .. })
                if source.kind() != std::io::ErrorKind::PermissionDenied =>
            {
                alone(&context.layout.audit())?
            }
            other => other?,
        },
    };
    if context.output != Format::Table {
        output::json(&verdict, context.output)?;
    }
    if let Some(fault) = &verdict.fault {
        let why = format!("the audit log was changed: {fault}");
        let help = "compare it with a copy; the lines before are as they were written";
        return Err(Failure::new(FAILED, why, Some(help)));
    }
    if verdict.torn_bytes > 0 {
        say(&format!(
            "the last line is cut short ({} bytes): the node was killed while it wrote it",
            verdict.torn_bytes
        ));
    }
    say(&format!("{} lines, in order", verdict.lines));
    if verdict.first > 1 {
        say(&format!(
            "they begin with line {}: older ones were let go",
            verdict.first
        ));
    }
    if !verdict.compared {
        say("not compared with what the node's store knows of the end: ask while it runs");
    }
    Ok(())
}

fn alone(path: &Path) -> Result<Verdict, Failure> {
    if path.exists() {
        return Ok(verify(path, None));
    }
    let why = format!("there is no audit log at {}", path.display());
    Err(Failure::new(crate::failure::NOT_FOUND, why, None))
}
