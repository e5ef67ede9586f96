//! Desired state as it lies in the store: which key holds what.

use crate::cluster::placing::Placements;
use crate::cluster::rollouts::UnderWay;
use jobs::Record;
use kernel::{Bytes, FencingEpoch, Hash, Name, NodeId, Revision, ScopedName, UnixMillis};
use manifest::{Binding, BindingTarget, Job, Manifest, Service, Site};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use wire::edge::Callers;

/// Everything below is under this prefix.
pub const PREFIX: &str = "/desired/";
/// The project's current [`Applied`].
pub fn head_key(project: &Name) -> String {
    format!("/desired/{project}/head")
}
/// Earlier ones, for `rollback`: `/history/news/00000000000000000012`.
pub fn history_key(project: &Name, number: u64) -> String {
    format!("/history/{project}/{number:020}")
}

/// All projects' policies are under this prefix.
pub const POLICY_PREFIX: &str = "/policy/";
/// The project's [`ProjectPolicy`], if one was set.
pub fn policy_key(project: &Name) -> String {
    format!("{POLICY_PREFIX}{project}")
}

/// Of all jobs, those of manifests that are gone among them, [`Record`]s are under
/// this prefix.
pub const JOBS_PREFIX: &str = "/job/";
pub fn job_key(job: &ScopedName) -> String {
    format!("{JOBS_PREFIX}{job}")
}

/// What a project may do on this node. Unset means no limit of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProjectPolicy {
    /// An untrusted project's wasm runs in workers, never in the edge, and it
    /// may run no processes: they have the rights of the node's user.
    pub trusted: bool,
    pub services: Option<u32>,
    /// Of all its services together.
    pub replicas: Option<u32>,
    /// Sum over all replicas of their services' memory limits.
    pub memory: Option<Bytes>,
    /// Sum of its buckets' quotas.
    pub bucket_bytes: Option<Bytes>,
}

impl Default for ProjectPolicy {
    fn default() -> Self {
        Self {
            trusted: true,
            services: None,
            replicas: None,
            memory: None,
            bucket_bytes: None,
        }
    }
}

/// One applied manifest with all it needs resolved: written in one transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// Counts the project's applies, from 1; `rollback` makes a new one.
    pub number: u64,
    pub at_unix: UnixMillis,
    pub manifest: Manifest,
    /// The manifest's directory.
    pub directory: PathBuf,
    /// Each site's tree.
    pub trees: BTreeMap<Name, Hash>,
    /// Each service's program, copied by hash into content; absent for
    /// programs looked up in the path.
    pub programs: BTreeMap<Name, Hash>,
    /// The `number` in which each service last changed (its spec or program):
    /// a replica's generation.
    pub generations: BTreeMap<Name, Revision>,
    /// How many replicas of each service run on each node. A service that is not
    /// named here runs on the first node: it was applied when there was no other.
    #[serde(default)]
    pub placements: Placements,
    /// Of each singleton: it grows whenever its place changes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub epochs: BTreeMap<Name, FencingEpoch>,
    /// Of services that go from one generation to the next by stages.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rollouts: BTreeMap<Name, UnderWay>,
    /// The node it was applied on: where `directory` is.
    #[serde(default = "first_node")]
    pub origin: NodeId,
}

/// The node that a cluster begins with.
pub const FIRST_NODE: NodeId = NodeId(1);

fn first_node() -> NodeId {
    FIRST_NODE
}

impl Applied {
    /// Replicas of a service that `node` runs.
    pub fn share(&self, name: &Name, service: &Service, node: NodeId) -> u32 {
        match self.placements.get(name) {
            Some(placed) => placed.get(&node).copied().unwrap_or(0),
            None if node == FIRST_NODE && !service.singleton => service.replicas,
            None => 0,
        }
    }
}

impl Applied {
    /// Of a singleton.
    pub fn epoch(&self, name: &Name) -> FencingEpoch {
        self.epochs.get(name).copied().unwrap_or_default()
    }

    /// A singleton's: none while it may still run where it was.
    pub fn place(&self, name: &Name) -> Option<NodeId> {
        self.placements.get(name)?.keys().next().copied()
    }

    /// Its singletons as they stay where `old` has them; the others have no place
    /// yet, and a new epoch: `node::lease` says when they can have one.
    ///
    /// * `epoch`: greater than all before.
    pub fn keep_singletons(&mut self, old: Option<&Self>, epoch: FencingEpoch) {
        self.epochs.clear();
        let singletons = self.manifest.services.iter().filter(|it| it.1.singleton);
        for (name, _) in singletons {
            let was = |old: &&Self| {
                old.manifest
                    .services
                    .get(name)
                    .is_some_and(|it| it.singleton)
            };
            let old = old.filter(was);
            let on = old.and_then(|old| old.placements.get(name).cloned());
            self.placements.insert(name.clone(), on.unwrap_or_default());
            let epoch = old.map_or(epoch, |old| old.epoch(name));
            self.epochs.insert(name.clone(), epoch);
        }
    }

    /// Each service's generation where `old` was applied before: it moves when
    /// anything its replicas are started from moves.
    pub fn generations_after(&self, old: Option<&Self>) -> BTreeMap<Name, Revision> {
        let services = self.manifest.services.keys();
        let named = services.chain(self.manifest.jobs.keys());
        named
            .map(|name| {
                let same = old.filter(|old| self.starts_alike(old, name));
                let same = same.and_then(|old| old.generations.get(name).copied());
                (name.clone(), same.unwrap_or(Revision(self.number)))
            })
            .collect()
    }

    pub(crate) fn starts_alike(&self, old: &Self, name: &Name) -> bool {
        let services = (
            self.manifest.services.get(name),
            old.manifest.services.get(name),
        );
        let jobs = (self.manifest.jobs.get(name), old.manifest.jobs.get(name));
        let (bindings, alike) = match (services, jobs) {
            ((Some(service), Some(before)), _) => {
                let alike = before.run == service.run
                    && before.singleton == service.singleton
                    && before.environment == service.environment
                    && before.limits == service.limits
                    && before.secrets == service.secrets
                    && before.bindings == service.bindings
                    && before.probes == service.probes;
                (&service.bindings, alike)
            }
            (_, (Some(job), Some(before))) => (&job.bindings, job.starts_alike(before)),
            _ => return false,
        };
        let bound_alike = |binding: &Binding| match &binding.target {
            BindingTarget::Site(site) => old.trees.get(site) == self.trees.get(site),
            BindingTarget::Bucket(bucket) => {
                old.manifest.buckets.get(bucket) == self.manifest.buckets.get(bucket)
            }
            BindingTarget::Service(name) => {
                let port = |of: &Self| of.manifest.services.get(name).map(|it| it.port);
                port(old) == port(self)
            }
            BindingTarget::Foreign(_) => true,
        };
        // Where it is denied by default, callers find each other at other addresses.
        alike
            && old.manifest.network == self.manifest.network
            && old.directory == self.directory
            && old.programs.get(name) == self.programs.get(name)
            && bindings.values().all(bound_alike)
    }

    /// What its manifest calls `name`.
    pub fn scoped(&self, name: &Name) -> ScopedName {
        ScopedName::new(self.manifest.project.clone(), name.clone())
    }
}

/// What the node wants now: all projects' heads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    pub revision: Revision,
    pub projects: BTreeMap<Name, Applied>,
    /// Of the projects that have one, applied or not.
    #[serde(default)]
    pub policies: BTreeMap<Name, ProjectPolicy>,
    /// Of all jobs, those of manifests that are gone among them.
    #[serde(default)]
    pub jobs: BTreeMap<ScopedName, Record>,
    /// What callers of this node find each other by; each node's own.
    #[serde(skip)]
    pub callers: Callers,
}

impl Desired {
    /// The jobs of all manifests.
    pub fn manifest_jobs(&self) -> impl Iterator<Item = (ScopedName, &Job, &Applied)> {
        self.projects.values().flat_map(|applied| {
            let jobs = applied.manifest.jobs.iter();
            jobs.map(move |(name, job)| (applied.scoped(name), job, applied))
        })
    }

    /// One of a manifest, and what was applied with it.
    pub fn job(&self, name: &ScopedName) -> Option<(&Job, &Applied)> {
        let applied = self.projects.get(&name.project)?;
        Some((applied.manifest.jobs.get(&name.name)?, applied))
    }

    /// Who may call whom follows from these.
    pub fn manifests(&self) -> discovery::Projects<'_> {
        let projects = self.projects.iter();
        projects
            .map(|(name, applied)| (name.clone(), &applied.manifest))
            .collect()
    }

    /// Of a singleton's next place: greater than all that were read with this.
    pub fn next_epoch(&self) -> FencingEpoch {
        FencingEpoch(self.revision.0 + 1)
    }

    pub fn policy(&self, project: &Name) -> ProjectPolicy {
        self.policies.get(project).cloned().unwrap_or_default()
    }

    pub fn sites(&self) -> impl Iterator<Item = (ScopedName, &Site, Hash)> {
        self.projects.values().flat_map(|applied| {
            applied.manifest.sites.iter().filter_map(|(name, site)| {
                let tree = applied.trees.get(name)?;
                Some((applied.scoped(name), site, *tree))
            })
        })
    }

    /// The hosts of all routes, `*` and `*.name` as they are written.
    pub fn hosts(&self) -> impl Iterator<Item = String> {
        let sites = self.sites().flat_map(|(_, site, _)| &site.routes);
        let services = self.services().flat_map(|(_, one, _)| &one.routes);
        sites.chain(services).map(|route| route.host.0.clone())
    }

    pub fn services(&self) -> impl Iterator<Item = (ScopedName, &Service, &Applied)> {
        self.projects.values().flat_map(|applied| {
            let services = applied.manifest.services.iter();
            services.map(move |(name, service)| (applied.scoped(name), service, applied))
        })
    }
}
