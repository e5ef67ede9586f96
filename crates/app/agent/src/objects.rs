//! Objects as `get` shows them: what is desired beside what is observed.

use crate::apply::{api_error, read_desired, read_history, storage};
use crate::shared::Shared;
use kernel::{Name, ObjectRef, ReplicaId, UnixMillis};
use node::desired::Desired;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use wire::api::{ApiError, Object};

pub const KINDS: [&str; 5] = ["site", "service", "replica", "node", "revision"];

/// `only`: the one project that whoever asks may know of, if it is so.
pub async fn list(
    shared: &Shared,
    kind: &str,
    only: Option<&Name>,
) -> Result<Vec<Object>, ApiError> {
    let desired = desired_of(shared, only).await?;
    match kind {
        "site" => Ok(sites(&desired)),
        "service" => Ok(services(shared, &desired)),
        "replica" => {
            let mut all = replicas(shared);
            if only.is_some() {
                let own = names(&desired);
                all.retain(|object| own.contains(&owner(&ObjectRef::new("replica", &object.name))));
            }
            Ok(all)
        }
        "node" => Ok(vec![this_node(shared, only.is_none())]),
        "revision" => revisions(shared, &desired).await,
        _ => Err(api_error(
            "not_found",
            format!(
                "no kind of object is called `{kind}`; there are {}",
                KINDS.join(", ")
            ),
            Some("homeostat get services"),
        )),
    }
}

async fn desired_of(shared: &Shared, only: Option<&Name>) -> Result<Desired, ApiError> {
    let mut desired = read_desired(&shared.store)
        .await
        .map_err(|error| storage(&error))?;
    if let Some(only) = only {
        desired.projects.retain(|project, _| project == only);
    }
    Ok(desired)
}

/// The sites and services of a project, as decisions name them.
pub async fn subjects(shared: &Shared, only: &Name) -> Result<BTreeSet<ObjectRef>, ApiError> {
    Ok(names(&desired_of(shared, Some(only)).await?))
}

fn names(desired: &Desired) -> BTreeSet<ObjectRef> {
    let services = desired.services().map(|(name, ..)| ("service", name));
    let sites = desired.sites().map(|(name, ..)| ("site", name));
    services
        .chain(sites)
        .map(|(kind, name)| ObjectRef::new(kind, name))
        .collect()
}

/// The service of a replica; of others, themselves.
pub fn owner(subject: &ObjectRef) -> ObjectRef {
    let replica = (subject.kind == "replica").then(|| subject.name.parse::<ReplicaId>());
    match replica {
        Some(Ok(replica)) => ObjectRef::new("service", replica.service),
        _ => subject.clone(),
    }
}

pub async fn one(
    shared: &Shared,
    kind: &str,
    name: &str,
    only: Option<&Name>,
) -> Result<Object, ApiError> {
    let objects = list(shared, kind, only).await?;
    objects
        .into_iter()
        .find(|object| object.name == name)
        .ok_or_else(|| {
            api_error(
                "not_found",
                format!("no {kind} is called `{name}`"),
                Some(&format!("homeostat get {kind}s")),
            )
        })
}

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or(Value::Null)
}

fn sites(desired: &Desired) -> Vec<Object> {
    desired
        .sites()
        .map(|(name, site, tree)| Object {
            kind: "site".to_owned(),
            name: name.to_string(),
            state: "ready".to_owned(),
            summary: format!("{} as {}", site.root, tree.short()),
            desired: value(site),
            observed: json!({ "tree": tree }),
        })
        .collect()
}

fn services(shared: &Shared, desired: &Desired) -> Vec<Object> {
    let status = shared.status.borrow().clone();
    let readings = shared.readings.borrow().clone();
    desired
        .services()
        .map(|(name, service, _)| {
            let replicas = status
                .services
                .get(name)
                .map_or(&[][..], |service| service.replicas.as_slice());
            let ready = replicas
                .iter()
                .filter(|replica| replica.state == "ready")
                .count();
            let state = service_state(ready, service.replicas);
            Object {
                kind: "service".to_owned(),
                name: name.to_string(),
                state: state.to_owned(),
                summary: format!("{ready}/{} replicas ready", service.replicas),
                desired: value(service),
                observed: json!({
                    "ready": ready,
                    "replicas": replicas,
                    "readings": readings.services.get(name),
                }),
            }
        })
        .collect()
}

fn service_state(ready: usize, wanted: u32) -> &'static str {
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    match ready {
        _ if ready >= wanted => "ready",
        0 => "down",
        _ => "degraded",
    }
}

fn replicas(shared: &Shared) -> Vec<Object> {
    let status = shared.status.borrow().clone();
    status
        .services
        .values()
        .flat_map(|service| &service.replicas)
        .map(|replica| Object {
            kind: "replica".to_owned(),
            name: replica.replica.to_string(),
            state: replica.state.clone(),
            summary: format!(
                "pid {}, {} restarts",
                replica.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                replica.restarts
            ),
            desired: json!({ "service": replica.replica.service, "generation": replica.replica.generation }),
            observed: value(replica),
        })
        .collect()
}

fn this_node(shared: &Shared, whole: bool) -> Object {
    let edge = *shared.edge_connected.borrow();
    Object {
        kind: "node".to_owned(),
        name: shared.node_name.clone(),
        state: if edge { "ready" } else { "degraded" }.to_owned(),
        summary: format!(
            "agent {}, edge {}",
            std::process::id(),
            if edge { "connected" } else { "away" }
        ),
        desired: Value::Null,
        // Readings name all projects' services.
        observed: if whole {
            json!({ "edge": shared.readings.borrow().clone() })
        } else {
            Value::Null
        },
    }
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// To the second, UTC (RFC 3339).
pub fn date(at: UnixMillis) -> String {
    let at = i64::try_from(at.0)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    // Only a damaged record is beyond the calendar.
    at.map_or_else(|| "at no date".to_owned(), |at| format!("{at:.0}"))
}

async fn revisions(shared: &Shared, desired: &Desired) -> Result<Vec<Object>, ApiError> {
    let mut found = Vec::new();
    let projects: Vec<(&Name, u64)> = desired
        .projects
        .iter()
        .map(|(project, applied)| (project, applied.number))
        .collect();
    for (project, current) in projects {
        for applied in read_history(&shared.store, project).await? {
            found.push(Object {
                kind: "revision".to_owned(),
                name: format!("{project}-{}", applied.number),
                state: if applied.number == current {
                    "current"
                } else {
                    "past"
                }
                .to_owned(),
                summary: format!(
                    "{}, {}, applied {}",
                    counted(applied.manifest.sites.len(), "site"),
                    counted(applied.manifest.services.len(), "service"),
                    date(applied.at_unix),
                ),
                desired: value(&applied),
                observed: Value::Null,
            });
        }
    }
    Ok(found)
}
