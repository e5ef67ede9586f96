//! The admin API: HTTP with JSON on `run/admin.sock`, mode 0600.
//!
//! In: requests of the socket's owner, or with a token. Out: objects of `wire::api`; long work
//! answers as JSON lines while it goes on. The `OpenAPI` document is made from
//! these handlers.

mod alerts;
mod audited;
mod changes;
mod elsewhere;
mod forward;
mod guard;
mod jobs;
mod looking;
mod nodes;
pub mod port;
mod projects;
mod rollouts;
mod seats;
mod secrets;
mod store;
#[cfg(test)]
mod tests;
mod tokens;
pub mod upgrades;
mod zones;

pub use guard::Door;
pub use zones::asked_reply;

use crate::apply::api_error;
use crate::audit::{Entry, Outcome, Verdict};
use crate::auth::{Act, Method, ROUTES};
use crate::shared::Shared;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Json, Router};
use futures_util::stream;
use guard::{Caller, guarded};
use kernel::Name;
use node::desired::Applied;
use std::sync::Arc;
use tokio::sync::mpsc;
use utoipa::OpenApi;
// utoipa takes the bare word `Object` for any JSON object.
use wire::api::Object as NodeObject;
use wire::api::{
    AdminPort, AggregateRequest, AggregateView, AlertNotice, AlertRequest, AlertView, ApiError,
    ApplyRequest, AskReply, AskRequest, AskedRow, AttemptView, CertificateReply,
    CertificateRequest, Change, ContentStatus, Diagnostic, Fault, Follows, GenerationView,
    JobCancelReply, JobRunReply, JobRunRequest, JobView, JoinTokenReply, JoinTokenRequest, LogLine,
    NamedValue, NodeInZone, NodeNameRequest, NodeView, NodeZoneRequest, OfferedView, PlanReply,
    Policy, Progress, ProjectView, PublishReply, PublishRequest, Role, RolloutView, RunView,
    SeatView, SecretReply, SecretRequest, SecretView, SilentZone, Status, TokenReply, TokenRequest,
    TokenView, UpgradeRequest, UpgradeView, WhyReply, ZoneMoveRequest, ZoneView, ZonesReply,
};

type Agent = State<Arc<Shared>>;

/// Made from the table of acts: there is no route beside it.
pub fn router(shared: Arc<Shared>, door: Door) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let method = match route.method {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
            Method::Delete => MethodFilter::DELETE,
        };
        let handler = guarded(&shared, door, route.act, handler(route.act, method));
        router = router.route(route.path, handler);
    }
    router.with_state(shared)
}

fn handler(act: Act, method: MethodFilter) -> MethodRouter<Arc<Shared>> {
    match act {
        Act::Status => on(method, status),
        Act::OpenApi => on(method, openapi),
        Act::List => on(method, looking::list),
        Act::Show => on(method, looking::one),
        Act::Why => on(method, looking::why),
        Act::WhyNot => on(method, looking::why_not),
        Act::Logs => on(method, looking::logs),
        Act::Plan => on(method, changes::plan),
        Act::Apply => on(method, changes::apply),
        Act::Rollback => on(method, changes::rollback),
        Act::Restart => on(method, changes::restart),
        Act::RolloutShow => on(method, rollouts::show),
        Act::RolloutPause => on(method, rollouts::pause),
        Act::RolloutResume => on(method, rollouts::resume),
        Act::RolloutPromote => on(method, rollouts::promote),
        Act::RolloutAbort => on(method, rollouts::abort),
        Act::JobRun => on(method, jobs::run),
        Act::JobCancel => on(method, jobs::cancel),
        Act::Certificates => on(method, changes::certificates),
        Act::Down => on(method, changes::down),
        Act::SecretList => on(method, secrets::list),
        Act::SecretSet => on(method, secrets::set),
        Act::SecretRemove => on(method, secrets::remove),
        Act::TokenList => on(method, tokens::list),
        Act::TokenCreate => on(method, tokens::create),
        Act::TokenRevoke => on(method, tokens::revoke),
        Act::AuditList => on(method, audited::list),
        Act::AuditVerify => on(method, audited::verify),
        Act::ProjectList => on(method, projects::list),
        Act::ProjectSet => on(method, projects::set),
        Act::StoreStatus => on(method, store::status),
        Act::StoreBackup => on(method, store::backup),
        Act::StoreForceLeader => on(method, store::force_leader),
        Act::SeatList => on(method, seats::list),
        Act::NodeList => on(method, nodes::list),
        Act::NodeShow => on(method, nodes::show),
        Act::JoinToken => on(method, nodes::token),
        Act::NodeRevoke => on(method, nodes::revoke),
        Act::NodeRename => on(method, nodes::rename),
        Act::NodeDrain => on(method, nodes::drain),
        Act::UpgradeShow => on(method, upgrades::show),
        Act::Upgrade => on(method, upgrades::begin),
        Act::Without => on(method, changes::without),
        Act::NodeMove => on(method, nodes::put_into),
        Act::ZoneMove => on(method, nodes::move_zone),
        Act::Publish => on(method, nodes::publish),
        Act::Zones => on(method, zones::tree),
        Act::Ask => on(method, zones::ask),
        Act::AggregateList => on(method, zones::aggregates),
        Act::AggregateAdd => on(method, zones::add_aggregate),
        Act::AggregateRemove => on(method, zones::remove_aggregate),
        Act::AlertList => on(method, alerts::list),
        Act::AlertAdd => on(method, alerts::add),
        Act::AlertRemove => on(method, alerts::remove),
        Act::AlertTest => on(method, alerts::test),
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Homeostat admin API",
        description = "Everything the command line does, over the Unix socket of the node, or with a token over its admin port.",
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
        looking::why_not,
        looking::logs,
        changes::restart,
        rollouts::show,
        rollouts::pause,
        rollouts::resume,
        rollouts::promote,
        rollouts::abort,
        jobs::run,
        jobs::cancel,
        changes::down,
        secrets::list,
        secrets::set,
        secrets::remove,
        tokens::list,
        tokens::create,
        tokens::revoke,
        audited::list,
        audited::verify,
        projects::list,
        projects::set,
        store::status,
        store::backup,
        store::force_leader,
        seats::list,
        nodes::list,
        nodes::show,
        nodes::token,
        nodes::revoke,
        nodes::rename,
        nodes::put_into,
        nodes::drain,
        upgrades::show,
        upgrades::begin,
        changes::without,
        nodes::move_zone,
        nodes::publish,
        zones::tree,
        zones::ask,
        zones::aggregates,
        zones::add_aggregate,
        zones::remove_aggregate,
        alerts::list,
        alerts::add,
        alerts::remove,
        alerts::test,
        openapi
    ),
    components(schemas(
        AggregateRequest,
        AggregateView,
        AlertNotice,
        AlertRequest,
        AlertView,
        ApiError,
        ApplyRequest,
        AskReply,
        AskRequest,
        AskedRow,
        AttemptView,
        CertificateReply,
        CertificateRequest,
        Change,
        ContentStatus,
        Entry,
        Follows,
        Outcome,
        Verdict,
        Diagnostic,
        JobCancelReply,
        JobRunReply,
        JobRunRequest,
        JobView,
        JoinTokenReply,
        JoinTokenRequest,
        Fault,
        GenerationView,
        AdminPort,
        LogLine,
        NamedValue,
        NodeInZone,
        NodeNameRequest,
        NodeObject,
        NodeView,
        NodeZoneRequest,
        OfferedView,
        PlanReply,
        Policy,
        ProjectView,
        Progress,
        PublishReply,
        PublishRequest,
        SeatView,
        SecretReply,
        SecretRequest,
        SecretView,
        Role,
        RolloutView,
        RunView,
        SilentZone,
        Status,
        TokenReply,
        TokenRequest,
        TokenView,
        UpgradeRequest,
        UpgradeView,
        WhyReply,
        ZoneMoveRequest,
        ZoneView,
        ZonesReply
    ))
)]
pub struct Document;

#[utoipa::path(get, path = "/openapi.json", responses((status = 200, description = "This document")))]
async fn openapi() -> Response {
    Json(Document::openapi()).into_response()
}

/// An error with the status its code stands for.
#[derive(Debug)]
pub struct Refused(ApiError);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self.0.code.as_str() {
            "not_found" => StatusCode::NOT_FOUND,
            "conflict" | "ambiguous" => StatusCode::CONFLICT,
            "invalid_manifest"
            | "invalid_alert"
            | "invalid_attribute"
            | "invalid_certificate"
            | "invalid_component"
            | "invalid_name"
            | "invalid_question"
            | "invalid_secret"
            | "invalid_token"
            | "missing_secret"
            | "over_quota"
            | "unfit_program"
            | "files"
            | "content" => StatusCode::UNPROCESSABLE_ENTITY,
            "not_told" => StatusCode::BAD_GATEWAY,
            "denied" => StatusCode::FORBIDDEN,
            "unauthenticated" => StatusCode::UNAUTHORIZED,
            "deadline" => StatusCode::GATEWAY_TIMEOUT,
            "no_quorum" | "storage" | "unreachable" => StatusCode::SERVICE_UNAVAILABLE,
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
async fn status(State(shared): Agent, caller: Caller) -> Json<Status> {
    use node::store::Store;
    let mut certificate_warnings = shared.given.warnings();
    let mut secrets_fault = None;
    let mut content = None;
    if caller.who.project().is_some() {
        // They name hosts and secrets, which may be another project's.
        certificate_warnings.clear();
    } else {
        secrets_fault = crate::secrets::fault(&shared).await;
        content = Some(shared.holdings.status());
    }
    let listeners = *shared.listeners.borrow();
    Json(Status {
        node: shared.cluster.name().to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        agent_pid: std::process::id(),
        revision: shared.snapshot.borrow().revision.0,
        http: listeners.0.map(|address| address.to_string()),
        https: listeners.1.map(|address| address.to_string()),
        edge_connected: *shared.edge_connected.borrow(),
        store_fault: shared.store.fault().or_else(|| shared.control.fault()),
        zone: shared.cluster.zone().to_string(),
        follows: shared.cluster.follows(),
        certificate_warnings,
        secrets_fault,
        admin_port: shared.admin_port.borrow().clone(),
        content,
    })
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
