//! The stores: how they stand, and their backup as bytes.

use super::guard::Caller;
use super::{Agent, Refused};
use crate::apply::api_error;
use crate::cluster::group;
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use kernel::error_chain;
use std::sync::Arc;
use wire::api::{ApiError, ForceLeaderReply, ForceLeaderRequest, StoreView};

/// Control state and buckets at one cut. It has all that was acknowledged
/// before it was asked for.
#[utoipa::path(post, path = "/v1/store/backup",
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 503, body = ApiError)))]
pub async fn backup(State(shared): Agent, caller: Caller) -> Result<Response, Refused> {
    let change = caller.change(&shared, "store".to_owned()).await?;
    let made = change.run(async move {
        let made = crate::backup::backup(&shared).await;
        made.map_err(|error| api_error("storage", error_chain(&error), Some("homeostat doctor")))
    });
    let bytes = made.await?;
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, bytes).into_response())
}

/// How the members of the stores' groups stand, as the node that is asked sees
/// them.
#[utoipa::path(get, path = "/v1/store", responses((status = 200, body = StoreView)))]
pub async fn status(State(shared): Agent) -> Json<StoreView> {
    Json(group::status(&shared))
}

/// Has the node that is asked lead without the others, whose majority is lost for
/// good. Its agent starts anew.
#[utoipa::path(post, path = "/v1/store/force-leader", request_body = ForceLeaderRequest,
    responses((status = 200, body = ForceLeaderReply), (status = 409, body = ApiError)))]
pub async fn force_leader(
    State(shared): Agent,
    caller: Caller,
    Json(request): Json<ForceLeaderRequest>,
) -> Result<Json<ForceLeaderReply>, Refused> {
    if !request.confirmed {
        let told = group::force_leader(&shared, false).await;
        return told.map(Json).map_err(Refused);
    }
    let change = caller.change(&shared, "store".to_owned()).await?;
    let forced = Arc::clone(&shared);
    let done = change.run(async move { group::force_leader(&forced, true).await });
    done.await.map(Json)
}
