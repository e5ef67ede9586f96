//! Makes what a replica is started from: paths and bindings resolved.

use crate::desired::{Applied, Desired};
use crate::driver::ReplicaSpec;
use crate::event::Settings;
use kernel::{Hash, Name, ReplicaId};
use manifest::{BindingTarget, Run, Service};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub fn replica_spec(
    id: ReplicaId,
    service: &Service,
    applied: &Applied,
    desired: &Desired,
    settings: &Settings,
) -> ReplicaSpec {
    let mut command = match &service.run {
        Run::Process(command) => command.clone(),
        Run::Wasm(_) | Run::Actor(_) => Vec::new(),
    };
    if let Some(program) = command.first_mut() {
        let copied = applied.programs.get(&id.service);
        let path = match copied {
            Some(hash) => Some(chunk_path(&settings.content_directory, hash)),
            None if program.contains('/') => Some(applied.directory.join(&*program)),
            None => None,
        };
        if let Some(path) = path {
            *program = path.to_string_lossy().into_owned();
        }
    }
    let mut environment = service.environment.clone();
    for binding in service.bindings.values() {
        let value = match &binding.target {
            BindingTarget::Service(_) => Some(settings.base_url.clone()),
            BindingTarget::Site(site) => site_directory(site, applied, desired, settings),
            BindingTarget::Bucket(_) => None,
        };
        environment.extend(binding.environment.clone().zip(value));
    }
    ReplicaSpec {
        id,
        command,
        directory: applied.directory.clone(),
        environment,
        secrets: secrets(service, applied),
        limits: service.limits.clone(),
    }
}

/// By variable, where each secret lies: names belong to the project.
fn secrets(service: &Service, applied: &Applied) -> BTreeMap<String, String> {
    let project = &applied.manifest.project;
    let named = service.secrets.iter();
    named
        .map(|(variable, name)| (variable.clone(), format!("{project}/{name}")))
        .collect()
}

fn chunk_path(content: &Path, hash: &Hash) -> PathBuf {
    let hex = hash.to_string();
    let (shard, rest) = hex.split_at(2);
    content.join("chunks").join(shard).join(rest)
}

fn site_directory(
    site: &Name,
    applied: &Applied,
    desired: &Desired,
    settings: &Settings,
) -> Option<String> {
    let elsewhere = || {
        desired
            .sites()
            .find(|(name, ..)| *name == site)
            .map(|(.., tree)| tree)
    };
    let tree = applied.trees.get(site).copied().or_else(elsewhere)?;
    let path = settings
        .sites_directory
        .join(site.as_str())
        .join(tree.to_string());
    Some(path.to_string_lossy().into_owned())
}
