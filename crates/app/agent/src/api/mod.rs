//! The admin API: HTTP with JSON on `run/admin.sock`, mode 0600.
//!
//! In: requests of the socket's owner. Out: objects of `wire::api`; long work
//! answers as JSON lines while it goes on. The `OpenAPI` document is made from
//! these handlers.

mod changes;
mod looking;
mod secrets;

use crate::apply::api_error;
use crate::shared::Shared;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream;
use kernel::Name;
use node::desired::Applied;
use std::sync::Arc;
use tokio::sync::mpsc;
use utoipa::OpenApi;
// utoipa takes the bare word `Object` for any JSON object.
use wire::api::Object as NodeObject;
use wire::api::{
    ApiError, ApplyRequest, CertificateReply, CertificateRequest, Change, Diagnostic, LogLine,
    PlanReply, Progress, SecretReply, SecretRequest, SecretView, Status, WhyReply,
};

type Agent = State<Arc<Shared>>;

pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/certificates", post(changes::certificates))
        .route("/v1/plan", post(changes::plan))
        .route("/v1/apply", post(changes::apply))
        .route("/v1/rollback/{project}", post(changes::rollback))
        .route("/v1/objects/{kind}", get(looking::list))
        .route("/v1/objects/{kind}/{name}", get(looking::one))
        .route("/v1/why/{kind}/{name}", get(looking::why))
        .route("/v1/logs/{service}", get(looking::logs))
        .route("/v1/restart/{service}", post(changes::restart))
        .route("/v1/down", post(changes::down))
        .route("/v1/secrets", get(secrets::list))
        .route(
            "/v1/secrets/{project}/{name}",
            post(secrets::set).delete(secrets::remove),
        )
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
        changes::certificates,
        changes::plan,
        changes::apply,
        changes::rollback,
        looking::list,
        looking::one,
        looking::why,
        looking::logs,
        changes::restart,
        changes::down,
        secrets::list,
        secrets::set,
        secrets::remove
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
        SecretReply,
        SecretRequest,
        SecretView,
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
            "invalid_manifest"
            | "invalid_certificate"
            | "invalid_secret"
            | "missing_secret"
            | "content" => StatusCode::UNPROCESSABLE_ENTITY,
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

fn name(text: &str) -> Result<Name, Refused> {
    Name::new(text)
        .map_err(|error| Refused(api_error("not_found", format!("`{text}`: {error}"), None)))
}
