//! What is in force: snapshots are taken, kept on disk, and given to the ingress.
//!
//! In: snapshots from disk and from the agent. Out: [`FromEdge`] answers.
//! Holds: one snapshot at a time; a refused one changes nothing, in force or on
//! disk; `Applied` is said once it is in force and the disk has it, or refused
//! it. Never: lets a slow disk hold back what requests need now.

use crate::components;
use crate::discovery::Discovery;
use crate::documents::Library;
use crate::evidence::Witness;
use crate::peers::Peers;
use crate::rows::Rows;
use crate::saved::{Saved, Staged};
use content::Content;
use ingress::{Ingress, Options, SnapshotError};
use kernel::{ReplicaId, Time};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinError, spawn_blocking};
use wire::edge::{EdgeSnapshot, FromEdge, SNAPSHOT_VERSION, Target};
use wire::layout::Layout;

/// A disk that takes longer is not waited for before a snapshot is in force.
const DISK_PATIENCE: Duration = Duration::from_millis(500);

pub struct DataPlane {
    pub ingress: Arc<Ingress>,
    pub witness: Arc<Witness>,
    pub rows: Arc<Rows>,
    pub peers: Arc<Peers>,
    pub discovery: Discovery,
    library: Arc<Library>,
    components: Arc<components::Library>,
    saved: Saved,
    force: Mutex<InForce>,
}

#[derive(Default)]
struct InForce {
    snapshot: Option<Arc<EdgeSnapshot>>,
    /// Whether the disk has it.
    saved: bool,
    said_unsaved: bool,
}

impl DataPlane {
    pub fn new(content: Content, rows: Arc<Rows>, peers: Arc<Peers>, layout: &Layout) -> Self {
        let components = components::Library::new(content.clone(), layout.clone());
        let components = Arc::new(components);
        let witness = Arc::new(Witness::new());
        let library = Arc::new(Library::new(content, Arc::clone(&witness)));
        let ingress = Ingress::new(
            Options::default(),
            Arc::clone(&library) as _,
            Arc::clone(&components) as _,
            Arc::clone(&peers) as _,
            Arc::clone(&rows) as _,
            Arc::clone(&witness) as _,
        );
        Self {
            discovery: Discovery::new(Arc::clone(&ingress)),
            ingress,
            witness,
            rows,
            peers,
            library,
            components,
            saved: Saved::new(layout.edge_snapshot()),
            force: Mutex::default(),
        }
    }

    /// Puts the last saved snapshot in force, as far as it can be: one site's
    /// damage must not take the others away. Blocks.
    pub fn restore(&mut self) {
        let Some(mut snapshot) = self.saved.load() else {
            tracing::info!("no last snapshot: nothing is served until the agent sends one");
            return;
        };
        let whole = snapshot.clone();
        for (replica, view) in &snapshot.components {
            if let Err(why) = self.components.load(replica, view) {
                tracing::error!(%replica, why, "a component cannot be run");
            }
        }
        while let Err(error) = self.ingress.set_snapshot(&snapshot) {
            tracing::error!(%error, "a part of the last snapshot cannot be served");
            if !without(&mut snapshot, &error) {
                return;
            }
        }
        tracing::info!(
            version = snapshot.version,
            revision = snapshot.revision.0,
            whole = snapshot == whole,
            "serving from the last snapshot"
        );
        self.peers.follow(&snapshot);
        self.discovery.follow(&snapshot.callers);
        *self.force.get_mut() = InForce {
            snapshot: Some(Arc::new(snapshot)),
            saved: true,
            said_unsaved: false,
        };
    }

    /// Takes a snapshot from the agent; what to answer.
    pub async fn take(&self, snapshot: EdgeSnapshot) -> FromEdge {
        let version = snapshot.version;
        let refused = |why: String| {
            tracing::error!(version, why, "snapshot refused");
            FromEdge::Refused {
                version,
                why,
                newer: None,
            }
        };
        if snapshot.format != SNAPSHOT_VERSION {
            let found = snapshot.format;
            return refused(SnapshotError::Format { found }.to_string());
        }
        let mut force = self.force.lock().await;
        let in_force = force.snapshot.as_deref();
        if let Some(newer) = in_force.filter(|newer| newer.version > version) {
            let why = format!(
                "it is older than version {}, which is in force",
                newer.version
            );
            tracing::warn!(version, why, "snapshot ignored");
            return FromEdge::Refused {
                version,
                why,
                newer: Some(newer.version),
            };
        }
        let saved = force.saved && in_force == Some(&snapshot);
        let sites_changed = in_force.is_none_or(|old| old.sites != snapshot.sites);
        let snapshot = Arc::new(snapshot);
        let mut staging = (!saved).then(|| self.stage(&snapshot));
        let mut staged = None;
        if let Some(handle) = &mut staging {
            staged = tokio::time::timeout(DISK_PATIENCE, handle).await.ok();
        }
        self.load_routed(&snapshot).await;
        self.peers.add(&snapshot);
        if let Err(why) = self.build(&snapshot).await {
            if let Some(in_force) = &force.snapshot {
                self.peers.withdraw(in_force, &snapshot);
            }
            return refused(why);
        }
        self.peers.follow(&snapshot);
        self.discovery.follow(&snapshot.callers);
        self.components.keep(&snapshot.components);
        if sites_changed {
            self.library.content_changed();
        }
        tracing::info!(version, revision = snapshot.revision.0, "snapshot in force");
        force.snapshot = Some(snapshot);
        if let Some(handle) = staging {
            let staged = match staged {
                Some(staged) => staged,
                None => handle.await,
            };
            self.keep(staged, &mut force).await;
        }
        FromEdge::Applied { version }
    }

    /// Called each second: tries again to save what the disk did not take.
    pub async fn save_again(&self) {
        let Ok(mut force) = self.force.try_lock() else {
            return;
        };
        if let Some(snapshot) = force.snapshot.clone().filter(|_| !force.saved) {
            let staged = self.stage(&snapshot).await;
            self.keep(staged, &mut force).await;
        }
    }

    fn stage(&self, snapshot: &Arc<EdgeSnapshot>) -> tokio::task::JoinHandle<io::Result<Staged>> {
        let (saved, snapshot) = (self.saved.clone(), Arc::clone(snapshot));
        spawn_blocking(move || saved.stage(&snapshot))
    }

    /// Those that requests may come for at once, if this edge lacks them.
    async fn load_routed(&self, snapshot: &Arc<EdgeSnapshot>) {
        let endpoints = snapshot.services.values().flat_map(|view| &view.endpoints);
        let missing: Vec<ReplicaId> = endpoints
            .map(|endpoint| &endpoint.replica)
            .filter(|one| snapshot.components.contains_key(*one) && !self.components.has(one))
            .cloned()
            .collect();
        if missing.is_empty() {
            return;
        }
        let (components, snapshot) = (Arc::clone(&self.components), Arc::clone(snapshot));
        let loading = spawn_blocking(move || {
            for replica in missing {
                // How it went is told with all others.
                let _ = components.load(&replica, &snapshot.components[&replica]);
            }
        });
        let _ = loading.await;
    }

    /// Loads the components of the snapshot in force, one after the other, and
    /// tells how each went; those in `told` only if that fails now.
    pub async fn load_components(
        &self,
        told: &mut BTreeMap<ReplicaId, Time>,
        news: &mpsc::Sender<FromEdge>,
    ) {
        let Some(snapshot) = self.force.lock().await.snapshot.clone() else {
            return;
        };
        told.retain(|replica, since| {
            let view = snapshot.components.get(replica);
            view.is_some_and(|view| view.since == *since)
        });
        for (replica, view) in &snapshot.components {
            let (components, id, wanted) =
                (Arc::clone(&self.components), replica.clone(), view.clone());
            if self.components.is_as(replica, view) && told.contains_key(replica) {
                continue;
            }
            let loading = spawn_blocking(move || components.load(&id, &wanted)).await;
            let replica = replica.clone();
            let word = match loading.map_err(|error| error.to_string()) {
                Ok(Ok(())) => {
                    told.insert(replica.clone(), view.since);
                    FromEdge::ComponentStarted { replica }
                }
                Ok(Err(why)) | Err(why) => FromEdge::ComponentFailed { replica, why },
            };
            if news.send(word).await.is_err() {
                return;
            }
        }
    }

    async fn build(&self, snapshot: &Arc<EdgeSnapshot>) -> Result<(), String> {
        let (ingress, snapshot) = (Arc::clone(&self.ingress), Arc::clone(snapshot));
        match spawn_blocking(move || ingress.set_snapshot(&snapshot)).await {
            Ok(built) => built.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn keep(&self, staged: Result<io::Result<Staged>, JoinError>, force: &mut InForce) {
        let saved = self.saved.clone();
        let kept = match staged {
            Ok(Ok(staged)) => spawn_blocking(move || saved.keep(staged)).await,
            Ok(Err(error)) => Ok(Err(error)),
            Err(error) => Err(error),
        };
        let outcome = kept.unwrap_or_else(|error| Err(io::Error::other(error)));
        force.saved = outcome.is_ok();
        match outcome {
            Err(error) if !force.said_unsaved => {
                tracing::error!(%error, "the snapshot is in force but not on disk: a restart would serve an older one");
                force.said_unsaved = true;
            }
            Ok(()) if force.said_unsaved => {
                tracing::info!("the snapshot is on disk again");
                force.said_unsaved = false;
            }
            _ => {}
        }
    }
}

/// Takes out what the error is about; whether that is possible.
fn without(snapshot: &mut EdgeSnapshot, error: &SnapshotError) -> bool {
    match error {
        SnapshotError::Tree { site, .. } => {
            let target = Target::Site(site.clone());
            snapshot.routes.retain(|route| route.target != target);
            snapshot.sites.remove(site).is_some()
        }
        SnapshotError::Target { host, path, .. } => {
            let before = snapshot.routes.len();
            snapshot
                .routes
                .retain(|route| (&route.host, &route.path) != (host, path));
            snapshot.routes.len() < before
        }
        SnapshotError::Certificate { hosts, .. } => {
            let before = snapshot.certificates.len();
            snapshot
                .certificates
                .retain(|certificate| certificate.hosts.join(", ") != *hosts);
            snapshot.certificates.len() < before
        }
        _ => false,
    }
}
