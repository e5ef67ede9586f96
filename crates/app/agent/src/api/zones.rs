//! The zone tree, and questions to it.

use super::guard::Caller;
use super::{Agent, Refused};
use crate::apply::api_error;
use crate::cluster::rows;
use crate::cluster::zones::ask::{self, AskError, Asked};
use crate::cluster::zones::{aggregates, read, view};
use crate::shared::Shared;
use aggregation::question::Done;
use aggregation::tree::{Demand, ReadError};
use axum::Json;
use axum::extract::{Path, Query, State};
use kernel::ZonePath;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use wire::api::{
    AggregateRequest, AggregateView, ApiError, AskReply, AskRequest, AskedRow, NamedValue,
    SilentZone, ZonesReply,
};
use wire::tree::Seen;
use wire::tree::question::ROWS_MAX;

const WITHIN: Duration = Duration::from_secs(5);
const WITHIN_MAX: Duration = Duration::from_mins(1);
const EXAMPLE: &str = "homeostat ask \"SELECT AVG(cpu), COUNT(*)\" --zone /eu";

#[derive(Debug, Default, Deserialize)]
pub struct ZonesQuery {
    zone: Option<String>,
    /// How old the row may be.
    fresh_ms: Option<u64>,
    at_least: Option<String>,
}

/// From where the node that is asked stands; or one zone's row, if it is as
/// fresh as is demanded and not before one that was seen elsewhere.
#[utoipa::path(get, path = "/v1/zones",
    params(("zone" = Option<String>, Query), ("fresh_ms" = Option<u64>, Query),
        ("at_least" = Option<String>, Query, description = "a row's `stamp`")),
    responses((status = 200, body = ZonesReply), (status = 404, body = ApiError),
        (status = 504, body = ApiError)))]
pub async fn tree(
    State(shared): Agent,
    _: Caller,
    Query(query): Query<ZonesQuery>,
) -> Result<Json<ZonesReply>, Refused> {
    let Some(zone) = &query.zone else {
        if query.fresh_ms.is_some() || query.at_least.is_some() {
            let message = "a demand is made of one zone's row";
            let help = "homeostat zones --zone /eu --fresh 5s";
            return Err(Refused(invalid(message, help)));
        }
        return Ok(Json(view(&shared)));
    };
    let zone: ZonePath = zone
        .parse()
        .map_err(|error| Refused(invalid(&format!("{error}"), EXAMPLE)))?;
    let at_least = query.at_least.as_deref().map(str::parse::<Seen>);
    let at_least = at_least.transpose().map_err(|error| {
        let help = "take it from: homeostat zones -o json";
        Refused(invalid(&error.to_string(), help))
    })?;
    let demand = Demand {
        age_max: query.fresh_ms.map(Duration::from_millis),
        at_least,
    };
    let row = read(&shared, &zone, &demand).map_err(|error| {
        Refused(match error {
            ReadError::Nothing => {
                let message = format!("{error}: `{zone}`");
                api_error("not_found", message, Some("homeostat zones"))
            }
            ReadError::OfAnother => {
                invalid(&error.to_string(), "take it from: homeostat zones -o json")
            }
            ReadError::Stale { .. } | ReadError::Behind { .. } => {
                let help = "ask again in a moment, or ask another node";
                api_error("deadline", error.to_string(), Some(help))
            }
        })
    })?;
    Ok(Json(ZonesReply {
        zones: vec![row],
        ..view(&shared)
    }))
}

/// Asks every node of a zone.
#[utoipa::path(post, path = "/v1/ask", request_body = AskRequest,
    responses((status = 200, body = AskReply), (status = 404, body = ApiError),
        (status = 422, body = ApiError)))]
pub async fn ask(
    State(shared): Agent,
    _: Caller,
    Json(request): Json<AskRequest>,
) -> Result<Json<AskReply>, Refused> {
    let asked = asked(&request).map_err(Refused)?;
    let zone = asked.zone.clone();
    let (done, names) = ask::ask(&shared, asked)
        .await
        .map_err(|error| refused(&error))?;
    let answered = asked_reply(&shared, &zone, done, names);
    answered.map(Json).map_err(Refused)
}

/// As the node that is asked runs them.
#[utoipa::path(get, path = "/v1/aggregates",
    responses((status = 200, body = Vec<AggregateView>)))]
pub async fn aggregates(State(shared): Agent, _: Caller) -> Json<Vec<AggregateView>> {
    Json(aggregates::list(&shared))
}

/// It is tried in one zone first.
#[utoipa::path(post, path = "/v1/aggregates", request_body = AggregateRequest,
    responses((status = 200, body = AggregateView), (status = 409, body = ApiError),
        (status = 422, body = ApiError)))]
pub async fn add_aggregate(
    State(shared): Agent,
    caller: Caller,
    Json(request): Json<AggregateRequest>,
) -> Result<Json<AggregateView>, Refused> {
    let change = caller
        .change(&shared, format!("aggregate/{}", request.name))
        .await?;
    let kept_in = Arc::clone(&shared);
    let add = async move { aggregates::add(&kept_in, request).await };
    Ok(Json(change.run(add).await?))
}

/// Wherever it runs.
#[utoipa::path(delete, path = "/v1/aggregates/{name}", params(("name" = String, Path)),
    responses((status = 200, body = AggregateView), (status = 404, body = ApiError)))]
pub async fn remove_aggregate(
    State(shared): Agent,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<AggregateView>, Refused> {
    let change = caller.change(&shared, format!("aggregate/{name}")).await?;
    let kept_in = Arc::clone(&shared);
    let remove = async move { aggregates::remove(&kept_in, &name).await };
    Ok(Json(change.run(remove).await?))
}

fn invalid(message: &str, help: &str) -> ApiError {
    api_error("invalid_question", message, Some(help))
}

fn asked(request: &AskRequest) -> Result<Asked, ApiError> {
    let zone = request.zone.as_deref().unwrap_or("/");
    let zone: ZonePath = zone
        .parse()
        .map_err(|error| invalid(&format!("{error}"), EXAMPLE))?;
    if request.rows as usize > ROWS_MAX {
        let message = format!("one answer shows at most {ROWS_MAX} rows");
        return Err(invalid(&message, "narrow the question by WHERE"));
    }
    let within = request.within_ms.map_or(WITHIN, Duration::from_millis);
    if within.is_zero() || within > WITHIN_MAX {
        let message = "an answer is waited for a minute at most";
        return Err(invalid(message, EXAMPLE));
    }
    Ok(Asked {
        zone,
        text: request.text.clone(),
        fresh: request.fresh_ms.map(Duration::from_millis),
        rows: request.rows,
        within,
    })
}

fn refused(error: &AskError) -> Refused {
    Refused(match error {
        AskError::Program(program) => {
            let hint = program.hint().unwrap_or(EXAMPLE).to_owned();
            invalid(&error.to_string(), &hint)
        }
        AskError::Busy => api_error("busy", error.to_string(), Some("ask again in a moment")),
        AskError::Nowhere => api_error("unreachable", error.to_string(), Some("homeostat status")),
    })
}

/// What a person is told of it.
pub fn asked_reply(
    shared: &Shared,
    zone: &ZonePath,
    done: Done,
    names: Vec<String>,
) -> Result<AskReply, ApiError> {
    let (outcome, answer) = match done {
        Done::Answered { outcome, answer } => (outcome, answer),
        Done::NoZone(zone) => {
            let message = format!("no zone is called `{zone}`");
            return Err(api_error("not_found", message, Some("homeostat zones")));
        }
        Done::Refused(why) => return Err(invalid(&why, EXAMPLE)),
    };
    let values = names.into_iter().zip(&outcome.values);
    let silent = answer.silent.shown.iter();
    let rows = answer.rows.shown.iter();
    Ok(AskReply {
        zone: zone.to_string(),
        values: values
            .map(|(name, value)| NamedValue {
                name,
                value: value
                    .as_ref()
                    .map_or(serde_json::Value::Null, wire::attributes::Value::to_json),
            })
            .collect(),
        expected: answer.coverage.expected,
        reporting: answer.coverage.reporting,
        matched: outcome.partial.matched,
        oldest_ms: answer.coverage.oldest_ms,
        ignored: outcome.partial.ignored,
        silent: silent
            .map(|one| SilentZone {
                zone: one.zone.to_string(),
                nodes: one.nodes,
                unknown_since_ms: one.age_ms,
            })
            .collect(),
        silent_more: answer.silent.more,
        rows: rows
            .map(|row| AskedRow {
                node: shared.cluster.called(row.node),
                zone: row.zone.to_string(),
                attributes: rows::as_json(&row.attributes),
            })
            .collect(),
        rows_more: answer.rows.more,
        moving: answer.moving,
    })
}
