//! The admin API between nodes: what a follower is asked about the cluster is
//! answered by the node that holds the store.
//!
//! In: requests on this node's socket, streams from other nodes' agents. Out:
//! the same requests on a stream of their own, one each, in HTTP/1.1.
//! Holds: the head that says in whose name somebody asks is set here and
//! believed only from an agent of the cluster, within its owner's role.

use super::{Cluster, stream};
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
use net::transport::{Priority, Stream};
use node::nodes::NodeRecord;
use std::sync::Arc;
use wire::api::ApiError;
use wire::cluster::ADMIN;

fn lost(error: &dyn std::error::Error) -> ApiError {
    let message = format!("the other node broke off: {error}");
    api_error("unreachable", message, Some("homeostat node ls"))
}

async fn ask(stream: Stream, mut request: Request) -> Result<Response<Body>, ApiError> {
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

/// Asks another node.
pub async fn ask_node(
    cluster: &Cluster,
    node: NodeId,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let open = stream(ADMIN, Priority::Normal);
    let stream = cluster.transport().open(node, open).await;
    let stream = stream.map_err(|error| {
        let message = format!("node `{}` is not reached: {error}", cluster.called(node));
        api_error("unreachable", message, Some("homeostat node ls"))
    })?;
    ask(stream, request).await
}

/// Answers the request that another node's agent sends on a stream.
pub async fn answer(shared: Arc<Shared>, from: &NodeRecord, stream: Stream) {
    let door = Door::Node {
        id: from.id,
        role: from.owner,
    };
    let router = api::router(shared, door);
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(node = %from.id, %error, "a request from another node broke off");
    }
}
