//! Where the replicas of applied services run: what the placement core is told of
//! a cluster, and what becomes of its plan.
//!
//! In: desired state, the node table, what is known of each node. Out: how many
//! replicas of each service run on each node, or why there is no place.
//! Holds: what runs somewhere stays there while that node is among those that are
//! looked at; a service that a person put on a node runs there or nowhere.

use crate::desired::Desired;
use crate::nodes::{MachineReport, NodeTable};
use jobs::Record;
use kernel::{Bytes, Name, NodeId, ScopedName};
use manifest::{Manifest, Run, Service};
use placement::{Failure, Node, Plan, Refusal, Resources, World};
use std::collections::{BTreeMap, BTreeSet};

pub use super::replacing::{Replaced, leaving, replace, surplus, world_of_movable};
pub use placement::{Lack, WhyNot, Without, what_if, why_not};

pub type Placements = BTreeMap<Name, BTreeMap<NodeId, u32>>;

/// Of a node that did not tell what it has: enough for anything.
const UNTOLD: u64 = 1 << 50;

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    #[error("{object} is to run on node `{node}`, and there is none")]
    NoNode { object: String, node: Name },
    #[error("{}", told(.refusal, .names))]
    NoPlace {
        refusal: Box<Refusal<NodeId>>,
        /// What the nodes that came closest are called.
        names: BTreeMap<NodeId, Name>,
    },
}

impl PlaceError {
    /// What the reader can do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoNode { .. } => "homeostat node ls",
            Self::NoPlace { refusal, .. } => refusal.hint(),
        }
    }
}

pub(super) fn told(refusal: &Refusal<NodeId>, names: &BTreeMap<NodeId, Name>) -> String {
    let near = refusal.closest.iter().map(|near| {
        let lacks: Vec<String> = near.lacks.iter().map(ToString::to_string).collect();
        let called = names.get(&near.place).map_or("?", Name::as_str);
        format!("`{called}`: {}", lacks.join(", "))
    });
    let near: Vec<String> = near.collect();
    match near.as_slice() {
        [] => refusal.to_string(),
        near => format!("{refusal}; closest: {}", near.join("; ")),
    }
}

/// What is known of a node now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// Whether it can be counted on.
    pub reachable: bool,
    pub machine: Option<MachineReport>,
    /// As measured.
    pub memory_free: Option<Bytes>,
    pub disk_free: Option<Bytes>,
    /// How often it is down, as it was seen.
    pub failure: Option<Failure>,
}

impl Known {
    /// Nothing but whether it can be reached.
    pub fn reach(reachable: bool) -> Self {
        Self {
            reachable,
            ..Self::default()
        }
    }

    /// A node that has not told what it has gets nothing new: a leader that is new
    /// hears of it in a moment, and would take it for one with room for anything.
    #[must_use]
    pub fn if_told(self) -> Self {
        Self {
            reachable: self.reachable && self.machine.is_some(),
            ..self
        }
    }
}

/// All that runs, or is to run, on the nodes that belong.
///
/// * `gone`: nodes that are looked at as if they were not there.
pub fn world(
    desired: &Desired,
    nodes: &NodeTable,
    gone: &BTreeSet<NodeId>,
    known: impl Fn(NodeId) -> Known,
) -> World {
    let mut world = World::default();
    for record in nodes.values().filter(|record| record.belongs()) {
        if gone.contains(&record.id) {
            continue;
        }
        let known = known(record.id);
        let capacity = known.machine.as_ref().map(|machine| Resources {
            cpu_thousandths: machine.cpu_thousandths,
            memory: machine.memory,
            disk: machine.disk,
        });
        let capacity = capacity.unwrap_or(Resources {
            cpu_thousandths: UNTOLD,
            memory: Bytes(UNTOLD),
            disk: Bytes(UNTOLD),
        });
        let free = Resources {
            cpu_thousandths: capacity.cpu_thousandths,
            memory: known.memory_free.unwrap_or(capacity.memory),
            disk: known.disk_free.unwrap_or(capacity.disk),
        };
        let node = Node {
            name: record.name.clone(),
            zone: record.zone.clone(),
            domain: None,
            capacity,
            free,
            architecture: known.machine.map(|it| it.architecture).unwrap_or_default(),
            devices: BTreeMap::new(),
            failure: known.failure,
            price_per_hour: None,
            outbound_only: record.way.outbound_only,
            reachable: known.reachable,
            draining: !record.takes_replicas(),
            content: BTreeSet::new(),
        };
        world.nodes.insert(record.id, node);
    }
    for (name, service, applied) in desired.services() {
        let on = nodes
            .keys()
            .map(|id| (*id, applied.share(&name.name, service, *id)));
        let on: BTreeMap<NodeId, u32> = on.filter(|(_, count)| *count > 0).collect();
        if !on.is_empty() {
            world.running.insert(name.clone(), on);
        }
        world.services.insert(name, wanted(service));
    }
    for (name, record) in &desired.jobs {
        add_attempts(&mut world, desired, name, record);
    }
    world
}

/// What goes on of a job takes room like a service's replicas.
fn add_attempts(world: &mut World, desired: &Desired, name: &ScopedName, record: &Record) {
    let Some((job, _)) = desired.job(name) else {
        return;
    };
    let mut on: BTreeMap<NodeId, u32> = BTreeMap::new();
    for (.., attempt) in record.attempts() {
        if world.nodes.contains_key(&attempt.node) {
            *on.entry(attempt.node).or_default() += 1;
        }
    }
    if !on.is_empty() {
        let service = Service {
            replicas: on.values().sum(),
            ..job.as_service()
        };
        world.services.insert(name.clone(), wanted(&service));
        world.running.insert(name.clone(), on);
    }
}

/// What a service asks for: its limits are set aside for it.
pub(super) fn wanted(service: &Service) -> placement::Service {
    let cpu = service.limits.cpu.unwrap_or_default() * 1e3;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped"
    )]
    let cpu_thousandths = cpu.clamp(0.0, 1e9) as u64;
    placement::Service {
        replicas: service.replicas,
        need: Resources {
            cpu_thousandths,
            memory: service.limits.memory.unwrap_or_default(),
            disk: Bytes::default(),
        },
        singleton: service.singleton || matches!(service.run, Run::Actor(_)),
        availability: service.goals.availability,
        node: service.node.clone(),
        ..placement::Service::default()
    }
}

/// What a new applied state places where.
///
/// * `desired`: all projects as they are applied now.
/// * `known`: of each node; one that cannot be reached keeps what it has.
///
/// # Errors
/// Nothing is placed when one of the manifest's services has no place.
pub fn placements(
    manifest: &Manifest,
    desired: &Desired,
    nodes: &NodeTable,
    known: impl Fn(NodeId) -> Known,
) -> Result<Placements, PlaceError> {
    let services = manifest.services.iter();
    let services = services.map(|(name, service)| ("service", name, service.node.as_ref()));
    let jobs = manifest.jobs.iter();
    let jobs = jobs.map(|(name, job)| ("job", name, job.node.as_ref()));
    for (kind, name, node) in services.chain(jobs) {
        let there = |node: &&Name| {
            let mut belonging = nodes.values().filter(|record| record.belongs());
            belonging.any(|record| record.name == **node)
        };
        if let Some(node) = node.filter(|node| !there(node)) {
            return Err(PlaceError::NoNode {
                object: format!("{kind}/{name}"),
                node: node.clone(),
            });
        }
    }
    let mut world = world(desired, nodes, &BTreeSet::new(), known);
    world
        .services
        .retain(|name, _| name.project != manifest.project || desired.job(name).is_some());
    for (name, service) in &manifest.services {
        let name = ScopedName::new(manifest.project.clone(), name.clone());
        world.services.insert(name, wanted(service));
    }
    let plan = placement::cluster(&world);
    let mut refused = plan.refused.iter().filter(|refusal| {
        let stay = u32::try_from(refusal.stay.len()).unwrap_or(u32::MAX);
        let service = &refusal.service;
        let is_its =
            service.project == manifest.project && manifest.services.contains_key(&service.name);
        is_its && refusal.missing > stay
    });
    if let Some(refusal) = refused.next() {
        let near = refusal.closest.iter().map(|near| near.place);
        let name = |id: NodeId| Some((id, nodes.get(&id)?.name.clone()));
        return Err(PlaceError::NoPlace {
            names: near.filter_map(name).collect(),
            refusal: Box::new(refusal.clone()),
        });
    }
    Ok(of_project(
        &plan,
        &manifest.project,
        manifest.services.keys(),
    ))
}

/// A plan's part that is of one project.
fn of_project<'a>(
    plan: &Plan<NodeId>,
    project: &Name,
    services: impl Iterator<Item = &'a Name>,
) -> Placements {
    let assigned = services.map(|name| {
        let scoped = ScopedName::new(project.clone(), name.clone());
        (
            name.clone(),
            plan.assigned.get(&scoped).cloned().unwrap_or_default(),
        )
    });
    assigned.collect()
}

/// Whether the replicas of a service can run elsewhere without what they keep
/// where they are, and nobody said where; singletons move by [`crate::lease`].
pub fn is_movable(service: &Service) -> bool {
    can_move(service) && !service.singleton
}

/// The same, whatever moves it.
pub fn can_move(service: &Service) -> bool {
    service.node.is_none() && !matches!(service.run, Run::Actor(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Applied;
    use crate::nodes::NodeRecord;
    use kernel::{Hash, Revision, UnixMillis};
    use repair::Difference;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn manifest(services: &[(&str, &str)]) -> Manifest {
        let text = services
            .iter()
            .map(|(service, more)| {
                format!("[service.{service}]\nrun = {{ process = [\"true\"] }}\n{more}\n")
            })
            .collect::<Vec<_>>();
        manifest::parse(&text.concat(), &name("p")).expect("a manifest")
    }

    fn nodes(zones: &[&str]) -> NodeTable {
        let record = |(at, zone): (usize, &&str)| {
            let id = NodeId(at as u64 + 1);
            let name = name(&format!("n{}", at + 1));
            let zone = zone.parse().expect("a zone");
            let record = NodeRecord::new(id, name, zone, Hash([0; 32]), UnixMillis(0));
            (id, record)
        };
        zones.iter().enumerate().map(record).collect()
    }

    fn desired(manifest: &Manifest, placements: Placements) -> Desired {
        let applied = Applied {
            number: 1,
            at_unix: UnixMillis(0),
            manifest: manifest.clone(),
            directory: "/p".into(),
            trees: BTreeMap::new(),
            programs: BTreeMap::new(),
            generations: BTreeMap::new(),
            placements,
            epochs: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            origin: NodeId(1),
        };
        Desired {
            revision: Revision(1),
            projects: BTreeMap::from([(manifest.project.clone(), applied)]),
            ..Desired::default()
        }
    }

    fn placed(manifest: &Manifest, nodes: &NodeTable) -> Result<Placements, PlaceError> {
        placements(manifest, &Desired::default(), nodes, |_| Known::reach(true))
    }

    fn on(placements: &Placements, service: &str) -> Vec<(u64, u32)> {
        let on = placements[&name(service)].iter();
        on.map(|(id, count)| (id.0, *count)).collect()
    }

    #[test]
    fn copies_are_spread_and_a_named_node_gets_all() {
        let wanted = manifest(&[("a", "replicas = 3"), ("c", "replicas = 2\nnode = \"n3\"")]);
        let placed = placed(&wanted, &nodes(&["/x", "/y", "/z"])).expect("places");
        assert_eq!(on(&placed, "a"), [(1, 1), (2, 1), (3, 1)]);
        assert_eq!(on(&placed, "c"), [(3, 2)]);
    }

    #[test]
    fn what_names_no_node_or_has_no_room_is_refused_with_what_came_closest() {
        let wanted = manifest(&[("a", "node = \"nowhere\"")]);
        let refused = placed(&wanted, &nodes(&["/x"])).expect_err("no such node");
        assert!(refused.to_string().contains("nowhere"), "{refused}");
        let wanted = manifest(&[("a", "limits = { memory = \"8GiB\" }")]);
        let small = |_| Known {
            reachable: true,
            machine: Some(MachineReport {
                cpu_thousandths: 2_000,
                memory: Bytes(4 << 30),
                disk: Bytes(1 << 40),
                architecture: "x".to_owned(),
            }),
            ..Known::default()
        };
        let refused = placements(&wanted, &Desired::default(), &nodes(&["/x", "/y"]), small);
        let refused = refused.expect_err("no room").to_string();
        assert!(
            refused.contains("memory") && refused.contains("`n1`"),
            "{refused}"
        );
        let silent = placements(&wanted, &Desired::default(), &nodes(&["/x"]), |_| {
            Known::reach(false)
        });
        let silent = silent.expect_err("nobody is there").to_string();
        assert!(silent.contains("reach"), "{silent}");
    }

    #[test]
    fn what_cannot_be_reached_keeps_what_it_has() {
        let wanted = manifest(&[("a", "replicas = 2")]);
        let table = nodes(&["/x", "/y", "/z"]);
        let before = placed(&wanted, &table).expect("places");
        let away = *before[&name("a")].keys().next().expect("one");
        let again = placements(&wanted, &desired(&wanted, before.clone()), &table, |id| {
            Known::reach(id != away)
        });
        assert_eq!(again.expect("places"), before);
    }

    #[test]
    fn the_replicas_of_a_node_that_is_gone_go_elsewhere_and_the_others_stay() {
        let wanted = manifest(&[
            ("a", "replicas = 3"),
            ("b", "node = \"n2\""),
            ("c", "replicas = 1"),
        ]);
        let table = nodes(&["/x", "/y", "/z"]);
        let before = placed(&wanted, &table).expect("places");
        let desired = desired(&wanted, before.clone());
        let gone = BTreeSet::from([NodeId(2)]);
        let replaced = replace(&desired, &table, &gone, 100, small(1_000));
        let after = &replaced.placements[&name("p")];
        assert_eq!(
            after[&name("b")],
            before[&name("b")],
            "a person put it there"
        );
        assert!(!after[&name("a")].contains_key(&NodeId(2)), "{after:?}");
        assert_eq!(after[&name("a")].values().sum::<u32>(), 3);
        for id in [NodeId(1), NodeId(3)] {
            assert!(after[&name("a")][&id] >= before[&name("a")][&id]);
        }
        // No more at once than is allowed, and nothing where there is nobody.
        let none = replace(&desired, &table, &gone, 0, small(1_000));
        assert_eq!((none.moved, none.placements.len()), (0, 0));
        let all = BTreeSet::from([NodeId(1), NodeId(2), NodeId(3)]);
        let nowhere = replace(&desired, &table, &all, 100, small(1_000));
        assert_eq!(nowhere.placements, BTreeMap::new());
    }

    fn small(gibibytes: u64) -> impl Fn(NodeId) -> Known {
        move |_| Known {
            machine: Some(MachineReport {
                cpu_thousandths: 8_000,
                memory: Bytes(gibibytes << 30),
                disk: Bytes(1 << 40),
                architecture: "x".to_owned(),
            }),
            ..Known::reach(true)
        }
    }

    fn put(on: &[(&str, &[(u64, u32)])]) -> Placements {
        let each = |(service, on): &(&str, &[(u64, u32)])| {
            let on = on.iter().map(|(node, count)| (NodeId(*node), *count));
            (name(service), on.collect())
        };
        on.iter().map(each).collect()
    }

    #[test]
    fn what_has_no_other_place_is_not_forgotten() {
        let wanted = manifest(&[("a", "replicas = 4\nlimits = { memory = \"1GiB\" }")]);
        let table = nodes(&["/x", "/y"]);
        let before = desired(&wanted, put(&[("a", &[(1, 1), (2, 3)])]));
        let gone = BTreeSet::from([NodeId(2)]);
        let replaced = replace(&before, &table, &gone, 9, small(3));
        let after = &replaced.placements[&name("p")];
        assert_eq!((on(after, "a"), replaced.moved), (vec![(1, 3), (2, 1)], 2));
        assert_eq!(replaced.refused[0].missing, 1);
        // It is found once there is another node.
        let table = nodes(&["/x", "/y", "/z"]);
        let next = desired(&wanted, after.clone());
        let replaced = replace(&next, &table, &gone, 9, small(3));
        let after = &replaced.placements[&name("p")];
        assert_eq!((on(after, "a"), replaced.moved), (vec![(1, 3), (3, 1)], 1));
    }

    #[test]
    fn what_a_node_has_is_known_before_anything_is_placed_there() {
        let wanted = manifest(&[("a", "replicas = 2\nlimits = { memory = \"1GiB\" }")]);
        let before = desired(&wanted, put(&[("a", &[(1, 1), (2, 1)])]));
        let (table, gone) = (nodes(&["/x", "/y", "/z"]), BTreeSet::from([NodeId(2)]));
        let all = small(8);
        let replaced = replace(&before, &table, &gone, 9, |node| match node {
            NodeId(3) => Known::reach(true),
            _ => all(node),
        });
        assert_eq!(on(&replaced.placements[&name("p")], "a"), [(1, 2)]);
        let silent = replace(&before, &table, &gone, 9, |_| Known::reach(true));
        assert_eq!((silent.moved, silent.refused.len()), (0, 1));
        let replaced = replace(&before, &table, &gone, 9, all);
        assert_eq!(on(&replaced.placements[&name("p")], "a"), [(1, 1), (3, 1)]);
    }

    #[test]
    fn of_one_service_too_no_more_move_than_may() {
        let wanted = manifest(&[("a", "replicas = 5"), ("b", "replicas = 2")]);
        let before = put(&[("a", &[(1, 1), (2, 4)]), ("b", &[(2, 2)])]);
        let (table, gone) = (nodes(&["/x", "/y"]), BTreeSet::from([NodeId(2)]));
        let known = small(1_000);
        let first = replace(&desired(&wanted, before), &table, &gone, 3, &known);
        let after = first.placements[&name("p")].clone();
        assert_eq!((on(&after, "a"), first.moved), (vec![(1, 4), (2, 1)], 3));
        assert_eq!(on(&after, "b"), [(2, 2)]);
        let then = replace(&desired(&wanted, after), &table, &gone, 3, &known);
        let after = &then.placements[&name("p")];
        assert_eq!(
            (on(after, "a"), on(after, "b")),
            (vec![(1, 5)], vec![(1, 2)])
        );
    }

    #[test]
    fn what_cannot_move_takes_room_all_the_same() {
        let wanted = manifest(&[
            ("a", "limits = { memory = \"2GiB\" }\nnode = \"n1\""),
            ("b", "limits = { memory = \"2GiB\" }"),
        ]);
        let before = desired(&wanted, put(&[("a", &[(1, 1)]), ("b", &[(2, 1)])]));
        let (table, gone) = (nodes(&["/x", "/y"]), BTreeSet::from([NodeId(2)]));
        let replaced = replace(&before, &table, &gone, 9, small(3));
        assert_eq!((replaced.moved, replaced.placements.len()), (0, 0));
        assert_eq!(replaced.refused.len(), 1, "nothing is said of `a`");
        let replaced = replace(&before, &table, &gone, 9, small(4));
        assert_eq!(on(&replaced.placements[&name("p")], "b"), [(1, 1)]);
    }

    #[test]
    fn copies_that_a_drain_left_when_it_was_undone_leave() {
        let wanted = manifest(&[("a", "replicas = 2")]);
        let table = nodes(&["/x", "/y", "/z"]);
        let before = desired(&wanted, put(&[("a", &[(1, 1), (2, 1), (3, 1)])]));
        let missing = Difference::Missing {
            component: ScopedName::new(name("p"), name("a")),
            node: NodeId(3),
            count: 1,
        };
        assert_eq!(surplus(&before, &table, &[missing]), BTreeMap::new());
        let found = surplus(&before, &table, &[]);
        assert_eq!(found, BTreeMap::from([(NodeId(3), 1)]));
        let nobody = BTreeSet::new();
        let replaced = replace(&before, &table, &nobody, 1, small(1_000));
        let after = &replaced.placements[&name("p")];
        assert_eq!((on(after, "a").len(), replaced.moved), (2, 0));
    }

    #[test]
    fn a_draining_node_is_left_once_there_are_successors() {
        let wanted = manifest(&[("a", "replicas = 1")]);
        let mut table = nodes(&["/x", "/y"]);
        let before = placed(&wanted, &table).expect("places");
        let from = *before[&name("a")].keys().next().expect("one");
        table.get_mut(&from).expect("there").draining = true;
        let none = BTreeSet::new();
        let known = small(1_000);
        let first = desired(&wanted, before);
        assert_eq!(leaving(&first, &table, &[], from), 1);
        let both = replace(&first, &table, &none, 9, &known).placements[&name("p")].clone();
        assert_eq!(
            both[&name("a")].len(),
            2,
            "the old one stays meanwhile: {both:?}"
        );
        let second = desired(&wanted, both);
        let missing = Difference::Missing {
            component: ScopedName::new(name("p"), name("a")),
            node: NodeId(3 - from.0),
            count: 1,
        };
        assert_eq!(
            leaving(&second, &table, &[missing], from),
            0,
            "it is not ready"
        );
        assert_eq!(leaving(&second, &table, &[], from), 1);
        let after = replace(&second, &table, &none, 9, &known).placements[&name("p")].clone();
        assert!(!after[&name("a")].contains_key(&from), "{after:?}");
        assert_eq!(leaving(&desired(&wanted, after), &table, &[], from), 0);
    }

    #[test]
    fn an_availability_goal_brings_copies() {
        let wanted = manifest(&[("a", "goals = { availability = \"99.95%\" }")]);
        let one = placed(&wanted, &nodes(&["/x"])).expect("places");
        assert_eq!(on(&one, "a"), [(1, 1)], "more would not reach it");
        let three = placed(&wanted, &nodes(&["/x", "/y", "/z"])).expect("places");
        assert_eq!(three[&name("a")].values().sum::<u32>(), 2);
    }
}
