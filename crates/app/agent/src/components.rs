//! Components on their way to the edge: compiled ahead, given what they may
//! know, found again after a restart.
//!
//! Holds: hostile code meets the compiler in a process of its own, which may
//! die; a secret leaves here only sealed.
//! Never: runs a component.

use crate::cluster::give;
use crate::shared::Shared;
use kernel::ReplicaId;
use node::driver::{Adopted, Component, DriverError, Found, ReplicaSpec, Running};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::Semaphore;
use wire::edge::{EdgeSnapshot, SNAPSHOT_VERSION};
use wire::layout::Layout;

/// For the largest component; a hostile one must not compile for ever.
const COMPILE_MAX: Duration = Duration::from_mins(2);
/// Each may use all cores.
const COMPILING_MAX: usize = 2;

/// What is wrong with a component, and the next step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unfit {
    pub message: String,
    pub help: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Component,
    Actor,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Actor => "actor",
        }
    }

    pub fn read(word: &str) -> Option<Self> {
        [Self::Component, Self::Actor]
            .into_iter()
            .find(|kind| kind.word() == word)
    }
}

impl Unfit {
    fn because(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
        }
    }
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

/// The components that this agent has given, or gives, to the edge.
pub struct Components {
    program: PathBuf,
    compiling: Semaphore,
    given: Mutex<BTreeMap<ReplicaId, Given>>,
}

/// What the snapshot says of one beside what the node knows.
#[derive(Clone, Debug, Default)]
struct Given {
    secrets: BTreeMap<String, String>,
    capability: Option<String>,
}

impl Components {
    pub fn new(program: PathBuf) -> Self {
        Self {
            program,
            compiling: Semaphore::new(COMPILING_MAX),
            given: Mutex::default(),
        }
    }

    /// Compiles and links a file in a process of its own.
    pub async fn check(&self, layout: &Layout, kind: Kind, file: &Path) -> Result<(), Unfit> {
        let Ok(_place) = self.compiling.acquire().await else {
            return Err(Unfit::because("the agent is going down"));
        };
        let child = Command::new(&self.program)
            .args(["compile", kind.word()])
            .args([layout.compiled().as_path(), file])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Unfit::because(format!("the compiler did not start: {error}")))?;
        let waited = tokio::time::timeout(COMPILE_MAX, child.wait_with_output()).await;
        let span = kernel::format_duration(COMPILE_MAX);
        let outcome = waited
            .map_err(|_| Unfit::because(format!("it did not compile within {span}")))?
            .map_err(|error| Unfit::because(format!("the compiler was lost: {error}")))?;
        if outcome.status.success() {
            return Ok(());
        }
        let said = serde_json::from_slice(&outcome.stdout);
        Err(said.unwrap_or_else(|_| {
            Unfit::because(format!("the compiler ended with {}", outcome.status))
        }))
    }

    /// Everything that the edge needs to run it.
    pub async fn prepare(
        &self,
        shared: &Shared,
        spec: &ReplicaSpec,
        component: &Component,
    ) -> Result<(), DriverError> {
        let failed = |what: String| DriverError::Failed { what, source: None };
        let file = shared.content.path(component.module);
        let checked = self.check(&shared.layout, Kind::Component, &file).await;
        checked.map_err(|unfit| failed(unfit.to_string()))?;
        let mut given = Given::default();
        let known = give::of_replica(shared, spec).await.map_err(failed)?;
        for (variable, path) in &spec.secrets {
            let value = known.secrets.get(variable);
            let sealed = sealed_here(shared, value, path).map_err(failed)?;
            // What it was sealed under goes along: a path has no space.
            given
                .secrets
                .insert(variable.clone(), format!("{path} {sealed}"));
        }
        given.capability = known.capability;
        self.given().insert(spec.id.clone(), given);
        Ok(())
    }

    pub fn has(&self, replica: &ReplicaId) -> bool {
        self.given().contains_key(replica)
    }

    pub fn forget(&self, replica: &ReplicaId) {
        self.given().remove(replica);
    }

    /// Adds to a snapshot what its components were given.
    pub fn complete(&self, snapshot: &mut EdgeSnapshot) {
        let all = self.given();
        for (replica, view) in &mut snapshot.components {
            if let Some(given) = all.get(replica) {
                view.secrets.clone_from(&given.secrets);
                view.capability.clone_from(&given.capability);
            }
        }
    }

    /// Those in the routes of the edge's last snapshot: an edge that lives runs
    /// them, and one that starts does.
    pub fn adopt(&self, layout: &Layout) -> Vec<Adopted> {
        let Some(snapshot) = read_snapshot(&layout.edge_snapshot()) else {
            return Vec::new();
        };
        let views = snapshot.services.values();
        let routed = views.flat_map(|view| &view.endpoints);
        let routed = routed.filter(|one| one.address.is_none() && one.node.is_none());
        let mut all = self.given();
        let mut found = Vec::new();
        for endpoint in routed {
            let Some(view) = snapshot.components.get(&endpoint.replica) else {
                continue;
            };
            let given = Given {
                secrets: view.secrets.clone(),
                capability: view.capability.clone(),
            };
            all.insert(endpoint.replica.clone(), given);
            found.push(Adopted {
                replica: endpoint.replica.clone(),
                state: Found::Running(Running {
                    // The edge tells it when it is asked.
                    pid: 0,
                    address: None,
                    since: view.since,
                }),
            });
        }
        found
    }

    fn given(&self) -> std::sync::MutexGuard<'_, BTreeMap<ReplicaId, Given>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A value that the leader gave, sealed with this node's key.
fn sealed_here(shared: &Shared, value: Option<&String>, path: &str) -> Result<String, String> {
    let value = value.ok_or_else(|| format!("there is no secret `{path}`"))?;
    vault::Vault::open(&shared.layout.keys())
        .and_then(|vault| vault.seal(path, value.as_bytes()))
        .map_err(|error| kernel::error_chain(&error))
}

/// For the buckets that a replica is bound to; none without one.
pub async fn capability(
    shared: &Shared,
    spec: &ReplicaSpec,
) -> Result<Option<String>, DriverError> {
    if spec.buckets.is_empty() {
        return Ok(None);
    }
    let epoch = if spec.singleton {
        let epoch = shared.buckets.next_epoch().await;
        let failed = |error| DriverError::Failed {
            what: format!("no fencing epoch for `{}`: {error}", spec.id),
            source: None,
        };
        Some(epoch.map_err(failed)?)
    } else {
        None
    };
    let granted = (shared.buckets).grant(&spec.id, &spec.buckets, epoch);
    Ok(Some(granted))
}

fn read_snapshot(path: &Path) -> Option<EdgeSnapshot> {
    let bytes = std::fs::read(path).ok()?;
    let snapshot: EdgeSnapshot = serde_json::from_slice(&bytes).ok()?;
    (snapshot.format == SNAPSHOT_VERSION).then_some(snapshot)
}

/// The compiler's process: compiles the file into the cache, or says on
/// standard output why it is unfit.
pub fn compile(kind: Kind, cache: &Path, file: &Path) -> Result<(), Unfit> {
    let unfit = |error: wasm::WasmError| Unfit {
        message: kernel::error_chain(&error),
        help: error.hint(),
    };
    let unfit_actor = |error: wasm::ActorModuleError| Unfit {
        message: kernel::error_chain(&error),
        help: error.hint(),
    };
    let bytes = std::fs::read(file)
        .map_err(|error| Unfit::because(format!("cannot read {}: {error}", file.display())))?;
    let cache = wasm::CompiledCache::open(cache).map_err(unfit)?;
    match kind {
        Kind::Component => {
            let host = wasm::Host::new().map_err(unfit)?;
            wasm::check(&host, &cache, &bytes).map_err(unfit)
        }
        Kind::Actor => {
            let host = wasm::ActorHost::new().map_err(unfit)?;
            host.prepare(&cache, &bytes).map_err(unfit_actor)?;
            Ok(())
        }
    }
}

/// Checks each component of a manifest, so that an unfit one changes nothing.
pub async fn require(
    shared: &Arc<Shared>,
    manifest: &manifest::Manifest,
    programs: &BTreeMap<kernel::Name, kernel::Hash>,
) -> Result<(), wire::api::ApiError> {
    for (name, service) in &manifest.services {
        let (kind, file) = match &service.run {
            manifest::Run::Wasm(file) => (Kind::Component, file),
            manifest::Run::Actor(file) => (Kind::Actor, file),
            manifest::Run::Process(_) => continue,
        };
        let Some(hash) = programs.get(name) else {
            continue;
        };
        let path = shared.content.path(*hash);
        let checked = shared.components.check(&shared.layout, kind, &path).await;
        checked.map_err(|unfit| {
            crate::apply::api_error(
                "invalid_component",
                format!(
                    "service/{name}: {file} cannot run: {}; nothing was changed",
                    unfit.message
                ),
                unfit.help.as_deref(),
            )
        })?;
    }
    Ok(())
}
