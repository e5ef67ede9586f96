//! The one service that the node's tests wish for.

use kernel::{Bytes, Revision, ScopedName, UnixMillis};
use manifest::{Goals, HostPattern, Limits, Manifest, PathPrefix, Probes, Route, Run, Service};
use node::desired::{Applied, Desired, FIRST_NODE};
use std::collections::BTreeMap;
use std::time::Duration;

pub fn name() -> ScopedName {
    "news/search".parse().expect("a name")
}

pub fn desired(generation: u64, replicas: u32) -> Desired {
    let service = Service {
        run: Run::Process(vec!["./search".into()]),
        replicas,
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
    };
    let ScopedName { project, name }: ScopedName = name();
    let applied = Applied {
        number: generation,
        at_unix: UnixMillis(0),
        manifest: Manifest {
            project: project.clone(),
            sites: BTreeMap::new(),
            services: BTreeMap::from([(name.clone(), service)]),
            buckets: BTreeMap::new(),
        },
        directory: "/news".into(),
        trees: BTreeMap::new(),
        programs: BTreeMap::new(),
        generations: BTreeMap::from([(name, Revision(generation))]),
        placements: BTreeMap::new(),
        origin: FIRST_NODE,
    };
    Desired {
        revision: Revision(generation),
        projects: BTreeMap::from([(project, applied)]),
        ..Desired::default()
    }
}
