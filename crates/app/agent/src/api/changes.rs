//! What changes the node: certificates, plan, apply, rollback, restart, down.

use super::elsewhere;
use super::guard::Caller;
use super::{Agent, Refused, name};
use crate::apply::{self, api_error};
use crate::given;
use crate::objects;
use crate::shared::{Message, Settlement, Shared};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use kernel::{Name, ScopedName};
use manifest::Manifest;
use node::NodeEvent;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use wire::api::{
    ApiError, ApplyRequest, CertificateReply, CertificateRequest, PlanReply, Progress, WithoutReply,
};

/// Answers once the edge shows it, where there is one.
#[utoipa::path(post, path = "/v1/certificates", request_body = CertificateRequest,
    responses((status = 200, body = CertificateReply), (status = 422, body = ApiError)))]
pub async fn certificates(
    State(shared): Agent,
    caller: Caller,
    Json(request): Json<CertificateRequest>,
) -> Result<Json<CertificateReply>, Refused> {
    let pair = given::check(&request.chain_pem, &request.key_pem).map_err(|error| {
        let help = error.hint();
        Refused(api_error("invalid_certificate", error.to_string(), help))
    })?;
    let reply = CertificateReply {
        hosts: pair.hosts.iter().cloned().collect(),
        expires_unix: pair.expires_unix,
        warning: pair.warning(),
    };
    let object = format!("certificate/{}", reply.hosts.join(","));
    let change = caller.change(&shared, object).await?;
    change.run(async move { show(&shared, pair).await }).await?;
    Ok(Json(reply))
}

/// Keeps the pair, and waits a while until the edge has it.
async fn show(shared: &Arc<Shared>, pair: given::Pair) -> Result<(), ApiError> {
    let keeper = Arc::clone(shared);
    tokio::task::spawn_blocking(move || keeper.given.keep(pair))
        .await
        .map_err(|error| api_error("internal", error.to_string(), None))?
        .map_err(|error| {
            let message = kernel::error_chain(&error);
            api_error("storage", message, Some("homeostat doctor"))
        })?;
    let (answer, version) = oneshot::channel();
    let _ = shared.messages.send(Message::Certificates(answer)).await;
    if let Ok(Some(version)) = version.await {
        let mut applied = shared.edge_applied.subscribe();
        let in_force = applied.wait_for(|in_force| *in_force >= version);
        let _ = tokio::time::timeout(apply::EDGE_MAX, in_force).await;
    }
    Ok(())
}

#[utoipa::path(post, path = "/v1/plan", request_body = ApplyRequest,
    responses((status = 200, body = PlanReply), (status = 422, body = ApiError)))]
pub async fn plan(
    State(shared): Agent,
    caller: Caller,
    Json(request): Json<ApplyRequest>,
) -> Result<Json<PlanReply>, Refused> {
    let (request, _) = may_apply(&shared, &caller, request).await?;
    apply::plan(&shared, &request, &asker(&caller))
        .await
        .map(Json)
        .map_err(Refused)
}

#[utoipa::path(post, path = "/v1/apply", request_body = ApplyRequest,
    responses((status = 200, body = Progress, content_type = "application/jsonl")))]
pub async fn apply(
    State(shared): Agent,
    caller: Caller,
    Json(request): Json<ApplyRequest>,
) -> Result<Response, Refused> {
    let (request, project) = may_apply(&shared, &caller, request).await?;
    let object = project.map_or_else(|| "project".to_owned(), |name| format!("project/{name}"));
    let change = caller.change(&shared, object).await?;
    let asker = asker(&caller);
    Ok(change.progress(|report| {
        tokio::spawn(apply::apply(shared, request, asker, report));
    }))
}

fn asker(caller: &Caller) -> apply::Asker {
    apply::Asker {
        only: caller.who.project().cloned(),
        via: caller.via(),
    }
}

/// The manifest's project, if it can be read: what cannot changes nothing, and
/// says so.
async fn may_apply(
    shared: &Shared,
    caller: &Caller,
    mut request: ApplyRequest,
) -> Result<(ApplyRequest, Option<Name>), Refused> {
    // A node that passes a request on has taken in what the directory has.
    let is_resolved = caller.via().is_some() && request.resolved.is_some();
    if !caller.is_local() && !is_resolved {
        // It is the client's, and would be taken for one here.
        request.directory = PathBuf::from("/");
    }
    let Ok(manifest) = apply::parse(&request) else {
        return Ok((request, None));
    };
    caller.may(&manifest.project)?;
    if !caller.is_local() && !is_resolved {
        request.directory = directory_from_afar(shared, &manifest).await?;
    }
    Ok((request, Some(manifest.project)))
}

/// Where a project lies for somebody who reads other files than this node: where
/// its owner put it, and nothing of it is read.
async fn directory_from_afar(shared: &Shared, manifest: &Manifest) -> Result<PathBuf, Refused> {
    let site = manifest.sites.keys().next();
    let service = manifest
        .services
        .iter()
        .find(|(_, service)| service.run.file().is_some());
    let named = site
        .map(|name| format!("site/{name}"))
        .or_else(|| service.map(|(name, _)| format!("service/{name}")));
    if let Some(object) = named {
        let message = format!("{object} is made of files, which the admin port does not take");
        let help = "apply it on the node itself, where its files are";
        return Err(Refused(api_error("files", message, Some(help))));
    }
    let desired = apply::read_desired(shared.known()).await;
    let desired = desired.map_err(|error| Refused(apply::storage(&error)))?;
    let known = desired.projects.get(&manifest.project);
    Ok(known.map_or_else(|| PathBuf::from("/"), |applied| applied.directory.clone()))
}

#[derive(Deserialize)]
pub struct WithoutQuery {
    /// A node's name or id, or a zone's path.
    of: String,
}

/// What would come of the loss of a node, or of a zone; nothing is changed.
#[utoipa::path(get, path = "/v1/without", params(("of" = String, Query)),
    responses((status = 200, body = WithoutReply), (status = 404, body = ApiError)))]
pub async fn without(
    State(shared): Agent,
    Query(query): Query<WithoutQuery>,
) -> Result<Json<WithoutReply>, Refused> {
    let said = apply::placing::without(&shared, &query.of).await;
    said.map(Json).map_err(Refused)
}

#[derive(Deserialize)]
pub struct RollbackQuery {
    /// 0 or none: the one before the current one.
    #[serde(default)]
    to: u64,
}

#[utoipa::path(post, path = "/v1/rollback/{project}",
    params(("project" = String, Path), ("to" = Option<u64>, Query)),
    responses((status = 200, body = Progress, content_type = "application/jsonl")))]
pub async fn rollback(
    State(shared): Agent,
    caller: Caller,
    Path(project): Path<String>,
    Query(query): Query<RollbackQuery>,
) -> Result<Response, Refused> {
    let project = name(&project)?;
    caller.may(&project)?;
    let change = caller.change(&shared, format!("project/{project}")).await?;
    let only = caller.who.project().cloned();
    Ok(change.progress(|report| {
        tokio::spawn(apply::rollback(shared, project, query.to, only, report));
    }))
}

/// `service`: `search`, or `news/search`, its slash escaped.
#[utoipa::path(post, path = "/v1/restart/{service}", params(("service" = String, Path)),
    responses((status = 200, body = Progress, content_type = "application/jsonl"),
        (status = 404, body = ApiError), (status = 409, body = ApiError)))]
pub async fn restart(
    State(shared): Agent,
    caller: Caller,
    Path(service): Path<String>,
) -> Result<Response, Refused> {
    let service = objects::service(&shared, &service, caller.who.project())
        .await
        .map_err(Refused)?;
    let change = caller.change(&shared, format!("service/{service}")).await?;
    Ok(change.progress(|report| {
        tokio::spawn(restart_all(shared, service, report));
    }))
}

/// Here first, then on each other node that runs it.
async fn restart_all(shared: Arc<Shared>, wanted: ScopedName, report: mpsc::Sender<Progress>) {
    let elsewhere = elsewhere::with_service(&shared, &wanted);
    let here = shared.status.borrow().services.contains_key(&wanted);
    let mut settlements = shared.settlements.subscribe();
    if here || elsewhere.is_empty() {
        let service = wanted.clone();
        let event = NodeEvent::RestartRequested { service };
        let _ = shared.messages.send(Message::Node(event)).await;
    }
    let wait = async {
        for node in &elsewhere {
            let called = shared.cluster.called(*node);
            let asked = elsewhere::restart(&shared, *node, &wanted).await;
            asked.map_err(|error| format!("on {called}: {}", error.message))?;
        }
        if !here && !elsewhere.is_empty() {
            return Ok(());
        }
        loop {
            match settlements.recv().await {
                Ok(Settlement::Restarted { service, failed }) if service == wanted => {
                    return failed.map_or(Ok(()), Err);
                }
                Err(tokio::sync::broadcast::error::RecvError::Closed) => {
                    return Err("the node is going down".to_owned());
                }
                _ => {}
            }
        }
    };
    let last = match tokio::time::timeout(Duration::from_mins(1), wait).await {
        Ok(Ok(())) => Progress::Done {
            revision: 0,
            changes: Vec::new(),
            addresses: Vec::new(),
        },
        Ok(Err(why)) => Progress::Failed {
            error: api_error(
                "rollout_failed",
                format!("service/{wanted} was not restarted: {why}"),
                Some(&format!("homeostat why service/{wanted}")),
            ),
        },
        Err(_) => Progress::Failed {
            error: api_error(
                "deadline",
                "not every replica is replaced after 60s; it goes on",
                Some("homeostat get replicas"),
            ),
        },
    };
    let _ = report.send(last).await;
}

#[utoipa::path(post, path = "/v1/down",
    responses((status = 200, body = BTreeMap<String, bool>)))]
pub async fn down(
    State(shared): Agent,
    caller: Caller,
) -> Result<Json<BTreeMap<String, bool>>, Refused> {
    let change = caller.change(&shared, "node".to_owned()).await?;
    let stopped = change
        .run(async move { Ok(stop_all(&shared).await) })
        .await?;
    Ok(Json(BTreeMap::from([("stopped".to_owned(), stopped)])))
}

async fn stop_all(shared: &Shared) -> bool {
    let mut settlements = shared.settlements.subscribe();
    let _ = shared.messages.send(Message::Down).await;
    let wait = async {
        loop {
            match settlements.recv().await {
                Ok(Settlement::AllStopped)
                | Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), wait)
        .await
        .is_ok()
}
