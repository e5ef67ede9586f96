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
    let trusted = desired.policy(&applied.manifest.project).trusted;
    ReplicaSpec {
        work: work(&id, service, (applied, trusted), settings),
        project: applied.manifest.project.clone(),
        environment,
        secrets: secrets(service, applied),
        buckets,
        singleton: matches!(service.run, Run::Actor(_)),
        limits: limits(service, trusted),
        id,
    }
}

/// What a process of its own runs a guest as: actors, and components that the
/// edge is not trusted to.
fn worker_kind(run: &Run, trusted: bool) -> Option<&'static str> {
    match run {
        Run::Actor(_) => Some("actor"),
        Run::Wasm(_) if !trusted => Some("component"),
        Run::Wasm(_) | Run::Process(_) => None,
    }
}

fn work(
    id: &ReplicaId,
    service: &Service,
    (applied, trusted): (&Applied, bool),
    settings: &Settings,
) -> Work {
    // Content has the file of whatever runs from one; see `Run::file`.
    let hash = applied.programs.get(&id.service).copied();
    let file = hash.map(|hash| chunk_path(&settings.layout.content(), &hash));
    let command = match (&service.run, hash, worker_kind(&service.run, trusted)) {
        (_, _, Some(kind)) => worker_command(id, (kind, file), service, settings),
        (Run::Process(command), ..) => program(command, file.as_deref(), &applied.directory),
        (Run::Wasm(_) | Run::Actor(_), Some(module), None) => {
            return Work::Component(Component {
                module,
                time: service.limits.time.unwrap_or(service.deadline),
                calls: calls(service, applied, settings),
            });
        }
        (Run::Wasm(_) | Run::Actor(_), None, None) => Vec::new(),
    };
    Work::Process {
        command,
        directory: applied.directory.clone(),
    }
}

fn worker_command(
    id: &ReplicaId,
    (kind, file): (&str, Option<PathBuf>),
    service: &Service,
    settings: &Settings,
) -> Vec<String> {
    let mut command = worker(id, kind, settings);
    let limits = &service.limits;
    let time = limits.time.unwrap_or(service.deadline);
    let module = file.unwrap_or_default();
    command.extend(["--module".to_owned(), text(&module)]);
    command.extend(["--time".to_owned(), format_duration(time)]);
    command.extend(["--grace".to_owned(), format_duration(service.stop_grace)]);
    if kind == "actor" && !service.secrets.is_empty() {
        // What it keeps of them on disk is sealed as they are.
        command.extend(["--keys".to_owned(), text(&settings.layout.keys())]);
    }
    let memory = limits.memory.map(|memory| memory.0.to_string());
    let concurrency = limits.concurrency.map(|count| count.to_string());
    for (option, value) in [("--memory", memory), ("--concurrency", concurrency)] {
        let words = value.into_iter();
        command.extend(words.flat_map(|value| [option.to_owned(), value]));
    }
    command
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
fn limits(service: &Service, trusted: bool) -> Limits {
    let mut limits = service.limits.clone();
    let worker = worker_kind(&service.run, trusted);
    if let (Some(_), Some(memory)) = (worker, &mut limits.memory) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::ProjectPolicy;
    use kernel::{Revision, UnixMillis};

    fn spec(trusted: bool) -> ReplicaSpec {
        let name = |text| Name::new(text).expect("a name");
        let text = "[project]\nname = \"p\"\n[service.a]\nrun = { wasm = \"a.wasm\" }\n\
                    limits = { memory = \"16 MiB\" }\n";
        let manifest = manifest::parse(text, &name("p")).expect("a manifest");
        let service = manifest.services[&name("a")].clone();
        let applied = Applied {
            number: 1,
            at_unix: UnixMillis(1),
            directory: PathBuf::new(),
            trees: BTreeMap::new(),
            programs: BTreeMap::from([(name("a"), Hash([1; 32]))]),
            generations: BTreeMap::from([(name("a"), Revision(1))]),
            manifest,
        };
        let policy = ProjectPolicy {
            trusted,
            ..ProjectPolicy::default()
        };
        let desired = Desired {
            policies: BTreeMap::from([(name("p"), policy)]),
            ..Desired::default()
        };
        let id = "a-g1-0".parse().expect("an id");
        replica_spec(id, &service, &applied, &desired, &Settings::default())
    }

    #[test]
    fn an_untrusted_projects_component_runs_in_a_worker_of_its_own() {
        assert!(matches!(spec(true).work, Work::Component(_)));
        let apart = spec(false);
        let Work::Process { command, .. } = apart.work else {
            panic!("in the edge: {:?}", apart.work);
        };
        let kind = command.iter().position(|word| word == "--kind");
        assert_eq!(command[kind.expect("a kind") + 1], "component");
        assert!(command.contains(&"--module".to_owned()));
        let memory = apart.limits.memory.expect("a limit");
        assert_eq!(memory.0, (16 << 20) + WORKER_MEMORY.0);
    }
}
