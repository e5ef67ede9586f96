//! Decides when what ran on nodes that are gone is placed elsewhere.
//!
//! In: which nodes are there, and how many replicas each has that could move. Out:
//! the nodes to do without, and how many replicas may move at once.
//! Holds: where most nodes seem to be gone at once, nothing moves: that is more
//! likely this node's own trouble, and certainly more than the others can carry;
//! in each window no more replicas move than are allowed; a node that comes and
//! goes is given its time to settle before what it had is moved again.

use crate::engine::{Controller, Decided};
use kernel::{NodeId, Time, ZonePath, format_duration};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub struct Repair;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    /// After a node was found to be gone.
    pub settle_ms: u64,
    /// The same of one that went more often than `flaps_max` within `flap_ms`:
    /// it may be back in a moment.
    pub settle_flapping_ms: u64,
    /// The same of one that nobody has heard of since this node started.
    #[serde(default = "settle_unheard_ms")]
    pub settle_unheard_ms: u64,
    pub flaps_max: u32,
    pub flap_ms: u64,
    /// Of all nodes that have been there, 0 to 1: with more gone, nothing moves.
    pub storm_share: f64,
    /// Replicas in each window.
    pub moves_max: u32,
    pub window_ms: u64,
    pub place_within_ms: u64,
    /// Of a zone's seat: all it sees is of that zone, and so is where it places.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<ZonePath>,
}

/// Longer than machines take that lost their power together.
fn settle_unheard_ms() -> u64 {
    60_000
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            settle_ms: 0,
            settle_flapping_ms: 30_000,
            settle_unheard_ms: settle_unheard_ms(),
            flaps_max: 3,
            flap_ms: 600_000,
            storm_share: 0.5,
            moves_max: 64,
            window_ms: 10_000,
            place_within_ms: 15_000,
            within: None,
        }
    }
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "what a node is like, each by itself"
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub up: bool,
    /// Replicas that are placed there and could be elsewhere.
    pub movable: u32,
    /// It belongs no more: nobody waits for it.
    pub left: bool,
    /// It is there, and is being emptied.
    #[serde(default)]
    pub draining: bool,
    /// Nothing says that it is gone, and nothing that it is there.
    #[serde(default)]
    pub unheard: bool,
    /// Replicas there that have successors, and need none any more: it was to be
    /// emptied, and is not now.
    #[serde(default)]
    pub surplus: u32,
}

impl Seen {
    /// Whether it is there, and what is on it is to be less.
    fn is_emptied(&self) -> bool {
        self.up && (self.draining || self.surplus > 0)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    pub nodes: BTreeMap<NodeId, Seen>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Nodes that were there at some time, and are not, since when.
    pub gone: BTreeMap<NodeId, Time>,
    pub up: BTreeSet<NodeId>,
    /// When each node went, as far as that is remembered.
    pub deaths: BTreeMap<NodeId, Vec<Time>>,
    /// When how many were moved.
    pub moved: Vec<(Time, u32)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Replace {
    pub nodes: BTreeSet<NodeId>,
    pub at_most: u32,
}

impl Controller for Repair {
    const NAME: &'static str = "repair";
    type Parameters = Parameters;
    type State = State;
    type Reading = Reading;
    type Action = Replace;

    fn decide(
        parameters: &Parameters,
        state: &State,
        reading: &Reading,
        now: Time,
    ) -> Decided<State, Replace> {
        let mut next = see(parameters, state, reading, now);
        let millis = Duration::from_millis;
        let since = |node: &NodeId| next.gone.get(node).map(|at| now.since(*at));
        let settled = |node: &NodeId| {
            let flaps = next.deaths.get(node).map_or(0, Vec::len);
            let flaps = u32::try_from(flaps).unwrap_or(u32::MAX);
            let unheard = reading.nodes.get(node).is_some_and(|seen| seen.unheard);
            let settle = if unheard {
                parameters.settle_unheard_ms
            } else if flaps > parameters.flaps_max {
                parameters.settle_flapping_ms
            } else {
                parameters.settle_ms
            };
            since(node).is_some_and(|gone| gone >= millis(settle))
        };
        let lost = reading.nodes.iter().map(|(node, seen)| {
            let all = seen.left || seen.draining || (!seen.up && settled(node));
            (*node, if all { seen.movable } else { seen.surplus })
        });
        let lost: BTreeMap<NodeId, u32> = lost.filter(|(_, count)| *count > 0).collect();
        let only_drained = lost.keys().all(|node| reading.nodes[node].is_emptied());
        if lost.is_empty() || (is_storm(parameters, &next) && !only_drained) {
            return Decided::nothing(next);
        }
        let moved: u32 = next.moved.iter().map(|(_, count)| count).sum();
        let at_most = parameters.moves_max.saturating_sub(moved);
        if at_most == 0 {
            return Decided::nothing(next);
        }
        let all: u32 = lost.values().sum();
        // No more than are counted.
        let at_most = all.min(at_most);
        next.moved.push((now, at_most));
        let longest = lost.keys().filter_map(since).max().unwrap_or_default();
        let seen = match lost.len() {
            _ if only_drained => format!("{all} replicas are on nodes that are, or were, emptied"),
            1 => format!(
                "a node with {all} replicas is gone for {}",
                format_duration(longest)
            ),
            count => format!(
                "{count} nodes with {all} replicas are gone, for {} at most",
                format_duration(longest)
            ),
        };
        let replace = Replace {
            nodes: lost.into_keys().collect(),
            at_most,
        };
        let told = match &parameters.within {
            Some(zone) => format!("place them elsewhere in {zone}"),
            None => "place them elsewhere".to_owned(),
        };
        let mut decided = Decided::act(next, replace, seen, told);
        if all > at_most {
            decided.clamps.push(format!("{at_most} of them now"));
        }
        let by = now + millis(parameters.place_within_ms);
        decided.expecting("as wished", by)
    }
}

fn see(parameters: &Parameters, state: &State, reading: &Reading, now: Time) -> State {
    let mut next = state.clone();
    // Who belongs no more is neither there nor missed: else a cluster that let many
    // nodes go would seem in a storm for ever.
    let belong = |node: &NodeId| reading.nodes.get(node).is_some_and(|seen| !seen.left);
    for (node, seen) in reading.nodes.iter().filter(|(node, _)| belong(node)) {
        if seen.up {
            next.gone.remove(node);
            next.up.insert(*node);
        } else if next.up.remove(node) {
            next.gone.insert(*node, now);
            next.deaths.entry(*node).or_default().push(now);
        } else {
            // Not there since before this loop began.
            next.gone.entry(*node).or_insert(now);
        }
    }
    next.gone.retain(|node, _| belong(node));
    next.up.retain(belong);
    let lasts = |at: &Time, ms: u64| now.since(*at) < Duration::from_millis(ms);
    for deaths in next.deaths.values_mut() {
        deaths.retain(|at| lasts(at, parameters.flap_ms));
    }
    next.deaths
        .retain(|node, deaths| belong(node) && !deaths.is_empty());
    next.moved.retain(|(at, _)| lasts(at, parameters.window_ms));
    next
}

/// Whether more are gone than could be true, or could be borne.
fn is_storm(parameters: &Parameters, state: &State) -> bool {
    let (up, gone) = (state.up.len(), state.gone.len());
    #[expect(clippy::cast_precision_loss, reason = "a share of nodes")]
    let share = gone as f64 / (up + gone).max(1) as f64;
    share > parameters.storm_share
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct World {
        parameters: Parameters,
        state: State,
        now: Time,
    }

    impl World {
        fn new(parameters: Parameters) -> Self {
            Self {
                parameters,
                state: State::default(),
                now: Time(0),
            }
        }

        /// * `nodes`: whether each is up, and what it has.
        fn after(&mut self, span: Duration, nodes: &[(bool, u32)]) -> Option<Replace> {
            self.now = self.now + span;
            let seen = |(at, (up, movable)): (usize, &(bool, u32))| {
                let seen = Seen {
                    up: *up,
                    movable: *movable,
                    ..Seen::default()
                };
                (NodeId(at as u64 + 1), seen)
            };
            let reading = Reading {
                nodes: nodes.iter().enumerate().map(seen).collect(),
            };
            let decided = Repair::decide(&self.parameters, &self.state, &reading, self.now);
            self.state = decided.next_state;
            decided.action
        }
    }

    fn nodes(replace: Option<Replace>) -> Vec<u64> {
        replace.map_or_else(Vec::new, |it| it.nodes.iter().map(|node| node.0).collect())
    }

    #[test]
    fn what_was_on_a_node_that_is_gone_moves_and_nothing_else() {
        let mut world = World::new(Parameters::default());
        assert_eq!(
            world.after(SECOND, &[(true, 2), (true, 2), (true, 0)]),
            None
        );
        let moved = world.after(SECOND, &[(true, 2), (false, 2), (true, 0)]);
        assert_eq!(nodes(moved), [2]);
        // It has nothing any more.
        assert_eq!(
            world.after(SECOND, &[(true, 3), (false, 0), (true, 1)]),
            None
        );
    }

    #[test]
    fn a_zones_seat_says_that_it_places_within_the_zone() {
        let parameters = Parameters {
            within: Some("/eu/1".parse().expect("a zone")),
            ..Parameters::default()
        };
        let seen = |up| Seen {
            up,
            movable: 2,
            ..Seen::default()
        };
        let reading = Reading {
            nodes: BTreeMap::from([(NodeId(1), seen(true)), (NodeId(2), seen(false))]),
        };
        let decided = Repair::decide(&parameters, &State::default(), &reading, Time(0));
        assert_eq!(decided.decided, "place them elsewhere in /eu/1");
        let text = serde_json::to_string(&parameters).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Parameters>(&text).expect("reads"),
            parameters
        );
    }

    #[test]
    fn where_most_are_gone_nothing_moves() {
        let mut world = World::new(Parameters::default());
        let all = [(true, 1); 4];
        assert_eq!(world.after(SECOND, &all), None);
        let most = [(true, 1), (false, 1), (false, 1), (false, 1)];
        assert_eq!(world.after(SECOND, &most), None);
        assert_eq!(world.after(SECOND * 60, &most), None);
        let half = [(true, 1), (true, 1), (false, 1), (false, 1)];
        assert_eq!(nodes(world.after(SECOND, &half)), [3, 4]);
    }

    #[test]
    fn no_more_move_at_once_than_are_allowed() {
        let parameters = Parameters {
            moves_max: 5,
            ..Parameters::default()
        };
        let mut world = World::new(parameters);
        assert_eq!(
            world.after(SECOND, &[(true, 0), (true, 0), (true, 8)]),
            None
        );
        let first = world.after(SECOND, &[(true, 0), (true, 0), (false, 8)]);
        assert_eq!(first.map(|it| it.at_most), Some(5));
        let left = [(true, 5), (true, 0), (false, 3)];
        assert_eq!(world.after(SECOND, &left), None, "within the window");
        let second = world.after(SECOND * 10, &left);
        assert_eq!(second.map(|it| it.at_most), Some(3));
    }

    #[test]
    fn one_that_comes_and_goes_is_waited_for() {
        let mut world = World::new(Parameters::default());
        let up = [(true, 1), (true, 1), (true, 1)];
        let down = [(true, 1), (true, 1), (false, 1)];
        for _ in 0..3 {
            assert_eq!(world.after(SECOND, &up), None);
            assert_eq!(nodes(world.after(SECOND, &down)), [3]);
        }
        assert_eq!(world.after(SECOND, &up), None);
        assert_eq!(
            world.after(SECOND, &down),
            None,
            "it may be back in a moment"
        );
        assert_eq!(nodes(world.after(SECOND * 30, &down)), [3]);
    }

    #[test]
    fn who_left_for_good_is_not_waited_for() {
        let parameters = Parameters {
            settle_ms: 60_000,
            ..Parameters::default()
        };
        let left = Seen {
            up: false,
            movable: 1,
            left: true,
            ..Seen::default()
        };
        let there = Seen {
            up: true,
            ..Seen::default()
        };
        let reading = Reading {
            nodes: BTreeMap::from([(NodeId(1), there), (NodeId(2), left)]),
        };
        let decided = Repair::decide(&parameters, &State::default(), &reading, Time(0));
        assert_eq!(nodes(decided.action), [2]);
    }

    #[test]
    fn one_that_was_never_heard_of_is_waited_for_longer_and_surplus_not_at_all() {
        let seen = |up, movable, surplus| Seen {
            up,
            movable,
            surplus,
            unheard: !up,
            ..Seen::default()
        };
        let reading = |surplus| Reading {
            nodes: BTreeMap::from([
                (NodeId(1), seen(true, 2, surplus)),
                (NodeId(2), seen(true, 2, 0)),
                (NodeId(3), seen(false, 2, 0)),
            ]),
        };
        let parameters = Parameters::default();
        let decide = |state: &State, surplus, at: u64| {
            let at = Time(0) + SECOND * u32::try_from(at).expect("small");
            Repair::decide(&parameters, state, &reading(surplus), at)
        };
        let first = decide(&State::default(), 0, 0);
        assert_eq!(first.action, None);
        assert_eq!(decide(&first.next_state, 0, 59).action, None);
        let late = decide(&first.next_state, 0, 60);
        assert_eq!(nodes(late.action), [3]);
        let surplus = decide(&first.next_state, 1, 1).action.expect("acts");
        assert_eq!(
            (nodes(Some(surplus.clone())), surplus.at_most),
            (vec![1], 1)
        );
    }

    #[test]
    fn those_who_left_long_ago_make_no_storm() {
        let left = Seen {
            left: true,
            ..Seen::default()
        };
        let seen = |up| Seen {
            up,
            movable: 1,
            ..Seen::default()
        };
        let reading = |third| {
            let there = [(1, seen(true)), (2, seen(true)), (3, seen(third))];
            let nodes = there.into_iter().chain((4..9).map(|node| (node, left)));
            Reading {
                nodes: nodes.map(|(node, seen)| (NodeId(node), seen)).collect(),
            }
        };
        let parameters = Parameters::default();
        let decide =
            |state: &State, third| Repair::decide(&parameters, state, &reading(third), Time(0));
        let before = decide(&State::default(), true);
        assert_eq!(before.action, None);
        assert_eq!(nodes(decide(&before.next_state, false).action), [3]);
    }
}
