//! What is asked of the node: objects, why, logs.

use super::elsewhere;
use super::guard::Caller;
use super::{Agent, Refused, json_lines};
use crate::apply::{self, api_error};
use crate::objects;
use crate::shared::Shared;
use crate::tokens;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use kernel::ObjectRef;
use serde::Deserialize;
use std::sync::Arc;
use tokio::sync::mpsc;
// utoipa takes the bare word `Object` for any JSON object.
use wire::api::Object as NodeObject;
use wire::api::{ApiError, LogLine, WhyNotReply, WhyReply, WhyStep};

#[utoipa::path(get, path = "/v1/objects/{kind}", params(("kind" = String, Path)),
    responses((status = 200, body = Vec<NodeObject>), (status = 404, body = ApiError)))]
pub async fn list(
    State(shared): Agent,
    caller: Caller,
    Path(kind): Path<String>,
) -> Result<Json<Vec<NodeObject>>, Refused> {
    objects::list(&shared, &kind, caller.who.project())
        .await
        .map(Json)
        .map_err(Refused)
}

/// `name`: `search` where one project alone has it, else `news/search`, its slash
/// escaped.
#[utoipa::path(get, path = "/v1/objects/{kind}/{name}",
    params(("kind" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = NodeObject), (status = 404, body = ApiError),
        (status = 409, body = ApiError)))]
pub async fn one(
    State(shared): Agent,
    caller: Caller,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Json<NodeObject>, Refused> {
    objects::one(&shared, &kind, &name, caller.who.project())
        .await
        .map(Json)
        .map_err(Refused)
}

/// Also of an object that is gone. `name` as for objects.
#[utoipa::path(get, path = "/v1/why/{kind}/{name}",
    params(("kind" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = WhyReply), (status = 404, body = ApiError),
        (status = 409, body = ApiError)))]
pub async fn why(
    State(shared): Agent,
    caller: Caller,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Json<WhyReply>, Refused> {
    let journal = shared.layout.journal();
    let entries = tokio::task::spawn_blocking(move || telemetry::read_all(&journal))
        .await
        .map_err(|error| Refused(api_error("internal", error.to_string(), None)))?
        .map_err(|error| Refused(api_error("storage", error.to_string(), None)))?;
    let only = caller.who.project();
    let subject = objects::subject(&shared, &entries, &kind, &name, only)
        .await
        .map_err(Refused)?;
    let mut chain = node::why(&entries, &subject);
    let others = why_elsewhere(&shared, &subject).await;
    if !others.is_empty() {
        chain.extend(others);
        chain.sort_by_key(|step| std::cmp::Reverse(step.decision.at_unix));
    }
    chain.retain(|step| objects::is_of(&step.decision.subject, only));
    Ok(Json(WhyReply { chain }))
}

/// Why a service has no replica on a node, if all were as it is wished. `service`:
/// `search`, or `news/search`, its slash escaped; `node`: its name or id.
#[utoipa::path(get, path = "/v1/why-not/{service}/{node}",
    params(("service" = String, Path), ("node" = String, Path)),
    responses((status = 200, body = WhyNotReply), (status = 404, body = ApiError),
        (status = 409, body = ApiError)))]
pub async fn why_not(
    State(shared): Agent,
    caller: Caller,
    Path((service, node)): Path<(String, String)>,
) -> Result<Json<WhyNotReply>, Refused> {
    let service = objects::service(&shared, &service, caller.who.project()).await;
    let reply = apply::placing::why_not(&shared, &service.map_err(Refused)?, &node).await;
    reply.map(Json).map_err(Refused)
}

/// What other nodes decided about it.
async fn why_elsewhere(shared: &Shared, subject: &ObjectRef) -> Vec<WhyStep> {
    let nodes = match (subject.kind.as_str(), objects::scope(subject)) {
        // Each node holds every site; whoever led decided about a job.
        ("site" | "job", _) => elsewhere::reached(shared),
        ("node", _) => elsewhere::called(shared, &subject.name),
        (_, Some(service)) => elsewhere::with_service_or_seat(shared, &service),
        _ => Vec::new(),
    };
    let mut all = Vec::new();
    for node in nodes {
        let name = subject.name.replace('/', "%2F");
        let path = format!("/v1/why/{}/{name}", subject.kind);
        match elsewhere::document::<WhyReply>(shared, node, &path).await {
            Ok(reply) => all.extend(reply.chain.into_iter().map(|step| WhyStep {
                node: Some(shared.cluster.called(node)),
                ..step
            })),
            Err(error) => tracing::info!(%node, error = error.message, "it decided nothing known"),
        }
    }
    all
}

#[derive(Clone, Copy, Deserialize)]
pub struct LogsQuery {
    #[serde(default)]
    follow: bool,
    #[serde(default = "tail_lines")]
    tail: usize,
}

fn tail_lines() -> usize {
    100
}

/// `service`: `search`, or `news/search`, or `job/news/backup`, its slashes escaped.
#[utoipa::path(get, path = "/v1/logs/{service}",
    params(("service" = String, Path), ("follow" = Option<bool>, Query), ("tail" = Option<usize>, Query)),
    responses((status = 200, body = LogLine, content_type = "application/jsonl"),
        (status = 404, body = ApiError), (status = 409, body = ApiError)))]
pub async fn logs(
    State(shared): Agent,
    caller: Caller,
    Path(service): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Response, Refused> {
    let (service, is_job) = objects::logged(&shared, &service, caller.who.project())
        .await
        .map_err(Refused)?;
    let (lines, receiver) = mpsc::channel(256);
    let nodes = if is_job {
        // What an attempt printed stays where it ran.
        elsewhere::reached(&shared)
    } else {
        elsewhere::with_service(&shared, &service)
    };
    for node in nodes {
        let (shared, lines) = (Arc::clone(&shared), lines.clone());
        let who = caller.who.clone();
        let LogsQuery { follow, tail } = query;
        let kind = if is_job { "job%2F" } else { "" };
        let name = format!("{kind}{}", elsewhere::segment(&service));
        let path = format!("/v1/logs/{name}?follow={follow}&tail={tail}");
        tokio::spawn(async move {
            let ended = tokens::ended(&shared, &who);
            tokio::select! {
                sent = elsewhere::lines(&shared, node, ("GET", &path), &lines) => {
                    if let Err(error) = sent {
                        tracing::warn!(%node, error = error.message, "its lines are left out");
                    }
                }
                () = ended => {}
            }
        });
    }
    tokio::spawn(async move {
        let ended = tokens::ended(&shared, &caller.who);
        tokio::select! {
            () = crate::logs::send(Arc::clone(&shared), service, query.tail, query.follow, lines) => {}
            () = ended => {}
        }
    });
    Ok(json_lines(receiver))
}
