//! Secrets: kept sealed in the store, given to the replicas that name them.
//!
//! In: values from people. Out: environments at the start of replicas.
//! Holds: a value is in the clear only between the socket it came on and the
//! vault, and between the vault and the shim; a secret that a service names is
//! there; a changed one reaches its replicas by the same rollout as any change.
//! Never: shows a value again, to anyone.

use crate::apply::{api_error, read_desired, storage};
use crate::projects::roll::roll;
use crate::shared::Shared;
use kernel::{Name, UnixMillis, error_chain};
use manifest::Manifest;
use node::desired::Desired;
use node::driver::{DriverError, ReplicaSpec};
use node::store::{Operation, Store, Transaction};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;
use vault::{Value, Vault, VaultError};
use wire::api::{ApiError, Fault, SecretReply, SecretView};
use wire::shim::Secrets;

const PREFIX: &str = "/secret/";

/// What the store has of a secret.
#[derive(Serialize, Deserialize)]
struct Kept {
    sealed: String,
    set_at: UnixMillis,
}

fn path(project: &Name, name: &Name) -> String {
    format!("{project}/{name}")
}

/// The secret's key in the store; it is sealed under the path.
fn key(path: &str) -> String {
    format!("{PREFIX}{path}")
}

fn unusable(error: &VaultError) -> ApiError {
    api_error("storage", error_chain(error), error.hint())
}

/// The variables that a replica's specification asks for, with their values.
pub async fn of_replica(shared: &Shared, spec: &ReplicaSpec) -> Result<Secrets, DriverError> {
    let mut secrets = Secrets::default();
    for (variable, path) in &spec.secrets {
        let value = open(shared, path).await.map_err(|why| {
            let what = format!("cannot give `{}` its {variable}: {why}", spec.id);
            DriverError::Failed { what, source: None }
        })?;
        // What was sealed came as text.
        let value = String::from_utf8_lossy(&value).into_owned();
        secrets.0.insert(variable.clone(), value);
    }
    Ok(secrets)
}

async fn open(shared: &Shared, path: &str) -> Result<Value, String> {
    let key = key(path);
    let entry = node::store::get(&shared.control, &key).await;
    let Some(entry) = entry.map_err(|error| error.to_string())? else {
        return Err(format!("there is no secret `{path}`"));
    };
    let told = |error: VaultError| match error.hint() {
        Some(hint) => format!("{}; {hint}", error_chain(&error)),
        None => error_chain(&error),
    };
    let kept: Kept = serde_json::from_slice(&entry.value).map_err(|_| {
        told(VaultError::Damaged {
            name: path.to_owned(),
        })
    })?;
    let vault = Vault::read(&shared.layout.keys()).map_err(told)?;
    vault.open_value(path, &kept.sealed).map_err(told)
}

/// What keeps replicas from getting their secrets, if anything does.
pub async fn fault(shared: &Shared) -> Option<Fault> {
    if !shared.cluster.leads() {
        return None;
    }
    let kept = shared.control.range(PREFIX).await.ok()?.entries;
    let keys = shared.layout.keys();
    // A node without secrets needs no key; one that is there must be good.
    if kept.is_empty() && !keys.exists() {
        return None;
    }
    let look = move || {
        let vault = match Vault::read(&keys) {
            Err(VaultError::File { source, .. })
                if kept.is_empty() && source.kind() == ErrorKind::NotFound =>
            {
                return Ok(());
            }
            other => other?,
        };
        kept.iter().try_for_each(|entry| {
            let path = entry.key.strip_prefix(PREFIX).unwrap_or(&entry.key);
            let damaged = |_| VaultError::Damaged {
                name: path.to_owned(),
            };
            let kept: Kept = serde_json::from_slice(&entry.value).map_err(damaged)?;
            vault.check(path, &kept.sealed)
        })
    };
    let found = tokio::task::spawn_blocking(look).await.ok()?;
    found.err().map(|error| Fault {
        found: error_chain(&error),
        mend: error.hint().map(str::to_owned),
    })
}

/// Keeps a value, and moves the services that name it to it.
pub async fn set(
    shared: &Arc<Shared>,
    project: &Name,
    name: &Name,
    value: &str,
) -> Result<SecretReply, ApiError> {
    if value.is_empty() || value.contains('\0') {
        let why = if value.is_empty() {
            "is empty"
        } else {
            "has a zero byte, which no environment can hold"
        };
        return Err(api_error(
            "invalid_secret",
            format!("the value for secret `{name}` {why}"),
            Some(&format!(
                "homeostat secret set {name} --project {project} < FILE"
            )),
        ));
    }
    let path = path(project, name);
    let (keys, sealed_under, text) = (shared.layout.keys(), path.clone(), Value::new(value.into()));
    let sealed = tokio::task::spawn_blocking(move || {
        Vault::of_cluster(&keys).and_then(|vault| vault.seal(&sealed_under, &text))
    })
    .await
    .map_err(|error| api_error("internal", error.to_string(), None))?
    .map_err(|error| unusable(&error))?;
    let kept = Kept {
        sealed,
        set_at: crate::machine::unix_now(),
    };
    let kept = serde_json::to_vec(&kept)
        .map_err(|error| api_error("internal", error.to_string(), None))?;
    let put = Operation::Put(key(&path), kept);
    let _applying = shared.applying.lock().await;
    let named = |service: &manifest::Service| service.secrets.values().any(|it| it == name);
    let services = roll(shared, project, named, vec![put]).await?;
    Ok(SecretReply { services })
}

/// Names and times of all secrets, in order.
pub async fn list(shared: &Shared) -> Result<Vec<SecretView>, ApiError> {
    let desired = read_desired(&shared.control)
        .await
        .map_err(|error| storage(&error))?;
    let range = shared.control.range(PREFIX).await;
    let entries = range.map_err(|error| storage(&error))?.entries;
    let view = |entry: node::store::Entry| {
        let (project, name) = entry.key.strip_prefix(PREFIX)?.split_once('/')?;
        let kept: Option<Kept> = serde_json::from_slice(&entry.value).ok();
        Some(SecretView {
            project: project.to_owned(),
            name: name.to_owned(),
            set_unix_ms: kept.map_or(0, |kept| kept.set_at.0),
            services: users(&desired, project, name),
        })
    };
    Ok(entries.into_iter().filter_map(view).collect())
}

fn users(desired: &Desired, project: &str, name: &str) -> Vec<String> {
    let of = |service: &manifest::Service| service.secrets.values().any(|it| it.as_str() == name);
    let of_job = |job: &manifest::Job| job.secrets.values().any(|it| it.as_str() == name);
    let services = desired
        .services()
        .filter(|(_, service, applied)| applied.manifest.project.as_str() == project && of(service))
        .map(|(service, ..)| format!("service/{}", service.name));
    let jobs = desired
        .manifest_jobs()
        .filter(|(job, it, _)| job.project.as_str() == project && of_job(it))
        .map(|(job, ..)| format!("job/{}", job.name));
    services.chain(jobs).collect()
}

/// Refused while a service names it.
pub async fn remove(shared: &Arc<Shared>, project: &Name, name: &Name) -> Result<(), ApiError> {
    let _applying = shared.applying.lock().await;
    let secrets = list(shared).await?;
    let found = secrets
        .into_iter()
        .find(|secret| secret.project == project.as_str() && secret.name == name.as_str());
    let Some(found) = found else {
        return Err(api_error(
            "not_found",
            format!("project `{project}` has no secret `{name}`"),
            Some("homeostat secret ls"),
        ));
    };
    if !found.services.is_empty() {
        return Err(api_error(
            "conflict",
            format!(
                "the secret `{name}` is named by {}",
                found.services.join(", ")
            ),
            Some("take it out of the manifest and apply that first"),
        ));
    }
    let transaction = Transaction {
        then: vec![Operation::Delete(key(&path(project, name)))],
        ..Transaction::default()
    };
    let done = shared.control.transact(transaction).await;
    done.map(drop).map_err(|error| storage(&error))
}

/// Refuses a manifest that names a secret which is not there.
pub async fn require(store: &dyn Store, manifest: &Manifest) -> Result<(), ApiError> {
    let project = &manifest.project;
    let prefix = key(&format!("{project}/"));
    let range = store.range(&prefix).await.map_err(|e| storage(&e))?;
    let there: BTreeSet<&str> = range
        .entries
        .iter()
        .filter_map(|entry| entry.key.strip_prefix(&prefix))
        .collect();
    let mut missing = Vec::new();
    let services = manifest.services.iter();
    let services = services.map(|(name, it)| (format!("service/{name}"), &it.secrets));
    let jobs = manifest.jobs.iter();
    let jobs = jobs.map(|(name, it)| (format!("job/{name}"), &it.secrets));
    for (object, secrets) in services.chain(jobs) {
        for (variable, name) in secrets {
            if !there.contains(name.as_str()) {
                missing.push((object.clone(), variable, name));
            }
        }
    }
    let Some((_, _, first)) = missing.first() else {
        return Ok(());
    };
    let told: Vec<String> = missing
        .iter()
        .map(|(object, variable, name)| {
            format!("{object} takes {variable} from the secret `{name}`")
        })
        .collect();
    Err(api_error(
        "missing_secret",
        format!(
            "{}: not set in project `{project}`; nothing was changed",
            told.join(", ")
        ),
        Some(&format!("homeostat secret set {first} --project {project}")),
    ))
}
