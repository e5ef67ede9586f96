//! Decides how many copies an availability goal needs.
//!
//! A domain (a zone) is down with probability *q*, and takes all its nodes along;
//! while it is up, its nodes are down independently of each other, each with its
//! *p*. With copies on the set *S* of nodes, domains independent:
//!
//! P(at least one up) = 1 − ∏ over domains ( *q* + (1 − *q*) · ∏ over *S* in it *p* )
//!
//! Within a domain, the best *k* nodes are those with the least *p*. The factor
//! by which the next one lowers the domain's product never gets better as *k*
//! grows, so taking the greatest of all domains' next factors until the goal is
//! met yields the fewest copies there can be.
//!
//! Never: counts two copies on one node as two.

use serde::{Deserialize, Serialize};

/// No goal asks for more copies than this.
pub const COPIES_MAX: u32 = 16;

/// What rounding may hide.
pub(crate) const EPSILON: f64 = 1e-12;

/// Nodes that fail together with probability `failure`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Domain {
    /// That all of it is down, 0 to 1.
    pub failure: f64,
    /// That each node is down while the domain is up, 0 to 1.
    pub nodes: Vec<f64>,
}

/// How many copies, and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Copies {
    pub count: u32,
    /// In the order of the domains, how many on each one's best nodes.
    pub per_domain: Vec<u32>,
    /// Probability that at least one is up.
    pub reached: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AvailabilityError {
    #[error("{copies} copies reach an availability of {reached}, {goal} is asked for")]
    OutOfReach {
        goal: f64,
        reached: f64,
        copies: u32,
    },
}

impl AvailabilityError {
    /// What the reader can do next.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::OutOfReach { .. } => Some("lower `availability`, or join nodes in another zone"),
        }
    }
}

fn sound(share: f64) -> f64 {
    if share.is_nan() {
        1.0
    } else {
        share.clamp(0.0, 1.0)
    }
}

/// Probability that a domain with copies on these nodes has none up.
pub(crate) fn domain_down(failure: f64, nodes_down: f64) -> f64 {
    failure + (1.0 - failure) * nodes_down
}

/// Probability that at least one of these nodes is up, one copy on each.
pub fn availability(chosen: &[Domain]) -> f64 {
    let down = chosen.iter().map(|domain| {
        let nodes = domain.nodes.iter().map(|node| sound(*node)).product();
        domain_down(sound(domain.failure), nodes)
    });
    1.0 - down.product::<f64>()
}

/// The fewest copies with which at least one is up with probability `goal`; one
/// at least.
///
/// # Errors
/// [`AvailabilityError::OutOfReach`] when [`COPIES_MAX`] copies, or one on each
/// node, do not reach it.
pub fn copies_for(goal: f64, domains: &[Domain]) -> Result<Copies, AvailabilityError> {
    let sorted: Vec<(f64, Vec<f64>)> = domains
        .iter()
        .map(|domain| {
            let mut nodes: Vec<f64> = domain.nodes.iter().map(|node| sound(*node)).collect();
            nodes.sort_by(f64::total_cmp);
            (sound(domain.failure), nodes)
        })
        .collect();
    let mut per_domain = vec![0_usize; sorted.len()];
    // Per domain, that the chosen nodes are down while it is up.
    let mut nodes_down = vec![1.0_f64; sorted.len()];
    let mut count = 0_u32;
    let total_down = |nodes_down: &[f64]| -> f64 {
        let each = sorted.iter().zip(nodes_down);
        each.map(|((failure, _), down)| domain_down(*failure, *down))
            .product()
    };
    loop {
        let reached = 1.0 - total_down(&nodes_down);
        if count > 0 && reached + EPSILON >= goal {
            let per_domain = per_domain
                .iter()
                .map(|taken| u32::try_from(*taken).unwrap_or(u32::MAX));
            let per_domain = per_domain.collect();
            return Ok(Copies {
                count,
                per_domain,
                reached,
            });
        }
        let next = (0..sorted.len())
            .filter_map(|index| {
                let (failure, nodes) = &sorted[index];
                let next = nodes.get(per_domain[index])?;
                let now = domain_down(*failure, nodes_down[index]);
                let then = domain_down(*failure, nodes_down[index] * next);
                let factor = if now > 0.0 { then / now } else { 1.0 };
                Some((factor, index))
            })
            .min_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        let Some((_, index)) = next.filter(|_| count < COPIES_MAX) else {
            return Err(AvailabilityError::OutOfReach {
                goal,
                reached,
                copies: count,
            });
        };
        nodes_down[index] *= sorted[index].1[per_domain[index]];
        per_domain[index] += 1;
        count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn domains() -> impl Strategy<Value = Vec<Domain>> {
        let share = prop_oneof![Just(0.0), Just(1.0), 0.0..0.6_f64];
        let domain = (0.0..0.3_f64, prop::collection::vec(share, 0..4));
        let domain = domain.prop_map(|(failure, nodes)| Domain { failure, nodes });
        prop::collection::vec(domain, 1..4)
    }

    /// By going through every state of every domain and node.
    fn enumerated(chosen: &[Domain]) -> f64 {
        fn nodes(all: &[f64]) -> f64 {
            match all.split_first() {
                None => 0.0,
                Some((down, rest)) => (1.0 - down) + down * nodes(rest),
            }
        }
        match chosen.split_first() {
            None => 0.0,
            Some((domain, rest)) => {
                let rest = enumerated(rest);
                let up = nodes(&domain.nodes);
                domain.failure * rest + (1.0 - domain.failure) * (up + (1.0 - up) * rest)
            }
        }
    }

    /// The best that any choice of this many nodes reaches.
    fn best_of_all(all: &[Domain], count: u32) -> Option<f64> {
        let flat: Vec<(usize, f64)> = all
            .iter()
            .enumerate()
            .flat_map(|(index, domain)| domain.nodes.iter().map(move |node| (index, *node)))
            .collect();
        (0_u32..1 << flat.len())
            .filter(|chosen| chosen.count_ones() == count)
            .map(|chosen| {
                let mut picked: Vec<Domain> = all
                    .iter()
                    .map(|domain| Domain {
                        failure: domain.failure,
                        nodes: Vec::new(),
                    })
                    .collect();
                for (bit, (index, node)) in flat.iter().enumerate() {
                    if chosen & (1 << bit) != 0 {
                        picked[*index].nodes.push(*node);
                    }
                }
                enumerated(&picked)
            })
            .max_by(f64::total_cmp)
    }

    #[test]
    fn two_zones_do_what_two_nodes_of_one_cannot() {
        let zone = |nodes: usize| Domain {
            failure: 0.01,
            nodes: vec![0.1; nodes],
        };
        let alone = copies_for(0.995, &[zone(9)]).expect_err("the zone itself is down too often");
        assert!(alone.to_string().contains("0.995"), "{alone}");
        let both = copies_for(0.99, &[zone(2), zone(2)]).expect("reaches");
        assert_eq!((both.count, both.per_domain), (3, vec![2, 1]));
        assert_eq!(copies_for(0.0, &[zone(1)]).expect("reaches").count, 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn the_formula_is_the_sum_over_all_states(chosen in domains()) {
            prop_assert!((availability(&chosen) - enumerated(&chosen)).abs() < 1e-9);
        }

        #[test]
        fn no_choice_reaches_the_goal_with_fewer(all in domains(), goal in 0.3..1.0_f64) {
            match copies_for(goal, &all) {
                Ok(copies) => {
                    prop_assert_eq!(copies.per_domain.iter().sum::<u32>(), copies.count);
                    let best = best_of_all(&all, copies.count).expect("there are so many");
                    prop_assert!((best - copies.reached).abs() < 1e-9);
                    for fewer in 1..copies.count {
                        prop_assert!(best_of_all(&all, fewer).expect("fewer") < goal + 1e-9);
                    }
                }
                Err(AvailabilityError::OutOfReach { copies, .. }) => {
                    if copies > 0 {
                        prop_assert!(best_of_all(&all, copies).expect("all") < goal + 1e-9);
                    }
                }
            }
        }
    }
}
