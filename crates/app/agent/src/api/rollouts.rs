//! Rollouts by stages: how one stands, and what people say to it.

use super::guard::Caller;
use super::{Agent, Refused};
use crate::apply::rollouts::{self, Word};
use crate::objects;
use crate::shared::Shared;
use axum::Json;
use axum::extract::{Path, State};
use std::sync::Arc;
use wire::api::{ApiError, RolloutView};

/// `service`: `search`, or `news/search`, its slash escaped; here and below.
#[utoipa::path(get, path = "/v1/rollouts/{service}", params(("service" = String, Path)),
    responses((status = 200, body = RolloutView), (status = 404, body = ApiError),
        (status = 409, body = ApiError)))]
pub async fn show(
    State(shared): Agent,
    caller: Caller,
    Path(service): Path<String>,
) -> Result<Json<RolloutView>, Refused> {
    let service = objects::service(&shared, &service, caller.who.project()).await;
    let view = rollouts::status(&shared, &service.map_err(Refused)?).await;
    view.map(Json).map_err(Refused)
}

/// It does not go on by itself; a new generation that does harm is given up all the same.
#[utoipa::path(post, path = "/v1/rollouts/{service}/pause", params(("service" = String, Path)),
    responses((status = 200, body = RolloutView), (status = 404, body = ApiError),
        (status = 409, body = ApiError)))]
pub async fn pause(
    State(shared): Agent,
    caller: Caller,
    Path(service): Path<String>,
) -> Result<Json<RolloutView>, Refused> {
    say(shared, caller, &service, Word::Pause).await
}

#[utoipa::path(post, path = "/v1/rollouts/{service}/resume", params(("service" = String, Path)),
    responses((status = 200, body = RolloutView), (status = 404, body = ApiError),
        (status = 409, body = ApiError)))]
pub async fn resume(
    State(shared): Agent,
    caller: Caller,
    Path(service): Path<String>,
) -> Result<Json<RolloutView>, Refused> {
    say(shared, caller, &service, Word::Resume).await
}

/// A stage further at once. Answered with how it stood before.
#[utoipa::path(post, path = "/v1/rollouts/{service}/promote", params(("service" = String, Path)),
    responses((status = 200, body = RolloutView), (status = 404, body = ApiError),
        (status = 409, body = ApiError)))]
pub async fn promote(
    State(shared): Agent,
    caller: Caller,
    Path(service): Path<String>,
) -> Result<Json<RolloutView>, Refused> {
    say(shared, caller, &service, Word::Promote).await
}

/// Back to the old generation at once. Answered with how it stood before.
#[utoipa::path(post, path = "/v1/rollouts/{service}/abort", params(("service" = String, Path)),
    responses((status = 200, body = RolloutView), (status = 404, body = ApiError),
        (status = 409, body = ApiError)))]
pub async fn abort(
    State(shared): Agent,
    caller: Caller,
    Path(service): Path<String>,
) -> Result<Json<RolloutView>, Refused> {
    say(shared, caller, &service, Word::Abort).await
}

async fn say(
    shared: Arc<Shared>,
    caller: Caller,
    service: &str,
    word: Word,
) -> Result<Json<RolloutView>, Refused> {
    let service = objects::service(&shared, service, caller.who.project()).await;
    let service = service.map_err(Refused)?;
    let change = caller.change(&shared, format!("service/{service}")).await?;
    let said = async move { rollouts::say(&shared, &service, word).await };
    Ok(Json(change.run(said).await?))
}
