//! Strong buckets: service data in a Raft group of its own, served to the edge
//! and the workers on `run/buckets.sock`.
//!
//! In: calls, each with a capability. Out: answers, after the sync.
//! Holds: a capability is believed for its mark alone; what it does not name
//! does not exist for its bearer; quotas are counted where changes are applied,
//! so that they are exact, also after a crash.
//! Never: touches desired state.

mod calls;
mod capability;
#[cfg(test)]
mod guest_tests;
mod presence;
mod rates;
mod serve;
#[cfg(test)]
mod tests;

use capability::Marker;
use kernel::{Bytes, FencingEpoch, Name, NodeId, ReplicaId, ScopedName};
use manifest::Bucket;
use presence::Presence;
use rates::Rates;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use store::{Change, ChangeError, Changed, EmbeddedStore, Step};
use wire::bucket::{BucketGrant, Fence, Grant};
use wire::layout::Layout;

const CAPABILITIES_KEPT_MAX: usize = 4_096;
const EPOCH_KEY: &str = "/epoch";

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BucketsError {
    #[error("the buckets' store did not open")]
    Store(#[source] store::OpenError),
    #[error("the buckets' key cannot be kept")]
    Key(#[source] std::io::Error),
}

impl BucketsError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Key(_) => Some("let this user write the data directory"),
        }
    }
}

/// What all buckets of a project may take together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProjectLimits {
    pub quota: Bytes,
    /// Calls a second.
    pub rate: u32,
}

impl Default for ProjectLimits {
    fn default() -> Self {
        Self {
            quota: Bytes(1 << 30),
            rate: 10_000,
        }
    }
}

/// What is in force for a project now, where capabilities may be older.
#[derive(Clone, Debug, Default)]
struct Defined {
    limits: ProjectLimits,
    buckets: Option<BTreeMap<Name, Bucket>>,
}

pub struct BucketServer {
    store: EmbeddedStore,
    marker: RwLock<Marker>,
    key: PathBuf,
    presence: Presence,
    defined: Mutex<BTreeMap<Name, Defined>>,
    rates: Mutex<Rates>,
    /// Texts whose mark was found true.
    believed: Mutex<HashMap<String, Arc<Grant>>>,
}

impl BucketServer {
    /// * `node`, `group`: this node's member of the group, and the others.
    pub async fn open(
        layout: &Layout,
        node: NodeId,
        group: store::Group,
    ) -> Result<Self, BucketsError> {
        let options = store::Options {
            path: layout.buckets(),
            node,
            group,
        };
        let store = EmbeddedStore::open(options)
            .await
            .map_err(BucketsError::Store)?;
        let marker = Marker::open(&layout.buckets_key()).map_err(BucketsError::Key)?;
        Ok(Self {
            presence: Presence::default(),
            store,
            marker: RwLock::new(marker),
            key: layout.buckets_key(),
            defined: Mutex::default(),
            rates: Mutex::default(),
            believed: Mutex::default(),
        })
    }

    /// What a replica is given, as text. Under an `epoch`, it is the one
    /// replica of its place: calls of lower epochs are refused from its first
    /// call on.
    pub fn grant(
        &self,
        replica: &ReplicaId,
        bindings: &BTreeMap<Name, BucketGrant>,
        epoch: Option<FencingEpoch>,
    ) -> String {
        let bindings = bindings.iter();
        let bindings = bindings.map(|(name, bound)| (name.to_string(), bound.clone()));
        let ScopedName { project, name } = replica.service.clone();
        let holder = format!("{project}/{name}/{}", replica.index);
        self.marker().capability(Grant {
            project,
            service: name,
            replica: replica.to_string(),
            bindings: bindings.collect(),
            fence: epoch.map(|epoch| Fence { holder, epoch }),
        })
    }

    /// A number above all that were given before; durable.
    pub async fn next_epoch(&self) -> Result<FencingEpoch, ChangeError> {
        let change = Change {
            steps: vec![Step::Add(EPOCH_KEY.into(), 1)],
            ..Change::default()
        };
        let changed = self.store.change(change).await?;
        let Changed::Done { sum: Some(sum), .. } = changed else {
            return Ok(FencingEpoch(0));
        };
        let generation = u64::from(self.store.generation()) << store::GENERATION_SHIFT;
        let count = u64::try_from(sum).unwrap_or_default();
        Ok(FencingEpoch(generation | count))
    }

    /// What is in force for a project from now on, also for capabilities that
    /// were given before.
    pub fn define(&self, project: &Name, buckets: BTreeMap<Name, Bucket>, limits: ProjectLimits) {
        let defined = Defined {
            limits,
            buckets: Some(buckets),
        };
        lock(&self.defined).insert(project.clone(), defined);
    }

    /// What a bucket's entries count towards its quota.
    pub async fn used(
        &self,
        project: &Name,
        bucket: &Name,
    ) -> Result<Bytes, node::store::StoreError> {
        let prefix = bucket_prefix(project, bucket);
        self.store.read(|view| Bytes(view.weight(&prefix))).await
    }

    pub fn store(&self) -> &EmbeddedStore {
        &self.store
    }

    /// Serves whoever comes to the socket, where it is a group of its own; all
    /// connections end with it.
    pub async fn run(self: Arc<Self>, layout: &Layout) -> Result<(), ipc::IpcError> {
        let listener = ipc::Listener::replace(&layout.buckets_socket())?;
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let connection = listener.accept().await?;
            let server = Arc::clone(&self);
            connections.spawn(async move { server.serve(connection).await });
        }
    }

    /// Serves one client, until it leaves or this is dropped.
    pub async fn serve(self: &Arc<Self>, connection: ipc::Connection) {
        serve::serve(Arc::clone(self), connection).await;
    }

    /// Lets go of what is remembered of clients that left long ago.
    pub async fn forget(&self) {
        self.presence.learn(&self.store);
        serve::forget(self).await;
    }

    /// Of capabilities, for a node that is entrusted with it.
    pub fn key(&self) -> Vec<u8> {
        self.marker().key().to_vec()
    }

    /// Marks capabilities from now on as the other members do.
    pub fn entrust(&self, key: &[u8]) -> Result<(), BucketsError> {
        let marker = Marker::keep(&self.key, key).map_err(BucketsError::Key)?;
        *self.marker.write().unwrap_or_else(PoisonError::into_inner) = marker;
        lock(&self.believed).clear();
        Ok(())
    }

    fn marker(&self) -> RwLockReadGuard<'_, Marker> {
        self.marker.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn believe(&self, text: &str) -> Option<Arc<Grant>> {
        if let Some(grant) = lock(&self.believed).get(text) {
            return Some(Arc::clone(grant));
        }
        let grant = Arc::new(self.marker().believe(text)?);
        let mut believed = lock(&self.believed);
        if believed.len() >= CAPABILITIES_KEPT_MAX {
            believed.clear();
        }
        believed.insert(text.to_owned(), Arc::clone(&grant));
        Some(grant)
    }
}

fn project_prefix(project: &Name) -> String {
    format!("/bucket/{project}/")
}

fn bucket_prefix(project: &Name, bucket: &Name) -> String {
    format!("/bucket/{project}/{bucket}/")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
