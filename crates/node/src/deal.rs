//! Deals replicas out over nodes, by hand or in turn.
//!
//! In: a manifest's services, the nodes that take replicas, where they are
//! now. Out: how many of each run where.
//! Holds: what runs somewhere that still belongs stays there; a service's
//! counts differ by one at most among the nodes that it is dealt to anew. A node
//! that can only call out has no service alone, unless a person named it.
//! Never: looks at load or resources.

use crate::desired::Applied;
use crate::nodes::NodeTable;
use kernel::{Name, NodeId};
use manifest::{Manifest, Service};
use std::collections::{BTreeMap, BTreeSet};

pub type Placements = BTreeMap<Name, BTreeMap<NodeId, u32>>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DealError {
    #[error("service/{service} is to run on node `{node}`, and there is none")]
    NoNode { service: Name, node: Name },
    #[error("no node can be reached that could take service/{service}")]
    Nobody { service: Name },
}

/// A node that replicas can be on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub name: Name,
    /// Whether it can take more: what is on one that cannot be reached stays.
    pub reachable: bool,
    pub outbound_only: bool,
}

/// What a new applied state places where, on the nodes that belong.
///
/// * `old`: the same project's, where it runs now.
/// * `is_up`: whether a node can be counted on, a hint.
///
/// # Errors
/// Nothing is dealt when one service has nowhere to run.
pub fn placements(
    manifest: &Manifest,
    old: Option<&Applied>,
    nodes: &NodeTable,
    is_up: impl Fn(NodeId) -> bool,
) -> Result<Placements, DealError> {
    let places = nodes.values().filter(|record| record.belongs());
    let places = places.map(|record| {
        let place = Place {
            name: record.name.clone(),
            reachable: is_up(record.id),
            outbound_only: record.way.outbound_only,
        };
        (record.id, place)
    });
    let before = old.map_or_else(Placements::new, |old| {
        let services = old.manifest.services.iter();
        let dealt = services.map(|(name, service)| {
            let on = |id: &NodeId| (*id, old.share(name, service, *id));
            let dealt = nodes.keys().map(on).filter(|(_, count)| *count > 0);
            (name.clone(), dealt.collect())
        });
        dealt.collect()
    });
    deal(&manifest.services, &places.collect(), &before)
}

/// * `before`: where the same project's services are now.
///
/// # Errors
/// Nothing is dealt when one service has nowhere to run.
pub fn deal(
    services: &BTreeMap<Name, Service>,
    places: &BTreeMap<NodeId, Place>,
    before: &Placements,
) -> Result<Placements, DealError> {
    let mut load: BTreeMap<NodeId, u32> = BTreeMap::new();
    let mut dealt = Placements::new();
    for (name, service) in services {
        let shares = match &service.node {
            Some(node) => {
                let found = places.iter().find(|(_, place)| place.name == *node);
                let (id, _) = found.ok_or_else(|| DealError::NoNode {
                    service: name.clone(),
                    node: node.clone(),
                })?;
                BTreeMap::from([(*id, service.replicas)])
            }
            None => in_turn(name, service.replicas, places, before.get(name), &load)?,
        };
        for (id, count) in &shares {
            *load.entry(*id).or_default() += count;
        }
        dealt.insert(name.clone(), shares);
    }
    Ok(dealt)
}

fn in_turn(
    service: &Name,
    replicas: u32,
    places: &BTreeMap<NodeId, Place>,
    before: Option<&BTreeMap<NodeId, u32>>,
    load: &BTreeMap<NodeId, u32>,
) -> Result<BTreeMap<NodeId, u32>, DealError> {
    let mut shares: BTreeMap<NodeId, u32> = before
        .into_iter()
        .flatten()
        .filter(|(id, count)| places.contains_key(id) && **count > 0)
        .map(|(id, count)| (*id, *count))
        .collect();
    let open: BTreeSet<NodeId> = places
        .iter()
        .filter(|(_, place)| place.reachable)
        .map(|(id, _)| *id)
        .collect();
    let mut total: u32 = shares.values().sum();
    while total < replicas {
        let count = |id: &NodeId| shares.get(id).copied().unwrap_or(0);
        let burden = |id: &NodeId| load.get(id).copied().unwrap_or(0) + count(id);
        // Where nobody can call, the first copy comes after one everywhere else.
        let late = |id: &NodeId| u32::from(places[id].outbound_only);
        let next = open
            .iter()
            .min_by_key(|id| (count(id) + late(id), burden(id), **id));
        let next = *next.ok_or_else(|| DealError::Nobody {
            service: service.clone(),
        })?;
        *shares.entry(next).or_default() += 1;
        total += 1;
    }
    while total > replicas {
        // Away from where most are, and of those from the newest node.
        let most = shares.iter().max_by_key(|(id, count)| (**count, **id));
        let Some((id, _)) = most.map(|(id, count)| (*id, *count)) else {
            break;
        };
        if let Some(count) = shares.get_mut(&id) {
            *count -= 1;
        }
        shares.retain(|_, count| *count > 0);
        total -= 1;
    }
    let dialable = |id: &NodeId| places.get(id).is_some_and(|place| !place.outbound_only);
    let best = open.iter().filter(|id| dialable(id));
    let best = best.min_by_key(|id| (load.get(id).copied().unwrap_or(0), **id));
    if let Some(best) = best
        && !shares.keys().any(dialable)
        && let Some(most) = shares.values_mut().max()
    {
        *most -= 1;
        shares.retain(|_, count| *count > 0);
        shares.insert(*best, 1);
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn services(told: &[(&str, u32, Option<&str>)]) -> BTreeMap<Name, Service> {
        let texts = told
            .iter()
            .map(|(service, replicas, node)| {
                let node = node.map_or_else(String::new, |node| format!("node = \"{node}\"\n"));
                format!(
                    "[service.{service}]\nrun = {{ process = [\"true\"] }}\nreplicas = {replicas}\n{node}"
                )
            })
            .collect::<Vec<_>>();
        let manifest = manifest::parse(&texts.concat(), &name("p")).expect("a manifest");
        manifest.services
    }

    fn places(count: u64) -> BTreeMap<NodeId, Place> {
        let place = |id| Place {
            name: name(&format!("n{id}")),
            reachable: true,
            outbound_only: false,
        };
        (1..=count).map(|id| (NodeId(id), place(id))).collect()
    }

    #[test]
    fn copies_are_dealt_in_turn_and_a_named_node_gets_all() {
        let wanted = services(&[("a", 3, None), ("b", 1, None), ("c", 2, Some("n3"))]);
        let dealt = deal(&wanted, &places(3), &Placements::new()).expect("deals");
        let on = |service: &str| dealt[&name(service)].clone();
        assert_eq!(on("a"), (1..=3).map(|id| (NodeId(id), 1)).collect());
        assert_eq!(on("b"), BTreeMap::from([(NodeId(1), 1)]));
        assert_eq!(on("c"), BTreeMap::from([(NodeId(3), 2)]));
    }

    #[test]
    fn what_names_no_node_or_has_none_left_is_refused() {
        let wanted = services(&[("a", 1, Some("nowhere"))]);
        let refused = deal(&wanted, &places(2), &Placements::new());
        assert!(matches!(refused, Err(DealError::NoNode { .. })));
        let wanted = services(&[("a", 1, None)]);
        let mut cut = places(1);
        for place in cut.values_mut() {
            place.reachable = false;
        }
        let refused = deal(&wanted, &cut, &Placements::new());
        assert!(matches!(refused, Err(DealError::Nobody { .. })));
    }

    #[test]
    fn a_node_that_can_only_call_out_has_no_service_alone() {
        let mut all = places(2);
        all.get_mut(&NodeId(1)).expect("a place").outbound_only = true;
        let on = |replicas, before: &Placements| {
            let wanted = services(&[("a", replicas, None)]);
            deal(&wanted, &all, before).expect("deals")[&name("a")].clone()
        };
        let counts = |counts: &[(u64, u32)]| -> BTreeMap<NodeId, u32> {
            counts
                .iter()
                .map(|(id, count)| (NodeId(*id), *count))
                .collect()
        };
        let none = Placements::new();
        assert_eq!(on(1, &none), counts(&[(2, 1)]));
        assert_eq!(on(2, &none), counts(&[(1, 1), (2, 1)]));
        // It became one when all was there already.
        let before = Placements::from([(name("a"), counts(&[(1, 2)]))]);
        assert_eq!(on(2, &before), counts(&[(1, 1), (2, 1)]));
        assert_eq!(on(1, &before), counts(&[(2, 1)]));
    }

    proptest! {
        #[test]
        fn every_replica_has_a_node_and_nothing_moves_without_need(
            nodes in 1_u64..8,
            first in 1_u32..20,
            second in 1_u32..20,
            gone in 0_u64..8,
        ) {
            let all = places(nodes);
            let dealt = deal(&services(&[("a", first, None)]), &all, &Placements::new()).expect("deals");
            let on = &dealt[&name("a")];
            prop_assert_eq!(on.values().sum::<u32>(), first);
            let spread = all.keys().map(|id| on.get(id).copied().unwrap_or(0));
            let (most, least) = (spread.clone().max(), spread.min());
            prop_assert!(most.unwrap_or(0) - least.unwrap_or(0) <= 1);

            let mut left = all.clone();
            if left.len() > 1 {
                left.remove(&NodeId(gone));
            }
            let again = deal(&services(&[("a", second, None)]), &left, &dealt).expect("deals");
            let after = &again[&name("a")];
            prop_assert_eq!(after.values().sum::<u32>(), second);
            prop_assert!(after.keys().all(|id| left.contains_key(id)));
            if second >= first {
                let stays = on.iter().filter(|(id, _)| left.contains_key(id));
                for (id, count) in stays {
                    prop_assert!(after.get(id).copied().unwrap_or(0) >= *count);
                }
            }
        }
    }
}
