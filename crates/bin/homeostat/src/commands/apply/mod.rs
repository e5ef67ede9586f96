//! Changes of desired state: plan, apply, rollback, restart.

pub mod rollout;
pub mod without;

use super::Context;
use crate::arguments::Format;
use crate::failure::{DENIED, FAILED, Failure, INTERRUPTED, NOT_FOUND, PENDING};
use crate::output::{self, say};
use client::{ClientError, Lines, segment};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use wire::api::{ApplyRequest, Change, PlanReply, Progress};

pub const MANIFEST: &str = "homeostat.toml";

/// A manifest on disk: its name for people, and what is sent.
pub struct Written {
    pub name: String,
    pub request: ApplyRequest,
}

/// The node's own limit on a request is larger, but says nothing useful.
const MANIFEST_BYTES_MAX: usize = 1 << 20;

/// A change that is in force.
#[derive(Serialize)]
pub struct Done {
    revision: u64,
    changes: Vec<Change>,
    /// Where what is applied can be reached.
    addresses: Vec<String>,
}

impl Done {
    /// For people, the addresses; for scripts, all of it or the objects' names.
    pub fn show(&self, context: &Context) -> Result<(), Failure> {
        match context.output {
            Format::Table => self
                .addresses
                .iter()
                .try_for_each(|address| output::data(address)),
            Format::Name => names(&self.changes),
            format => output::json(self, format),
        }
    }
}

fn names(changes: &[Change]) -> Result<(), Failure> {
    changes
        .iter()
        .try_for_each(|change| output::data(&change.object))
}

fn unreadable(file: &Path, error: &std::io::Error) -> Failure {
    let directory = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let message = format!("cannot read {}: {error}", file.display());
    match error.kind() {
        ErrorKind::NotFound => {
            let init = format!("homeostat init {}", directory.display());
            Failure::new(NOT_FOUND, message, Some(&init))
        }
        ErrorKind::PermissionDenied => Failure::new(DENIED, message, None),
        _ => Failure::new(FAILED, message, None),
    }
}

pub fn read(path: &Path) -> Result<Written, Failure> {
    let file: PathBuf = if path.is_dir() {
        path.join(MANIFEST)
    } else {
        path.to_owned()
    };
    let text = std::fs::read_to_string(&file).map_err(|error| unreadable(&file, &error))?;
    if text.len() > MANIFEST_BYTES_MAX {
        let (file, bytes) = (file.display(), text.len());
        let message =
            format!("{file} has {bytes} bytes; a manifest has {MANIFEST_BYTES_MAX} at most");
        return Err(Failure::new(FAILED, message, None));
    }
    let file = std::path::absolute(&file)?;
    let directory = file.parent().unwrap_or(Path::new("/")).canonicalize()?;
    Ok(Written {
        name: file.display().to_string(),
        request: ApplyRequest {
            manifest: text,
            directory,
            resolved: None,
        },
    })
}

pub async fn plan(context: &Context, path: &Path) -> Result<ExitCode, Failure> {
    let written = read(path)?;
    let reply: Result<PlanReply, _> = context.client.post("/v1/plan", &written.request).await;
    let plan = reply.map_err(|error| in_manifest(error, &written))?;
    match context.output {
        Format::Table => plan.changes.iter().try_for_each(show)?,
        Format::Name => names(&plan.changes)?,
        Format::Json => output::json(&plan, Format::Json)?,
        Format::Jsonl => plan
            .changes
            .iter()
            .try_for_each(|change| output::json(change, Format::Jsonl))?,
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
    let lines = context.client.post_lines("/v1/apply", &written.request);
    follow(lines, Some(&written)).await?.show(context)?;
    Ok(ExitCode::SUCCESS)
}

pub async fn rollback(context: &Context, project: &str, to: u64) -> Result<ExitCode, Failure> {
    let path = format!("/v1/rollback/{}?to={to}", segment(project));
    let lines = context.client.post_lines(&path, &());
    follow(lines, None).await?.show(context)?;
    Ok(ExitCode::SUCCESS)
}

pub async fn restart(context: &Context, service: &str) -> Result<ExitCode, Failure> {
    let service = service.strip_prefix("service/").unwrap_or(service);
    let path = format!("/v1/restart/{}", segment(service));
    let lines = context.client.post_lines(&path, &());
    follow(lines, None).await?;
    say(&format!(
        "restarted; see why with: homeostat why service/{service}"
    ));
    Ok(ExitCode::SUCCESS)
}

/// Sends a change and shows its progress to the end.
pub async fn follow(
    sent: impl Future<Output = Result<Lines, ClientError>>,
    written: Option<&Written>,
) -> Result<Done, Failure> {
    // One listener for the whole wait, there before anything is sent: between
    // two of them a signal would be nobody's.
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut lines = tokio::select! {
        lines = sent => lines?,
        _ = interrupts.recv() => return Err(interrupted()),
    };
    let mut bar: Option<ProgressBar> = None;
    loop {
        let next = tokio::select! {
            next = lines.next::<Progress>() => next?,
            _ = interrupts.recv() => return Err(interrupted()),
        };
        let Some(progress) = next else { break };
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
                if changes.is_empty() && revision > 0 {
                    say(&format!("nothing changed (revision {revision})"));
                } else if revision > 0 {
                    say(&format!("revision {revision}: {} changed", changes.len()));
                }
                return Ok(Done {
                    revision,
                    changes,
                    addresses,
                });
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

/// What was asked for is the node's by now.
fn interrupted() -> Failure {
    Failure::new(
        INTERRUPTED,
        "nobody waits for it any more, but the node goes on with the change",
        Some("homeostat get services; homeostat rollback PROJECT takes it back"),
    )
}

fn content_bar(files: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("  {msg} {bar:30} {pos}/{len}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(files).with_style(style)
}

/// The project that a manifest is.
pub fn project(written: &Written) -> Result<String, Failure> {
    let directory = written.request.directory.file_name();
    let fallback = directory
        .and_then(|name| name.to_str())
        .and_then(|name| kernel::Name::new(name.to_lowercase()).ok());
    let fallback = fallback.map_or_else(|| kernel::Name::new("project"), Ok);
    let fallback = fallback.map_err(|error| Failure::new(FAILED, error.to_string(), None))?;
    manifest::parse(&written.request.manifest, &fallback)
        .map(|manifest| manifest.project.to_string())
        .map_err(|mistakes| {
            let count = mistakes.len();
            let message = format!("{} has {count} mistakes", written.name);
            let plan = format!("homeostat plan {}", written.name);
            Failure::new(FAILED, message, Some(&plan))
        })
}
