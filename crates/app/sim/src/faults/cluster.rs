//! Makes a cluster, what runs on it, and what befalls it.

use kernel::{Bytes, Name, Rng, ZonePath};
use node::script::{
    Action, Change, Expectation, Expected, Invariant, Memory, Script, ScriptNode, ScriptService,
    Step,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// All have joined and all is applied.
const QUIET: Duration = Duration::from_secs(20);
/// Faults begin within.
const TROUBLE: Duration = Duration::from_mins(2);
/// What may take long: that a node that came and went is settled, that what
/// crashed again and again is tried again, that few may move at once.
const WITHIN: Duration = Duration::from_mins(3);
const REPLICAS_MAX: u64 = 8;

/// What the faults need to know of it.
struct Cluster {
    script: Script,
    /// Every node comes back in the end.
    all_return: bool,
    /// Lost for good, or revoked.
    lost: BTreeSet<usize>,
    draining: BTreeSet<usize>,
    /// Until when each is in some trouble already.
    busy: BTreeMap<usize, Duration>,
    /// No second loss before.
    lose_after: Duration,
}

fn index(rng: &mut Rng, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).unwrap_or_default()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap_or_else(|_| unreachable!("`{text}` is a name"))
}

fn zone(text: &str) -> ZonePath {
    text.parse().unwrap_or_default()
}

fn millis(rng: &mut Rng, span: Duration) -> Duration {
    let most = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(rng.below(most.max(1)))
}

fn nodes(rng: &mut Rng) -> Vec<ScriptNode> {
    // A few, and some tens now and then.
    let most = [6, 9, 12, 30][index(rng, 4)];
    let count = 3 + index(rng, most - 2);
    let zones = ["/eu/1", "/eu/2", "/us/1", "/as"];
    let zones = &zones[..=index(rng, zones.len())];
    let is_told = rng.below(3) > 0;
    let node = |at: usize| ScriptNode {
        name: name(&format!("n{}", at + 1)),
        zone: zone(zones[at % zones.len()]),
        memory: is_told.then(|| Bytes::mebibytes(1_024 << rng.below(3))),
    };
    (0..count).map(node).collect()
}

/// All replicas, the most there may come to be, take a third of the memory.
fn services(rng: &mut Rng, nodes: &[ScriptNode], all_return: bool) -> Vec<ScriptService> {
    let count = 1 + index(rng, 6);
    let least = nodes.iter().filter_map(|node| node.memory).min();
    let all: u64 = nodes.iter().filter_map(|node| Some(node.memory?.0)).sum();
    let share = all / 3 / count as u64 / REPLICAS_MAX;
    let room = least.map_or(256, |least| share.min(least.0 / 8) >> 20);
    let mut services: Vec<ScriptService> = Vec::new();
    for at in 0..count {
        let replicas = 1 + rng.below(REPLICAS_MAX);
        let replicas = u32::try_from(replicas).unwrap_or(1);
        let mut service = ScriptService::new(name(&format!("s{}", at + 1)), replicas);
        service.memory = Bytes::mebibytes(rng.below(room.max(2) / 2) + room.max(2) / 2);
        service.project = name(["shop", "shop", "news"][index(rng, 3)]);
        match rng.below(6) {
            // Which node has it is the cluster's choice.
            0 if all_return => {
                (service.is_actor, service.replicas) = (true, 1);
            }
            1 => {
                service.node = Some(index(rng, nodes.len()));
                service.replicas = service.replicas.min(3);
                (service.is_singleton, service.replicas) = match service.replicas {
                    1 => (true, 1),
                    more => (false, more),
                };
            }
            2 => {
                (service.is_singleton, service.replicas) = (true, 1);
            }
            _ => {}
        }
        let before = services.last().filter(|_| !service.is_actor);
        if let Some(before) = before.filter(|one| one.project == service.project)
            && rng.below(2) == 0
        {
            service.calls.insert(before.name.clone());
        }
        services.push(service);
    }
    services
}

pub fn script(rng: &mut Rng) -> Script {
    let nodes = nodes(rng);
    let all_return = rng.below(3) == 0;
    let services = services(rng, &nodes, all_return);
    let all: Vec<usize> = (0..nodes.len()).collect();
    let joins = Duration::from_secs(5);
    let start = Action::Start {
        nodes: all,
        over: joins,
        memory: Memory::Kept,
        clock_off_s: 0,
    };
    let mut cluster = Cluster {
        script: Script {
            name: "faults".to_owned(),
            nodes,
            services,
            distances: Vec::new(),
            steps: Vec::new(),
            expectations: Vec::new(),
            always: vec![
                Invariant::SilenceRemovesNobody,
                Invariant::DeadLivesStayDead,
                Invariant::EachReplicaRunsOnOneNode,
                Invariant::StrangersAreNotSpokenTo,
                Invariant::PlacesHaveRoom,
                Invariant::EmptiedNodesAreLeft,
                Invariant::MovesAreFew,
                Invariant::SingletonsRunOnce,
            ],
            end: Duration::ZERO,
        },
        all_return,
        lost: BTreeSet::new(),
        draining: BTreeSet::new(),
        busy: BTreeMap::new(),
        lose_after: Duration::ZERO,
    };
    cluster.put(Duration::ZERO, start);
    cluster.put(joins * 2, Action::Apply);
    let mut times: Vec<Duration> = (0..4 + rng.below(14))
        .map(|_| QUIET + millis(rng, TROUBLE))
        .collect();
    times.sort_unstable();
    for at in times {
        cluster.fault(rng, at);
    }
    cluster.end();
    cluster.script
}

impl Cluster {
    fn put(&mut self, at: Duration, action: Action) {
        self.script.steps.push(Step { at, action });
    }

    fn start(&mut self, at: Duration, node: usize, clock_off_s: i64) {
        let start = Action::Start {
            nodes: vec![node],
            over: Duration::ZERO,
            memory: Memory::Kept,
            clock_off_s,
        };
        self.put(at, start);
    }

    /// One that is in no trouble at that time.
    fn some(&mut self, rng: &mut Rng, at: Duration) -> Option<usize> {
        let (lost, busy) = (&self.lost, &self.busy);
        let free =
            |node: &usize| !lost.contains(node) && busy.get(node).is_none_or(|until| *until < at);
        let free: Vec<usize> = (0..self.script.nodes.len()).filter(free).collect();
        (!free.is_empty()).then(|| free[index(rng, free.len())])
    }

    fn fault(&mut self, rng: &mut Rng, at: Duration) {
        let Some(node) = self.some(rng, at) else {
            return;
        };
        match rng.below(16) {
            0 | 1 => self.put(at, Action::Crash(vec![node])),
            2 | 3 => self.put(at, Action::Kill(vec![node])),
            4 | 5 => self.off(rng, at, node),
            6 => {
                // Two at once.
                self.off(rng, at, node);
                if let Some(other) = self.some(rng, at) {
                    self.off(rng, at, other);
                }
            }
            7 => self.flap(rng, at, node),
            8 => self.lose(rng, at, node),
            9 => self.cut_zone(rng, at),
            10 => self.cut_link(rng, at, node),
            11 => self.drain(rng, at, node),
            12 | 13 => self.pause(rng, at, node),
            _ => self.change(rng, at),
        }
    }

    /// Without power for a while; its wall clock may be an hour off then.
    fn off(&mut self, rng: &mut Rng, at: Duration, node: usize) {
        let back = at + Duration::from_secs(1) + millis(rng, Duration::from_secs(40));
        let clock_off_s = [0, 0, 3_600, -3_600][index(rng, 4)];
        self.put(at, Action::PowerOff(vec![node]));
        self.start(back, node, clock_off_s);
        self.busy.insert(node, back);
    }

    fn pause(&mut self, rng: &mut Rng, at: Duration, node: usize) {
        let span = Duration::from_millis(500) + millis(rng, Duration::from_secs(20));
        let nodes = vec![node];
        self.put(at, Action::Pause { nodes, span });
        self.busy.insert(node, at + span);
    }

    fn flap(&mut self, rng: &mut Rng, at: Duration, node: usize) {
        let mut now = at;
        for _ in 0..3 + rng.below(4) {
            self.put(now, Action::PowerOff(vec![node]));
            now += Duration::from_secs(2) + millis(rng, Duration::from_secs(8));
            self.start(now, node, 0);
            now += Duration::from_secs(2) + millis(rng, Duration::from_secs(10));
        }
        self.busy.insert(node, now);
    }

    /// For good; a person may say so later. Whoever keeps the store is replaced
    /// before the next one is lost.
    fn lose(&mut self, rng: &mut Rng, at: Duration, node: usize) {
        let is_pinned = self
            .script
            .services
            .iter()
            .any(|one| one.node == Some(node));
        let enough = (self.lost.len() + 1) * 3 <= self.script.nodes.len();
        // Three are the fewest of which one can be lost.
        let enough = enough && self.has_room_without(node);
        if is_pinned || self.all_return || !enough || at < self.lose_after {
            return self.off(rng, at, node);
        }
        self.lost.insert(node);
        self.lose_after = at + Duration::from_mins(1);
        self.put(at, Action::PowerOff(vec![node]));
        if rng.below(2) == 0 {
            let later = at + Duration::from_secs(5) + millis(rng, Duration::from_secs(30));
            self.put(later, Action::Revoke(node));
        }
    }

    /// Whether the nodes that stay have half of all the memory: replicas take a
    /// third of it at most, in pieces that are small.
    fn has_room_without(&self, node: usize) -> bool {
        let memory = |at: usize| self.script.nodes[at].memory.map_or(0, |memory| memory.0);
        let all = 0..self.script.nodes.len();
        let stays =
            |at: &usize| *at != node && !self.lost.contains(at) && !self.draining.contains(at);
        let left: u64 = all.clone().filter(stays).map(memory).sum();
        left * 2 >= all.map(memory).sum::<u64>()
    }

    fn heal(&mut self, rng: &mut Rng, at: Duration) {
        let healed = at + Duration::from_secs(1) + millis(rng, Duration::from_secs(40));
        self.put(healed, Action::Heal);
    }

    fn cut_zone(&mut self, rng: &mut Rng, at: Duration) {
        let zones: BTreeSet<&ZonePath> = self.script.nodes.iter().map(|it| &it.zone).collect();
        let zones: Vec<&ZonePath> = zones.into_iter().collect();
        let zone = zones[index(rng, zones.len())];
        let is_in = |node: &usize| self.script.nodes[*node].zone == *zone;
        let (from, to) = (0..self.script.nodes.len()).partition(is_in);
        let cut = Action::Cut {
            from,
            to,
            both: true,
        };
        self.put(at, cut);
        self.heal(rng, at);
    }

    fn cut_link(&mut self, rng: &mut Rng, at: Duration, node: usize) {
        let Some(other) = self.some(rng, at).filter(|other| *other != node) else {
            return;
        };
        let cut = Action::Cut {
            from: vec![node],
            to: vec![other],
            both: rng.below(2) == 0,
        };
        self.put(at, cut);
        self.heal(rng, at);
    }

    fn drain(&mut self, rng: &mut Rng, at: Duration, node: usize) {
        // What is on all others fits on the rest.
        let others = self.script.nodes.len() - self.lost.len() - self.draining.len();
        let is_pinned = self
            .script
            .services
            .iter()
            .any(|one| one.node == Some(node));
        let enough = others * 3 > self.script.nodes.len() * 2 && self.has_room_without(node);
        if self.draining.contains(&node) || is_pinned || !enough {
            return;
        }
        let draining = true;
        self.put(at, Action::Drain { node, draining });
        if rng.below(2) == 0 {
            let back = at + Duration::from_secs(1) + millis(rng, Duration::from_mins(1));
            let draining = false;
            self.put(back, Action::Drain { node, draining });
        } else {
            self.draining.insert(node);
        }
    }

    fn change(&mut self, rng: &mut Rng, at: Duration) {
        let service = &self.script.services[index(rng, self.script.services.len())];
        let replicas = 1 + rng.below(if service.node.is_some() {
            3
        } else {
            REPLICAS_MAX
        });
        let change = match rng.below(2) {
            0 if !service.is_actor && !service.is_singleton => {
                Change::Replicas(u32::try_from(replicas).unwrap_or(1))
            }
            _ => Change::Anew,
        };
        let service = service.name.clone();
        self.put(at, Action::Change { service, change });
    }

    /// Peace, in which all must become as wished.
    fn end(&mut self) {
        let last = self.script.steps.iter().map(|step| step.at).max();
        let last = last.into_iter().chain(self.busy.values().copied()).max();
        let peace = last.unwrap_or_default() + Duration::from_secs(1);
        self.put(peace, Action::Heal);
        for node in 0..self.script.nodes.len() {
            if !self.lost.contains(&node) {
                self.start(peace, node, 0);
            }
        }
        self.script.steps.sort_by_key(|step| step.at);
        self.script.expectations.push(Expectation {
            at: peace,
            within: WITHIN,
            what: Expected::AsWished,
        });
        self.script.end = peace + WITHIN + Duration::from_secs(1);
    }
}
