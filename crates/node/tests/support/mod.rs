//! The one service that the node's tests wish for, as scripts have it.

use kernel::{Name, Revision, ScopedName, UnixMillis};
use node::desired::{Applied, Desired, FIRST_NODE};
use node::script::{PROJECT, Script};
use std::collections::BTreeMap;

pub fn name() -> ScopedName {
    format!("{PROJECT}/search").parse().expect("a name")
}

pub fn desired(generation: u64, replicas: u32) -> Desired {
    let text = format!("service search replicas {replicas}");
    let script = Script::parse("fixture", &text).expect("a script");
    let ScopedName { project, name }: ScopedName = name();
    let manifest = manifest::parse(&script.manifest("./search"), &project).expect("a manifest");
    let applied = Applied {
        number: generation,
        at_unix: UnixMillis(0),
        manifest,
        directory: "/script".into(),
        trees: BTreeMap::new(),
        programs: BTreeMap::new(),
        generations: BTreeMap::from([(name, Revision(generation))]),
        placements: BTreeMap::new(),
        epochs: BTreeMap::new(),
        rollouts: BTreeMap::new(),
        origin: FIRST_NODE,
    };
    Desired {
        revision: Revision(generation),
        projects: BTreeMap::<Name, Applied>::from([(project, applied)]),
        ..Desired::default()
    }
}
