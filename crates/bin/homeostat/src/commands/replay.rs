//! `replay`: sends a load and shows what its clients would have seen.

use super::Context;
use crate::arguments::{Format, Replay};
use crate::failure::{FAILED, Failure, USAGE};
use crate::output;
use ::replay::{Generated, Progress, ReplayError, ReplayOptions, ReplayReport, Search, Source};
use kernel::error_chain;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use wire::api::Status;

const SEARCH: &str = "/search";

/// # Errors
/// When nothing could be sent; requests that failed are in the report, and in
/// the exit code.
pub async fn run(context: &Context, asked: Replay) -> Result<ExitCode, Failure> {
    let options = options(context, asked).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    tokio::spawn(async move {
        // What was sent until then is still reported.
        if tokio::signal::ctrl_c().await.is_ok() {
            stopped.store(true, Relaxed);
        }
    });
    let bar = bar();
    let progress = |progress: &Progress| {
        bar.set_length(progress.planned);
        bar.set_position(progress.ended);
        bar.set_message(format!("{} failed", progress.failed));
        if stop.load(Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let report = ::replay::replay(options, progress)
        .await
        .map_err(|error| failure(&error))?;
    bar.finish_and_clear();
    match context.output {
        Format::Table | Format::Name => output::data(::replay::render(&report).trim_end())?,
        format => output::json(&report, format)?,
    }
    Ok(ExitCode::from(code(&report)))
}

fn code(report: &ReplayReport) -> u8 {
    if report.failed > 0 || report.interrupted {
        FAILED
    } else {
        0
    }
}

/// This machine's node; as `localhost`, a name that a first site answers to.
async fn this_node(context: &Context) -> Result<String, Failure> {
    let status: Status = context.client.get("/v1/status").await?;
    let http: Option<SocketAddr> = status.http.and_then(|http| http.parse().ok());
    let http = http.ok_or_else(|| {
        Failure::new(
            FAILED,
            "the node listens nowhere yet",
            Some("homeostat doctor"),
        )
    })?;
    let ip = http.ip();
    if ip.is_loopback() || ip.is_unspecified() {
        Ok(format!("http://localhost:{}", http.port()))
    } else {
        Ok(format!("http://{http}"))
    }
}

async fn options(context: &Context, asked: Replay) -> Result<ReplayOptions, Failure> {
    let source = match asked.log {
        Some(path) => Source::Log(path),
        None => Source::Generated(Generated {
            per_second: asked.rate,
        }),
    };
    let to = match asked.to {
        Some(to) => to,
        None => this_node(context).await?,
    };
    let gap_max = asked.gap_max.map(Duration::try_from_secs_f64).transpose();
    let authority = context.layout.authority();
    Ok(ReplayOptions {
        speed: asked.speed,
        limit: Some(asked.limit),
        concurrency: asked.concurrency,
        host: asked.host,
        seed: asked.seed,
        popularity: asked.popularity,
        search: asked.search.map(|share| Search {
            path: SEARCH.to_owned(),
            share,
        }),
        gap_max: gap_max
            .map_err(|error| Failure::new(USAGE, format!("--gap-max: {error}"), None))?,
        all_methods: asked.all_methods,
        // This machine's node is trusted by its own authority.
        authority: authority.exists().then_some(authority),
        ..ReplayOptions::new(source, to)
    })
}

fn bar() -> indicatif::ProgressBar {
    if !output::terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let style = "{wide_bar} {pos}/{len} {per_sec} {msg}";
    let bar = indicatif::ProgressBar::new(0);
    match indicatif::ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn failure(error: &ReplayError) -> Failure {
    let exit = match error {
        ReplayError::Setting(_) | ReplayError::Target { .. } => USAGE,
        _ => FAILED,
    };
    Failure::new(exit, error_chain(error), error.hint())
}
