//! Makes what a replica is started from: paths and bindings resolved.

use crate::desired::{Applied, Desired};
use crate::driver::{Component, ReplicaSpec, Work};
use crate::event::Settings;
use kernel::{Bytes, Hash, Name, ReplicaId, format_duration};
use manifest::{BindingTarget, Limits, Run, Service};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use wire::bucket::BucketGrant;
use wire::edge::AllowedCall;

const WORKER_MEMORY: Bytes = Bytes::mebibytes(64);

pub fn replica_spec(
    id: ReplicaId,
    service: &Service,
    applied: &Applied,
    desired: &Desired,
    settings: &Settings,
) -> ReplicaSpec {
    let mut environment = service.environment.clone();
    let mut buckets = BTreeMap::new();
    for (name, binding) in &service.bindings {
        let value = match &binding.target {
            BindingTarget::Service(_) => Some(settings.base_url.clone()),
            BindingTarget::Site(site) => site_directory(site, applied, desired, settings),
            BindingTarget::Bucket(bucket) => {
                let stated = applied.manifest.buckets.get(bucket);
                let grant = stated.map(|stated| BucketGrant {
                    bucket: bucket.clone(),
                    quota: stated.quota,
                    rate: stated.rate,
                });
                buckets.extend(grant.map(|grant| (name.clone(), grant)));
                None
            }
        };
        environment.extend(binding.environment.clone().zip(value));
    }
    ReplicaSpec {
        work: work(&id, service, applied, settings),
        project: applied.manifest.project.clone(),
        environment,
        secrets: secrets(service, applied),
        buckets,
        singleton: matches!(service.run, Run::Actor(_)),
        limits: limits(service),
        id,
    }
}

fn work(id: &ReplicaId, service: &Service, applied: &Applied, settings: &Settings) -> Work {
    // Content has the file of whatever runs from one; see `Run::file`.
    let hash = applied.programs.get(&id.service).copied();
    let file = hash.map(|hash| chunk_path(&settings.layout.content(), &hash));
    let time = service.limits.time.unwrap_or(service.deadline);
    let command = match (&service.run, hash) {
        (Run::Process(command), _) => program(command, file.as_deref(), &applied.directory),
        (Run::Wasm(_), Some(module)) => {
            return Work::Component(Component {
                module,
                time,
                calls: calls(service, applied, settings),
            });
        }
        (Run::Wasm(_), None) => Vec::new(),
        (Run::Actor(_), _) => {
            let mut command = worker(id, "actor", settings);
            let module = file.unwrap_or_default();
            command.extend(["--module".to_owned(), text(&module)]);
            command.extend(["--time".to_owned(), format_duration(time)]);
            command.extend(["--grace".to_owned(), format_duration(service.stop_grace)]);
            if !service.secrets.is_empty() {
                // What it keeps of them on disk is sealed as they are.
                command.extend(["--keys".to_owned(), text(&settings.layout.keys())]);
            }
            let limits = &service.limits;
            let memory = limits.memory.map(|memory| memory.0.to_string());
            let concurrency = limits.concurrency.map(|count| count.to_string());
            for (option, value) in [("--memory", memory), ("--concurrency", concurrency)] {
                command.extend(
                    value
                        .into_iter()
                        .flat_map(|value| [option.to_owned(), value]),
                );
            }
            command
        }
    };
    Work::Process {
        command,
        directory: applied.directory.clone(),
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

/// A worker needs memory beside its guest's.
fn limits(service: &Service) -> Limits {
    let mut limits = service.limits.clone();
    if let (Run::Actor(_), Some(memory)) = (&service.run, &mut limits.memory) {
        memory.0 = memory.0.saturating_add(WORKER_MEMORY.0);
    }
    limits
}

/// A program that content has runs from there.
fn program(command: &[String], copied: Option<&Path>, directory: &Path) -> Vec<String> {
    let mut command = command.to_vec();
    if let Some(program) = command.first_mut() {
        match copied {
            Some(path) => *program = text(path),
            None if program.contains('/') => *program = text(&directory.join(&*program)),
            None => {}
        }
    }
    command
}

/// The start of a worker's command.
fn worker(id: &ReplicaId, kind: &str, settings: &Settings) -> Vec<String> {
    let state = settings.layout.actors().join(id.service.as_str());
    let words = [
        "worker",
        "--kind",
        kind,
        "--service",
        id.service.as_str(),
        "--cache",
        &text(&settings.layout.compiled()),
        "--state",
        &text(&state),
    ];
    let mut command = vec![text(&settings.program)];
    command.extend(words.map(str::to_owned));
    command
}

/// Requests to the bound services' routes, at the local edge.
fn calls(service: &Service, applied: &Applied, settings: &Settings) -> Vec<AllowedCall> {
    let authority = settings.base_url.split("//").nth(1).unwrap_or_default();
    let bound = service.bindings.values().filter_map(|binding| {
        let BindingTarget::Service(name) = &binding.target else {
            return None;
        };
        let routes = &applied.manifest.services.get(name)?.routes;
        Some(AllowedCall {
            authority: authority.to_owned(),
            paths: routes.iter().map(|route| route.path.0.clone()).collect(),
        })
    });
    bound.collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
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
    let sites = settings.layout.sites();
    Some(text(&sites.join(site.as_str()).join(tree.to_string())))
}
