//! Desired state and nodes' reports as graphs, to be compared.

use crate::desired::Desired;
use crate::nodes::{NodeReport, NodeTable};
use control::stage::Stage;
use kernel::{NodeId, ReplicaId};
use manifest::BindingTarget;
use repair::{Binding, Component, Difference, Graph};
use std::collections::BTreeMap;

/// What all nodes together are to run, and what each service needs of others.
pub fn wished(desired: &Desired, nodes: &NodeTable) -> Graph {
    let mut graph = Graph::default();
    for (name, service, applied) in desired.services() {
        let share = |id: &NodeId| (*id, applied.share(&name.name, service, *id));
        let on = nodes.keys().map(share).filter(|(_, count)| *count > 0);
        // Of two generations, the other one's replicas are a rollout's own business.
        let generation = applied.stands_on(&name.name);
        for (called, binding) in &service.bindings {
            if let BindingTarget::Service(to) = &binding.target {
                graph.bindings.insert(Binding {
                    from: name.clone(),
                    called: called.clone(),
                    to: applied.scoped(to),
                });
            }
        }
        let component = Component {
            generation,
            on: on.collect(),
            stale: BTreeMap::new(),
        };
        graph.components.insert(name, component);
    }
    graph
}

/// What nodes said that they run, of the generations that are wished.
pub fn seen(desired: &Desired, wished: &Graph, reports: &BTreeMap<NodeId, NodeReport>) -> Graph {
    let mut graph = Graph::default();
    for (node, report) in reports {
        for (name, status) in &report.status.services {
            let applied = desired.projects.get(&name.project);
            let under_way = applied.and_then(|it| it.rollouts.get(&name.name));
            let wish = wished.components.get(name);
            let generation = wish.map(|it| it.generation);
            let is_current = |it: &&ReplicaId| Some(it.generation) == generation;
            let count = |ready: usize| u32::try_from(ready).unwrap_or(u32::MAX);
            let all = count(status.endpoints.len());
            let current = count(status.endpoints.iter().filter(is_current).count());
            let (current, stale) = match under_way.map(|it| it.stage) {
                None => (current, all - current),
                // A place is filled by either.
                Some(Stage::Rolling) => {
                    let placed = wish.and_then(|it| it.on.get(node)).copied();
                    (all.min(placed.unwrap_or(0)), 0)
                }
                Some(_) => (current, 0),
            };
            if current + stale == 0 {
                continue;
            }
            let component = graph.components.entry(name.clone()).or_default();
            component.generation = generation.unwrap_or_default();
            if current > 0 {
                component.on.insert(*node, current);
            }
            if stale > 0 {
                component.stale.insert(*node, stale);
            }
        }
    }
    graph
}

/// What keeps what is seen from being what is wished.
pub fn differences(
    desired: &Desired,
    nodes: &NodeTable,
    reports: &BTreeMap<NodeId, NodeReport>,
) -> Vec<Difference> {
    let wished = wished(desired, nodes);
    let seen = seen(desired, &wished, reports);
    repair::differences(&wished, &seen)
}
