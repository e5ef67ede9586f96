//! What the edge serves, from desired state and ready replicas.
//!
//! Holds: only ready replicas are endpoints; routes are in a fixed order.

use crate::desired::Desired;
use kernel::{ReplicaId, Revision, ScopedName};
use manifest::Route;
use std::collections::BTreeMap;
use wire::edge::{
    ComponentView, EdgeSnapshot, Endpoint, RouteEntry, SNAPSHOT_VERSION, ServiceView, SiteView,
    Target,
};

/// `version`, certificates, and what components may not share with the disk
/// (sealed secrets, capabilities) are for others to fill in.
pub fn snapshot(
    desired: &Desired,
    endpoints: &BTreeMap<ScopedName, Vec<Endpoint>>,
    components: BTreeMap<ReplicaId, ComponentView>,
) -> EdgeSnapshot {
    let mut made = EdgeSnapshot {
        format: SNAPSHOT_VERSION,
        revision: Revision(desired.revision.0),
        components,
        callers: desired.callers.clone(),
        ..EdgeSnapshot::default()
    };
    for (name, site, tree) in desired.sites() {
        let target = Target::Site(name.clone());
        made.routes.extend(entries(&site.routes, &target));
        let view = SiteView {
            tree,
            index: site.index.clone(),
            not_found: site.not_found.clone(),
            max_age: site.cache.max_age,
            immutable: site
                .cache
                .immutable
                .iter()
                .map(|path| path.0.clone())
                .collect(),
        };
        made.sites.insert(name, view);
    }
    for (name, service, _) in desired.services() {
        let target = Target::Service(name.clone());
        made.routes.extend(entries(&service.routes, &target));
        let view = ServiceView {
            deadline: service.deadline,
            endpoints: endpoints.get(&name).cloned().unwrap_or_default(),
        };
        made.services.insert(name, view);
    }
    made
}

fn entries(routes: &[Route], target: &Target) -> impl Iterator<Item = RouteEntry> {
    routes.iter().map(move |route| RouteEntry {
        host: route.host.0.clone(),
        path: route.path.0.clone(),
        target: target.clone(),
    })
}
