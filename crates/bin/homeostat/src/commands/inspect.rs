//! Looking: get, explain, why, logs, the API's document.

use super::Context;
use crate::arguments::Format;
use crate::failure::{FAILED, Failure, NOT_FOUND, USAGE};
use crate::output::{self, data, say};
use client::segment;
use std::process::ExitCode;
use wire::api::{LogLine, Object, Status, WhyNotReply, WhyReply};

pub async fn get(context: &Context, object: &str) -> Result<ExitCode, Failure> {
    if let Some((kind, name)) = kind_and_name(object)? {
        let path = format!("/v1/objects/{}/{}", segment(kind), segment(name));
        let found: Object = context.client.get(&path).await?;
        if context.output == Format::Table {
            output::objects(std::slice::from_ref(&found), Format::Table)?;
        } else if context.output == Format::Name {
            output::objects(std::slice::from_ref(&found), Format::Name)?;
        } else {
            output::json(&found, context.output)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let path = format!("/v1/objects/{}", segment(singular(object)));
    let found: Vec<Object> = context.client.get(&path).await?;
    output::objects(&found, context.output)?;
    Ok(ExitCode::SUCCESS)
}

/// `None`: there is no name, so all of the kind are meant.
fn kind_and_name(object: &str) -> Result<Option<(&str, &str)>, Failure> {
    match object.split_once('/') {
        None if !object.is_empty() => Ok(None),
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() => {
            Ok(Some((singular(kind), name)))
        }
        _ => Err(Failure::new(
            USAGE,
            format!("`{object}` is not KIND/NAME"),
            Some("homeostat get --help"),
        )),
    }
}

fn singular(kind: &str) -> &str {
    kind.strip_suffix('s').unwrap_or(kind)
}

pub fn explain(context: &Context, field: &str) -> Result<ExitCode, Failure> {
    match manifest::explain(field) {
        Some(explanation) => {
            match context.output {
                Format::Table | Format::Name => show(&explanation)?,
                format => output::json(&explanation, format)?,
            }
            Ok(ExitCode::SUCCESS)
        }
        None => Err(Failure::new(
            NOT_FOUND,
            format!("the manifest has no field `{field}`"),
            manifest::suggest(field)
                .first()
                .map(|name| format!("homeostat explain {name}"))
                .as_deref(),
        )),
    }
}

fn show(explanation: &manifest::Explanation) -> Result<(), Failure> {
    let path = match explanation.path.as_str() {
        "" | "." => "the manifest",
        path => path,
    };
    data(&format!("{path}: {}", explanation.kind))?;
    if let Some(default) = &explanation.default {
        data(&format!("default {default}"))?;
    }
    if !explanation.description.is_empty() {
        data(&format!("\n{}", explanation.description))?;
    }
    let kinds = explanation.fields.iter();
    let width = kinds.map(|field| field.kind.chars().count()).max();
    let width = width.unwrap_or(0);
    for field in &explanation.fields {
        let (name, kind, summary) = (&field.name, &field.kind, &field.summary);
        data(format!("  {name:14} {kind:width$}  {summary}").trim_end())?;
    }
    Ok(())
}

pub async fn why(context: &Context, object: &str, limit: usize) -> Result<ExitCode, Failure> {
    let Some((kind, name)) = kind_and_name(object)? else {
        return Err(Failure::new(
            USAGE,
            format!("`{object}` is not KIND/NAME"),
            Some(&format!("homeostat why service/{object}")),
        ));
    };
    let mut reply: WhyReply = context
        .client
        .get(&format!("/v1/why/{}/{}", segment(kind), segment(name)))
        .await?;
    reply.chain.truncate(limit);
    if context.output != Format::Table {
        output::json(&reply, context.output)?;
        return Ok(ExitCode::SUCCESS);
    }
    if reply.chain.is_empty() {
        say(&format!("no loop has decided anything about {object}"));
    }
    for step in &reply.chain {
        let decision = &step.decision;
        let node = step.node.as_ref();
        data(&format!(
            "{}  {} loop on {} ({}{})",
            clock(decision.at_unix.0),
            decision.control_loop,
            decision.subject,
            decision.id,
            node.map_or_else(String::new, |node| format!(", node {node}"))
        ))?;
        data(&format!("  seen      {}", decision.seen))?;
        data(&format!("  decided   {}", decision.decided))?;
        if let Some(expected) = &decision.expected {
            data(&format!("  expected  {}", expected.what))?;
        }
        match &step.observation {
            Some(observation) if observation.worked => {
                data(&format!("  worked    {}", observation.what))?;
            }
            Some(observation) => data(&format!("  failed    {}", observation.what))?,
            None if decision.expected.is_some() => data("  waiting   not seen yet")?,
            None => {}
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn why_not(context: &Context, service: &str, node: &str) -> Result<ExitCode, Failure> {
    let service = service.strip_prefix("service/").unwrap_or(service);
    let path = format!("/v1/why-not/{}/{}", segment(service), segment(node));
    let reply: WhyNotReply = context.client.get(&path).await?;
    if context.output != Format::Table {
        output::json(&reply, context.output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let WhyNotReply { service, node, .. } = &reply;
    if reply.runs > 0 {
        data(&format!("{service} runs on {node}: {}", reply.runs))?;
    }
    for lack in &reply.lacks {
        data(&format!("{node} can take no replica of {service}: {lack}"))?;
    }
    if let Some(behind) = &reply.behind {
        let than = &behind.than;
        data(&format!("{node} could take the replica that is on {than}"))?;
        data(&format!("  {node}  {}", behind.why))?;
        data(&format!("  {than}  {}", behind.its_why))?;
        say(if behind.score > behind.its_score {
            "it would be the better place now, but what runs is not moved for that"
        } else {
            "the greater sum is the better place; of equal ones, the service's name decides"
        });
    }
    if reply.runs == 0 && reply.lacks.is_empty() && reply.behind.is_none() {
        say(&format!("{service} has no replica to place"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Date and time of day in UTC with milliseconds (RFC 3339).
pub fn clock(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    // Only a damaged record is beyond the calendar.
    at.map_or_else(|| format!("{unix_ms} ms"), |at| format!("{at:.3}"))
}

pub async fn logs(
    context: &Context,
    service: &str,
    follow: bool,
    tail: usize,
) -> Result<ExitCode, Failure> {
    let service = service.strip_prefix("service/").unwrap_or(service);
    let escaped = segment(service);
    let path = format!("/v1/logs/{escaped}?follow={follow}&tail={tail}");
    let mut lines = context.client.get_lines(&path).await?;
    let mut silent = true;
    while let Some(line) = lines.next::<LogLine>().await? {
        silent = false;
        match context.output {
            Format::Json | Format::Jsonl => output::json(&line, Format::Jsonl)?,
            _ => data(&format!(
                "{} {} {}",
                clock(line.at_unix_ms),
                line.replica,
                line.text
            ))?,
        }
    }
    if follow {
        // Only an end of its own ends it: the token's, say, which this tells.
        context.client.get::<Status>("/v1/status").await?;
        return Err(Failure::new(
            FAILED,
            "the node ended the log",
            Some("follow it again"),
        ));
    }
    if silent {
        let object = match service.split_once('/') {
            Some(("job", _)) => service.to_owned(),
            _ => format!("service/{service}"),
        };
        say(&format!(
            "{service} has printed nothing; see: homeostat why {object}"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn openapi(context: &Context) -> Result<ExitCode, Failure> {
    let document: serde_json::Value = context.client.get("/openapi.json").await?;
    output::json(&document, context.output)?;
    Ok(ExitCode::SUCCESS)
}
