//! The admin API between nodes: what a follower is asked about the cluster is
//! answered by the node that holds the store.
//!
//! In: requests on this node's socket, streams from other nodes' agents. Out:
//! the same requests on a stream of their own, one each, in HTTP/1.1.
//! Holds: the head that says in whose name somebody asks is set here and
//! believed only from an agent of the cluster, within its owner's role.

use crate::api::{self, Door};
use crate::apply::api_error;
use crate::shared::Shared;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::{HeaderValue, Response};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use kernel::NodeId;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use wire::api::{ApiError, Role};

fn lost(error: &dyn std::error::Error) -> ApiError {
    let message = format!("the node that holds the store broke off: {error}");
    api_error("unreachable", message, Some("homeostat node ls"))
}

/// Sends one request over a stream of its own.
pub async fn ask<S>(stream: S, mut request: Request) -> Result<Response<Body>, ApiError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    request
        .headers_mut()
        .insert(HOST, HeaderValue::from_static("cluster"));
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| lost(&error))?;
    // It ends with the answer's body.
    tokio::spawn(connection);
    let answer = sender.send_request(request).await;
    Ok(answer.map_err(|error| lost(&error))?.map(Body::new))
}

/// Answers the requests that another node's agent sends on a stream.
pub async fn answer<S>(shared: Arc<Shared>, from: NodeId, role: Role, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = api::router(shared, Door::Node { id: from, role });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(node = %from, %error, "a request from another node broke off");
    }
}
