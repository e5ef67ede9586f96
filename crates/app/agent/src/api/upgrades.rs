//! A node's way to another program: what it would go over to, and that it does.
//!
//! Holds: whichever node is asked, the node itself looks at its own file, decides
//! and writes down; its supervisor does the rest, which ends this process.

use super::elsewhere::ask;
use super::guard::Caller;
use super::{Agent, Refused};
use crate::apply::api_error;
use crate::cluster::table;
use crate::machine::{now, record, unix_now};
use crate::shared::{Message, Shared};
use axum::Json;
use axum::body::to_bytes;
use axum::extract::{Path, Query, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use control::Controller;
use control::upgrade::{Reading, Upgrade};
use kernel::{DecisionId, NodeId, error_chain};
use node::NodeEvent;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use wire::api::{ApiError, OfferedView, UpgradeRequest, UpgradeView};
use wire::decision::{JournalEntry, Observation};
use wire::supervise::{
    FromSupervisor, Inspected, SupervisorStatus, ToSupervisor, UpgradeStage, UpgradeStatus,
};

/// Longer than a program may take to say what it is.
const SUPERVISOR_MAX: Duration = Duration::from_secs(15);
const REFUSAL_BYTES_MAX: usize = 64 << 10;
const LOOK: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, Default, Deserialize)]
pub struct UpgradeQuery {
    program: Option<String>,
    /// Whether to ask the program what it is.
    #[serde(default)]
    offered: bool,
}

/// Of any node, as that node says it. `offered`: also what `program` is, by default
/// the file that the node was started from.
#[utoipa::path(get, path = "/v1/nodes/{node}/upgrade",
    params(("node" = String, Path), ("program" = Option<String>, Query),
        ("offered" = Option<bool>, Query)),
    responses((status = 200, body = UpgradeView), (status = 404, body = ApiError)))]
pub async fn show(
    State(shared): Agent,
    caller: Caller,
    Path(node): Path<String>,
    Query(query): Query<UpgradeQuery>,
    uri: Uri,
) -> Result<Response, Refused> {
    if let Some(other) = other(&shared, caller.via(), &node).map_err(Refused)? {
        let answer = ask(&shared, other, ("GET", &uri.to_string()), Vec::new()).await;
        return answer.map_err(Refused);
    }
    let view = view(&shared, query).await.map_err(Refused)?;
    Ok(Json(view).into_response())
}

/// Answered when it has begun.
#[utoipa::path(post, path = "/v1/nodes/{node}/upgrade", request_body = UpgradeRequest,
    params(("node" = String, Path)),
    responses((status = 200, body = UpgradeView), (status = 404, body = ApiError),
        (status = 409, body = ApiError), (status = 422, body = ApiError)))]
pub async fn begin(
    State(shared): Agent,
    caller: Caller,
    Path(node): Path<String>,
    uri: Uri,
    Json(request): Json<UpgradeRequest>,
) -> Result<Response, Refused> {
    let change = caller.change(&shared, format!("node/{node}")).await?;
    let (who, via) = (caller.who.to_string(), caller.via());
    let begun = change.run(async move {
        let Some(other) = other(&shared, via, &node)? else {
            let view = go(&shared, who, request.program).await?;
            return Ok(Json(view).into_response());
        };
        let body = serde_json::to_vec(&request).unwrap_or_default();
        let answer = ask(&shared, other, ("POST", &uri.to_string()), body).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(refusal(answer).await)
    });
    begun.await
}

/// What another node said no with.
async fn refusal(answer: Response) -> ApiError {
    let status = answer.status();
    let body = to_bytes(answer.into_body(), REFUSAL_BYTES_MAX).await;
    let read = body
        .ok()
        .and_then(|body| serde_json::from_slice(&body).ok());
    read.unwrap_or_else(|| api_error("unreachable", format!("a node answered {status}"), None))
}

/// None: this node. What another node passed on goes no further.
fn other(shared: &Shared, via: Option<NodeId>, node: &str) -> Result<Option<NodeId>, ApiError> {
    let nodes = shared.cluster.nodes.borrow();
    let record = table::find(&nodes, node).ok_or_else(|| table::none_called(node))?;
    if record.id == shared.cluster.own.id {
        return Ok(None);
    }
    if via.is_some() {
        return Err(table::none_called(node));
    }
    Ok(Some(record.id))
}

async fn tell(shared: &Shared, word: ToSupervisor) -> Result<FromSupervisor, ApiError> {
    let asking = async {
        let mut connection = ipc::connect(&shared.layout.supervisor_socket()).await?;
        connection.send(&word).await?;
        connection.receive::<FromSupervisor>().await
    };
    let away = |why: String| {
        let message = format!("the node's supervisor does not answer: {why}");
        api_error("unreachable", message, Some("homeostat up"))
    };
    match tokio::time::timeout(SUPERVISOR_MAX, asking).await {
        Ok(Ok(Some((answer, _)))) => Ok(answer),
        Ok(Ok(None)) => Err(away("it broke off".to_owned())),
        Ok(Err(error)) => Err(away(error_chain(&error))),
        Err(_) => Err(away("not in time".to_owned())),
    }
}

fn unexpected(answer: &FromSupervisor) -> ApiError {
    let message = format!("the node's supervisor answered {answer:?}");
    api_error("internal", message, None)
}

/// What the supervisor says of this node.
pub async fn status(shared: &Shared) -> Result<SupervisorStatus, ApiError> {
    match tell(shared, ToSupervisor::Status).await? {
        FromSupervisor::Status(status) => Ok(status),
        other => Err(unexpected(&other)),
    }
}

async fn inspect(shared: &Shared, program: Option<String>) -> Result<Inspected, ApiError> {
    let program = program.map(PathBuf::from);
    match tell(shared, ToSupervisor::Inspect { program }).await? {
        FromSupervisor::Inspected(inspected) => Ok(inspected),
        FromSupervisor::Refused { why, help } => {
            Err(api_error("unfit_program", why, help.as_deref()))
        }
        other => Err(unexpected(&other)),
    }
}

fn reading(shared: &Shared, who: String, inspected: &Inspected) -> Reading {
    let cluster = &shared.cluster;
    let nodes = cluster.nodes.borrow().clone();
    let reports = cluster.reports.borrow();
    let others = nodes.values().filter(|record| {
        let there = record.belongs() && cluster.reach(record.id).is_up();
        there && record.id != cluster.own.id
    });
    let others = others.filter_map(|record| {
        let speaks = reports.get(&record.id)?.speaks?;
        Some((record.name.to_string(), speaks))
    });
    Reading {
        node: cluster.name().to_string(),
        program: inspected.program.display().to_string(),
        who,
        running: inspected.running.clone(),
        offered: inspected.offered.clone(),
        others: others.collect(),
    }
}

const BETWEEN: &str = "go over to a version between the two first";

async fn view(shared: &Shared, query: UpgradeQuery) -> Result<UpgradeView, ApiError> {
    let offered = if query.offered {
        Some(match inspect(shared, query.program.clone()).await {
            Ok(inspected) => {
                let fits = reading(shared, String::new(), &inspected).fits();
                let refused = fits.err().map(|unfit| unfit.to_string());
                OfferedView {
                    program: inspected.program.display().to_string(),
                    version: Some(inspected.offered.version),
                    same: inspected.same,
                    help: refused.as_ref().map(|_| BETWEEN.to_owned()),
                    refused,
                }
            }
            Err(error) if error.code == "unfit_program" => OfferedView {
                program: query.program.unwrap_or_default(),
                refused: Some(error.message),
                help: error.help,
                ..OfferedView::default()
            },
            Err(error) => return Err(error),
        })
    } else {
        None
    };
    let status = status(shared).await?;
    let last = status.upgrade.as_ref();
    Ok(UpgradeView {
        node: shared.cluster.name().to_string(),
        version: status.version.clone(),
        offered,
        stage: last.map(|last| last.stage.to_string()),
        program: last.map(|last| last.program.display().to_string()),
        why: last.and_then(|last| last.why.clone()),
        edge_connected: *shared.edge_connected.borrow(),
        follows: shared.cluster.follows(),
    })
}

async fn go(
    shared: &Arc<Shared>,
    who: String,
    program: Option<String>,
) -> Result<UpgradeView, ApiError> {
    let inspected = inspect(shared, program).await?;
    let reading = reading(shared, who, &inspected);
    let fits = reading.fits();
    if fits.is_ok() {
        let program = Some(inspected.program.clone());
        match tell(shared, ToSupervisor::Upgrade { program }).await? {
            FromSupervisor::Done => {}
            FromSupervisor::Refused { why, help } => {
                return Err(api_error("conflict", why, help.as_deref()));
            }
            other => return Err(unexpected(&other)),
        }
    }
    let event = Message::Node(NodeEvent::UpgradeAsked(Box::new(reading)));
    let _ = shared.messages.send(event).await;
    fits.map_err(|unfit| api_error("unfit_program", unfit.to_string(), Some(BETWEEN)))?;
    tokio::spawn(tell_outcome(Arc::clone(shared)));
    view(shared, UpgradeQuery::default()).await
}

/// Writes down what came of the last upgrade, unless an agent before did.
pub async fn tell_outcome(shared: Arc<Shared>) {
    let last = loop {
        match status(&shared).await.map(|status| status.upgrade) {
            Ok(None) => return,
            Ok(Some(last)) if last.stage.is_over() => break last,
            Ok(Some(_)) | Err(_) => tokio::time::sleep(LOOK).await,
        }
    };
    let journal = shared.layout.journal();
    let read = tokio::task::spawn_blocking(move || telemetry::read_all(&journal)).await;
    let decision = read.ok().and_then(Result::ok);
    let Some(decision) = decision.and_then(|all| unobserved(&all)) else {
        return;
    };
    let UpgradeStatus { to, why, .. } = last;
    let worked = last.stage == UpgradeStage::Done;
    let what = match why {
        Some(why) => why,
        None => format!("edge, agent and supervisor are {to}"),
    };
    let (at, at_unix) = (now(), unix_now());
    let seen = Observation {
        decision,
        at,
        at_unix,
        what,
        worked,
    };
    record(&shared, JournalEntry::Observation(seen));
}

/// The newest decision for an upgrade, if nobody wrote down what came of it.
fn unobserved(entries: &[JournalEntry]) -> Option<DecisionId> {
    let newest = entries.iter().rev().find_map(|entry| match entry {
        JournalEntry::Decision(one) if one.control_loop == Upgrade::NAME => Some(one),
        _ => None,
    })?;
    newest.expected.as_ref()?;
    let told = entries
        .iter()
        .any(|entry| matches!(entry, JournalEntry::Observation(it) if it.decision == newest.id));
    (!told).then_some(newest.id)
}
