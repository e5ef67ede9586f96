//! Alerts: questions that are asked again and again, and who is told.

use super::Context;
use super::publish::shown;
use super::zones::millis;
use crate::arguments::Format;
use crate::arguments::alerts::{Add, Alerts};
use crate::failure::Failure;
use crate::output::{self, data, say};
use client::segment;
use kernel::format_duration;
use std::process::ExitCode;
use std::time::Duration;
use wire::api::{AlertRequest, AlertView};

pub async fn run(context: &Context, what: Alerts) -> Result<ExitCode, Failure> {
    match what {
        Alerts::Ls => list(context).await?,
        Alerts::Add(asked) => add(context, asked).await?,
        Alerts::Test { name } => {
            let path = format!("/v1/alerts/{}/test", segment(&name));
            let told: AlertView = context.client.post(&path, &()).await?;
            say(&format!("{} told {}", told.name, told.tells));
        }
        Alerts::Rm { name } => {
            let path = format!("/v1/alerts/{}", segment(&name));
            let removed: AlertView = context.client.delete(&path).await?;
            say(&format!("{} is asked no more", removed.name));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn add(context: &Context, asked: Add) -> Result<(), Failure> {
    let request = AlertRequest {
        name: asked.name,
        when: asked.when,
        zone: Some(asked.zone),
        for_ms: asked.span.map(millis),
        on_change: asked.on_change,
        every_ms: Some(millis(asked.every)),
        webhook: asked.webhook,
        command: asked.command,
    };
    let added: AlertView = context.client.post("/v1/alerts", &request).await?;
    match context.output {
        Format::Json | Format::Jsonl => output::json(&added, context.output),
        Format::Name => data(&added.name),
        Format::Table => {
            let (name, zone) = (&added.name, &added.zone);
            say(&format!("{name} is asked of {zone}: {}", added.question));
            say(&format!(
                "next: homeostat alerts test {name}, homeostat alerts ls"
            ));
            Ok(())
        }
    }
}

async fn list(context: &Context) -> Result<(), Failure> {
    let all: Vec<AlertView> = context.client.get("/v1/alerts").await?;
    let head = [
        "NAME", "ZONE", "STATE", "SINCE", "VALUE", "TELLS", "QUESTION",
    ];
    let rows = all.iter().map(row);
    output::list(&all, context.output, |it| it.name.clone(), (head, rows))?;
    if context.output == Format::Table {
        for one in &all {
            let name = &one.name;
            if let Some(why) = &one.trouble {
                say(&format!("{name} gets no answer: {why}"));
            }
            if let Some(why) = &one.failed {
                say(&format!("{name} told nobody yet: {why}"));
            }
        }
    }
    Ok(())
}

fn row(one: &AlertView) -> [String; 7] {
    let since = one.since_ms.map(Duration::from_millis);
    // To the second: nobody reads more of it.
    let since = since.map(|since| format_duration(Duration::from_secs(since.as_secs())));
    [
        one.name.clone(),
        one.zone.clone(),
        one.state.clone(),
        since.unwrap_or_default(),
        one.value.as_ref().map(shown).unwrap_or_default(),
        one.tells.clone(),
        format!("{} {}", one.question, one.condition),
    ]
}
