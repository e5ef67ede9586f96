//! What would change between two checked manifests.
//!
//! Holds: equal manifests differ in nothing; changes come in the order site,
//! service, job, bucket, and by name. Never: shows a value of the environment; it may be a
//! secret, and plans are kept and shown.

use crate::model::Manifest;
use kernel::{Bytes, Name, ObjectRef};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Create,
    Update,
    Remove,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Remove => "remove",
        })
    }
}

/// One object's change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub action: Action,
    pub object: ObjectRef,
    /// One line a field, `replicas: 1 -> 2`; for a new object `replicas: 2`.
    pub details: Vec<String>,
}

/// What leads from `old` (nothing, if unset) to `new`. Another project's name
/// is an update of `project/NEW`.
pub fn diff(old: Option<&Manifest>, new: &Manifest) -> Vec<Change> {
    let mut changes = Vec::new();
    if let Some(old) = old.filter(|old| old.project != new.project) {
        changes.push(Change {
            action: Action::Update,
            object: ObjectRef::new("project", &new.project),
            details: vec![format!("name: {} -> {}", old.project, new.project)],
        });
    }
    if let Some(old) = old.filter(|old| old.network != new.network) {
        changes.push(Change {
            action: Action::Update,
            object: ObjectRef::new("project", &new.project),
            details: vec![format!("network: {} -> {}", old.network, new.network)],
        });
    }
    objects("site", old.map(|old| &old.sites), &new.sites, &mut changes);
    objects(
        "service",
        old.map(|old| &old.services),
        &new.services,
        &mut changes,
    );
    objects("job", old.map(|old| &old.jobs), &new.jobs, &mut changes);
    objects(
        "bucket",
        old.map(|old| &old.buckets),
        &new.buckets,
        &mut changes,
    );
    changes
}

fn objects<T: Serialize + PartialEq>(
    kind: &str,
    old: Option<&BTreeMap<Name, T>>,
    new: &BTreeMap<Name, T>,
    changes: &mut Vec<Change>,
) {
    let names: BTreeSet<&Name> = old
        .into_iter()
        .flat_map(BTreeMap::keys)
        .chain(new.keys())
        .collect();
    for name in names {
        let before = old.and_then(|old| old.get(name));
        let after = new.get(name);
        let action = match (before, after) {
            (None, _) => Action::Create,
            (_, None) => Action::Remove,
            (before, after) if before == after => continue,
            _ => Action::Update,
        };
        let details = match action {
            Action::Remove => Vec::new(),
            _ => details(&fields(before), &fields(after)),
        };
        let object = ObjectRef::new(kind, name);
        changes.push(Change {
            action,
            object,
            details,
        });
    }
}

fn details(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let line = |key: &String| {
        let secret = key.starts_with("environment.");
        match (before.get(key), after.get(key)) {
            (old, new) if old == new => None,
            (None, Some(_)) if secret => Some(format!("{key}: set")),
            (Some(_), Some(_)) if secret => Some(format!("{key}: changed")),
            (Some(_), None) if secret => Some(format!("{key}: unset")),
            (None, Some(new)) if before.is_empty() => Some(format!("{key}: {new}")),
            (old, new) => {
                let show = |text: Option<&String>| text.map_or("unset", String::as_str).to_owned();
                Some(format!("{key}: {} -> {}", show(old), show(new)))
            }
        }
    };
    keys.into_iter().filter_map(line).collect()
}

/// Every set field of an object, by its dotted path.
fn fields<T: Serialize>(object: Option<&T>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let value = object.and_then(|object| serde_json::to_value(object).ok());
    if let Some(value) = value {
        flatten("", &value, &mut all);
    }
    all
}

fn flatten(path: &str, value: &Value, all: &mut BTreeMap<String, String>) {
    let text = match value {
        Value::Object(map) => {
            for (key, value) in map {
                let dot = if path.is_empty() { "" } else { "." };
                flatten(&format!("{path}{dot}{key}"), value, all);
            }
            return;
        }
        Value::Null => return,
        Value::Array(items) if items.is_empty() => return,
        Value::Array(items) => match routes(items) {
            Some(routes) => routes,
            None => value.to_string(),
        },
        Value::String(text) => text.clone(),
        Value::Number(number) if path == "limits.memory" || path == "quota" => number
            .as_u64()
            .map_or_else(|| number.to_string(), |bytes| Bytes(bytes).to_string()),
        other => other.to_string(),
    };
    all.insert(path.to_owned(), text);
}

/// Routes as people know them: host and path in one.
fn routes(items: &[Value]) -> Option<String> {
    let route = |item: &Value| {
        let (host, path) = (item.get("host")?.as_str()?, item.get("path")?.as_str()?);
        Some(format!("{host}{path}"))
    };
    let texts: Option<Vec<String>> = items.iter().map(route).collect();
    texts.map(|texts| texts.join(", "))
}
