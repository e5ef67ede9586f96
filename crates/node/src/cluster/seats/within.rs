//! What is wished of one zone, and what its seat may change of it.
//!
//! The root has said how many replicas of each service a zone has; which of the zone's
//! nodes run them is the zone's own. So the seat sees the zone as if it were a cluster of
//! its own, and the same engine places there. Drains are not its business: their
//! successors may be in any zone.
//!
//! In: desired state, the zone's nodes, which of them are gone. Out: moves; on the leader,
//! the state with them.
//! Holds: the zone has as many replicas afterwards as before; what is not the zone's, or
//! cannot move, is as it was.

use crate::cluster::placing::{Known, is_movable, replace};
use crate::desired::{Applied, Desired};
use crate::nodes::NodeTable;
use kernel::{FencingEpoch, Name, NodeId, ScopedName, ZonePath};
use manifest::Service;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

type Shares = BTreeMap<NodeId, u32>;

/// One service's replicas on a zone's nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub before: Shares,
    pub after: Shares,
}

/// What a zone's seat wants written of one project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moves {
    pub zone: ZonePath,
    pub epoch: FencingEpoch,
    pub project: Name,
    /// Of the applied state that was looked at.
    pub number: u64,
    pub services: BTreeMap<Name, Move>,
}

/// What is to be done about nodes of a zone that are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    pub moves: Vec<Moves>,
    /// Nodes that have replicas for which the zone has no place: for the root.
    pub refused: BTreeSet<NodeId>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotMade {
    #[error("`{0}` was changed meanwhile")]
    Changed(Name),
    #[error("`{service}` has nothing there that the seat of {zone} may move so")]
    NotIts { service: ScopedName, zone: ZonePath },
}

/// The nodes of a zone that may run replicas, whether they are there or not.
///
/// * `within`: all nodes of the zone.
pub fn zone_table(nodes: &NodeTable, within: &BTreeSet<NodeId>) -> NodeTable {
    let its = nodes.iter().filter(|(node, record)| {
        within.contains(node) && record.belongs() && record.takes_replicas()
    });
    its.map(|(node, record)| (*node, record.clone())).collect()
}

fn shares(applied: &Applied, name: &Name, service: &Service, zone: &NodeTable) -> Shares {
    let all = zone
        .keys()
        .map(|node| (*node, applied.share(name, service, *node)));
    all.filter(|(_, count)| *count > 0).collect()
}

/// Desired state as if the zone were all there is: of each service as many replicas as
/// the zone has now.
pub fn part(desired: &Desired, zone: &NodeTable) -> Desired {
    let mut part = desired.clone();
    for (project, narrow) in &mut part.projects {
        let Some(whole) = desired.projects.get(project) else {
            continue;
        };
        let Applied {
            manifest,
            placements,
            ..
        } = narrow;
        placements.clear();
        manifest.services.retain(|name, service| {
            let on = shares(whole, name, service, zone);
            let count: u32 = on.values().sum();
            placements.insert(name.clone(), on);
            service.bindings.clear();
            if is_movable(service) {
                service.replicas = count;
                service.goals.availability = None;
            }
            count > 0
        });
    }
    part
}

/// What the zone's seat, which holds it under `epoch`, does about its nodes that are
/// gone.
///
/// * `nodes`: all of the cluster; `zone`: the zone's ([`zone_table`]).
/// * `at_most`: so many replicas.
pub fn decide(
    desired: &Desired,
    nodes: &NodeTable,
    (zone, epoch, within): (&ZonePath, FencingEpoch, &NodeTable),
    gone: &BTreeSet<NodeId>,
    at_most: u32,
    known: impl Fn(NodeId) -> Known,
) -> Decided {
    let part = part(desired, within);
    let replaced = replace(&part, within, gone, at_most, known);
    let mut decided = Decided::default();
    for (project, after) in &replaced.placements {
        let both = (desired.projects.get(project), part.projects.get(project));
        let (Some(whole), Some(narrow)) = both else {
            continue;
        };
        let mut services = BTreeMap::new();
        for (name, before) in &narrow.placements {
            let Some(mut after) = after.get(name).cloned() else {
                continue;
            };
            if has_none_somewhere(whole, name, nodes, within) {
                after = no_second_copies(before, after);
            }
            if after != *before {
                let before = before.clone();
                services.insert(name.clone(), Move { before, after });
            }
        }
        if !services.is_empty() {
            decided.moves.push(Moves {
                zone: zone.clone(),
                epoch,
                project: project.clone(),
                number: whole.number,
                services,
            });
        }
    }
    // Where as many moved as may, the others wait for their turn.
    if replaced.moved < at_most {
        decided.refused = decided.remaining(&part, gone);
    }
    decided
}

impl Decided {
    /// Those of `gone` that have something that can move, all moves made.
    fn remaining(&self, part: &Desired, gone: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let after = |name: &ScopedName, node: NodeId, before: u32| {
            let mut its = self.moves.iter().filter(|it| it.project == name.project);
            let moved = its.find_map(|it| it.services.get(&name.name));
            moved.map_or(before, |one| {
                one.after.get(&node).copied().unwrap_or_default()
            })
        };
        let has_any = |node: &NodeId| {
            let mut movable = part
                .services()
                .filter(|(_, service, _)| is_movable(service));
            movable.any(|(name, service, applied)| {
                let before = applied.share(&name.name, service, *node);
                before > 0 && after(&name, *node, before) > 0
            })
        };
        gone.iter().copied().filter(has_any).collect()
    }
}

/// Whether a node of another zone could have a copy, and has none.
fn has_none_somewhere(whole: &Applied, name: &Name, nodes: &NodeTable, zone: &NodeTable) -> bool {
    let Some(service) = whole.manifest.services.get(name) else {
        return false;
    };
    let mut elsewhere = nodes.values().filter(|record| {
        !zone.contains_key(&record.id) && record.belongs() && record.takes_replicas()
    });
    elsewhere.any(|record| whole.share(name, service, record.id) == 0)
}

/// The same without second copies on nodes that had none or one: these stay where they
/// were, for the root to place.
fn no_second_copies(before: &Shares, mut after: Shares) -> Shares {
    let had = |node: &NodeId| before.get(node).copied().unwrap_or_default();
    let mut back = 0;
    for (node, count) in &mut after {
        let most = had(node).max(1);
        back += count.saturating_sub(most);
        *count = (*count).min(most);
    }
    for (node, count) in before {
        let now = after.entry(*node).or_default();
        let lacks = count.saturating_sub(*now).min(back);
        *now += lacks;
        back -= lacks;
    }
    after.retain(|_, count| *count > 0);
    after
}

impl Moves {
    /// The project's state with them, on the leader.
    ///
    /// * `zone`: the zone's nodes, as the leader knows them.
    ///
    /// # Errors
    /// The state is another than the seat saw, or it wants what is not its own.
    pub fn made(&self, head: &Applied, zone: &NodeTable) -> Result<Applied, NotMade> {
        let changed = || NotMade::Changed(self.project.clone());
        if head.manifest.project != self.project || head.number != self.number {
            return Err(changed());
        }
        let mut made = head.clone();
        for (name, one) in &self.services {
            let not_its = || NotMade::NotIts {
                service: head.scoped(name),
                zone: self.zone.clone(),
            };
            let service = head.manifest.services.get(name);
            let service = service.filter(|service| is_movable(service));
            let service = service.ok_or_else(not_its)?;
            if shares(head, name, service, zone) != one.before {
                return Err(changed());
            }
            let count = |shares: &Shares| shares.values().copied().map(u64::from).sum::<u64>();
            let is_same = count(&one.after) == count(&one.before) && count(&one.before) > 0;
            if !is_same || !one.after.keys().all(|node| zone.contains_key(node)) {
                return Err(not_its());
            }
            // Where nothing is said, all are on one node, which is this zone's.
            let mut on = head.placements.get(name).cloned().unwrap_or_default();
            on.retain(|node, _| !zone.contains_key(node));
            on.extend(one.after.iter().filter(|(_, count)| **count > 0));
            made.placements.insert(name.clone(), on);
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::{MachineReport, NodeRecord};
    use crate::placing::Placements;
    use kernel::{Bytes, Hash, Revision, UnixMillis};

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn nodes(zones: &[&str]) -> NodeTable {
        let record = |(at, zone): (usize, &&str)| {
            let id = NodeId(at as u64 + 1);
            let name = name(&format!("n{id}"));
            let zone = zone.parse().expect("a zone");
            let record = NodeRecord::new(id, name, zone, Hash([0; 32]), UnixMillis(0));
            (id, record)
        };
        zones.iter().enumerate().map(record).collect()
    }

    fn put(on: &[(&str, &[(u64, u32)])]) -> Placements {
        let each = |(service, on): &(&str, &[(u64, u32)])| {
            let on = on.iter().map(|(node, count)| (NodeId(*node), *count));
            (name(service), on.collect())
        };
        on.iter().map(each).collect()
    }

    fn desired(services: &[(&str, &str)], on: &[(&str, &[(u64, u32)])]) -> Desired {
        let text = services.iter().map(|(service, more)| {
            format!("[service.{service}]\nrun = {{ process = [\"true\"] }}\n{more}\n")
        });
        let text: String = text.collect();
        let manifest = manifest::parse(&text, &name("p")).expect("a manifest");
        let applied = Applied {
            number: 4,
            at_unix: UnixMillis(0),
            manifest,
            directory: "/p".into(),
            trees: BTreeMap::new(),
            programs: BTreeMap::new(),
            generations: BTreeMap::new(),
            placements: put(on),
            epochs: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            origin: NodeId(1),
        };
        Desired {
            revision: Revision(1),
            projects: BTreeMap::from([(name("p"), applied)]),
            ..Desired::default()
        }
    }

    fn known(memory_gib: u64) -> impl Fn(NodeId) -> Known {
        move |_| Known {
            machine: Some(MachineReport {
                cpu_thousandths: 8_000,
                memory: Bytes(memory_gib << 30),
                disk: Bytes(1 << 40),
                architecture: "x".to_owned(),
            }),
            ..Known::reach(true)
        }
    }

    /// Nodes 1 to 3 in one zone, 4 and 5 in another.
    const ZONES: [&str; 5] = ["/eu/1", "/eu/1", "/eu/1", "/us/1", "/us/1"];

    fn zone_of(nodes: &NodeTable, zone: &ZonePath) -> NodeTable {
        let within = nodes.values().filter(|record| record.zone == *zone);
        zone_table(nodes, &within.map(|record| record.id).collect())
    }

    fn lost(desired: &Desired, nodes: &NodeTable, gone: &[u64], gib: u64) -> Vec<Moves> {
        decided(desired, nodes, gone, gib).moves
    }

    fn decided(desired: &Desired, nodes: &NodeTable, gone: &[u64], gib: u64) -> Decided {
        let zone: ZonePath = "/eu/1".parse().expect("a zone");
        let within = zone_of(nodes, &zone);
        let gone = gone.iter().copied().map(NodeId).collect();
        let seat = (&zone, FencingEpoch(7), &within);
        decide(desired, nodes, seat, &gone, 9, known(gib))
    }

    fn made(desired: &Desired, nodes: &NodeTable, moves: &[Moves]) -> Applied {
        let [moves] = moves else {
            panic!("one project moves: {moves:?}");
        };
        let zone = zone_of(nodes, &moves.zone);
        moves
            .made(&desired.projects[&name("p")], &zone)
            .expect("made")
    }

    fn on(applied: &Applied, service: &str) -> Vec<(u64, u32)> {
        let on = applied.placements[&name(service)].iter();
        on.map(|(node, count)| (node.0, *count)).collect()
    }

    #[test]
    fn what_a_zone_lost_is_placed_within_it_and_all_else_stays() {
        let nodes = nodes(&ZONES);
        let desired = desired(
            &[
                ("a", "replicas = 3"),
                ("b", "node = \"n1\""),
                ("c", "singleton = true"),
            ],
            &[
                ("a", &[(1, 1), (2, 1), (4, 1)]),
                ("b", &[(1, 1)]),
                ("c", &[(1, 1)]),
            ],
        );
        let moves = lost(&desired, &nodes, &[1], 100);
        assert_eq!((moves[0].epoch, moves[0].number), (FencingEpoch(7), 4));
        let after = made(&desired, &nodes, &moves);
        assert_eq!(on(&after, "a"), [(2, 1), (3, 1), (4, 1)]);
        assert_eq!(
            (on(&after, "b"), on(&after, "c")),
            (vec![(1, 1)], vec![(1, 1)])
        );
        assert_eq!(lost(&desired, &nodes, &[], 100), []);
    }

    #[test]
    fn a_second_copy_on_a_node_is_for_the_root_while_another_zone_has_a_node_without() {
        let nodes = nodes(&ZONES);
        let all = &[("a", "replicas = 4")];
        let before = desired(all, &[("a", &[(1, 1), (2, 1), (3, 1), (4, 1)])]);
        let none = decided(&before, &nodes, &[1], 100);
        assert_eq!(none.moves, [], "node 5 has none");
        assert_eq!(none.refused, BTreeSet::from([NodeId(1)]));
        let before = desired(all, &[("a", &[(1, 2), (2, 1), (4, 1)])]);
        let some = decided(&before, &nodes, &[1], 100);
        let after = made(&before, &nodes, &some.moves);
        assert_eq!(on(&after, "a"), [(1, 1), (2, 1), (3, 1), (4, 1)]);
        assert_eq!(some.refused, BTreeSet::from([NodeId(1)]));
        let everywhere = &[("a", "replicas = 5")];
        let on_all = [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)];
        let before = desired(everywhere, &[("a", &on_all)]);
        let after = made(&before, &nodes, &lost(&before, &nodes, &[1], 100));
        assert_eq!(after.placements[&name("a")].values().sum::<u32>(), 5);
        assert!(!after.placements[&name("a")].contains_key(&NodeId(1)));
        assert_eq!(after.placements[&name("a")][&NodeId(4)], 1);
    }

    #[test]
    fn what_has_no_room_in_the_zone_stays_for_the_root() {
        let nodes = nodes(&ZONES);
        let need = "replicas = 1\nlimits = { memory = \"4GiB\" }";
        let desired = desired(&[("a", need)], &[("a", &[(1, 1)])]);
        let none = decided(&desired, &nodes, &[1], 2);
        assert_eq!(
            (none.moves, none.refused),
            (vec![], BTreeSet::from([NodeId(1)]))
        );
        let all = decided(&desired, &nodes, &[1], 8);
        assert_eq!((all.moves.len(), all.refused), (1, BTreeSet::new()));
        assert_eq!(
            lost(&desired, &nodes, &[1, 2, 3], 8),
            [],
            "the zone is dead"
        );
    }

    #[test]
    fn a_node_that_is_drained_is_not_the_zones_business() {
        let mut nodes = nodes(&ZONES);
        nodes.get_mut(&NodeId(3)).expect("there").draining = true;
        let desired = desired(&[("a", "replicas = 1")], &[("a", &[(1, 1), (3, 1)])]);
        let after = made(&desired, &nodes, &lost(&desired, &nodes, &[1], 100));
        assert_eq!(on(&after, "a"), [(2, 1), (3, 1)]);
        assert_eq!(lost(&desired, &nodes, &[3], 100), []);
    }

    #[test]
    fn what_a_zone_has_is_wished_of_it_alone() {
        let nodes = nodes(&ZONES);
        let desired = desired(
            &[
                ("a", "replicas = 3\ngoals = { availability = \"99.9%\" }"),
                ("b", "replicas = 1"),
            ],
            &[("a", &[(1, 1), (2, 1), (4, 1)]), ("b", &[(5, 1)])],
        );
        let zone = zone_of(&nodes, &"/eu/1".parse().expect("a zone"));
        let part = part(&desired, &zone);
        let services: Vec<_> = part.services().collect();
        let [(service, wanted, _)] = services.as_slice() else {
            panic!("one has replicas there");
        };
        assert_eq!((service.name.as_str(), wanted.replicas), ("a", 2));
    }

    #[test]
    fn the_leader_makes_only_what_is_the_zones_and_as_it_was_seen() {
        let nodes = nodes(&ZONES);
        let before = desired(
            &[("a", "replicas = 2"), ("b", "singleton = true")],
            &[("a", &[(1, 1), (4, 1)]), ("b", &[(1, 1)])],
        );
        let head = &before.projects[&name("p")];
        let zone = zone_of(&nodes, &"/eu/1".parse().expect("a zone"));
        let good = lost(&before, &nodes, &[1], 100).remove(0);
        assert!(good.made(head, &zone).is_ok());
        let other = Applied {
            number: 5,
            ..head.clone()
        };
        assert_eq!(good.made(&other, &zone), Err(NotMade::Changed(name("p"))));
        let placements = put(&[("a", &[(2, 1), (4, 1)])]);
        let other = Applied {
            placements,
            ..head.clone()
        };
        assert_eq!(good.made(&other, &zone), Err(NotMade::Changed(name("p"))));
        let wrong = |service: &str, before: (u64, u32), after: (u64, u32)| {
            let shares = |(node, count)| Shares::from([(NodeId(node), count)]);
            let one = Move {
                before: shares(before),
                after: shares(after),
            };
            let moves = Moves {
                services: BTreeMap::from([(name(service), one)]),
                ..good.clone()
            };
            matches!(moves.made(head, &zone), Err(NotMade::NotIts { .. }))
        };
        assert!(wrong("a", (1, 1), (2, 2)), "more than there were");
        assert!(wrong("a", (1, 1), (5, 1)), "in another zone");
        assert!(wrong("b", (1, 1), (2, 1)), "a singleton");
        assert!(wrong("c", (1, 1), (2, 1)), "no such service");
    }
}
