//! Jobs: how they stand, begin a run, end one.

use super::Context;
use super::inspect::{self, clock};
use crate::arguments::Format;
use crate::arguments::job::{Jobs, Run};
use crate::failure::{FAILED, Failure};
use crate::output::{self, data, say};
use client::segment;
use std::process::ExitCode;
use std::time::Duration;
use wire::api::{
    AttemptView, JobCancelReply, JobRunReply, JobRunRequest, JobView, Object, RunView,
};

/// How often a run that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(200);

pub async fn run(context: &Context, what: Jobs) -> Result<ExitCode, Failure> {
    match what {
        Jobs::Ls => list(context).await?,
        Jobs::Run(asked) => return begin(context, asked).await,
        Jobs::Runs { job } => runs(context, &job).await?,
        Jobs::Logs { job, follow, tail } => {
            return inspect::logs(context, &format!("job/{job}"), follow, tail).await;
        }
        Jobs::Cancel { job, run } => cancel(context, &job, run).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(context: &Context) -> Result<(), Failure> {
    let all: Vec<Object> = context.client.get("/v1/objects/job").await?;
    let head = ["NAME", "STATE", "RUN", "DONE", "NEXT", "SINCE"];
    let rows: Result<Vec<_>, Failure> = all.iter().map(row).collect();
    let name = |it: &Object| it.reference.clone();
    output::list(&all, context.output, name, (head, rows?.into_iter()))
}

fn row(object: &Object) -> Result<[String; 6], Failure> {
    let view = observed(object)?;
    let last = view.runs.first();
    let called = object.reference.trim_start_matches("job/");
    Ok([
        called.to_owned(),
        object.state.clone(),
        last.map(|run| run.number.to_string()).unwrap_or_default(),
        last.map(|run| format!("{}/{}", run.succeeded, run.parts))
            .unwrap_or_default(),
        view.next_unix_ms.map(clock).unwrap_or_default(),
        last.map(|run| clock(run.ended_unix_ms.unwrap_or(run.began_unix_ms)))
            .unwrap_or_default(),
    ])
}

fn observed(object: &Object) -> Result<JobView, Failure> {
    let view = serde_json::from_value(object.observed.clone());
    view.map_err(|error| Failure::new(FAILED, error.to_string(), Some("homeostat doctor")))
}

async fn look(context: &Context, job: &str) -> Result<(Object, JobView), Failure> {
    let path = format!("/v1/objects/job/{}", segment(job));
    let object: Object = context.client.get(&path).await?;
    let view = observed(&object)?;
    Ok((object, view))
}

async fn runs(context: &Context, job: &str) -> Result<(), Failure> {
    let (_, view) = look(context, job).await?;
    if context.output != Format::Table {
        let rows = std::iter::empty::<[String; 0]>();
        let name = |run: &RunView| run.number.to_string();
        return output::list(&view.runs, context.output, name, ([], rows));
    }
    if view.runs.is_empty() {
        say(&format!(
            "{job} has not run; begin a run with: homeostat job run {job}"
        ));
    }
    for run in &view.runs {
        show(run)?;
    }
    Ok(())
}

fn show(run: &RunView) -> Result<(), Failure> {
    let RunView { number, state, .. } = run;
    let (done, all, cause) = (run.succeeded, run.parts, &run.cause);
    let began = clock(run.began_unix_ms);
    data(&format!(
        "run {number}  {state}  {done}/{all} done  {cause}, {began}"
    ))?;
    if let Some(why) = &run.why {
        data(&format!("  why    {why}"))?;
    }
    if let Some(help) = &run.help {
        data(&format!("  help   {help}"))?;
    }
    for one in &run.attempts {
        let AttemptView {
            index,
            attempt,
            node,
            state,
            replica,
            ..
        } = one;
        let why = one.why.as_ref().map(|why| format!(": {why}"));
        let why = why.unwrap_or_default();
        data(&format!(
            "  part {index}, attempt {attempt}  on {node}  {state}{why}  ({replica})"
        ))?;
    }
    Ok(())
}

async fn begin(context: &Context, asked: Run) -> Result<ExitCode, Failure> {
    let path = format!("/v1/jobs/{}/runs", segment(&asked.job));
    let request = JobRunRequest {
        arguments: asked.arguments,
    };
    let begun: JobRunReply = context.client.post(&path, &request).await?;
    if asked.wait {
        return wait(context, &begun).await;
    }
    match context.output {
        Format::Json | Format::Jsonl => output::json(&begun, context.output)?,
        Format::Name => data(&begun.run.to_string())?,
        Format::Table => {
            let JobRunReply { job, run } = &begun;
            say(&format!("run {run} of {job} begins"));
            say(&format!(
                "next: homeostat job runs {job}, homeostat job logs -f {job}"
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn wait(context: &Context, begun: &JobRunReply) -> Result<ExitCode, Failure> {
    loop {
        let (_, view) = look(context, &begun.job).await?;
        let run = view.runs.into_iter().find(|run| run.number == begun.run);
        let Some(run) = run else {
            let message = format!(
                "run {} of {} is not remembered any more",
                begun.run, begun.job
            );
            return Err(Failure::new(FAILED, message, Some("raise `keep_runs`")));
        };
        if run.ended_unix_ms.is_none() {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        match context.output {
            Format::Table => show(&run)?,
            Format::Name => data(&run.number.to_string())?,
            format => output::json(&run, format)?,
        }
        return Ok(if run.state == "succeeded" {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(FAILED)
        });
    }
}

async fn cancel(context: &Context, job: &str, run: Option<u64>) -> Result<(), Failure> {
    let query = run.map_or_else(String::new, |run| format!("?run={run}"));
    let path = format!("/v1/jobs/{}/cancel{query}", segment(job));
    let ended: JobCancelReply = context.client.post(&path, &()).await?;
    match context.output {
        Format::Json | Format::Jsonl => output::json(&ended, context.output),
        Format::Name => ended.runs.iter().try_for_each(|run| data(&run.to_string())),
        Format::Table => {
            let runs: Vec<String> = ended.runs.iter().map(ToString::to_string).collect();
            say(&format!("of {}, run {} ends", ended.job, runs.join(", ")));
            Ok(())
        }
    }
}
