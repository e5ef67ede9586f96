//! What each project may do on this node: trust and quotas.
//!
//! Holds: a manifest over a quota changes nothing, and is told every number
//! with its limit; a policy that cannot be read is an error, never a project
//! without limits.

pub mod roll;

use crate::apply::{api_error, read_desired, storage};
use crate::shared::Shared;
use kernel::{Bytes, Name};
use manifest::{Manifest, Run};
use node::desired::{POLICY_PREFIX, ProjectPolicy, policy_key};
use node::store::{Operation, Store, StoreError};
use roll::roll;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wire::api::{ApiError, Policy, ProjectView};

/// All policies that were set.
pub async fn read_policies(store: &dyn Store) -> Result<BTreeMap<Name, ProjectPolicy>, StoreError> {
    let range = store.range(POLICY_PREFIX).await?;
    let mut policies = BTreeMap::new();
    for entry in range.entries {
        let damaged =
            |error: &dyn std::error::Error| StoreError::Invalid(format!("{}: {error}", entry.key));
        let name = entry.key.strip_prefix(POLICY_PREFIX).unwrap_or_default();
        let project = Name::new(name).map_err(|error| damaged(&error))?;
        let policy = serde_json::from_slice(&entry.value).map_err(|error| damaged(&error))?;
        policies.insert(project, policy);
    }
    Ok(policies)
}

/// Refuses a manifest that its project's policy does not allow.
pub async fn require(store: &dyn Store, manifest: &Manifest) -> Result<(), ApiError> {
    let policies = read_policies(store).await.map_err(|e| storage(&e))?;
    let project = &manifest.project;
    let over = policies
        .get(project)
        .map_or_else(Vec::new, |policy| over(policy, manifest));
    if over.is_empty() {
        return Ok(());
    }
    Err(api_error(
        "over_quota",
        format!(
            "the policy of project `{project}` refuses this: {}; nothing was changed",
            over.join(", ")
        ),
        Some(&format!(
            "lower it in the manifest, or ask an admin for: homeostat project set {project}"
        )),
    ))
}

/// All that goes beyond the policy, with number and limit.
fn over(policy: &ProjectPolicy, manifest: &Manifest) -> Vec<String> {
    let mut found = Vec::new();
    let services = &manifest.services;
    let count = u32::try_from(services.len()).unwrap_or(u32::MAX);
    if let Some(limit) = policy.services.filter(|limit| count > *limit) {
        found.push(format!("{count} services, {limit} at most"));
    }
    let replicas: u64 = services.values().map(|it| u64::from(it.replicas)).sum();
    if let Some(limit) = policy.replicas.filter(|limit| replicas > u64::from(*limit)) {
        found.push(format!("{replicas} replicas, {limit} at most"));
    }
    if let Some(limit) = policy.memory {
        let mut sum = 0_u64;
        for (name, service) in services {
            match service.limits.memory {
                Some(each) => {
                    let all = each.0.saturating_mul(u64::from(service.replicas));
                    sum = sum.saturating_add(all);
                }
                None => found.push(format!("service/{name} has no limit of memory")),
            }
        }
        if sum > limit.0 {
            found.push(format!("{} of memory, {limit} at most", Bytes(sum)));
        }
    }
    if let Some(limit) = policy.bucket_bytes {
        let quotas = manifest.buckets.values().map(|bucket| bucket.quota.0);
        let sum = quotas.fold(0_u64, u64::saturating_add);
        if sum > limit.0 {
            found.push(format!("{} in buckets, {limit} at most", Bytes(sum)));
        }
    }
    if !policy.trusted {
        let processes = services
            .iter()
            .filter(|(_, service)| matches!(service.run, Run::Process(_)));
        let services = processes.map(|(name, _)| format!("service/{name}"));
        let jobs = manifest.jobs.keys().map(|name| format!("job/{name}"));
        for object in services.chain(jobs) {
            found.push(format!(
                "{object} is a process, which an untrusted project may not run"
            ));
        }
    }
    found
}

fn stored(policy: &Policy) -> ProjectPolicy {
    ProjectPolicy {
        trusted: policy.trusted,
        services: policy.services,
        replicas: policy.replicas,
        memory: policy.memory_bytes.map(Bytes),
        bucket_bytes: policy.bucket_bytes.map(Bytes),
    }
}

fn shown(policy: &ProjectPolicy) -> Policy {
    Policy {
        trusted: policy.trusted,
        services: policy.services,
        replicas: policy.replicas,
        memory_bytes: policy.memory.map(|it| it.0),
        bucket_bytes: policy.bucket_bytes.map(|it| it.0),
    }
}

/// Replaces a project's policy. What runs already goes on, also where it is
/// over; wasm moves between edge and worker when the trust changes.
pub async fn set(
    shared: &Arc<Shared>,
    project: &Name,
    policy: &Policy,
) -> Result<ProjectView, ApiError> {
    let policy = stored(policy);
    let value = serde_json::to_vec(&policy)
        .map_err(|error| api_error("internal", error.to_string(), None))?;
    {
        let _applying = shared.applying.lock().await;
        let before = read_policies(&shared.control).await;
        let before = before.map_err(|error| storage(&error))?;
        let trusted = before.get(project).is_none_or(|before| before.trusted);
        let moves = trusted != policy.trusted;
        let put = Operation::Put(policy_key(project), value);
        roll(
            shared,
            project,
            |service| moves && matches!(service.run, Run::Wasm(_)),
            vec![put],
        )
        .await?;
    }
    let all = list(shared, Some(project)).await?;
    all.into_iter()
        .next()
        .ok_or_else(|| api_error("internal", "the policy is gone again", None))
}

/// Projects that are applied or have a policy; `only`: that one alone.
pub async fn list(shared: &Shared, only: Option<&Name>) -> Result<Vec<ProjectView>, ApiError> {
    let desired = read_desired(&shared.control)
        .await
        .map_err(|error| storage(&error))?;
    let names: BTreeSet<&Name> = desired
        .projects
        .keys()
        .chain(desired.policies.keys())
        .filter(|name| only.is_none_or(|only| *name == only))
        .collect();
    let view = |name: &Name| {
        let policy = desired.policy(name);
        let manifest = desired.projects.get(name).map(|it| &it.manifest);
        let services = manifest.iter().flat_map(|it| it.services.values());
        ProjectView {
            name: name.to_string(),
            services: services.clone().count() as u64,
            replicas: services.map(|it| u64::from(it.replicas)).sum(),
            over: manifest.map_or_else(Vec::new, |manifest| over(&policy, manifest)),
            policy: shown(&policy),
        }
    };
    Ok(names.into_iter().map(view).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let text = "[project]\nname = \"p\"\n\
            [service.a]\nrun = { process = [\"true\"] }\nreplicas = 3\nlimits = { memory = \"1 MiB\" }\n\
            [service.b]\nrun = { process = [\"true\"] }\nlimits = { memory = \"2 MiB\" }\n\
            [bucket.c]\nquota = \"4 MiB\"\nrate = 10\n";
        manifest::parse(text, &Name::new("p").expect("a name")).expect("a manifest")
    }

    #[test]
    fn a_policy_allows_what_is_just_at_its_limits_and_names_each_that_is_over() {
        let mut policy = ProjectPolicy {
            trusted: true,
            services: Some(2),
            replicas: Some(4),
            memory: Some(Bytes(5 << 20)),
            bucket_bytes: Some(Bytes(4 << 20)),
        };
        assert_eq!(over(&policy, &manifest()), Vec::<String>::new());
        assert_eq!(
            over(&ProjectPolicy::default(), &manifest()),
            Vec::<String>::new()
        );
        policy.services = Some(1);
        policy.replicas = Some(3);
        policy.memory = Some(Bytes((5 << 20) - 1));
        policy.bucket_bytes = Some(Bytes(1 << 20));
        policy.trusted = false;
        let told = over(&policy, &manifest()).join("\n");
        for wanted in [
            "2 services, 1 at most",
            "4 replicas, 3 at most",
            "5 MiB of memory",
            "4 MiB in buckets, 1 MiB at most",
            "service/a is a process",
            "service/b is a process",
        ] {
            assert!(told.contains(wanted), "{told}");
        }
    }

    #[test]
    fn a_limit_of_memory_wants_to_know_each_services() {
        let mut manifest = manifest();
        for service in manifest.services.values_mut() {
            service.limits.memory = None;
        }
        let policy = ProjectPolicy {
            memory: Some(Bytes(1 << 30)),
            ..ProjectPolicy::default()
        };
        assert_eq!(over(&policy, &manifest).len(), 2);
    }
}
