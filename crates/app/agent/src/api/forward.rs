//! Requests that a follower passes on to the leader.
//!
//! Holds: what is applied here is in this node's content before the leader
//! hears of it, and the leader fetches it from here.

use crate::apply;
use crate::auth::Act;
use crate::cluster::admin::ask_node;
use crate::shared::Shared;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use axum::response::Response;
use kernel::NodeId;
use std::sync::Arc;
use wire::api::{ApiError, ApplyRequest};

const REQUEST_BYTES_MAX: usize = 8 << 20;

pub async fn pass_on(
    shared: &Arc<Shared>,
    leader: NodeId,
    (act, is_local): (Act, bool),
    request: Request,
) -> Result<Response, ApiError> {
    let request = match act {
        // Whoever asks at a port reads other files than this node.
        Act::Plan | Act::Apply if is_local => resolve(shared, request).await?,
        _ => request,
    };
    ask_node(&shared.cluster, leader, request).await
}

/// A manifest with what its directory here has, by hash.
async fn resolve(shared: &Arc<Shared>, request: Request) -> Result<Request, ApiError> {
    let (mut head, body) = request.into_parts();
    let unreadable = |error: &dyn std::error::Error| {
        let message = format!("the request cannot be read: {error}");
        apply::api_error("invalid_manifest", message, None)
    };
    let bytes = to_bytes(body, REQUEST_BYTES_MAX).await;
    let bytes = bytes.map_err(|error| unreadable(&error))?;
    let mut asked: ApplyRequest =
        serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))?;
    asked.resolved = Some(crate::apply::taking::resolve(shared, &asked).await?);
    let bytes = serde_json::to_vec(&asked).map_err(|error| unreadable(&error))?;
    head.headers.remove(CONTENT_LENGTH);
    Ok(Request::from_parts(head, Body::from(bytes)))
}
