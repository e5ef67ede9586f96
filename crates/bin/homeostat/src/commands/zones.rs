//! The zone tree, who decides for its zones, and questions to all nodes of a zone.

use super::Context;
use super::inspect::clock;
use super::publish::shown;
use crate::arguments::Format;
use crate::arguments::cluster::{Aggregates, Ask, ZonesCommand};
use crate::failure::{DEADLINE, Failure};
use crate::output::{self, data, say};
use client::segment;
use std::process::ExitCode;
use std::time::Duration;
use wire::api::{
    AggregateRequest, AggregateView, AskReply, AskRequest, NodeView, SeatView, ZoneMoveRequest,
    ZoneView, ZonesReply,
};

/// Between two looks.
const AGAIN: Duration = Duration::from_secs(1);
/// Of a zone's attributes, in a table.
const SHOWN_MAX: usize = 6;

/// With what is demanded of it.
pub fn path(zone: Option<&str>, fresh: Option<Duration>, at_least: Option<&str>) -> String {
    let zone = zone.map(|zone| format!("zone={}", segment(zone)));
    let fresh = fresh.map(|fresh| format!("fresh_ms={}", millis(fresh)));
    let at_least = at_least.map(|stamp| format!("at_least={}", segment(stamp)));
    let words: Vec<String> = [zone, fresh, at_least].into_iter().flatten().collect();
    format!("/v1/zones?{}", words.join("&"))
}

pub async fn tree(context: &Context, path: &str, watch: bool) -> Result<ExitCode, Failure> {
    let mut last = None;
    loop {
        let reply: ZonesReply = context.client.get(path).await?;
        // Ages alone are no news.
        let news = last.as_ref().is_none_or(|last| !same(last, &reply));
        if news {
            if last.is_some() && context.output == Format::Table {
                data("")?;
            }
            show_tree(context, &reply)?;
            last = Some(reply);
        }
        if !watch {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

pub async fn seats(context: &Context) -> Result<ExitCode, Failure> {
    let seats: Vec<SeatView> = context.client.get("/v1/seats").await?;
    match context.output {
        Format::Json | Format::Jsonl => output::json(&seats, context.output)?,
        Format::Name => seats.iter().try_for_each(|seat| data(&seat.seat))?,
        Format::Table => {
            let known = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            let row = |seat: &SeatView| {
                let holder = match (&seat.holder, seat.at_work) {
                    (Some(holder), true) => holder.clone(),
                    (Some(holder), false) => format!("{holder} (not heard of)"),
                    (None, _) => "free".to_owned(),
                };
                [
                    seat.seat.clone(),
                    holder,
                    known(seat.epoch.map(|epoch| epoch.to_string())),
                    known(seat.since_unix_ms.map(clock)),
                    seat.loops.join(", "),
                ]
            };
            let head = ["SEAT", "HOLDER", "EPOCH", "SINCE", "LOOPS"];
            output::rows(head, seats.iter().map(row))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn change(context: &Context, what: &ZonesCommand) -> Result<ExitCode, Failure> {
    let ZonesCommand::Mv { from, to } = what;
    let request = ZoneMoveRequest {
        from: from.clone(),
        to: to.clone(),
    };
    let moved: Vec<NodeView> = context.client.post("/v1/zones/moves", &request).await?;
    match context.output {
        Format::Json | Format::Jsonl => output::json(&moved, context.output)?,
        Format::Name => moved.iter().try_for_each(|node| data(&node.name))?,
        Format::Table => {
            let count = moved.len();
            say(&format!("{count} nodes of {from} are in {to} now"));
            say("next: homeostat zones");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn same(one: &ZonesReply, other: &ZonesReply) -> bool {
    let ageless = |reply: &ZonesReply| {
        let mut reply = reply.clone();
        for zone in &mut reply.zones {
            zone.oldest_ms = 0;
            zone.unknown_since_ms = zone.unknown_since_ms.map(|_| 0);
        }
        reply
    };
    ageless(one) == ageless(other)
}

fn show_tree(context: &Context, reply: &ZonesReply) -> Result<(), Failure> {
    match context.output {
        Format::Json | Format::Jsonl => output::json(reply, context.output),
        Format::Name => reply.zones.iter().try_for_each(|zone| data(&zone.zone)),
        Format::Table => {
            let head = ["ZONE", "NODES", "AGE", "SPEAKS", "WHAT IT COMES TO"];
            output::rows(head, reply.zones.iter().map(zone_row))?;
            let unknown = reply.zones.iter().filter_map(|zone| {
                let since = Duration::from_millis(zone.unknown_since_ms?);
                Some(format!("{} is unknown since {}", zone.zone, span(since)))
            });
            let liars = reply.liars.iter().map(|(node, zone)| {
                format!(
                    "{node} says of {zone} what its rows do not give: homeostat node revoke {node}"
                )
            });
            unknown.chain(liars).for_each(|line| say(&line));
            Ok(())
        }
    }
}

fn zone_row(zone: &ZoneView) -> [String; 5] {
    let depth = zone.zone.split('/').filter(|part| !part.is_empty()).count();
    let name = format!("{}{}", "  ".repeat(depth.saturating_sub(1)), zone.zone);
    let age = match zone.unknown_since_ms {
        Some(_) => "unknown".to_owned(),
        None => span(Duration::from_millis(zone.oldest_ms)),
    };
    let attributes = zone.attributes.iter().take(SHOWN_MAX);
    let mut what: Vec<String> = attributes
        .map(|(name, value)| format!("{name}={}", shown(value)))
        .collect();
    if zone.attributes.len() > SHOWN_MAX {
        what.push("…".to_owned());
    }
    [
        name,
        format!("{}/{}", zone.reporting, zone.expected),
        age,
        zone.representatives.join(","),
        what.join(" "),
    ]
}

fn span(span: Duration) -> String {
    format!("{:.1}s", span.as_secs_f64())
}

pub async fn aggregates(context: &Context, what: Aggregates) -> Result<ExitCode, Failure> {
    match what {
        Aggregates::Ls => list(context).await?,
        Aggregates::Add {
            name,
            text,
            zone,
            life,
            trial,
        } => {
            let request = AggregateRequest {
                name,
                text,
                zone: Some(zone),
                life_ms: life.map(millis),
                trial_ms: trial.map(millis),
            };
            let added: AggregateView = context.client.post("/v1/aggregates", &request).await?;
            match context.output {
                Format::Json | Format::Jsonl => output::json(&added, context.output)?,
                Format::Name => data(&added.name)?,
                Format::Table => {
                    let (name, version, zone) = (&added.name, added.version, &added.zone);
                    say(&format!(
                        "{name}, version {version}, is on its way to {zone}"
                    ));
                    say("next: homeostat aggregates ls, homeostat zones");
                }
            }
        }
        Aggregates::Rm { name } => {
            let path = format!("/v1/aggregates/{}", segment(&name));
            let removed: AggregateView = context.client.delete(&path).await?;
            say(&format!("{} ends wherever it runs", removed.name));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

async fn list(context: &Context) -> Result<(), Failure> {
    let all: Vec<AggregateView> = context.client.get("/v1/aggregates").await?;
    let head = ["NAME", "ZONE", "VERSION", "STATE", "PROGRAM"];
    let rows = all.iter().map(|one| {
        let state = match &one.why {
            Some(why) => format!("{}: {why}", one.state),
            None => one.state.clone(),
        };
        let (name, zone) = (one.name.clone(), one.zone.clone());
        [name, zone, one.version.to_string(), state, one.text.clone()]
    });
    output::list(&all, context.output, |it| it.name.clone(), (head, rows))
}

pub async fn ask(context: &Context, asked: &Ask) -> Result<ExitCode, Failure> {
    let request = AskRequest {
        text: asked.question.clone(),
        zone: Some(asked.zone.clone()),
        fresh_ms: asked.fresh.map(millis),
        rows: asked.rows,
        within_ms: Some(millis(asked.within)),
    };
    let mut last: Option<AskReply> = None;
    loop {
        let reply: AskReply = context.client.post("/v1/ask", &request).await?;
        let known = |last: &AskReply| {
            (&last.values, last.reporting, last.expected)
                == (&reply.values, reply.reporting, reply.expected)
        };
        if !last.as_ref().is_some_and(known) {
            show_answer(context, &reply, last.is_none())?;
        }
        if !asked.watch {
            let is_whole = reply.reporting >= reply.expected;
            return Ok(if is_whole || asked.fresh.is_none() {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(DEADLINE)
            });
        }
        last = Some(reply);
        tokio::time::sleep(AGAIN).await;
    }
}

fn show_answer(context: &Context, reply: &AskReply, first: bool) -> Result<(), Failure> {
    let values = reply.values.iter();
    match context.output {
        Format::Json | Format::Jsonl => return output::json(reply, context.output),
        Format::Name => return values.clone().try_for_each(|one| data(&shown(&one.value))),
        Format::Table => {}
    }
    if !first {
        data("")?;
    }
    output::rows(
        ["NAME", "VALUE"],
        values.map(|one| [one.name.clone(), shown(&one.value)]),
    )?;
    if !reply.rows.is_empty() {
        data("")?;
        let rows = reply.rows.iter().map(|row| {
            let attributes = row.attributes.iter();
            let attributes = attributes.map(|(name, value)| format!("{name}={}", shown(value)));
            let attributes: Vec<String> = attributes.collect();
            [row.node.clone(), row.zone.clone(), attributes.join(" ")]
        });
        output::rows(["NODE", "ZONE", "WHAT WAS READ OF IT"], rows)?;
    }
    if reply.rows_more > 0 {
        say(&format!("and {} rows more", reply.rows_more));
    }
    coverage(reply);
    Ok(())
}

fn coverage(reply: &AskReply) {
    let (reporting, expected) = (reply.reporting, reply.expected);
    let oldest = span(Duration::from_millis(reply.oldest_ms));
    say(&format!(
        "{reporting} of {expected} nodes of {} are in it, the oldest {oldest} old; {} matched",
        reply.zone, reply.matched
    ));
    for silent in &reply.silent {
        let since = span(Duration::from_millis(silent.unknown_since_ms));
        let nodes = silent.nodes;
        say(&format!(
            "{} did not answer: {nodes} nodes, unknown since {since}",
            silent.zone
        ));
    }
    if reply.silent_more > 0 {
        say(&format!("and {} zones more", reply.silent_more));
    }
    if reply.moving {
        say("nodes are being moved between zones: one may count twice, or not at all; ask again");
    }
    if reply.ignored > 0 {
        say(&format!(
            "{} values could not be used: another type, or out of range",
            reply.ignored
        ));
    }
}
