//! Secrets: set, listed without their values, removed.

use super::guard::Caller;
use super::{Agent, Refused, name};
use crate::secrets;
use axum::Json;
use axum::extract::{Path, State};
use wire::api::{ApiError, SecretReply, SecretRequest, SecretView};

#[utoipa::path(get, path = "/v1/secrets", responses((status = 200, body = Vec<SecretView>)))]
pub async fn list(State(shared): Agent, caller: Caller) -> Result<Json<Vec<SecretView>>, Refused> {
    let mut all = secrets::list(&shared).await.map_err(Refused)?;
    if let Some(only) = caller.who.project() {
        all.retain(|secret| secret.project == only.as_str());
    }
    Ok(Json(all))
}

/// Durable when it answers; the services that name it are replaced afterwards.
#[utoipa::path(post, path = "/v1/secrets/{project}/{name}", request_body = SecretRequest,
    params(("project" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = SecretReply), (status = 422, body = ApiError)))]
pub async fn set(
    State(shared): Agent,
    caller: Caller,
    Path((project, secret)): Path<(String, String)>,
    Json(request): Json<SecretRequest>,
) -> Result<Json<SecretReply>, Refused> {
    let (project, secret) = (name(&project)?, name(&secret)?);
    caller.may(&project)?;
    let object = format!("secret/{project}/{secret}");
    let change = caller.change(&shared, object).await?;
    change
        .run(async move { secrets::set(&shared, &project, &secret, &request.value).await })
        .await
        .map(Json)
}

#[utoipa::path(delete, path = "/v1/secrets/{project}/{name}",
    params(("project" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = SecretReply), (status = 404, body = ApiError),
        (status = 409, body = ApiError)))]
pub async fn remove(
    State(shared): Agent,
    caller: Caller,
    Path((project, secret)): Path<(String, String)>,
) -> Result<Json<SecretReply>, Refused> {
    let (project, secret) = (name(&project)?, name(&secret)?);
    caller.may(&project)?;
    let object = format!("secret/{project}/{secret}");
    let change = caller.change(&shared, object).await?;
    change
        .run(async move { secrets::remove(&shared, &project, &secret).await })
        .await?;
    Ok(Json(SecretReply::default()))
}
