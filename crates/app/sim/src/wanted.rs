//! What lies in the store, and which part of it each node runs.
//!
//! Placement is by hand here: the replica with index `i` of a service runs on
//! the node with number `i`, as a service of its own with one replica. All that
//! knows so is in this file.

use aggregation::membership::Belongs;
use kernel::{Bytes, Name, NodeId, Revision, UnixMillis};
use manifest::{Goals, HostPattern, Limits, Manifest, PathPrefix, Probes, Route, Run, Service};
use node::desired::{Applied, Desired, FIRST_NODE};
use node::script::ScriptService;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

pub const NODES: &str = "/nodes/";

/// A row of the node table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub zone: kernel::ZonePath,
    pub revoked: bool,
}

pub fn node_key(node: NodeId) -> String {
    format!("{NODES}{node}")
}

/// The row of a key below [`NODES`].
pub fn read_row(key: &str, value: &[u8]) -> Option<(NodeId, Belongs)> {
    let node = u64::from_str_radix(key.strip_prefix(NODES)?, 16).ok()?;
    let Row { zone, revoked } = serde_json::from_slice(value).ok()?;
    Some((
        NodeId(node),
        Belongs {
            zone,
            revoked,
            outbound_only: false,
        },
    ))
}

pub fn project() -> Name {
    "sim"
        .parse()
        .unwrap_or_else(|_| unreachable!("it is a name"))
}

/// The name of one replica's service, and whether `service` is one of it.
pub fn one_of(service: &Name, index: u32) -> Option<Name> {
    Name::new(format!("{service}-{index}")).ok()
}

/// The node, by number, that runs this replica's service.
pub fn place(service: &Name, nodes: usize) -> Option<usize> {
    let (_, index) = service.as_str().rsplit_once('-')?;
    let index: usize = index.parse().ok()?;
    Some(index % nodes.max(1))
}

/// What one node runs of what is desired.
pub fn part_of(desired: &Desired, machine: usize, nodes: usize) -> Desired {
    let mut part = desired.clone();
    for applied in part.projects.values_mut() {
        let here = |service: &Name| place(service, nodes) == Some(machine);
        applied.manifest.services.retain(|name, _| here(name));
        applied.generations.retain(|name, _| here(name));
    }
    part
}

pub fn applied(services: &[ScriptService], number: u64) -> Applied {
    let mut all = BTreeMap::new();
    for service in services {
        for index in 0..service.replicas {
            if let Some(name) = one_of(&service.name, index) {
                all.insert(name, wanted_service());
            }
        }
    }
    let generations = all.keys().map(|name| (name.clone(), Revision(number)));
    Applied {
        number,
        at_unix: UnixMillis(0),
        generations: generations.collect(),
        manifest: Manifest {
            project: project(),
            sites: BTreeMap::new(),
            services: all,
            buckets: BTreeMap::new(),
        },
        directory: "/sim".into(),
        trees: BTreeMap::new(),
        programs: BTreeMap::new(),
        placements: BTreeMap::new(),
        origin: FIRST_NODE,
    }
}

fn wanted_service() -> Service {
    Service {
        run: Run::Process(vec!["./program".into()]),
        replicas: 1,
        node: None,
        routes: vec![Route {
            host: HostPattern("*".into()),
            path: PathPrefix("/".into()),
        }],
        goals: Goals::default(),
        probes: Probes::default(),
        limits: Limits {
            memory: Some(Bytes::mebibytes(64)),
            ..Limits::default()
        },
        environment: BTreeMap::new(),
        secrets: BTreeMap::new(),
        bindings: BTreeMap::new(),
        deadline: Duration::from_secs(5),
        stop_grace: Duration::from_secs(5),
    }
}
