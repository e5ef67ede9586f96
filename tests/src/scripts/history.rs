//! What was seen over time, and the invariants that it must keep.
//!
//! Holds: an invariant is broken only by what was certain: a node counts as
//! well once it has answered for a while.

use super::look::View;
use node::script::Invariant;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const BROKEN_MAX: usize = 20;
/// Of [`Invariant::NobodyAliveIsDeadForLong`].
const LONG: Duration = Duration::from_secs(10);
/// News of an end or a start may still be on its way.
const SETTLED: Duration = Duration::from_secs(10);
/// A connection to a node that was just revoked may still be closing.
const CLOSING: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug)]
struct Power {
    on: bool,
    /// Counts its starts and ends.
    turn: u32,
    since: Instant,
}

/// Which nodes there are, as the script made it so, and what they say.
pub struct World {
    /// Of the script's nodes.
    pub names: Vec<String>,
    power: Vec<Option<Power>>,
    /// Of copies, which node they are of.
    copy_of: BTreeMap<usize, usize>,
    pub cuts: BTreeSet<(usize, usize)>,
    pub revoked: BTreeSet<usize>,
    /// By node, copies last; none of one that is off, or does not answer.
    pub views: Vec<Option<View>>,
}

impl World {
    pub fn new(names: Vec<String>, copies: usize) -> Self {
        let all = names.len() + copies;
        Self {
            names,
            power: vec![None; all],
            copy_of: BTreeMap::new(),
            cuts: BTreeSet::new(),
            revoked: BTreeSet::new(),
            views: vec![None; all],
        }
    }

    fn turn(&mut self, node: usize, on: bool) {
        let turn = self.power[node].map_or(0, |power| power.turn) + 1;
        let since = Instant::now();
        self.power[node] = Some(Power { on, turn, since });
    }

    pub fn starts(&mut self, node: usize) {
        self.turn(node, true);
    }

    pub fn starts_copy(&mut self, node: usize, copy: usize) {
        self.copy_of.insert(copy, node);
        self.turn(copy, true);
    }

    pub fn ends(&mut self, node: usize) {
        self.turn(node, false);
    }

    pub fn has_started(&self, node: usize) -> bool {
        self.power[node].is_some()
    }

    pub fn is_on(&self, node: usize) -> bool {
        self.power[node].is_some_and(|power| power.on)
    }

    /// The node that the script knows it as.
    fn node(&self, at: usize) -> usize {
        self.copy_of.get(&at).copied().unwrap_or(at)
    }

    fn on(&self) -> impl Iterator<Item = (usize, Option<&View>)> {
        let all = (0..self.power.len()).filter(move |at| self.is_on(*at));
        all.map(move |at| (at, self.views[at].as_ref()))
    }

    /// The node and its copies, as far as they are on.
    pub fn of(&self, node: usize) -> impl Iterator<Item = (usize, Option<&View>)> {
        self.on().filter(move |(at, _)| self.node(*at) == node)
    }

    fn takes_part(&self, at: usize, view: Option<&View>) -> bool {
        !self.revoked.contains(&self.node(at)) && view.is_none_or(View::speaks)
    }

    /// Of all that are on, belong, and were not outdone by a copy.
    pub fn speaking(&self) -> impl Iterator<Item = Option<&View>> {
        let on = self
            .on()
            .filter(move |(at, view)| self.takes_part(*at, *view));
        on.map(|(_, view)| view)
    }

    /// The same, of all but this one.
    pub fn others(&self, node: usize) -> impl Iterator<Item = Option<&View>> {
        let on = self
            .on()
            .filter(move |(at, view)| self.takes_part(*at, *view));
        on.filter(move |(at, _)| self.node(*at) != node)
            .map(|(_, view)| view)
    }

    pub fn all_see(&self, node: usize, state: &str) -> bool {
        let name = &self.names[node];
        self.others(node).all(|view| {
            let seen = view.and_then(|view| view.nodes.get(name));
            seen.is_some_and(|seen| seen.state == state)
        })
    }

    /// It has answered for itself for a while, and is reached by most.
    fn is_well(&self, at: usize) -> bool {
        let settled =
            self.power[at].is_some_and(|power| power.on && power.since.elapsed() > SETTLED);
        let cuts = self
            .cuts
            .iter()
            .filter(|(from, to)| *from == at || *to == at);
        let few = cuts.count() * 2 < self.names.len();
        let speaks = self.views[at].as_ref().is_some_and(View::speaks);
        settled && few && speaks && !self.revoked.contains(&self.node(at))
    }

    fn is_within_reach(&self, observer: usize, node: usize) -> bool {
        let speaks = self.views[node].as_ref().is_some_and(View::speaks);
        speaks
            && !self.revoked.contains(&node)
            && !self.cuts.contains(&(observer, node))
            && !self.cuts.contains(&(node, observer))
    }
}

/// An observer in one of its runs, and a node.
type Pair = (usize, u32, usize);

pub struct History {
    always: BTreeSet<Invariant>,
    pub broken: Vec<String>,
    began: Instant,
    /// What each saw last of each.
    states: BTreeMap<Pair, String>,
    /// In which of the node's turns it was found dead.
    dead_in: BTreeMap<Pair, u32>,
    wrongly_dead: BTreeMap<Pair, Instant>,
    connected: BTreeMap<Pair, Instant>,
}

impl History {
    pub fn new(always: &[Invariant]) -> Self {
        Self {
            always: always.iter().copied().collect(),
            broken: Vec::new(),
            began: Instant::now(),
            states: BTreeMap::new(),
            dead_in: BTreeMap::new(),
            wrongly_dead: BTreeMap::new(),
            connected: BTreeMap::new(),
        }
    }

    fn broke(&mut self, invariant: Invariant, what: &str) {
        if self.always.contains(&invariant) && self.broken.len() < BROKEN_MAX {
            let at = self.began.elapsed().as_secs_f64();
            let name = invariant.name();
            self.broken.push(format!("{at:.1} s on: {name}: {what}"));
        }
    }

    /// What all say now.
    pub fn take(&mut self, world: &World) {
        for (observer, view) in world.on() {
            let Some(view) = view.filter(|view| view.speaks()) else {
                continue;
            };
            for node in (0..world.names.len()).filter(|node| *node != world.node(observer)) {
                self.pair(world, observer, view, node);
            }
        }
        self.replicas(world);
    }

    fn pair(&mut self, world: &World, observer: usize, view: &View, node: usize) {
        let (Some(own), Some(of)) = (world.power[observer], world.power[node]) else {
            return;
        };
        let key = (observer, own.turn, node);
        let names = (&world.names[world.node(observer)], &world.names[node]);
        let Some(seen) = view.nodes.get(names.1) else {
            if self.states.contains_key(&key) {
                let what = format!("{} no longer knows of {}", names.0, names.1);
                self.broke(Invariant::SilenceRemovesNobody, &what);
            }
            return;
        };
        let is_up = matches!(seen.state.as_str(), "alive" | "suspect");
        let before = self.states.insert(key, seen.state.clone());
        if seen.state == "dead" {
            let was_up = before.is_some_and(|before| before == "alive" || before == "suspect");
            if was_up && world.is_well(observer) && world.is_well(node) {
                let what = format!("{} calls {} dead", names.0, names.1);
                self.broke(Invariant::NobodyWellIsDead, &what);
            }
            if !of.on {
                self.dead_in.insert(key, of.turn);
            }
        } else if is_up && !of.on && self.dead_in.get(&key) == Some(&of.turn) {
            let what = format!("{} sees {} {}, which is off", names.0, names.1, seen.state);
            self.broke(Invariant::DeadLivesStayDead, &what);
        }
        let now = Instant::now();
        if seen.state == "dead" && world.is_within_reach(observer, node) {
            let since = *self.wrongly_dead.entry(key).or_insert(now);
            if since.elapsed() > LONG {
                let what = format!("{} sees {} dead, which is alive", names.0, names.1);
                self.broke(Invariant::NobodyAliveIsDeadForLong, &what);
            }
        } else {
            self.wrongly_dead.remove(&key);
        }
        if seen.state == "revoked" && seen.connected {
            let since = *self.connected.entry(key).or_insert(now);
            if since.elapsed() > CLOSING {
                let what = format!("{} is connected to {}, which was revoked", names.0, names.1);
                self.broke(Invariant::StrangersAreNotSpokenTo, &what);
            }
        } else {
            self.connected.remove(&key);
        }
    }

    fn replicas(&mut self, world: &World) {
        let mut runs_on: BTreeMap<String, usize> = BTreeMap::new();
        for (at, view) in world.on() {
            let replicas = view.map(|view| view.replicas.keys()).into_iter().flatten();
            for replica in replicas {
                if let Some(other) = runs_on.insert(replica.to_string(), at) {
                    let names = [other, at].map(|at| &world.names[world.node(at)]);
                    let what = format!("{replica} runs on {} and on {}", names[0], names[1]);
                    self.broke(Invariant::EachReplicaRunsOnOneNode, &what);
                }
            }
        }
    }
}
