//! Real programs in the tree: it gives what one zone of all nodes would give.

use crate::spreading::{SECOND, world};
use aggregation::installed::Installed;
use aggregation::tree::{Input, Programs as _, Source};
use kernel::{UnixMillis, ZonePath};
use sim::tree::{AUTHORITY, TreeWorld, id};
use wire::attributes::Row;
use wire::tree::{Notice, Run, Says};

const DAY_MS: u64 = 24 * 3_600 * 1_000;

const PROGRAMS: [(&str, &str); 3] = [
    (
        "load",
        "SELECT COUNT(*) AS nodes, AVG(cpu, requests) AS cpu, QUANTILE(cpu, 0.9) AS cpu_p90,
                SUM(requests) AS requests FROM children",
    ),
    (
        "idle",
        "SELECT FIRST(3, cpu ORDER BY cpu) AS idlest, MIN(memory_free) AS least,
                COUNT(*) AS idle FROM children WHERE cpu < 0.7",
    ),
    (
        "kinds",
        "SELECT COUNT(DISTINCT version) AS versions, RANDOM(2, requests) AS some,
                HISTOGRAM(cpu, 0.25, 0.5, 0.75) AS loads FROM children",
    ),
];

pub fn zone(text: &str) -> ZonePath {
    text.parse().expect("a zone")
}

/// Signed by the authority, without a trial.
pub fn program(name: &str, version: u64, text: &str) -> Notice {
    Notice {
        program: name.parse().expect("a name"),
        zone: ZonePath::root(),
        version,
        issuer: AUTHORITY,
        lifetime_ms: DAY_MS,
        says: Says::Run(Run {
            text: text.to_owned(),
            issued_at: UnixMillis(1),
            threshold: 0,
            priority: 0,
            canary: ZonePath::root(),
            canary_ms: 0,
        }),
    }
}

/// All started and known to each other; what runs is what is installed.
pub fn settled(branching: &[usize], leaf: usize, seed: u64) -> TreeWorld {
    let mut world = world(branching, leaf, seed);
    world.sql = true;
    world.start_all(SECOND);
    let all = world.alive();
    let whole = world.until(SECOND * 30, |world| {
        world.all_count(all) && world.all_agree()
    });
    assert!(whole.is_some(), "seed {seed}: {:?}", world.counts());
    world
}

/// The root's row as that node computes it.
pub fn root(world: &mut TreeWorld, node: usize) -> Row {
    let found = world.nodes[node].with_tree(UnixMillis(1), |tree, tools| {
        tree.aggregate(&ZonePath::root(), tools)
    });
    Row::decode(&found.expect("the root").attributes).expect("a row")
}

/// What one zone of all nodes that run gives.
fn flat(world: &TreeWorld, installed: &Installed) -> Row {
    let nodes = world.nodes.iter().enumerate().filter(|(_, one)| one.alive);
    let inputs = nodes.map(|(at, one)| Input {
        of: Source::Node(id(at)),
        attributes: &one.attributes,
        nodes: 1,
    });
    let inputs: Vec<Input> = inputs.collect();
    let found = installed.evaluate(&ZonePath::root(), UnixMillis(1), &inputs);
    assert_eq!(found.failed, []);
    Row::decode(&found.attributes).expect("a row")
}

fn is_as_flat(world: &mut TreeWorld) -> bool {
    let nodes = 0..world.nodes.len();
    let nodes: Vec<usize> = nodes.filter(|node| world.nodes[*node].alive).collect();
    let Some(installed) = world.nodes[nodes[0]].installed.clone() else {
        return false;
    };
    let flat = flat(world, &installed);
    flat.0.len() > 2 && nodes.iter().all(|node| root(world, *node) == flat)
}

/// Looked at every fifth of a second.
pub fn comes_true(
    world: &mut TreeWorld,
    seconds: u32,
    mut is_so: impl FnMut(&mut TreeWorld) -> bool,
) -> bool {
    for _ in 0..seconds * 5 {
        if is_so(world) {
            return true;
        }
        world.pass(SECOND / 5);
    }
    is_so(world)
}

#[test]
fn the_root_has_what_one_zone_of_all_would_have() {
    for (branching, leaf) in [(&[2, 3][..], 4), (&[5][..], 3), (&[2, 2, 2][..], 2)] {
        let mut world = settled(branching, leaf, 7);
        for (name, text) in PROGRAMS {
            world.install(3, &program(name, 1, text)).expect("fits");
        }
        assert!(comes_true(&mut world, 15, is_as_flat), "{branching:?}");
        assert!(!root(&mut world, 0).0.is_empty());
        for node in [0, 5, 9] {
            world.change(node, 1);
        }
        assert!(comes_true(&mut world, 10, is_as_flat), "{branching:?}");
        world.kill(4);
        assert!(comes_true(&mut world, 20, is_as_flat), "{branching:?}");
        assert_eq!(world.lies, []);
    }
}

#[test]
fn a_program_that_fails_is_named_and_hurts_no_other() {
    let mut world = settled(&[2, 2], 4, 3);
    for (name, text) in [
        PROGRAMS[0],
        ("broken", "SELECT nothing FROM nowhere"),
        ("late", "SELECT MAX(cpu) AS cpu FROM children"),
        PROGRAMS[1],
    ] {
        world.install(0, &program(name, 1, text)).expect("fits");
    }
    let named = comes_true(&mut world, 10, |world| {
        let names = world.failed.values().flatten();
        let mut names: Vec<&str> = names.map(|one| one.program.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names == ["broken", "load"] && root(world, 5).get("idle").is_some()
    });
    let failed = &world.failed;
    assert!(named, "{failed:?}");
    let row = root(&mut world, 13);
    assert!(row.get("idlest").is_some() && row.get("least").is_some());
    assert!(row.get("broken_parts").is_none());
    assert!(world.lies.is_empty());
}

#[test]
fn a_number_leads_to_the_rows_behind_it() {
    let mut world = settled(&[2], 5, 3);
    let (name, text) = PROGRAMS[1];
    world.install(0, &program(name, 1, text)).expect("fits");
    world.pass(SECOND * 3);
    let leaf = zone("/z1");
    let node = &world.nodes[6];
    let installed = node.installed.as_ref().expect("runs");
    let inputs = node.tree.inputs_of(&leaf);
    let behind = installed.rows_behind(&leaf, "idle", UnixMillis(1), &inputs);
    let idle = (5..10).filter(|at| world.nodes[*at].facts.cpu < 0.7);
    assert_eq!(behind, Some(idle.map(id).collect()));
}
