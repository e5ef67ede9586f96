//! The architecture as a typed graph, as it is wished and as it is seen, and what
//! the two differ in (after Jade: Bouchenak et al., SRDS 2005).
//!
//! In: components with where they run, bindings between them. Out: differences,
//! in the order in which they are to be mended.
//! Holds: two graphs differ in nothing if and only if they are the same up to
//! which of a component's replicas is which.
//! Never: acts; knows how anything is started.

use kernel::{Name, NodeId, Revision, ScopedName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    pub components: BTreeMap<ScopedName, Component>,
    pub bindings: BTreeSet<Binding>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    pub generation: Revision,
    /// Replicas of that generation: wished, or seen to be ready.
    pub on: BTreeMap<NodeId, u32>,
    /// Replicas of other generations that are seen.
    pub stale: BTreeMap<NodeId, u32>,
}

/// A directed need of one component of another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Binding {
    pub from: ScopedName,
    pub called: Name,
    pub to: ScopedName,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    Missing {
        component: ScopedName,
        node: NodeId,
        count: u32,
    },
    Surplus {
        component: ScopedName,
        node: NodeId,
        count: u32,
    },
    /// Replicas of another generation than is wished.
    Stale {
        component: ScopedName,
        node: NodeId,
        count: u32,
    },
    /// What it needs has no replica that is ready.
    Unbound(Binding),
}

impl Difference {
    pub fn component(&self) -> &ScopedName {
        match self {
            Self::Missing { component, .. }
            | Self::Surplus { component, .. }
            | Self::Stale { component, .. } => component,
            Self::Unbound(binding) => &binding.from,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing {
                component,
                node,
                count,
            } => write!(f, "{count} of `{component}` missing on {node}"),
            Self::Surplus {
                component,
                node,
                count,
            } => write!(f, "{count} of `{component}` too many on {node}"),
            Self::Stale {
                component,
                node,
                count,
            } => write!(
                f,
                "{count} of `{component}` of another generation on {node}"
            ),
            Self::Unbound(binding) => write!(
                f,
                "`{}` needs `{}`, and none is ready",
                binding.from, binding.to
            ),
        }
    }
}

/// What keeps `seen` from being `wished`: what others need comes before those who
/// need it, and what is missing before what is too many.
pub fn differences(wished: &Graph, seen: &Graph) -> Vec<Difference> {
    let nothing = Component::default();
    let mut found = Vec::new();
    for component in in_order(wished) {
        let (wish, see) = (
            &wished.components[&component],
            seen.components.get(&component).unwrap_or(&nothing),
        );
        missing(&component, wish, see, &mut found);
    }
    for binding in &wished.bindings {
        let ready = seen.components.get(&binding.to);
        let ready =
            ready.is_some_and(|to| to.on.values().chain(to.stale.values()).sum::<u32>() > 0);
        if !ready && wished.components.contains_key(&binding.to) {
            found.push(Difference::Unbound(binding.clone()));
        }
    }
    for (component, see) in &seen.components {
        let wish = wished.components.get(component).unwrap_or(&nothing);
        surplus(component, wish, see, &mut found);
    }
    found
}

/// Whether the two are the same up to which of a component's replicas is which.
pub fn is_isomorphic(wished: &Graph, seen: &Graph) -> bool {
    differences(wished, seen).is_empty()
}

fn missing(name: &ScopedName, wish: &Component, see: &Component, found: &mut Vec<Difference>) {
    for (node, count) in &wish.on {
        // Of another generation, they are no replicas of this one.
        let there = if see.generation == wish.generation {
            see.on.get(node).copied().unwrap_or_default()
        } else {
            0
        };
        if there < *count {
            found.push(Difference::Missing {
                component: name.clone(),
                node: *node,
                count: count - there,
            });
        }
    }
}

fn surplus(name: &ScopedName, wish: &Component, see: &Component, found: &mut Vec<Difference>) {
    for (node, count) in &see.on {
        let same = see.generation == wish.generation;
        let wished = wish.on.get(node).copied().filter(|_| same);
        if *count > wished.unwrap_or_default() {
            found.push(Difference::Surplus {
                component: name.clone(),
                node: *node,
                count: count - wished.unwrap_or_default(),
            });
        }
    }
    for (node, count) in see.stale.iter().filter(|(_, count)| **count > 0) {
        found.push(Difference::Stale {
            component: name.clone(),
            node: *node,
            count: *count,
        });
    }
}

/// All components, each after what it needs; of those that need each other, the
/// first by name first.
fn in_order(graph: &Graph) -> Vec<ScopedName> {
    let mut waits: BTreeMap<&ScopedName, BTreeSet<&ScopedName>> = BTreeMap::new();
    for name in graph.components.keys() {
        waits.insert(name, BTreeSet::new());
    }
    for binding in &graph.bindings {
        if binding.from != binding.to
            && graph.components.contains_key(&binding.to)
            && let Some(needs) = waits.get_mut(&binding.from)
        {
            needs.insert(&binding.to);
        }
    }
    let mut order = Vec::new();
    while !waits.is_empty() {
        let ready = waits.iter().find(|(_, needs)| needs.is_empty());
        let next = ready.or_else(|| waits.iter().next()).map(|(name, _)| *name);
        let Some(next) = next else { break };
        waits.remove(next);
        for needs in waits.values_mut() {
            needs.remove(next);
        }
        order.push(next.clone());
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> ScopedName {
        text.parse().expect("a name")
    }

    fn graph(components: &[(&str, &[(u64, u32)])], bindings: &[(&str, &str)]) -> Graph {
        let component = |(text, on): &(&str, &[(u64, u32)])| {
            let on = on.iter().map(|(node, count)| (NodeId(*node), *count));
            let component = Component {
                generation: Revision(1),
                on: on.collect(),
                stale: BTreeMap::new(),
            };
            (name(text), component)
        };
        let binding = |(from, to): &(&str, &str)| Binding {
            from: name(from),
            called: Name::new("b").expect("a name"),
            to: name(to),
        };
        Graph {
            components: components.iter().map(component).collect(),
            bindings: bindings.iter().map(binding).collect(),
        }
    }

    fn told(wished: &Graph, seen: &Graph) -> Vec<String> {
        let found = differences(wished, seen);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_others_need_is_mended_first() {
        let wished = graph(
            &[("p/a", &[(1, 1)]), ("p/b", &[(1, 1)]), ("p/c", &[(2, 2)])],
            &[("p/a", "p/b"), ("p/b", "p/c")],
        );
        let seen = graph(&[("p/d", &[(1, 1)])], &[]);
        let order: Vec<ScopedName> = differences(&wished, &seen)
            .iter()
            .map(|difference| difference.component().clone())
            .collect();
        let names = ["p/c", "p/b", "p/a", "p/a", "p/b", "p/d"];
        assert_eq!(order, names.map(name));
        assert!(is_isomorphic(&wished, &wished));
    }

    #[test]
    fn replicas_of_an_earlier_generation_count_for_those_who_need_them_alone() {
        let wished = graph(&[("p/a", &[(1, 1)]), ("p/b", &[(1, 1)])], &[("p/a", "p/b")]);
        let mut seen = wished.clone();
        let b = seen.components.get_mut(&name("p/b")).expect("there");
        b.stale = std::mem::take(&mut b.on);
        let one = NodeId(1);
        assert_eq!(
            told(&wished, &seen),
            [
                format!("1 of `p/b` missing on {one}"),
                format!("1 of `p/b` of another generation on {one}")
            ]
        );
    }

    #[test]
    fn those_who_need_each_other_are_ordered_all_the_same() {
        let wished = graph(
            &[("p/a", &[(1, 1)]), ("p/b", &[(1, 1)])],
            &[("p/a", "p/b"), ("p/b", "p/a")],
        );
        assert_eq!(differences(&wished, &Graph::default()).len(), 4);
    }

    fn some_graph() -> impl Strategy<Value = Graph> {
        let on = prop::collection::btree_map((1_u64..4).prop_map(NodeId), 1_u32..3, 0..3);
        let component = (0_u64..2, on).prop_map(|(generation, on)| Component {
            generation: Revision(generation),
            on,
            stale: BTreeMap::new(),
        });
        let names = prop::sample::select(vec!["p/a", "p/b", "q/a"]).prop_map(name);
        prop::collection::btree_map(names, component, 0..3).prop_map(|components| Graph {
            components,
            bindings: BTreeSet::new(),
        })
    }

    proptest! {
        #[test]
        fn no_difference_means_the_same_and_mending_all_makes_it_so(
            wished in some_graph(),
            seen in some_graph(),
        ) {
            let alike = |graph: &Graph| -> BTreeMap<ScopedName, (Revision, BTreeMap<NodeId, u32>)> {
                let some = graph.components.iter().filter(|(_, it)| !it.on.is_empty());
                some.map(|(name, it)| (name.clone(), (it.generation, it.on.clone()))).collect()
            };
            prop_assert_eq!(is_isomorphic(&wished, &seen), alike(&wished) == alike(&seen));
            let mut mended = seen.clone();
            for difference in differences(&wished, &seen) {
                let name = difference.component().clone();
                let wish = wished.components.get(&name).cloned().unwrap_or_default();
                let before = seen.components.get(&name).map(|it| it.generation);
                let there = mended.components.entry(name).or_default();
                if before.unwrap_or_default() != wish.generation {
                    // All of it is replaced.
                    *there = wish;
                    continue;
                }
                match difference {
                    Difference::Missing { node, count, .. } => {
                        *there.on.entry(node).or_default() += count;
                    }
                    Difference::Surplus { node, count, .. } => {
                        *there.on.entry(node).or_default() -= count;
                        there.on.retain(|_, count| *count > 0);
                    }
                    Difference::Stale { .. } | Difference::Unbound(_) => {}
                }
            }
            let left = differences(&wished, &mended);
            prop_assert!(left.is_empty(), "{:?}", left);
        }
    }
}
