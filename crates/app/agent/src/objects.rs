//! Objects as `get` shows them: what is desired beside what is observed.

use crate::apply::{api_error, read_desired, read_history, storage};
use crate::shared::Shared;
use kernel::{Name, ObjectRef, ReplicaId, ScopedName, ScopedNameError, UnixMillis};
use node::ReplicaStatus;
use node::desired::Desired;
use node::nodes::{NodeRecord, node_of};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use wire::api::{ApiError, Object};
use wire::decision::JournalEntry;

pub const KINDS: [&str; 6] = ["site", "service", "job", "replica", "node", "revision"];

/// `only`: the one project that whoever asks may know of, if it is so.
pub async fn list(
    shared: &Shared,
    kind: &str,
    only: Option<&Name>,
) -> Result<Vec<Object>, ApiError> {
    let mut desired = read_desired(shared.known())
        .await
        .map_err(|error| storage(&error))?;
    if let Some(only) = only {
        desired.projects.retain(|project, _| project == only);
    }
    let mut objects = match kind {
        "site" => sites(&desired),
        "service" => services(shared, &desired),
        "job" => crate::apply::jobs::list(shared, &desired),
        "replica" => replicas(shared, only),
        "node" => nodes(shared, only.is_none()),
        "revision" => revisions(shared, &desired).await?,
        _ => {
            return Err(api_error(
                "not_found",
                format!(
                    "no kind of object is called `{kind}`; there are {}",
                    KINDS.join(", ")
                ),
                Some("homeostat get services"),
            ));
        }
    };
    refer(&mut objects);
    Ok(objects)
}

/// Fills in what each is called: its name alone where no other has it.
fn refer(objects: &mut [Object]) {
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for object in objects.iter() {
        *count.entry(object.name.clone()).or_default() += 1;
    }
    for object in objects {
        let alone = count.get(&object.name) == Some(&1);
        let scope = object.project.as_ref().filter(|_| !alone);
        let scope = scope.map_or_else(String::new, |project| format!("{project}/"));
        object.reference = format!("{}/{scope}{}", object.kind, object.name);
    }
}

/// Whether a person who says `said` may mean it: by its name, alone or with its
/// project before it; a replica's also without its project.
fn answers(project: Option<&str>, name: &str, said: &str) -> bool {
    let Some(project) = project else {
        return said == name;
    };
    let dotted =
        |name| Some(name).and_then(|name: &str| name.strip_prefix(project)?.strip_prefix('.'));
    let within = dotted(name).unwrap_or(name);
    let scoped = said
        .strip_prefix(project)
        .and_then(|rest| rest.strip_prefix('/'));
    said == name || said == within || scoped == Some(within)
}

/// `said`: its name, with its project before it where several have it.
pub async fn one(
    shared: &Shared,
    kind: &str,
    said: &str,
    only: Option<&Name>,
) -> Result<Object, ApiError> {
    let mut found = list(shared, kind, only).await?;
    found.retain(|object| answers(object.project.as_deref(), &object.name, said));
    let choices = || found.iter().map(|object| object.reference.clone());
    match found.len() {
        0 | 1 => found.pop().ok_or_else(|| {
            api_error(
                "not_found",
                format!("no {kind} is called `{said}`"),
                Some(&format!("homeostat get {kind}s")),
            )
        }),
        _ => Err(ambiguous(kind, said, choices())),
    }
}

fn ambiguous(kind: &str, said: &str, choices: impl Iterator<Item = String>) -> ApiError {
    let choices: Vec<String> = choices.collect();
    let message = format!(
        "several projects have a {kind} called `{said}`: {}",
        choices.join(", ")
    );
    let help = format!("say whose: {kind}/PROJECT/{said}");
    api_error("ambiguous", message, Some(&help))
}

/// A service by what a person calls it.
pub async fn service(
    shared: &Shared,
    said: &str,
    only: Option<&Name>,
) -> Result<ScopedName, ApiError> {
    scoped(&one(shared, "service", said, only).await?)
}

/// A job by what a person calls it.
pub async fn job(shared: &Shared, said: &str, only: Option<&Name>) -> Result<ScopedName, ApiError> {
    scoped(&one(shared, "job", said, only).await?)
}

/// What has logs: a service, or a job as `job/NAME`.
pub async fn logged(
    shared: &Shared,
    said: &str,
    only: Option<&Name>,
) -> Result<(ScopedName, bool), ApiError> {
    match said.strip_prefix("job/") {
        Some(said) => Ok((job(shared, said, only).await?, true)),
        None => Ok((service(shared, said, only).await?, false)),
    }
}

fn scoped(object: &Object) -> Result<ScopedName, ApiError> {
    let name = as_subject(object).name.parse();
    name.map_err(|error: ScopedNameError| api_error("internal", error.to_string(), None))
}

/// As decisions name it.
fn as_subject(object: &Object) -> ObjectRef {
    match (object.kind.as_str(), &object.project) {
        (kind @ ("site" | "service" | "job"), Some(project)) => {
            ObjectRef::new(kind, format!("{project}/{}", object.name))
        }
        (kind, _) => ObjectRef::new(kind, &object.name),
    }
}

/// What a person means, as decisions name it. What is gone may still be asked
/// about; what is there comes first.
pub async fn subject(
    shared: &Shared,
    entries: &[JournalEntry],
    kind: &str,
    said: &str,
    only: Option<&Name>,
) -> Result<ObjectRef, ApiError> {
    let error = match one(shared, kind, said, only).await {
        Ok(object) => return Ok(as_subject(&object)),
        Err(error) if error.code == "not_found" => error,
        Err(error) => return Err(error),
    };
    let gone: BTreeSet<&ObjectRef> = entries
        .iter()
        .filter_map(|entry| match entry {
            JournalEntry::Decision(decision) => Some(&decision.subject),
            JournalEntry::Observation(_) => None,
        })
        .filter(|subject| subject.kind == kind && is_of(subject, only))
        .filter(|subject| {
            let scope = scope(subject);
            let project = scope.as_ref().map(|name| name.project.as_str());
            let name = match &scope {
                Some(name) if subject.kind != "replica" => name.name.as_str(),
                _ => &subject.name,
            };
            answers(project, name, said)
        })
        .collect();
    let mut gone = gone.into_iter();
    match (gone.next(), gone.len()) {
        (None, _) => Err(error),
        (Some(one), 0) => Ok(one.clone()),
        (Some(first), _) => {
            let choices = std::iter::once(first).chain(gone).map(ToString::to_string);
            Err(ambiguous(kind, said, choices))
        }
    }
}

/// The service or site that a decision is about, of a replica its service.
pub fn scope(subject: &ObjectRef) -> Option<ScopedName> {
    if subject.kind == "replica" {
        return Some(subject.name.parse::<ReplicaId>().ok()?.service);
    }
    subject.name.parse().ok()
}

/// Whether whoever may know of `only` one project may know of it.
pub fn is_of(subject: &ObjectRef, only: Option<&Name>) -> bool {
    only.is_none_or(|only| scope(subject).is_some_and(|name| name.project == *only))
}

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or(Value::Null)
}

fn sites(desired: &Desired) -> Vec<Object> {
    desired
        .sites()
        .map(|(name, site, tree)| Object {
            kind: "site".to_owned(),
            name: name.name.to_string(),
            project: Some(name.project.to_string()),
            reference: String::new(),
            state: "ready".to_owned(),
            summary: format!("{} as {}", site.root, tree.short()),
            desired: value(site),
            observed: json!({ "tree": tree }),
        })
        .collect()
}

fn services(shared: &Shared, desired: &Desired) -> Vec<Object> {
    let all = replicas_by_service(shared);
    let readings = shared.readings.borrow().clone();
    desired
        .services()
        .map(|(name, service, _)| {
            let replicas = all.get(&name).map_or(&[][..], Vec::as_slice);
            let ready = replicas
                .iter()
                .filter(|replica| replica.state == "ready")
                .count();
            let state = service_state(ready, service.replicas);
            Object {
                kind: "service".to_owned(),
                name: name.name.to_string(),
                project: Some(name.project.to_string()),
                reference: String::new(),
                state: state.to_owned(),
                summary: format!("{ready}/{} replicas ready", service.replicas),
                desired: value(service),
                observed: json!({
                    "ready": ready,
                    "replicas": replicas,
                    "readings": readings.services.get(&name),
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

/// Of all nodes, as each last said.
fn replicas_by_service(shared: &Shared) -> BTreeMap<ScopedName, Vec<ReplicaStatus>> {
    let cluster = &shared.cluster;
    let mut all: BTreeMap<ScopedName, Vec<ReplicaStatus>> = BTreeMap::new();
    for (name, service) in &shared.status.borrow().services {
        all.insert(name.clone(), service.replicas.clone());
    }
    let reports = cluster.reports.borrow();
    for (node, report) in reports.iter().filter(|(node, _)| **node != cluster.own.id) {
        let up = cluster.reach(*node).is_up();
        for (name, service) in &report.status.services {
            let replicas = service.replicas.iter().cloned().map(|mut replica| {
                if !up {
                    "unknown".clone_into(&mut replica.state);
                }
                replica
            });
            all.entry(name.clone()).or_default().extend(replicas);
        }
    }
    all
}

fn replicas(shared: &Shared, only: Option<&Name>) -> Vec<Object> {
    let nodes = shared.cluster.nodes.borrow().clone();
    let called = |node| match nodes.get(&node) {
        Some(record) if nodes.len() > 1 => format!("on {}, ", record.name),
        _ => String::new(),
    };
    let all = replicas_by_service(shared);
    all.iter()
        .filter(|(name, _)| only.is_none_or(|only| name.project == *only))
        .flat_map(|(_, replicas)| replicas)
        .map(|replica| Object {
            kind: "replica".to_owned(),
            name: replica.replica.to_string(),
            project: Some(replica.replica.service.project.to_string()),
            reference: String::new(),
            state: replica.state.clone(),
            summary: format!(
                "{}pid {}, {} restarts",
                called(node_of(&replica.replica)),
                replica
                    .pid
                    .map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                replica.restarts
            ),
            desired: json!({
                "service": replica.replica.service.name,
                "generation": replica.replica.generation,
            }),
            observed: value(replica),
        })
        .collect()
}

fn nodes(shared: &Shared, whole: bool) -> Vec<Object> {
    let cluster = &shared.cluster;
    let all = cluster.nodes.borrow().clone();
    let others = all.values().filter(|record| record.id != cluster.own.id);
    let others = others.map(|record| other_node(shared, record));
    std::iter::once(this_node(shared, whole))
        .chain(others)
        .collect()
}

fn other_node(shared: &Shared, record: &NodeRecord) -> Object {
    let view = shared.cluster.view(record);
    Object {
        kind: "node".to_owned(),
        name: view.name.clone(),
        project: None,
        reference: String::new(),
        state: match view.state.as_str() {
            "alive" => "ready".to_owned(),
            other => other.to_owned(),
        },
        summary: format!("in {}, {} replicas ready", view.zone, view.ready),
        desired: Value::Null,
        observed: value(&view),
    }
}

fn this_node(shared: &Shared, whole: bool) -> Object {
    let edge = *shared.edge_connected.borrow();
    Object {
        kind: "node".to_owned(),
        name: shared.cluster.name().to_string(),
        project: None,
        reference: String::new(),
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
        for applied in read_history(shared.known(), project).await? {
            found.push(Object {
                kind: "revision".to_owned(),
                name: format!("{project}-{}", applied.number),
                project: Some(project.to_string()),
                reference: String::new(),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn site(project: &str, name: &str) -> Object {
        Object {
            kind: "site".to_owned(),
            name: name.to_owned(),
            project: Some(project.to_owned()),
            reference: String::new(),
            state: String::new(),
            summary: String::new(),
            desired: Value::Null,
            observed: Value::Null,
        }
    }

    #[test]
    fn a_reference_names_the_project_only_where_it_must_and_means_one_object() {
        let mut all = [site("a", "blog"), site("b", "blog"), site("b", "a")];
        refer(&mut all);
        let references = all.each_ref().map(|object| object.reference.as_str());
        assert_eq!(references, ["site/a/blog", "site/b/blog", "site/a"]);
        for reference in references {
            let said = reference.strip_prefix("site/").expect("a site");
            let meant = all
                .iter()
                .filter(|one| answers(one.project.as_deref(), &one.name, said));
            assert_eq!(meant.count(), 1, "{reference}");
        }
    }

    #[test]
    fn a_replica_is_meant_by_its_whole_name_or_with_its_project_before_it() {
        let is_meant = |said| answers(Some("news"), "news.search-g1-0", said);
        for said in ["news.search-g1-0", "search-g1-0", "news/search-g1-0"] {
            assert!(is_meant(said), "{said}");
        }
        for said in [
            "search-g1-1",
            "shop/search-g1-0",
            "news",
            "shop.search-g1-0",
        ] {
            assert!(!is_meant(said), "{said}");
        }
    }

    #[test]
    fn a_decision_is_of_the_project_whose_service_or_replica_it_is_on() {
        let (news, shop) = (Name::new("news"), Name::new("shop"));
        let (news, shop) = (news.expect("a name"), shop.expect("a name"));
        let service = ObjectRef::new("service", "news/search");
        let replica = ObjectRef::new("replica", "news.search-g1-0");
        let neither = ObjectRef::new("service", "search");
        for subject in [&service, &replica] {
            assert!(is_of(subject, Some(&news)) && is_of(subject, None));
            assert!(!is_of(subject, Some(&shop)));
        }
        assert!(is_of(&neither, None) && !is_of(&neither, Some(&news)));
    }
}
