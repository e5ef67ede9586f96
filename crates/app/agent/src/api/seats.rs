//! Seats: who decides for which zone.

use super::{Agent, Refused};
use crate::apply::api_error;
use crate::cluster::seats;
use crate::machine::now;
use crate::shared::Shared;
use axum::Json;
use axum::extract::State;
use node::seats::{Standing, TIME_TO_LIVE};
use wire::api::{ApiError, SeatView};

/// What runs where the root's seat is.
const OF_ROOT: [&str; 7] = [
    "placement",
    "repair of what a zone could not place",
    "drains",
    "singletons",
    "jobs",
    "rollouts",
    "alerts",
];
/// The same of a leaf zone's.
const OF_ZONE: [&str; 1] = ["repair within the zone"];

/// The root's first, then those of leaf zones that have one.
#[utoipa::path(get, path = "/v1/seats",
    responses((status = 200, body = Vec<SeatView>), (status = 503, body = ApiError)))]
pub async fn list(State(shared): Agent) -> Result<Json<Vec<SeatView>>, Refused> {
    let standing = seats::standing(&shared).await;
    let unknown =
        |why: String| Refused(api_error("no_quorum", why, Some("homeostat store status")));
    let (seated, standing) = standing.map_err(unknown)?;
    let mut all = vec![of_root(&shared)];
    for (zone, able) in &*seated {
        all.push(SeatView {
            candidates: able
                .iter()
                .map(|node| shared.cluster.called(*node))
                .collect(),
            ..of_zone(&shared, zone.to_string(), standing.get(zone).copied())
        });
    }
    Ok(Json(all))
}

fn of_root(shared: &Shared) -> SeatView {
    let cluster = &shared.cluster;
    let members = shared.control.members();
    SeatView {
        seat: "root".to_owned(),
        holder: members.leader.map(|leader| cluster.called(leader)),
        epoch: Some(members.term),
        since_unix_ms: Some(cluster.seats.led_since().0),
        at_work: cluster.leads(),
        candidates: members
            .voters
            .iter()
            .map(|node| cluster.called(*node))
            .collect(),
        loops: OF_ROOT.map(str::to_owned).to_vec(),
    }
}

fn of_zone(shared: &Shared, seat: String, standing: Option<Standing>) -> SeatView {
    let heard = standing.and_then(|standing| standing.heard);
    SeatView {
        seat,
        holder: standing.map(|it| shared.cluster.called(it.seat.holder)),
        epoch: standing.map(|it| it.epoch.0),
        since_unix_ms: standing.map(|it| it.seat.since.0),
        at_work: heard.is_some_and(|heard| heard + TIME_TO_LIVE > now()),
        candidates: Vec::new(),
        loops: OF_ZONE.map(str::to_owned).to_vec(),
    }
}
