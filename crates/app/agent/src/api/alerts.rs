//! Alerts: questions that are asked again and again, and who is told.

use super::guard::Caller;
use super::{Agent, Refused};
use crate::cluster::zones::alerts;
use axum::Json;
use axum::extract::{Path, State};
use std::sync::Arc;
use wire::api::{AlertRequest, AlertView, ApiError};

/// Where the store is held, which asks them.
#[utoipa::path(get, path = "/v1/alerts",
    responses((status = 200, body = Vec<AlertView>)))]
pub async fn list(State(shared): Agent, _: Caller) -> Result<Json<Vec<AlertView>>, Refused> {
    alerts::list(&shared).await.map(Json).map_err(Refused)
}

/// One of that name is replaced.
#[utoipa::path(post, path = "/v1/alerts", request_body = AlertRequest,
    responses((status = 200, body = AlertView), (status = 422, body = ApiError)))]
pub async fn add(
    State(shared): Agent,
    caller: Caller,
    Json(request): Json<AlertRequest>,
) -> Result<Json<AlertView>, Refused> {
    let object = format!("alert/{}", request.name);
    let change = caller.change(&shared, object).await?;
    let kept_in = Arc::clone(&shared);
    let add = async move { alerts::add(&kept_in, request).await };
    Ok(Json(change.run(add).await?))
}

#[utoipa::path(delete, path = "/v1/alerts/{name}", params(("name" = String, Path)),
    responses((status = 200, body = AlertView), (status = 404, body = ApiError)))]
pub async fn remove(
    State(shared): Agent,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<AlertView>, Refused> {
    let change = caller.change(&shared, format!("alert/{name}")).await?;
    let kept_in = Arc::clone(&shared);
    let remove = async move { alerts::remove(&kept_in, &name).await };
    Ok(Json(change.run(remove).await?))
}

/// Tells it now, whatever holds; answered once it is told.
#[utoipa::path(post, path = "/v1/alerts/{name}/test", params(("name" = String, Path)),
    responses((status = 200, body = AlertView), (status = 404, body = ApiError),
        (status = 502, body = ApiError)))]
pub async fn test(
    State(shared): Agent,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<AlertView>, Refused> {
    let change = caller.change(&shared, format!("alert/{name}")).await?;
    let kept_in = Arc::clone(&shared);
    let test = async move { alerts::test(&kept_in, &name).await };
    Ok(Json(change.run(test).await?))
}
