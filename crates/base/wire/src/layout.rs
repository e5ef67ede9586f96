//! Where things lie in a node's data directory: a disk format like any other.

use kernel::{Hash, ScopedName};
use std::path::{Path, PathBuf};

/// What `DATA/version` says; another number is refused. 2: what belongs to a
/// service or site lies under its project and name.
pub const DATA_VERSION: &str = "2";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub root: PathBuf,
}

impl Layout {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    pub fn version(&self) -> PathBuf {
        self.at("version")
    }
    pub fn run(&self) -> PathBuf {
        self.at("run")
    }
    pub fn supervisor_socket(&self) -> PathBuf {
        self.at("run/supervisor.sock")
    }
    /// How the last upgrade went.
    pub fn upgrade(&self) -> PathBuf {
        self.at("run/upgrade.json")
    }
    pub fn edge_socket(&self) -> PathBuf {
        self.at("run/edge.sock")
    }
    pub fn admin_socket(&self) -> PathBuf {
        self.at("run/admin.sock")
    }
    pub fn agent_pid(&self) -> PathBuf {
        self.at("run/agent.pid")
    }
    pub fn agent_lock(&self) -> PathBuf {
        self.at("run/agent.lock")
    }
    /// Sockets of the replicas' shims.
    pub fn replica_sockets(&self) -> PathBuf {
        self.at("run/replicas")
    }
    /// Of this node alone: what it must know of the control group, and what is
    /// nobody else's.
    pub fn store(&self) -> PathBuf {
        self.at("store/own.redb")
    }
    /// Of this node's member of the control group.
    pub fn control(&self) -> PathBuf {
        self.at("store/control.redb")
    }
    /// Of this node's member of the buckets' group, apart from desired state.
    pub fn buckets(&self) -> PathBuf {
        self.at("store/buckets.redb")
    }
    /// What capabilities are marked with.
    pub fn buckets_key(&self) -> PathBuf {
        self.at("store/buckets.key")
    }
    pub fn buckets_socket(&self) -> PathBuf {
        self.at("run/buckets.sock")
    }
    pub fn content(&self) -> PathBuf {
        self.at("content")
    }
    /// Which trees and programs are held, and how long nothing needed them.
    pub fn held_content(&self) -> PathBuf {
        self.at("content/held.json")
    }
    /// How far the reading of all content has come.
    pub fn scrub_cursor(&self) -> PathBuf {
        self.at("content/scrub.json")
    }
    pub fn replicas(&self) -> PathBuf {
        self.at("replicas")
    }
    /// Trees laid out as files, for replicas bound to a site.
    pub fn sites(&self) -> PathBuf {
        self.at("sites")
    }
    /// One of them.
    pub fn site(&self, site: &ScopedName, tree: &Hash) -> PathBuf {
        self.sites().join(site.file_name()).join(tree.to_string())
    }
    pub fn tls(&self) -> PathBuf {
        self.at("tls")
    }
    /// The local authority's certificate, for clients to trust.
    pub fn authority(&self) -> PathBuf {
        self.at("tls/authority.pem")
    }
    /// Keys that no other machine has.
    pub fn keys(&self) -> PathBuf {
        self.at("keys")
    }
    /// Who this node is in its cluster.
    pub fn cluster(&self) -> PathBuf {
        self.at("cluster")
    }
    pub fn audit(&self) -> PathBuf {
        self.at("audit")
    }
    /// The snapshot that the edge serves from alone.
    pub fn edge_snapshot(&self) -> PathBuf {
        self.at("edge/snapshot.json")
    }
    /// Addresses by which services find each other on this node.
    pub fn links(&self) -> PathBuf {
        self.at("links.json")
    }
    /// Machine code of components and actors, by hash.
    pub fn compiled(&self) -> PathBuf {
        self.at("compiled")
    }
    /// What actors that were put away left, by service.
    pub fn actors(&self) -> PathBuf {
        self.at("actors")
    }
    pub fn actor(&self, service: &ScopedName) -> PathBuf {
        self.actors().join(service.file_name())
    }
    pub fn logs(&self) -> PathBuf {
        self.at("logs")
    }
    pub fn access_rows(&self) -> PathBuf {
        self.at("telemetry/rows")
    }
    pub fn access_parquet(&self) -> PathBuf {
        self.at("telemetry/access")
    }
    pub fn journal(&self) -> PathBuf {
        self.at("telemetry/decisions")
    }

    /// A Unix socket's path is at most 107 bytes long; the longest is a
    /// replica's, with a hash for its name where that is long. Whether `root`
    /// leaves room for it.
    pub fn sockets_fit(root: &Path) -> bool {
        root.as_os_str().len() <= 40
    }
}
