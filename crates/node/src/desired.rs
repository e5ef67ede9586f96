//! Desired state as it lies in the store: which key holds what.

use kernel::{Hash, Name, Revision, UnixMillis};
use manifest::{Manifest, Service, Site};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

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
}

/// What the node wants now: all projects' heads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    pub revision: Revision,
    pub projects: BTreeMap<Name, Applied>,
}

impl Desired {
    pub fn sites(&self) -> impl Iterator<Item = (&Name, &Site, Hash)> {
        self.projects.values().flat_map(|applied| {
            applied.manifest.sites.iter().filter_map(|(name, site)| {
                let tree = applied.trees.get(name)?;
                Some((name, site, *tree))
            })
        })
    }

    pub fn services(&self) -> impl Iterator<Item = (&Name, &Service, &Applied)> {
        self.projects.values().flat_map(|applied| {
            let services = applied.manifest.services.iter();
            services.map(move |(name, service)| (name, service, applied))
        })
    }
}
