//! Going over to another program: this node, or all of them one by one.

use super::{denied, supervisor_status};
use crate::arguments::{Format, Upgrade};
use crate::commands::Context;
use crate::failure::{CONFLICT, DEADLINE, FAILED, Failure};
use crate::output::{self, data, json, say};
use crate::roles;
use client::{ClientError, segment};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use wire::api::{NodeView, Object, Status, UpgradeRequest, UpgradeView};
use wire::supervise::{FromSupervisor, ToSupervisor, UpgradeStage, UpgradeStatus};

const HEARD_MAX: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);
/// Longer than all bounds of a supervisor together.
const OVER_MAX: Duration = Duration::from_mins(2);
/// From then until a node is whole again.
const WHOLE_MAX: Duration = Duration::from_mins(1);

/// What became of a node.
#[derive(Clone, Debug, Serialize)]
struct Outcome {
    node: String,
    from: String,
    to: Option<String>,
    program: Option<String>,
    /// `done`, `same` (it ran that file already), `failed`, `untouched`.
    #[serde(rename = "outcome")]
    became: &'static str,
    why: Option<String>,
}

pub fn version(format: Format) -> Result<ExitCode, Failure> {
    let release = roles::release();
    if matches!(format, Format::Json | Format::Jsonl) {
        json(&release, format)?;
        return Ok(ExitCode::SUCCESS);
    }
    data(&format!("homeostat {}", release.version))?;
    if format == Format::Table {
        let spoken = release.speaks.iter();
        let spoken = spoken.map(|(name, it)| [name.clone(), it.to_string(), "-".to_owned()]);
        let kept = release.keeps.iter();
        let kept =
            kept.map(|(name, it)| [name.clone(), it.reads.to_string(), it.writes.to_string()]);
        output::rows(["FORMAT", "READS", "WRITES"], spoken.chain(kept))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn run(context: &Context, asked: &Upgrade) -> Result<ExitCode, Failure> {
    let program = asked.program.as_deref().map(std::path::absolute);
    let program = program.transpose()?;
    let program = program.map(|path| path.display().to_string());
    if asked.all {
        return all(context, program, asked.plan).await;
    }
    if let Some(denied) = denied(context) {
        return Err(denied);
    }
    if supervisor_status(context).await.is_none() {
        let help = "homeostat up, which starts the program that it is";
        return Err(Failure::new(FAILED, "no node is running here", Some(help)));
    }
    let status = match context.client.get::<Status>("/v1/status").await {
        Ok(status) => Some(status),
        Err(ClientError::NotRunning { .. } | ClientError::Broken(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let Some(status) = status else {
        // What does not come up may be what a new program is to mend.
        say("the agent does not answer: this is not in the audit log");
        begin_without_agent(context, program).await?;
        let went = follow(context).await?;
        say(&format!("the node is {} now, from {}", went.to, went.from));
        return Ok(ExitCode::SUCCESS);
    };
    let view = offered(context, &status.node, program.as_deref()).await?;
    if asked.plan {
        show_plan(context, &[(status.node, view)])?;
        return Ok(ExitCode::SUCCESS);
    }
    fit(&view)?;
    let outcome = if is_same(&view) {
        say("the node runs that file already");
        outcome(&view, "same", None)
    } else {
        let path = path_of(&status.node);
        let request = UpgradeRequest { program };
        begin(context, &path, &request).await?;
        follow(context).await?;
        let now = until_whole(context, &status.node, &BTreeSet::new()).await?;
        say(&format!("node {} runs {} now", now.node, now.version));
        outcome(&view, "done", None)
    };
    if matches!(context.output, Format::Json | Format::Jsonl) {
        json(&[outcome], context.output)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn begin_without_agent(context: &Context, program: Option<String>) -> Result<(), Failure> {
    let failed = |error: ipc::IpcError| Failure::new(FAILED, kernel::error_chain(&error), None);
    let socket = context.layout.supervisor_socket();
    let mut connection = ipc::connect(&socket).await.map_err(failed)?;
    let program = program.map(Into::into);
    let ask = ToSupervisor::Upgrade { program };
    connection.send(&ask).await.map_err(failed)?;
    let answer = connection.receive::<FromSupervisor>().await;
    match answer.map_err(failed)? {
        Some((FromSupervisor::Done, _)) => Ok(()),
        Some((FromSupervisor::Refused { why, help }, _)) => {
            Err(Failure::new(CONFLICT, why, help.as_deref()))
        }
        _ => Err(Failure::new(FAILED, "the node is going down", None)),
    }
}

/// Tells each stage until it is over; a supervisor that becomes another program is
/// silent for a moment.
async fn follow(context: &Context) -> Result<UpgradeStatus, Failure> {
    let deadline = Instant::now() + OVER_MAX;
    let mut told = None;
    while Instant::now() < deadline {
        if let Some(last) = supervisor_status(context).await.and_then(|it| it.upgrade) {
            if told != Some(last.stage) {
                told = Some(last.stage);
                say_stage(&last);
            }
            match last.stage {
                UpgradeStage::Done => return Ok(last),
                UpgradeStage::Failed => {
                    let why = last.why.as_deref().unwrap_or("it did not come up");
                    let message = format!("the node stays with {}: {why}", last.from);
                    let help = format!("see {}", context.layout.logs().display());
                    return Err(Failure::new(FAILED, message, Some(&help)));
                }
                _ => {}
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    let message = "the upgrade is not over yet";
    Err(Failure::new(DEADLINE, message, Some("homeostat doctor")))
}

fn say_stage(last: &UpgradeStatus) {
    match last.stage {
        UpgradeStage::Edge => say("edge: a new one takes the sockets, the old one drains"),
        UpgradeStage::Agent => say("agent: a new one adopts what runs"),
        UpgradeStage::Supervisor => say("supervisor: becomes the new program"),
        UpgradeStage::Back => say(&format!(
            "back to {}: {}",
            last.from,
            last.why.as_deref().unwrap_or_default()
        )),
        UpgradeStage::Done | UpgradeStage::Failed => {}
    }
}

fn path_of(node: &str) -> String {
    format!("/v1/nodes/{}/upgrade", segment(node))
}

async fn offered(
    context: &Context,
    node: &str,
    program: Option<&str>,
) -> Result<UpgradeView, Failure> {
    let mut path = path_of(node) + "?offered=true";
    if let Some(program) = program {
        let _ = write!(path, "&program={}", segment(program));
    }
    Ok(context.client.get(&path).await?)
}

fn is_same(view: &UpgradeView) -> bool {
    view.offered.as_ref().is_some_and(|offered| offered.same)
}

/// Unless the node would refuse it.
fn fit(view: &UpgradeView) -> Result<(), Failure> {
    let Some(offered) = &view.offered else {
        return Ok(());
    };
    let Some(why) = &offered.refused else {
        return Ok(());
    };
    let message = format!("node `{}` stays with {}: {why}", view.node, view.version);
    Err(Failure::new(FAILED, message, offered.help.as_deref()))
}

fn outcome(view: &UpgradeView, became: &'static str, why: Option<String>) -> Outcome {
    let offered = view.offered.clone().unwrap_or_default();
    Outcome {
        node: view.node.clone(),
        from: view.version.clone(),
        to: offered.version,
        program: Some(offered.program),
        became,
        why,
    }
}

/// Whether it is worth asking again: an agent that is being replaced, or a cluster
/// that has no leader for a moment.
fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::NotRunning { .. }
        | ClientError::Broken(_)
        | ClientError::Unreachable { .. } => true,
        ClientError::Api(error) => {
            matches!(
                error.code.as_str(),
                "unreachable" | "no_quorum" | "internal"
            )
        }
        _ => false,
    }
}

async fn patiently<T: serde::de::DeserializeOwned>(
    context: &Context,
    path: &str,
) -> Result<Option<T>, Failure> {
    match context.client.get(path).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if passes(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The agent that answers is soon replaced, and its answer may be lost: asked again,
/// what has begun is refused.
async fn begin(context: &Context, path: &str, request: &UpgradeRequest) -> Result<(), Failure> {
    let deadline = Instant::now() + WHOLE_MAX;
    let mut is_first = true;
    loop {
        let asked: Result<UpgradeView, _> = context.client.post(path, request).await;
        match asked {
            Ok(_) => return Ok(()),
            Err(ClientError::Api(error)) if !is_first && error.code == "conflict" => return Ok(()),
            Err(error) if !passes(&error) || Instant::now() >= deadline => {
                return Err(error.into());
            }
            Err(_) => {}
        }
        is_first = false;
        tokio::time::sleep(LOOK).await;
    }
}

/// In the order in which they go over: who leads is the last.
async fn nodes(context: &Context) -> Result<Vec<NodeView>, Failure> {
    let deadline = Instant::now() + HEARD_MAX;
    let mut nodes: Vec<NodeView> = loop {
        let nodes: Vec<NodeView> = context.client.get("/v1/nodes").await?;
        // A node that has just started has not heard of all yet.
        let is_heard = nodes.iter().all(|node| node.state != "unheard");
        if is_heard || Instant::now() >= deadline {
            break nodes;
        }
        tokio::time::sleep(LOOK).await;
    };
    nodes.retain(|node| node.state != "revoked");
    nodes.sort_by(|one, other| (one.leader, &one.name).cmp(&(other.leader, &other.name)));
    Ok(nodes)
}

async fn all(context: &Context, program: Option<String>, plan: bool) -> Result<ExitCode, Failure> {
    let nodes = nodes(context).await?;
    let mut views = Vec::new();
    for node in &nodes {
        if !matches!(node.state.as_str(), "alive" | "suspect") {
            let message = format!(
                "node `{}` is {}: nothing was touched",
                node.name, node.state
            );
            let help = "start it, or let it go: homeostat node revoke NAME";
            return Err(Failure::new(CONFLICT, message, Some(help)));
        }
        let view = offered(context, &node.name, program.as_deref()).await?;
        views.push((node.name.clone(), view));
    }
    if plan {
        show_plan(context, &views)?;
        return Ok(ExitCode::SUCCESS);
    }
    // What one of them would refuse, none begins.
    for (_, view) in &views {
        fit(view)?;
    }
    let before = not_ready(context).await?.unwrap_or_default();
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut failed = None;
    for (number, (name, view)) in views.iter().enumerate() {
        if failed.is_some() {
            outcomes.push(outcome(view, "untouched", None));
            continue;
        }
        if is_same(view) {
            say(&format!("node {name} runs that file already"));
            outcomes.push(outcome(view, "same", None));
            continue;
        }
        say(&format!("node {name} ({} of {})", number + 1, views.len()));
        match one(context, name, program.clone(), &before).await {
            Ok(()) => outcomes.push(outcome(view, "done", None)),
            Err(failure) => {
                outcomes.push(outcome(view, "failed", Some(failure.message.clone())));
                failed = Some(failure);
            }
        }
    }
    if matches!(context.output, Format::Json | Format::Jsonl) {
        json(&outcomes, context.output)?;
    }
    match failed {
        None => {
            say(&format!("all {} nodes went over", outcomes.len()));
            Ok(ExitCode::SUCCESS)
        }
        Some(failure) => Err(stopped(failure, &outcomes)),
    }
}

/// Which node it was, and how far the others are.
fn stopped(mut failure: Failure, outcomes: &[Outcome]) -> Failure {
    let names = |wanted: &[&str]| {
        let them = outcomes.iter().filter(|it| wanted.contains(&it.became));
        let them: Vec<&str> = them.map(|it| it.node.as_str()).collect();
        if them.is_empty() {
            "none".to_owned()
        } else {
            them.join(", ")
        }
    };
    failure.message = format!(
        "{} did not go over: {}; over: {}; untouched: {}",
        names(&["failed"]),
        failure.message,
        names(&["done", "same"]),
        names(&["untouched"])
    );
    let again = "mend it, then ask again: who is over already is left as it is";
    failure.help.get_or_insert_with(|| again.to_owned());
    failure
}

async fn one(
    context: &Context,
    node: &str,
    program: Option<String>,
    before: &BTreeSet<String>,
) -> Result<(), Failure> {
    let path = path_of(node);
    let request = UpgradeRequest { program };
    begin(context, &path, &request).await?;
    let deadline = Instant::now() + OVER_MAX;
    let mut told = String::new();
    loop {
        if let Some(view) = patiently::<UpgradeView>(context, &path).await? {
            let stage = view.stage.unwrap_or_default();
            if told != stage {
                say(&format!("  {stage}"));
                told.clone_from(&stage);
            }
            match stage.as_str() {
                "done" => break,
                "failed" => {
                    let why = view.why.unwrap_or_default();
                    return Err(Failure::new(FAILED, why, None));
                }
                _ => {}
            }
        }
        if Instant::now() >= deadline {
            let message = "it was not over in time";
            return Err(Failure::new(DEADLINE, message, Some("homeostat node ls")));
        }
        tokio::time::sleep(LOOK).await;
    }
    until_whole(context, node, before).await.map(drop)
}

/// Services without all the replicas that are wished; none while nobody can tell.
async fn not_ready(context: &Context) -> Result<Option<BTreeSet<String>>, Failure> {
    let services = patiently::<Vec<Object>>(context, "/v1/objects/service").await?;
    Ok(services.map(|services| {
        let lacking = services.into_iter().filter(|one| one.state != "ready");
        lacking.map(|one| one.reference).collect()
    }))
}

/// Its edge is there, it follows or leads, others hear it, and what ran runs.
/// `before`: services that were not whole anyhow.
async fn until_whole(
    context: &Context,
    node: &str,
    before: &BTreeSet<String>,
) -> Result<UpgradeView, Failure> {
    let deadline = Instant::now() + WHOLE_MAX;
    let path = path_of(node);
    loop {
        let (view, lacks) = lacks(context, &path, node, before).await?;
        if let (Some(view), None) = (view, &lacks) {
            return Ok(view);
        }
        if Instant::now() >= deadline {
            let lacks = lacks.unwrap_or_else(|| "it does not answer".to_owned());
            let message = format!("it is over, but not whole: {lacks}");
            return Err(Failure::new(
                DEADLINE,
                message,
                Some("homeostat get services"),
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What is still to come.
async fn lacks(
    context: &Context,
    path: &str,
    node: &str,
    before: &BTreeSet<String>,
) -> Result<(Option<UpgradeView>, Option<String>), Failure> {
    let Some(view) = patiently::<UpgradeView>(context, path).await? else {
        return Ok((None, Some("its agent does not answer".to_owned())));
    };
    if !view.edge_connected {
        return Ok((None, Some("its edge is away".to_owned())));
    }
    let follows = view.follows.as_ref();
    if follows.is_some_and(|follows| !(follows.connected && follows.current)) {
        return Ok((None, Some("it does not follow the leader yet".to_owned())));
    }
    let seen = format!("/v1/nodes/{}", segment(node));
    match patiently::<NodeView>(context, &seen).await? {
        Some(seen) if seen.state == "alive" => {}
        Some(seen) => return Ok((None, Some(format!("it is {} to others", seen.state)))),
        None => return Ok((None, Some("this node's agent does not answer".to_owned()))),
    }
    let Some(now) = not_ready(context).await? else {
        return Ok((None, Some("nobody leads".to_owned())));
    };
    let lacking: Vec<&str> = now.difference(before).map(String::as_str).collect();
    if lacking.is_empty() {
        return Ok((Some(view), None));
    }
    let lacking = format!("not all replicas are ready: {}", lacking.join(", "));
    Ok((None, Some(lacking)))
}

fn show_plan(context: &Context, views: &[(String, UpgradeView)]) -> Result<(), Failure> {
    let all: Vec<&UpgradeView> = views.iter().map(|(_, view)| view).collect();
    let rows = views.iter().map(|(name, view)| {
        let offered = view.offered.clone().unwrap_or_default();
        let then = match (&offered.refused, offered.same) {
            (Some(why), _) => format!("refuses: {why}"),
            (None, true) => "runs it already".to_owned(),
            (None, false) => "goes over".to_owned(),
        };
        let version = offered.version.unwrap_or_else(|| "-".to_owned());
        [
            name.clone(),
            view.version.clone(),
            version,
            offered.program,
            then,
        ]
    });
    let head = ["NODE", "RUNS", "WOULD RUN", "PROGRAM", "THEN"];
    output::list(&all, context.output, |it| it.node.clone(), (head, rows))
}
