//! The admin API: HTTP with JSON on `run/admin.sock`, mode 0600.
//!
//! In: requests of the socket's owner. Out: objects of `wire::api`; long work
//! answers as JSON lines while it goes on. The `OpenAPI` document is made from
//! these handlers.

use crate::apply::{self, api_error};
use crate::given;
use crate::objects;
use crate::shared::{Message, Settlement, Shared};
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream;
use kernel::{Name, ObjectRef};
use node::NodeEvent;
use node::desired::Applied;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use utoipa::OpenApi;
use wire::api::{
    ApiError, ApplyRequest, CertificateReply, CertificateRequest, Change, Diagnostic, LogLine,
    PlanReply, Progress, Status, WhyReply,
};
// utoipa takes the bare word `Object` for any JSON object.
use wire::api::Object as NodeObject;

type Agent = State<Arc<Shared>>;

pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/certificates", post(certificates))
        .route("/v1/plan", post(plan))
        .route("/v1/apply", post(apply))
        .route("/v1/rollback/{project}", post(rollback))
        .route("/v1/objects/{kind}", get(list))
        .route("/v1/objects/{kind}/{name}", get(one))
        .route("/v1/why/{kind}/{name}", get(why))
        .route("/v1/logs/{service}", get(logs))
        .route("/v1/restart/{service}", post(restart))
        .route("/v1/down", post(down))
        .route("/openapi.json", get(openapi))
        .with_state(shared)
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Homeostat admin API",
        description = "Everything the command line does, over the Unix socket of the node.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
        contact(name = "Homeostat")
    ),
    paths(
        status,
        certificates,
        plan,
        apply,
        rollback,
        list,
        one,
        why,
        logs,
        restart,
        down
    ),
    components(schemas(
        ApiError,
        ApplyRequest,
        CertificateReply,
        CertificateRequest,
        Change,
        Diagnostic,
        LogLine,
        NodeObject,
        PlanReply,
        Progress,
        Status,
        WhyReply
    ))
)]
pub struct Document;

async fn openapi() -> Response {
    Json(Document::openapi()).into_response()
}

/// An error with the status its code stands for.
struct Refused(ApiError);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self.0.code.as_str() {
            "not_found" => StatusCode::NOT_FOUND,
            "conflict" => StatusCode::CONFLICT,
            "invalid_manifest" | "invalid_certificate" | "content" => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            "denied" => StatusCode::FORBIDDEN,
            "deadline" => StatusCode::GATEWAY_TIMEOUT,
            "storage" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self.0)).into_response()
    }
}

/// Where each site and service can be reached, as clickable addresses.
pub fn addresses(shared: &Shared, applied: &Applied) -> Vec<String> {
    let (http, https) = *shared.listeners.borrow();
    let sites = applied.manifest.sites.values().map(|site| &site.routes);
    let services = applied
        .manifest
        .services
        .values()
        .map(|service| &service.routes);
    let mut found = Vec::new();
    for routes in sites.chain(services) {
        let Some(route) = routes.iter().find(|route| !route.host.0.starts_with("*.")) else {
            continue;
        };
        let host = match route.host.0.as_str() {
            "*" => "localhost",
            host => host,
        };
        for (scheme, address) in [("https", https), ("http", http)] {
            if let Some(address) = address {
                found.push(format!(
                    "{scheme}://{host}:{}{}",
                    address.port(),
                    route.path
                ));
            }
        }
    }
    found
}

#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = Status)))]
async fn status(State(shared): Agent) -> Json<Status> {
    use node::store::Store;
    let listeners = *shared.listeners.borrow();
    Json(Status {
        node: shared.node_name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        agent_pid: std::process::id(),
        revision: shared.snapshot.borrow().revision.0,
        http: listeners.0.map(|address| address.to_string()),
        https: listeners.1.map(|address| address.to_string()),
        edge_connected: *shared.edge_connected.borrow(),
        store_fault: shared.store.fault(),
        certificate_warnings: shared.given.warnings(),
    })
}

/// Answers once the edge shows it, where there is one.
#[utoipa::path(post, path = "/v1/certificates", request_body = CertificateRequest,
    responses((status = 200, body = CertificateReply), (status = 422, body = ApiError)))]
async fn certificates(
    State(shared): Agent,
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
    let keeper = Arc::clone(&shared);
    tokio::task::spawn_blocking(move || keeper.given.keep(pair))
        .await
        .map_err(|error| Refused(api_error("internal", error.to_string(), None)))?
        .map_err(|error| {
            let message = kernel::error_chain(&error);
            Refused(api_error("storage", message, Some("homeostat doctor")))
        })?;
    let (answer, version) = oneshot::channel();
    let _ = shared.messages.send(Message::Certificates(answer)).await;
    if let Ok(Some(version)) = version.await {
        let mut applied = shared.edge_applied.subscribe();
        let in_force = applied.wait_for(|in_force| *in_force >= version);
        let _ = tokio::time::timeout(apply::EDGE_MAX, in_force).await;
    }
    Ok(Json(reply))
}

#[utoipa::path(post, path = "/v1/plan", request_body = ApplyRequest,
    responses((status = 200, body = PlanReply), (status = 422, body = ApiError)))]
async fn plan(
    State(shared): Agent,
    Json(request): Json<ApplyRequest>,
) -> Result<Json<PlanReply>, Refused> {
    apply::plan(&shared, &request)
        .await
        .map(Json)
        .map_err(Refused)
}

/// The task goes on when the client leaves.
fn progress(work: impl FnOnce(mpsc::Sender<Progress>)) -> Response {
    let (report, lines) = mpsc::channel(256);
    work(report);
    json_lines(lines)
}

fn json_lines<T: serde::Serialize + Send + 'static>(lines: mpsc::Receiver<T>) -> Response {
    let body = stream::unfold(lines, |mut lines| async move {
        let line = lines.recv().await?;
        let mut text = serde_json::to_vec(&line).unwrap_or_default();
        text.push(b'\n');
        Some((Ok::<_, std::convert::Infallible>(text), lines))
    });
    (
        [(header::CONTENT_TYPE, "application/jsonl")],
        Body::from_stream(body),
    )
        .into_response()
}

#[utoipa::path(post, path = "/v1/apply", request_body = ApplyRequest,
    responses((status = 200, body = Progress, content_type = "application/jsonl")))]
async fn apply(State(shared): Agent, Json(request): Json<ApplyRequest>) -> Response {
    progress(|report| {
        tokio::spawn(apply::apply(shared, request, report));
    })
}

#[derive(Deserialize)]
struct RollbackQuery {
    /// 0 or none: the one before the current one.
    #[serde(default)]
    to: u64,
}

#[utoipa::path(post, path = "/v1/rollback/{project}",
    params(("project" = String, Path), ("to" = Option<u64>, Query)),
    responses((status = 200, body = Progress, content_type = "application/jsonl")))]
async fn rollback(
    State(shared): Agent,
    Path(project): Path<String>,
    Query(query): Query<RollbackQuery>,
) -> Result<Response, Refused> {
    let project = name(&project)?;
    Ok(progress(|report| {
        tokio::spawn(apply::rollback(shared, project, query.to, report));
    }))
}

fn name(text: &str) -> Result<Name, Refused> {
    Name::new(text)
        .map_err(|error| Refused(api_error("not_found", format!("`{text}`: {error}"), None)))
}

#[utoipa::path(get, path = "/v1/objects/{kind}", params(("kind" = String, Path)),
    responses((status = 200, body = Vec<NodeObject>), (status = 404, body = ApiError)))]
async fn list(
    State(shared): Agent,
    Path(kind): Path<String>,
) -> Result<Json<Vec<NodeObject>>, Refused> {
    objects::list(&shared, &kind)
        .await
        .map(Json)
        .map_err(Refused)
}

#[utoipa::path(get, path = "/v1/objects/{kind}/{name}",
    params(("kind" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = NodeObject), (status = 404, body = ApiError)))]
async fn one(
    State(shared): Agent,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Json<NodeObject>, Refused> {
    objects::one(&shared, &kind, &name)
        .await
        .map(Json)
        .map_err(Refused)
}

#[utoipa::path(get, path = "/v1/why/{kind}/{name}",
    params(("kind" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = WhyReply), (status = 404, body = ApiError)))]
async fn why(
    State(shared): Agent,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Json<WhyReply>, Refused> {
    // An object that is gone may still be asked about: no look-up first.
    let journal = shared.layout.journal();
    let entries = tokio::task::spawn_blocking(move || telemetry::read_all(&journal))
        .await
        .map_err(|error| Refused(api_error("internal", error.to_string(), None)))?
        .map_err(|error| Refused(api_error("storage", error.to_string(), None)))?;
    let chain = node::why(&entries, &ObjectRef::new(kind.as_str(), &name));
    if chain.is_empty() {
        objects::one(&shared, &kind, &name).await.map_err(Refused)?;
    }
    Ok(Json(WhyReply { chain }))
}

#[derive(Deserialize)]
struct LogsQuery {
    #[serde(default)]
    follow: bool,
    #[serde(default = "tail_lines")]
    tail: usize,
}

fn tail_lines() -> usize {
    100
}

#[utoipa::path(get, path = "/v1/logs/{service}",
    params(("service" = String, Path), ("follow" = Option<bool>, Query), ("tail" = Option<usize>, Query)),
    responses((status = 200, body = LogLine, content_type = "application/jsonl")))]
async fn logs(
    State(shared): Agent,
    Path(service): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Response, Refused> {
    objects::one(&shared, "service", &service)
        .await
        .map_err(Refused)?;
    let service = name(&service)?;
    let (lines, receiver) = mpsc::channel(256);
    tokio::spawn(crate::logs::send(
        shared,
        service,
        query.tail,
        query.follow,
        lines,
    ));
    Ok(json_lines(receiver))
}

#[utoipa::path(post, path = "/v1/restart/{service}", params(("service" = String, Path)),
    responses((status = 200, body = Progress, content_type = "application/jsonl"), (status = 404, body = ApiError)))]
async fn restart(State(shared): Agent, Path(service): Path<String>) -> Result<Response, Refused> {
    objects::one(&shared, "service", &service)
        .await
        .map_err(Refused)?;
    let service = name(&service)?;
    let settlements = shared.settlements.subscribe();
    let event = NodeEvent::RestartRequested {
        service: service.clone(),
    };
    let _ = shared.messages.send(Message::Node(event)).await;
    Ok(progress(|report| {
        tokio::spawn(wait_restarted(settlements, service, report));
    }))
}

async fn wait_restarted(
    mut settlements: tokio::sync::broadcast::Receiver<Settlement>,
    wanted: Name,
    report: mpsc::Sender<Progress>,
) {
    let wait = async {
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
async fn down(State(shared): Agent) -> Json<BTreeMap<String, bool>> {
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
    let stopped = tokio::time::timeout(Duration::from_mins(1), wait)
        .await
        .is_ok();
    Json(BTreeMap::from([("stopped".to_owned(), stopped)]))
}
