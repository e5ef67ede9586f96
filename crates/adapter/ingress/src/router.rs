//! Makes a snapshot into what requests look up, and looks it up.
//!
//! Holds: the most specific matching host is chosen first (exact, then the
//! longest `*.` suffix, then `*`), then the longest path on whole components;
//! a service keeps its counts, a replica its connections, and another node what
//! was found of its health, from one snapshot to the next.

use crate::latency::Latencies;
use crate::limits::Limits;
use crate::peer::PeerState;
use crate::pool::{EndpointState, Place};
use crate::site::SiteState;
use crate::{Components, Documents};
use arc_swap::ArcSwap;
use kernel::{Hash, NodeId, ScopedName};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;
use tokio::sync::watch;
use wire::edge::{EdgeSnapshot, Endpoint, SNAPSHOT_VERSION, ServiceView, Target};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    #[error("the snapshot has format {found}, this edge reads {SNAPSHOT_VERSION}")]
    Format { found: u32 },
    #[error("site `{site}` has the tree {}, which is not here", .tree.short())]
    Tree { site: ScopedName, tree: Hash },
    #[error("the route {host}{path} leads to `{target}`, which the snapshot lacks")]
    Target {
        host: String,
        path: String,
        target: ScopedName,
    },
    #[error("the certificate for {hosts} cannot be used: {why}")]
    Certificate { hosts: String, why: String },
}

#[derive(Clone)]
pub enum Served {
    Site(Arc<SiteState>),
    Service(Arc<ServiceState>),
}

pub struct Route {
    /// Without a slash at its end; empty for `/`.
    pub path: String,
    pub served: Served,
}

#[derive(Default)]
pub struct Table {
    pub version: Option<u64>,
    /// This node, as other edges know it.
    pub own: Option<NodeId>,
    pub peers: BTreeMap<NodeId, Arc<PeerState>>,
    exact: BTreeMap<String, Vec<Route>>,
    /// Keys without the `*`: `.news.example`.
    wildcard: BTreeMap<String, Vec<Route>>,
    any: Vec<Route>,
    pub sites: BTreeMap<ScopedName, Arc<SiteState>>,
    pub services: BTreeMap<ScopedName, Arc<ServiceState>>,
}

pub struct ServiceState {
    pub name: ScopedName,
    pub config: ArcSwap<ServiceConfig>,
    /// Woken when `config` changed.
    pub changed: watch::Sender<()>,
    pub requests: AtomicU64,
    pub errors: AtomicU64,
    pub in_flight: AtomicU64,
    pub held: AtomicU64,
    pub retried: AtomicU64,
    pub forwarded: AtomicU64,
    pub latencies: Latencies,
    pub waiting: AtomicUsize,
}

#[derive(Default)]
pub struct ServiceConfig {
    pub deadline: Duration,
    pub endpoints: Vec<Arc<EndpointState>>,
}

impl ServiceState {
    fn new(name: &ScopedName) -> Self {
        Self {
            name: name.clone(),
            config: ArcSwap::default(),
            changed: watch::Sender::new(()),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            held: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            forwarded: AtomicU64::new(0),
            latencies: Latencies::default(),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Left out are components that are not here, which their edge has said, and
    /// replicas on nodes that may not be spoken to.
    fn configure(&self, view: &ServiceView, table: &Table, components: &dyn Components) {
        let old = self.config.load();
        let state = |endpoint: &Endpoint| {
            let node = endpoint.node.filter(|node| Some(*node) != table.own);
            let place = match (node, endpoint.address) {
                (Some(node), _) => Place::Peer(Arc::clone(table.peers.get(&node)?)),
                (None, Some(address)) => Place::Address(address),
                (None, None) => Place::Here(components.find(&endpoint.replica)?),
            };
            let known = old
                .endpoints
                .iter()
                .find(|known| known.replica == endpoint.replica && same(&known.place, &place));
            let new = || Arc::new(EndpointState::new(endpoint.replica.clone(), place.clone()));
            Some(known.map_or_else(new, Arc::clone))
        };
        let endpoints = view.endpoints.iter().filter_map(state).collect();
        self.config.store(Arc::new(ServiceConfig {
            deadline: view.deadline,
            endpoints,
        }));
        self.changed.send_replace(());
    }
}

fn same(one: &Place, other: &Place) -> bool {
    match (one, other) {
        (Place::Address(one), Place::Address(other)) => one == other,
        (Place::Here(one), Place::Here(other)) => Arc::ptr_eq(one, other),
        (Place::Peer(one), Place::Peer(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}

impl Table {
    /// Builds the table; nothing of `old` changes until [`Table::activate`].
    pub fn build(
        snapshot: &EdgeSnapshot,
        old: &Self,
        documents: &dyn Documents,
        limits: &Limits,
    ) -> Result<Self, SnapshotError> {
        if snapshot.format != SNAPSHOT_VERSION {
            return Err(SnapshotError::Format {
                found: snapshot.format,
            });
        }
        let mut table = Self {
            version: Some(snapshot.version),
            own: snapshot.identity.as_ref().map(|identity| identity.node),
            ..Self::default()
        };
        if let Some(own) = table.own {
            for (node, view) in &snapshot.peers {
                let known = old.peers.get(node).filter(|known| known.is_as(own, view));
                let new = || Arc::new(PeerState::new(*node, own, view.clone(), limits));
                let state = known.map_or_else(new, Arc::clone);
                state.set_headroom(snapshot.headroom.get(node).copied());
                table.peers.insert(*node, state);
            }
        }
        for (name, view) in &snapshot.sites {
            let state = match old.sites.get(name) {
                Some(state) if state.view == *view => Arc::clone(state),
                _ => {
                    let tree = documents
                        .tree(view.tree)
                        .ok_or_else(|| SnapshotError::Tree {
                            site: name.clone(),
                            tree: view.tree,
                        })?;
                    Arc::new(SiteState::new(name.clone(), view.clone(), &tree))
                }
            };
            table.sites.insert(name.clone(), state);
        }
        for name in snapshot.services.keys() {
            let known = old.services.get(name).cloned();
            let state = known.unwrap_or_else(|| Arc::new(ServiceState::new(name)));
            table.services.insert(name.clone(), state);
        }
        for entry in &snapshot.routes {
            let (name, served) = match &entry.target {
                Target::Site(name) => (name, table.sites.get(name).cloned().map(Served::Site)),
                Target::Service(name) => {
                    (name, table.services.get(name).cloned().map(Served::Service))
                }
            };
            let served = served.ok_or_else(|| SnapshotError::Target {
                host: entry.host.clone(),
                path: entry.path.clone(),
                target: name.clone(),
            })?;
            let path = entry.path.trim_end_matches('/').to_owned();
            table.routes_of(&entry.host).push(Route { path, served });
        }
        let lists = table.exact.values_mut().chain(table.wildcard.values_mut());
        for routes in lists.chain([&mut table.any]) {
            routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
        }
        Ok(table)
    }

    /// Gives the services of this table their new endpoints, and those that
    /// left none.
    pub fn activate(&self, snapshot: &EdgeSnapshot, old: &Self, components: &dyn Components) {
        for (name, view) in &snapshot.services {
            if let Some(state) = self.services.get(name) {
                state.configure(view, self, components);
            }
        }
        for (name, state) in &old.services {
            if !self.services.contains_key(name) {
                let deadline = state.config.load().deadline;
                let none = ServiceView {
                    deadline,
                    endpoints: Vec::new(),
                };
                state.configure(&none, self, components);
            }
        }
    }

    fn routes_of(&mut self, host: &str) -> &mut Vec<Route> {
        let host = host.to_ascii_lowercase();
        if host == "*" {
            &mut self.any
        } else if let Some(suffix) = host.strip_prefix('*') {
            self.wildcard.entry(suffix.to_owned()).or_default()
        } else {
            self.exact.entry(host).or_default()
        }
    }

    /// `host` in lower case and without its port.
    pub fn find(&self, host: &str, path: &str) -> Option<&Route> {
        let routes = self.exact.get(host).or_else(|| {
            host.match_indices('.')
                .find_map(|(dot, _)| self.wildcard.get(&host[dot..]))
        });
        routes.unwrap_or(&self.any).iter().find(|route| {
            path.strip_prefix(route.path.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::edge::RouteEntry;

    struct Nothing;

    impl Documents for Nothing {
        fn tree(&self, _: Hash) -> Option<Arc<wire::content::Tree>> {
            None
        }

        fn open(&self, _: Hash, _: crate::Encoding) -> Option<crate::Document> {
            None
        }
    }

    fn snapshot(routes: &[(&str, &str, &str)]) -> EdgeSnapshot {
        let mut snapshot = EdgeSnapshot {
            format: SNAPSHOT_VERSION,
            ..EdgeSnapshot::default()
        };
        for (host, path, service) in routes {
            let name: ScopedName = format!("test/{service}").parse().expect("name");
            let view = ServiceView {
                deadline: Duration::from_secs(1),
                endpoints: vec![],
            };
            snapshot.services.insert(name.clone(), view);
            snapshot.routes.push(RouteEntry {
                host: (*host).to_owned(),
                path: (*path).to_owned(),
                target: Target::Service(name),
            });
        }
        snapshot
    }

    #[test]
    fn most_specific_host_then_longest_path() {
        let snapshot = snapshot(&[
            ("*", "/", "any"),
            ("*.example", "/", "wild"),
            ("*.news.example", "/", "wilder"),
            ("news.example", "/", "root"),
            ("news.example", "/search", "search"),
        ]);
        let table = Table::build(&snapshot, &Table::default(), &Nothing, &Limits::default())
            .expect("builds");
        let found = |host: &str, path: &str| match &table.find(host, path)?.served {
            Served::Service(service) => Some(service.name.name.to_string()),
            Served::Site(_) => None,
        };
        assert_eq!(found("news.example", "/").as_deref(), Some("root"));
        assert_eq!(found("news.example", "/search").as_deref(), Some("search"));
        assert_eq!(
            found("news.example", "/search/x").as_deref(),
            Some("search")
        );
        assert_eq!(found("news.example", "/searching").as_deref(), Some("root"));
        assert_eq!(found("a.news.example", "/").as_deref(), Some("wilder"));
        assert_eq!(found("b.example", "/").as_deref(), Some("wild"));
        assert_eq!(found("else.where", "/").as_deref(), Some("any"));
    }

    #[test]
    fn route_to_nothing_is_refused() {
        let mut snapshot = snapshot(&[("*", "/", "any")]);
        snapshot.services.clear();
        let result = Table::build(&snapshot, &Table::default(), &Nothing, &Limits::default());
        assert!(matches!(result, Err(SnapshotError::Target { .. })));
    }
}
