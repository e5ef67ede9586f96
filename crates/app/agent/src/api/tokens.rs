//! Tokens: made, listed, revoked.

use super::guard::Caller;
use super::{Agent, Refused, name};
use crate::auth::Who;
use crate::tokens;
use axum::Json;
use axum::extract::{Path, State};
use kernel::Name;
use std::collections::BTreeMap;
use std::time::Duration;
use wire::api::{ApiError, TokenReply, TokenRequest, TokenView};

#[utoipa::path(get, path = "/v1/tokens", responses((status = 200, body = Vec<TokenView>)))]
pub async fn list(State(shared): Agent, caller: Caller) -> Result<Json<Vec<TokenView>>, Refused> {
    let mut all = tokens::list(&shared).await.map_err(Refused)?;
    all.retain(|token| sees(&caller.who, token));
    Ok(Json(all))
}

fn sees(who: &Who, token: &TokenView) -> bool {
    let only = who.project();
    only.is_none_or(|only| token.project.as_deref() == Some(only.as_str()))
}

/// The token is in this answer and nowhere else.
#[utoipa::path(post, path = "/v1/tokens", request_body = TokenRequest,
    responses((status = 200, body = TokenReply), (status = 403, body = ApiError)))]
pub async fn create(
    State(shared): Agent,
    caller: Caller,
    Json(request): Json<TokenRequest>,
) -> Result<Json<TokenReply>, Refused> {
    let project = request.project.as_deref().map(name).transpose()?;
    match &project {
        Some(project) => caller.may(project)?,
        None => caller.may_node()?,
    }
    let life = request
        .life_seconds
        .map_or(tokens::LIFE_USUAL, Duration::from_secs);
    let whose = project.as_ref().map_or("all", Name::as_str);
    let object = format!("token/{}/{whose}", request.role);
    let change = caller.change(&shared, object).await?;
    change
        .run(async move { tokens::create(&shared, request.role, project, life).await })
        .await
        .map(Json)
}

/// At once: the next request with it is refused.
#[utoipa::path(delete, path = "/v1/tokens/{id}", params(("id" = String, Path)),
    responses((status = 200, body = BTreeMap<String, String>), (status = 404, body = ApiError)))]
pub async fn revoke(
    State(shared): Agent,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<BTreeMap<String, String>>, Refused> {
    let all = tokens::list(&shared).await.map_err(Refused)?;
    let found = all.iter().find(|token| token.id == id);
    // Another project's is as unknown as none.
    let found = found.filter(|token| sees(&caller.who, token));
    let found = found.ok_or_else(|| Refused(tokens::unknown(&id)))?;
    match found.project.as_deref().map(Name::new) {
        Some(Ok(project)) => caller.may(&project)?,
        _ => caller.may_node()?,
    }
    let change = caller.change(&shared, format!("token/{id}")).await?;
    let revoked = id.clone();
    change
        .run(async move { tokens::revoke(&shared, &revoked).await })
        .await?;
    Ok(Json(BTreeMap::from([("revoked".to_owned(), id)])))
}
