//! Desired state in etcd, for clusters that have outgrown the store of their own.
//!
//! In: transactions, lease calls, watches. Out: etcd's answers in the store's
//! words.
//! Holds: what [`node::store::Store`] promises, but that revisions may grow by
//! more than one, for etcd counts leases and whatever else it is used for; all
//! keys begin with [`Options::root`].
//! Never: keeps state of its own; two that use one etcd and root are one store.

mod calls;
mod convert;
mod layout;
mod leases;
mod serve;
mod trouble;
mod watching;

pub use serve::EtcdStore;

/// What an etcd must be started with: transactions of a store are larger than
/// what it takes by itself.
pub const SERVER_FLAGS: [&str; 2] = ["--max-txn-ops=10000", "--max-request-bytes=16777216"];

#[derive(Clone, Debug)]
pub struct Options {
    /// `http://HOST:PORT` or `https://HOST:PORT` of each member.
    pub endpoints: Vec<String>,
    /// Before all keys, so that several stores can share an etcd: a name without
    /// a `/`.
    pub root: String,
    pub tls: Option<Tls>,
    /// Name and password, where etcd asks for them.
    pub user: Option<(String, String)>,
    /// Older ones are compacted away; none: whoever runs etcd sees to it. What
    /// is compacted is the whole etcd's history, not only this store's.
    pub history_revisions_max: Option<u64>,
}

impl Options {
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            root: "homeostat".to_owned(),
            tls: None,
            user: None,
            history_revisions_max: Some(10_000),
        }
    }
}

/// In PEM.
#[derive(Clone)]
pub struct Tls {
    /// Who signs the members' certificates.
    pub authority: String,
    pub certificate: String,
    pub key: String,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("`{0}` is no root for a store's keys")]
    Root(String),
    #[error("etcd at {endpoints} cannot be used")]
    Client {
        endpoints: String,
        #[source]
        source: etcd_client::Error,
    },
    #[error("etcd at {endpoints} does not answer: {why}")]
    Silent {
        endpoints: String,
        why: node::store::StoreError,
    },
}

impl OpenError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Root(_) => Some("choose a name without a `/`"),
            Self::Client { .. } => Some("check the addresses, certificates and the password"),
            Self::Silent { .. } => {
                Some("check that a majority of its members runs, and `etcdctl endpoint status`")
            }
        }
    }
}
