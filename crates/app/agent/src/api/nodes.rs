//! Nodes of the cluster, what they publish, and the tokens that let more of
//! them in.

use super::guard::Caller;
use super::{Agent, Refused};
use crate::apply::api_error;
use crate::cluster::{group, rows, table};
use crate::machine::unix_now;
use axum::Json;
use axum::extract::{Path, State};
use kernel::{Name, UnixMillis, ZonePath};
use node::nodes::Admission;
use std::sync::Arc;
use std::time::Duration;
use wire::api::{
    ApiError, JoinTokenReply, JoinTokenRequest, NodeDrainRequest, NodeNameRequest, NodeView,
    NodeZoneRequest, PublishReply, PublishRequest, ZoneMoveRequest,
};
use wire::attributes::AttributeName;

const TOKEN_LIFE: Duration = Duration::from_mins(15);
/// Whoever finds a token that is good for longer was given time to look for it.
const TOKEN_LIFE_MAX: Duration = Duration::from_hours(7 * 24);
/// Attributes that a line of the audit log names.
const NAMED_MAX: usize = 16;

/// As the node that is asked sees them: each hears for itself who is there and
/// what they publish.
#[utoipa::path(get, path = "/v1/nodes", responses((status = 200, body = Vec<NodeView>)))]
pub async fn list(State(shared): Agent, _: Caller) -> Json<Vec<NodeView>> {
    let cluster = &shared.cluster;
    let nodes = cluster.nodes.borrow().clone();
    Json(nodes.values().map(|record| cluster.view(record)).collect())
}

/// One that does not tell this node of itself, in a large cluster, is asked.
#[utoipa::path(get, path = "/v1/nodes/{node}", params(("node" = String, Path)),
    responses((status = 200, body = NodeView), (status = 404, body = ApiError)))]
pub async fn show(
    State(shared): Agent,
    _: Caller,
    Path(node): Path<String>,
) -> Result<Json<NodeView>, Refused> {
    let cluster = &shared.cluster;
    let nodes = cluster.nodes.borrow().clone();
    let record = table::find(&nodes, &node).ok_or_else(|| Refused(table::none_called(&node)))?;
    Ok(Json(cluster.view_asked(record).await))
}

/// The token is shown this once.
#[utoipa::path(post, path = "/v1/nodes/tokens", request_body = JoinTokenRequest,
    responses((status = 200, body = JoinTokenReply), (status = 422, body = ApiError)))]
pub async fn token(
    State(shared): Agent,
    caller: Caller,
    Json(request): Json<JoinTokenRequest>,
) -> Result<Json<JoinTokenReply>, Refused> {
    let zone: ZonePath = request.zone.parse().map_err(|error| {
        let example = "homeostat token create --zone /eu/1";
        Refused(api_error(
            "invalid_token",
            format!("{error}"),
            Some(example),
        ))
    })?;
    let life = request.life_seconds.map_or(TOKEN_LIFE, Duration::from_secs);
    if life.is_zero() || life > TOKEN_LIFE_MAX {
        let message = "a join token lasts from a second to seven days";
        let example = "homeostat token create --zone /eu/1 --ttl 15m";
        return Err(Refused(api_error("invalid_token", message, Some(example))));
    }
    let millis = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
    let expires_at = UnixMillis(unix_now().0.saturating_add(millis));
    let made = shared.cluster.join_token(zone.clone()).map_err(Refused)?;
    let admission = Admission {
        zone: zone.clone(),
        owner: request.owner,
        may_vote: !request.no_vote,
        witness: request.witness,
        expires_at,
        verifier: made.verifier,
        used_by: None,
    };
    let id = made.token.id.to_string();
    let change = caller.change(&shared, format!("join-token/{id}")).await?;
    let (kept_in, key) = (Arc::clone(&shared), id.clone());
    let offer = async move { table::offer(&kept_in.control, &key, &admission, unix_now()).await };
    change.run(offer).await?;
    Ok(Json(JoinTokenReply {
        id,
        token: made.token.to_string(),
        zone: zone.to_string(),
        expires_unix_ms: expires_at.0,
    }))
}

#[utoipa::path(post, path = "/v1/nodes/{node}/revoke", params(("node" = String, Path)),
    responses((status = 200, body = NodeView), (status = 404, body = ApiError)))]
pub async fn revoke(
    State(shared): Agent,
    caller: Caller,
    Path(node): Path<String>,
) -> Result<Json<NodeView>, Refused> {
    let change = caller.change(&shared, format!("node/{node}")).await?;
    let kept_in = Arc::clone(&shared);
    let revoke = async move {
        let leader = kept_in.cluster.own.id;
        let found = {
            let nodes = kept_in.cluster.nodes.borrow();
            table::find(&nodes, &node).map(|record| record.id)
        };
        if let Some(found) = found.filter(|found| *found != leader) {
            group::let_go(&kept_in, found).await?;
        }
        table::revoke(&kept_in.control, &node, leader, unix_now()).await
    };
    let revoked = change.run(revoke).await?;
    Ok(Json(shared.cluster.view(&revoked)))
}

#[utoipa::path(post, path = "/v1/nodes/{node}/name", request_body = NodeNameRequest,
    params(("node" = String, Path)),
    responses((status = 200, body = NodeView), (status = 404, body = ApiError)))]
pub async fn rename(
    State(shared): Agent,
    caller: Caller,
    Path(node): Path<String>,
    Json(request): Json<NodeNameRequest>,
) -> Result<Json<NodeView>, Refused> {
    let name = Name::new(request.name).map_err(|error| {
        let message = format!("no node can be called so: {error}");
        Refused(api_error("invalid_name", message, None))
    })?;
    let change = caller.change(&shared, format!("node/{node}")).await?;
    let kept_in = Arc::clone(&shared);
    let rename = async move { table::rename(&kept_in.control, &node, &name).await };
    let renamed = change.run(rename).await?;
    Ok(Json(shared.cluster.view(&renamed)))
}

#[utoipa::path(post, path = "/v1/nodes/{node}/zone", request_body = NodeZoneRequest,
    params(("node" = String, Path)),
    responses((status = 200, body = NodeView), (status = 404, body = ApiError)))]
pub async fn put_into(
    State(shared): Agent,
    caller: Caller,
    Path(node): Path<String>,
    Json(request): Json<NodeZoneRequest>,
) -> Result<Json<NodeView>, Refused> {
    let zone = zone(&request.zone)?;
    let change = caller.change(&shared, format!("node/{node}")).await?;
    let kept_in = Arc::clone(&shared);
    let put = async move { table::put_into(&kept_in.control, &node, &zone, unix_now()).await };
    Ok(Json(shared.cluster.view(&change.run(put).await?)))
}

/// Answered at once; what can run elsewhere leaves it meanwhile.
#[utoipa::path(post, path = "/v1/nodes/{node}/drain", request_body = NodeDrainRequest,
    params(("node" = String, Path)),
    responses((status = 200, body = NodeView), (status = 404, body = ApiError)))]
pub async fn drain(
    State(shared): Agent,
    caller: Caller,
    Path(node): Path<String>,
    Json(request): Json<NodeDrainRequest>,
) -> Result<Json<NodeView>, Refused> {
    let change = caller.change(&shared, format!("node/{node}")).await?;
    let kept_in = Arc::clone(&shared);
    let drain = async move { table::drain(&kept_in.control, &node, request.draining).await };
    Ok(Json(shared.cluster.view(&change.run(drain).await?)))
}

/// Answered with the nodes that were moved.
#[utoipa::path(post, path = "/v1/zones/moves", request_body = ZoneMoveRequest,
    responses((status = 200, body = Vec<NodeView>), (status = 404, body = ApiError)))]
pub async fn move_zone(
    State(shared): Agent,
    caller: Caller,
    Json(request): Json<ZoneMoveRequest>,
) -> Result<Json<Vec<NodeView>>, Refused> {
    let (from, to) = (zone(&request.from)?, zone(&request.to)?);
    let change = caller.change(&shared, format!("zone{from}")).await?;
    let kept_in = Arc::clone(&shared);
    let moves = async move { table::move_zone(&kept_in.control, &from, &to, unix_now()).await };
    let records = change.run(moves).await?;
    let views = records.iter().map(|record| shared.cluster.view(record));
    Ok(Json(views.collect()))
}

fn zone(text: &str) -> Result<ZonePath, Refused> {
    text.parse().map_err(|error: kernel::ZonePathError| {
        Refused(api_error("invalid_name", error.to_string(), None))
    })
}

/// Of the node that is asked; on its disk when it answers.
#[utoipa::path(post, path = "/v1/attributes", request_body = PublishRequest,
    responses((status = 200, body = PublishReply), (status = 404, body = ApiError),
        (status = 422, body = ApiError)))]
pub async fn publish(
    State(shared): Agent,
    caller: Caller,
    Json(request): Json<PublishRequest>,
) -> Result<Json<PublishReply>, Refused> {
    let names = request.set.keys().chain(&request.remove);
    let names = names.filter(|name| name.parse::<AttributeName>().is_ok());
    let names: Vec<&str> = names.map(String::as_str).take(NAMED_MAX).collect();
    let object = format!("attributes/{}", names.join(","));
    let change = caller.change(&shared, object).await?;
    let kept_in = Arc::clone(&shared);
    let publish = async move { rows::publish(&kept_in, request).await };
    Ok(Json(change.run(publish).await?))
}
