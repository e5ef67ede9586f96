//! Rollouts by stages: how one stands; pause, resume, promote, abort.

use super::super::Context;
use crate::arguments::Format;
use crate::arguments::rollout::Rollouts;
use crate::failure::Failure;
use crate::output::{self, data, say};
use client::segment;
use wire::api::{GenerationView, RolloutView};

pub async fn run(context: &Context, what: Rollouts) -> Result<(), Failure> {
    let (service, word, told) = match what {
        Rollouts::Status { service } => {
            let path = format!("/v1/rollouts/{}", segment(&service));
            let view: RolloutView = context.client.get(&path).await?;
            return show(context, &view, None);
        }
        Rollouts::Pause { service } => (service, "pause", "is paused"),
        Rollouts::Resume { service } => (service, "resume", "goes on"),
        Rollouts::Promote { service } => (service, "promote", "is promoted"),
        Rollouts::Abort { service } => (service, "abort", "is aborted: the old version stays"),
    };
    let path = format!("/v1/rollouts/{}/{word}", segment(&service));
    let view: RolloutView = context.client.post(&path, &()).await?;
    show(context, &view, Some(told))
}

fn show(context: &Context, view: &RolloutView, told: Option<&str>) -> Result<(), Failure> {
    match (context.output, told) {
        (Format::Json | Format::Jsonl, _) => output::json(view, context.output),
        (Format::Name, _) => data(&view.service),
        (Format::Table, Some(told)) => {
            let service = &view.service;
            say(&format!("the rollout of {service} {told}"));
            say(&format!("next: homeostat why service/{service}"));
            Ok(())
        }
        (Format::Table, None) => table(view),
    }
}

fn table(view: &RolloutView) -> Result<(), Failure> {
    let RolloutView {
        service,
        strategy,
        stage,
        waits_for,
        ..
    } = view;
    let paused = if view.paused { ", paused" } else { "" };
    data(&format!("{service}  {strategy}  {stage}{paused}"))?;
    for (which, one) in [("old", &view.old), ("new", &view.new)] {
        let GenerationView {
            generation,
            wanted,
            ready,
            requests,
            errors,
            ..
        } = one;
        let routed = if one.routed {
            "takes requests"
        } else {
            "waits"
        };
        let p99 = one.latency_p99_ms;
        let p99 = p99.map_or_else(String::new, |ms| format!(", p99 {ms:.1} ms"));
        data(&format!(
            "  {which}  generation {generation}  {ready}/{wanted} ready  {routed}  \
             {errors} of {requests} requests failed{p99}"
        ))?;
    }
    data(&format!("  waits for  {waits_for}"))
}
