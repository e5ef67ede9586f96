//! Changes of desired state: plan, apply, rollback, restart.

use super::Context;
use crate::arguments::Format;
use crate::failure::{FAILED, Failure, NOT_FOUND, PENDING};
use crate::output::{self, say};
use client::Lines;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use wire::api::{ApplyRequest, Change, PlanReply, Progress};

pub const MANIFEST: &str = "homeostat.toml";

/// A manifest on disk: its name for people, and what is sent.
pub struct Written {
    pub name: String,
    pub request: ApplyRequest,
}

pub fn read(path: &Path) -> Result<Written, Failure> {
    let file: PathBuf = if path.is_dir() {
        path.join(MANIFEST)
    } else {
        path.to_owned()
    };
    let text = std::fs::read_to_string(&file).map_err(|error| {
        Failure::new(
            NOT_FOUND,
            format!("cannot read {}: {error}", file.display()),
            Some(&format!("homeostat init {}", path.display())),
        )
    })?;
    let file = std::path::absolute(&file)?;
    let directory = file.parent().unwrap_or(Path::new("/")).canonicalize()?;
    Ok(Written {
        name: file.display().to_string(),
        request: ApplyRequest {
            manifest: text,
            directory,
        },
    })
}

pub async fn plan(context: &Context, path: &Path) -> Result<ExitCode, Failure> {
    let written = read(path)?;
    let reply: Result<PlanReply, _> = context.client.post("/v1/plan", &written.request).await;
    let plan = reply.map_err(|error| in_manifest(error, &written))?;
    match context.output {
        Format::Table | Format::Name => plan.changes.iter().try_for_each(show)?,
        format => output::json(&plan, format)?,
    }
    if plan.changes.is_empty() {
        say("nothing would change");
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!(
        "{} to change; do it with: homeostat apply {}",
        plan.changes.len(),
        path.display()
    ));
    Ok(ExitCode::from(PENDING))
}

fn in_manifest(error: client::ClientError, written: &Written) -> Failure {
    match error {
        client::ClientError::Api(error) => {
            Failure::from_api(error, Some((&written.name, &written.request.manifest)))
        }
        other => other.into(),
    }
}

fn show(change: &Change) -> Result<(), Failure> {
    let mark = match change.action.as_str() {
        "create" => '+',
        "remove" => '-',
        _ => '~',
    };
    output::data(&format!("{mark} {}", change.object))?;
    change
        .details
        .iter()
        .try_for_each(|detail| output::data(&format!("    {detail}")))
}

pub async fn apply(context: &Context, path: &Path) -> Result<ExitCode, Failure> {
    let written = read(path)?;
    let lines = context
        .client
        .post_lines("/v1/apply", &written.request)
        .await?;
    let addresses = follow(context, lines, Some(&written)).await?;
    for address in addresses {
        output::data(&address)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn rollback(context: &Context, project: &str, to: u64) -> Result<ExitCode, Failure> {
    let path = format!("/v1/rollback/{project}?to={to}");
    let lines = context.client.post_lines(&path, &()).await?;
    follow(context, lines, None).await?;
    Ok(ExitCode::SUCCESS)
}

pub async fn restart(context: &Context, service: &str) -> Result<ExitCode, Failure> {
    let service = service.strip_prefix("service/").unwrap_or(service);
    let path = format!("/v1/restart/{service}");
    let lines = context.client.post_lines(&path, &()).await?;
    follow(context, lines, None).await?;
    say(&format!(
        "restarted; see why with: homeostat why service/{service}"
    ));
    Ok(ExitCode::SUCCESS)
}

/// Shows progress to the end; returns the addresses that are served.
pub async fn follow(
    context: &Context,
    mut lines: Lines,
    written: Option<&Written>,
) -> Result<Vec<String>, Failure> {
    let mut bar: Option<ProgressBar> = None;
    while let Some(progress) = lines.next::<Progress>().await? {
        match progress {
            Progress::Content {
                site,
                files,
                files_total,
                ..
            } => {
                if output::terminal() {
                    let bar = bar.get_or_insert_with(|| content_bar(files_total));
                    bar.set_message(format!("copying site/{site}"));
                    bar.set_position(files);
                }
            }
            Progress::Step { what } => {
                if let Some(bar) = bar.take() {
                    bar.finish_and_clear();
                }
                say(&format!("  {what}"));
            }
            Progress::Done {
                revision,
                changes,
                addresses,
            } => {
                if matches!(context.output, Format::Json | Format::Jsonl) {
                    output::json(&changes, context.output)?;
                }
                if changes.is_empty() && revision > 0 {
                    say(&format!("nothing changed (revision {revision})"));
                } else if revision > 0 {
                    say(&format!("revision {revision}: {} changed", changes.len()));
                }
                return Ok(addresses);
            }
            Progress::Failed { error } => {
                let manifest = written
                    .map(|written| (written.name.as_str(), written.request.manifest.as_str()));
                return Err(Failure::from_api(error, manifest));
            }
        }
    }
    Err(Failure::new(
        FAILED,
        "the node ended before the change was done",
        Some("homeostat get revisions"),
    ))
}

fn content_bar(files: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("  {msg} {bar:30} {pos}/{len}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(files).with_style(style)
}
