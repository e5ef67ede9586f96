//! Makes what a replica is started from: paths and bindings resolved.

use crate::desired::{Applied, Desired};
use crate::driver::{Component, ReplicaSpec, Work};
use crate::event::Settings;
use kernel::{Bytes, Hash, Name, ReplicaId, ScopedName, format_duration};
use manifest::{BindingTarget, Limits, Run, Service};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use wire::bucket::BucketGrant;
use wire::edge::AllowedCall;

/// In which a singleton finds its epoch: what it writes to can refuse an earlier
/// one's.
pub const EPOCH_VARIABLE: &str = "HOMEOSTAT_EPOCH";
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
            BindingTarget::Service(_) | BindingTarget::Foreign(_) => {
                Some(settings.base_url.clone())
            }
            BindingTarget::Site(site) => site_directory(site, applied, settings),
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
    if let Some(view) = desired.callers.get(&id.service) {
        environment.extend(discovery::environment(&id.service, view));
    }
    if service.singleton {
        let epoch = applied.epoch(&id.service.name).0;
        environment.insert(EPOCH_VARIABLE.to_owned(), epoch.to_string());
    }
    let trusted = desired.policy(&applied.manifest.project).trusted;
    let calls = calls(&id.service, service, desired, settings);
    let work = work(&id, service, applied, calls, trusted, settings);
    ReplicaSpec {
        limits: limits(service, &work),
        work,
        environment,
        secrets: secrets(service, applied),
        buckets,
        singleton: service.singleton || matches!(service.run, Run::Actor(_)),
        leased: service.singleton,
        id,
    }
}

fn work(
    id: &ReplicaId,
    service: &Service,
    applied: &Applied,
    calls: Vec<AllowedCall>,
    trusted: bool,
    settings: &Settings,
) -> Work {
    // Content has the file of whatever runs from one; see `Run::file`.
    let hash = applied.programs.get(&id.service.name).copied();
    let file = hash.map(|hash| chunk_path(&settings.layout.content(), &hash));
    let command = match (&service.run, hash) {
        (Run::Process(command), _) => program(command, file.as_deref(), &applied.directory),
        (Run::Wasm(_), Some(module)) if trusted => {
            return Work::Component(Component {
                module,
                time: service.limits.time.unwrap_or(service.deadline),
                calls,
            });
        }
        (Run::Wasm(_), _) => {
            let mut command = worker(id, "component", file.as_deref(), service, settings);
            command.extend(of_components(service, &calls));
            command
        }
        (Run::Actor(_), _) => worker(id, "actor", file.as_deref(), service, settings),
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
fn limits(service: &Service, work: &Work) -> Limits {
    let mut limits = service.limits.clone();
    let in_worker = matches!(work, Work::Process { .. }) && !matches!(service.run, Run::Process(_));
    if let (true, Some(memory)) = (in_worker, &mut limits.memory) {
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

/// A worker's command.
fn worker(
    id: &ReplicaId,
    kind: &str,
    module: Option<&Path>,
    service: &Service,
    settings: &Settings,
) -> Vec<String> {
    let layout = &settings.layout;
    let state = layout.actor(&id.service);
    let time = service.limits.time.unwrap_or(service.deadline);
    let memory = service.limits.memory.map(|memory| memory.0.to_string());
    let concurrency = service.limits.concurrency.map(|count| count.to_string());
    // What an actor keeps of its secrets on disk is sealed as they are.
    let sealed = kind == "actor" && !service.secrets.is_empty();
    let options = [
        ("--kind", Some(kind.to_owned())),
        ("--service", Some(id.service.to_string())),
        ("--module", module.map(text)),
        ("--cache", Some(text(&layout.compiled()))),
        ("--state", Some(text(&state))),
        ("--time", Some(format_duration(time))),
        ("--grace", Some(format_duration(service.stop_grace))),
        ("--keys", sealed.then(|| text(&layout.keys()))),
        ("--memory", memory),
        ("--concurrency", concurrency),
    ];
    let set = options
        .into_iter()
        .filter_map(|(option, value)| Some([option.to_owned(), value?]));
    let program = [text(&settings.program), "worker".to_owned()];
    program.into_iter().chain(set.flatten()).collect()
}

/// More of a worker's options: how often an instance is used, and whom it may
/// call. Not by the environment, where a manifest could say it.
fn of_components(service: &Service, calls: &[AllowedCall]) -> Vec<String> {
    let reuse = service.limits.reuse.map(|reuse| reuse.to_string());
    let calls = calls.iter().map(|call| serde_json::to_string(call).ok());
    let options = std::iter::once(("--reuse", reuse)).chain(calls.map(|call| ("--call", call)));
    options
        .filter_map(|(option, value)| Some([option.to_owned(), value?]))
        .flatten()
        .collect()
}

/// Requests to the bound services' routes: at the local edge, by its address
/// and by the routes' own hosts.
fn calls(
    caller: &ScopedName,
    service: &Service,
    desired: &Desired,
    settings: &Settings,
) -> Vec<AllowedCall> {
    let authority = settings.base_url.split("//").nth(1).unwrap_or_default();
    let Ok(address) = authority.parse() else {
        return Vec::new();
    };
    let mut paths: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for binding in service.bindings.values() {
        let (project, name) = match &binding.target {
            BindingTarget::Service(name) => (&caller.project, name),
            BindingTarget::Foreign(there) => (&there.project, &there.name),
            BindingTarget::Site(_) | BindingTarget::Bucket(_) => continue,
        };
        let project = desired.projects.get(project);
        let bound = project.and_then(|it| it.manifest.services.get(name));
        let own = matches!(binding.target, BindingTarget::Service(_));
        let bound = bound.filter(|bound| own || discovery::admits(bound, caller));
        for route in bound.into_iter().flat_map(|bound| &bound.routes) {
            let host = Some(&route.host.0).filter(|host| !host.starts_with('*'));
            let host = host.map(String::as_str);
            for authority in [Some(authority), host].into_iter().flatten() {
                let of = paths.entry(authority.to_owned()).or_default();
                of.push(route.path.0.clone());
            }
        }
    }
    let call = |(authority, paths)| AllowedCall {
        authority,
        address,
        paths,
    };
    paths.into_iter().map(call).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn chunk_path(content: &Path, hash: &Hash) -> PathBuf {
    let hex = hash.to_string();
    let (shard, rest) = hex.split_at(2);
    content.join("chunks").join(shard).join(rest)
}

fn site_directory(site: &Name, applied: &Applied, settings: &Settings) -> Option<String> {
    let tree = applied.trees.get(site)?;
    Some(text(&settings.layout.site(&applied.scoped(site), tree)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::ProjectPolicy;
    use kernel::{Revision, UnixMillis};

    fn spec(trusted: bool) -> ReplicaSpec {
        let name = |text| Name::new(text).expect("a name");
        let text = "[project]\nname = \"p\"\n[service.a]\nrun = { wasm = \"a.wasm\" }\n\
                    limits = { memory = \"16 MiB\", reuse = 7 }\n\
                    bindings = { b = { to = \"service/b\", environment = \"B\" } }\n\
                    [service.b]\nrun = { wasm = \"a.wasm\" }\nroutes = [{ path = \"/b\" }]\n";
        let manifest = manifest::parse(text, &name("p")).expect("a manifest");
        let service = manifest.services[&name("a")].clone();
        let applied = Applied {
            number: 1,
            at_unix: UnixMillis(1),
            directory: PathBuf::new(),
            trees: BTreeMap::new(),
            programs: BTreeMap::from([(name("a"), Hash([1; 32]))]),
            generations: BTreeMap::from([(name("a"), Revision(1))]),
            placements: BTreeMap::new(),
            epochs: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            origin: crate::desired::FIRST_NODE,
            manifest,
        };
        let policy = ProjectPolicy {
            trusted,
            ..ProjectPolicy::default()
        };
        let desired = Desired {
            policies: BTreeMap::from([(name("p"), policy)]),
            projects: BTreeMap::from([(name("p"), applied.clone())]),
            ..Desired::default()
        };
        let id = "p.a-g1-0".parse().expect("an id");
        let settings = Settings {
            base_url: "http://127.0.0.1:8080".to_owned(),
            ..Settings::default()
        };
        replica_spec(id, &service, &applied, &desired, &settings)
    }

    #[test]
    fn an_untrusted_projects_component_runs_in_a_worker_of_its_own() {
        assert!(matches!(spec(true).work, Work::Component(_)));
        let apart = spec(false);
        let Work::Process { command, .. } = apart.work else {
            panic!("in the edge: {:?}", apart.work);
        };
        let option = |name: &str| {
            let at = command.iter().position(|word| word == name);
            command[at.expect("the option") + 1].as_str()
        };
        assert_eq!(option("--kind"), "component");
        assert!(command.contains(&"--module".to_owned()));
        assert_eq!(option("--reuse"), "7");
        let call: AllowedCall = serde_json::from_str(option("--call")).expect("JSON");
        assert_eq!(call.paths, ["/b"]);
        let memory = apart.limits.memory.expect("a limit");
        assert_eq!(memory.0, (16 << 20) + WORKER_MEMORY.0);
    }
}
