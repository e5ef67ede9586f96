//! Projects: their policies, set and listed.

use super::guard::Caller;
use super::{Agent, Refused, name};
use crate::projects;
use axum::Json;
use axum::extract::{Path, State};
use wire::api::{Policy, ProjectView};

#[utoipa::path(get, path = "/v1/projects", responses((status = 200, body = Vec<ProjectView>)))]
pub async fn list(State(shared): Agent, caller: Caller) -> Result<Json<Vec<ProjectView>>, Refused> {
    let all = projects::list(&shared, caller.who.project()).await;
    all.map(Json).map_err(Refused)
}

/// Replaces the whole policy.
#[utoipa::path(post, path = "/v1/projects/{project}", request_body = Policy,
    params(("project" = String, Path)), responses((status = 200, body = ProjectView)))]
pub async fn set(
    State(shared): Agent,
    caller: Caller,
    Path(project): Path<String>,
    Json(policy): Json<Policy>,
) -> Result<Json<ProjectView>, Refused> {
    let project = name(&project)?;
    let change = caller.change(&shared, format!("project/{project}")).await?;
    change
        .run(async move { projects::set(&shared, &project, &policy).await })
        .await
        .map(Json)
}
