//! Jobs: begin a run, end one. How they stand is shown as objects.

use super::guard::Caller;
use super::{Agent, Refused};
use crate::apply::jobs;
use crate::objects;
use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use std::sync::Arc;
use wire::api::{ApiError, JobCancelReply, JobRunReply, JobRunRequest};

/// Answered once it is written down that it runs. `job`: `backup`, or
/// `news/backup`, its slash escaped.
#[utoipa::path(post, path = "/v1/jobs/{job}/runs", params(("job" = String, Path)),
    request_body = JobRunRequest,
    responses((status = 200, body = JobRunReply), (status = 404, body = ApiError),
        (status = 409, body = ApiError)))]
pub async fn run(
    State(shared): Agent,
    caller: Caller,
    Path(job): Path<String>,
    Json(request): Json<JobRunRequest>,
) -> Result<Json<JobRunReply>, Refused> {
    let job = objects::job(&shared, &job, caller.who.project()).await;
    let job = job.map_err(Refused)?;
    let change = caller.change(&shared, format!("job/{job}")).await?;
    let asked = Arc::clone(&shared);
    let begin = async move { jobs::ask(&asked, &job, request.arguments).await };
    Ok(Json(change.run(begin).await?))
}

#[derive(Deserialize)]
pub struct CancelQuery {
    /// None: all that go on.
    run: Option<u64>,
}

/// Its attempts are asked to end, and killed after `stop_grace`.
#[utoipa::path(post, path = "/v1/jobs/{job}/cancel",
    params(("job" = String, Path), ("run" = Option<u64>, Query)),
    responses((status = 200, body = JobCancelReply), (status = 404, body = ApiError),
        (status = 409, body = ApiError)))]
pub async fn cancel(
    State(shared): Agent,
    caller: Caller,
    Path(job): Path<String>,
    Query(query): Query<CancelQuery>,
) -> Result<Json<JobCancelReply>, Refused> {
    let job = objects::job(&shared, &job, caller.who.project()).await;
    let job = job.map_err(Refused)?;
    let change = caller.change(&shared, format!("job/{job}")).await?;
    let asked = Arc::clone(&shared);
    let end = async move { jobs::cancel(&asked, &job, query.run).await };
    Ok(Json(change.run(end).await?))
}
