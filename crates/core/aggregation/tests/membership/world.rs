//! A small network of memberships: delay, loss, duplication, cuts, pauses,
//! restarts. One seed, one history.

use aggregation::membership::{
    Belongs, Effect, Event, Membership, Parameters, Reach, Start, Table,
};
use kernel::{NodeId, Rng, Time, UnixMillis, ZonePath};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub const SECOND: Duration = Duration::from_secs(1);

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn zone(text: &str) -> ZonePath {
    text.parse().expect("a zone")
}

/// One run of a node.
struct Run {
    node: NodeId,
    core: Membership,
    alive: bool,
    paused_until: Time,
    slow: bool,
    wake: Option<Time>,
}

enum Later {
    Wake(usize),
    Arrive {
        run: usize,
        from: NodeId,
        payload: Vec<u8>,
    },
}

pub struct Seen {
    pub at: Time,
    pub observer: NodeId,
    pub effect: Effect,
}

pub struct World {
    pub rng: Rng,
    pub now: Time,
    pub table: Table,
    pub loss: f64,
    pub duplicates: f64,
    /// One way, from and to.
    pub delay: (Duration, Duration),
    /// Added to the delay of each packet that a slow node gets.
    pub slowness: Duration,
    /// No packet goes from the first to the second.
    pub cuts: BTreeSet<(NodeId, NodeId)>,
    pub seen: Vec<Seen>,
    pub packets: u64,
    pub packet_bytes: u64,
    runs: Vec<Run>,
    later: BTreeMap<(Time, u64), Later>,
    order: u64,
    memory: BTreeMap<NodeId, u64>,
    pub parameters: Parameters,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::seeded(seed),
            now: Time(1_000_000_000),
            table: Table::new(),
            loss: 0.0,
            duplicates: 0.0,
            delay: (ms(1), ms(20)),
            slowness: Duration::ZERO,
            cuts: BTreeSet::new(),
            seen: Vec::new(),
            packets: 0,
            packet_bytes: 0,
            runs: Vec::new(),
            later: BTreeMap::new(),
            order: 0,
            memory: BTreeMap::new(),
            parameters: Parameters::default(),
        }
    }

    /// Of `per_zone` nodes in each of these zones, all started and settled.
    pub fn settled(seed: u64, zones: &[&str], per_zone: u64) -> Self {
        let mut world = Self::new(seed);
        for (at, name) in (0_u64..).zip(zones) {
            for index in 0..per_zone {
                world.belongs(NodeId(at * 1_000 + index + 1), name);
            }
        }
        let nodes: Vec<NodeId> = world.table.keys().copied().collect();
        for node in nodes {
            world.start(node);
        }
        world.pass(SECOND * 8);
        world.assert_all_alive();
        world.seen.clear();
        world
    }

    pub fn belongs(&mut self, node: NodeId, zone_name: &str) {
        let revoked = false;
        let zone = zone(zone_name);
        self.table.insert(
            node,
            Belongs {
                zone,
                revoked,
                outbound_only: false,
            },
        );
        self.tell_table();
    }

    pub fn tell_table(&mut self) {
        let table = Arc::new(self.table.clone());
        for run in 0..self.runs.len() {
            self.tell(run, Event::Table(table.clone()));
        }
    }

    /// With what it remembers.
    pub fn start(&mut self, node: NodeId) -> usize {
        let remembered = self.memory.get(&node).copied();
        let wall = UnixMillis(1_700_000_000_000 + self.now.0 / 1_000_000);
        self.start_with(node, remembered, wall)
    }

    pub fn start_with(&mut self, node: NodeId, remembered: Option<u64>, wall: UnixMillis) -> usize {
        let nonce = u32::try_from(self.rng.below(1 << 32)).expect("32 bits");
        let start = Start {
            node,
            nonce,
            remembered,
            wall,
            attributes: format!("first of {node}").into_bytes(),
        };
        let seed = self.rng.next_u64();
        let core = Membership::new(start, self.parameters.clone(), seed, self.now);
        self.runs.push(Run {
            node,
            core,
            alive: true,
            paused_until: Time(0),
            slow: false,
            wake: None,
        });
        let run = self.runs.len() - 1;
        let table = Arc::new(self.table.clone());
        self.tell(run, Event::Table(table));
        run
    }

    pub fn kill(&mut self, node: NodeId) {
        for run in &mut self.runs {
            run.alive &= run.node != node;
        }
    }

    pub fn pause(&mut self, node: NodeId, span: Duration) {
        let until = self.now + span;
        for run in self.runs.iter_mut().filter(|run| run.node == node) {
            run.paused_until = until;
        }
    }

    pub fn slow(&mut self, node: NodeId) {
        for run in self.runs.iter_mut().filter(|run| run.node == node) {
            run.slow = true;
        }
    }

    pub fn cut_between(&mut self, some: &[NodeId], others: &[NodeId]) {
        for one in some {
            for other in others {
                self.cuts.insert((*one, *other));
                self.cuts.insert((*other, *one));
            }
        }
    }

    pub fn of_zone(&self, name: &str) -> Vec<NodeId> {
        let zone = zone(name);
        let all = self.table.iter().filter(|(_, one)| one.zone == zone);
        all.map(|(node, _)| *node).collect()
    }

    pub fn run_of(&self, node: NodeId) -> usize {
        let mut runs = self.runs.iter();
        runs.rposition(|run| run.node == node && run.alive)
            .expect("it lives")
    }

    pub fn core(&self, node: NodeId) -> &Membership {
        &self.runs[self.run_of(node)].core
    }

    pub fn neighbours(&mut self, node: NodeId) -> Vec<NodeId> {
        let run = self.run_of(node);
        self.runs[run].core.neighbours()
    }

    pub fn lives(&self, run: usize) -> bool {
        self.runs[run].alive
    }

    pub fn core_of(&self, run: usize) -> &Membership {
        &self.runs[run].core
    }

    pub fn reach(&self, observer: NodeId, of: NodeId) -> Reach {
        self.core(observer).view(of).expect("it belongs").reach
    }

    /// Those that run.
    pub fn living(&self) -> Vec<NodeId> {
        let runs = self.runs.iter().filter(|run| run.alive);
        let living: BTreeSet<NodeId> = runs.map(|run| run.node).collect();
        living.into_iter().collect()
    }

    pub fn tell(&mut self, run: usize, event: Event) {
        if !self.runs[run].alive {
            return;
        }
        let effects = self.runs[run].core.handle(event, self.now);
        for effect in effects {
            self.carry_out(run, effect);
        }
        let wake = self.runs[run].core.next_wake();
        let now = self.now;
        assert!(wake.is_none_or(|wake| wake > now), "what is due is done");
        if self.runs[run].alive && wake != self.runs[run].wake {
            self.runs[run].wake = wake;
            if let Some(wake) = wake {
                self.put(wake, Later::Wake(run));
            }
        }
    }

    pub fn tell_node(&mut self, node: NodeId, event: Event) {
        self.tell(self.run_of(node), event);
    }

    fn put(&mut self, at: Time, what: Later) {
        self.order += 1;
        self.later.insert((at.max(self.now), self.order), what);
    }

    fn carry_out(&mut self, run: usize, effect: Effect) {
        let observer = self.runs[run].node;
        match &effect {
            Effect::Send { to, payload } => {
                assert!(payload.len() <= 1_100, "{} bytes", payload.len());
                let belongs = self.table.get(to).is_some_and(|one| !one.revoked);
                assert!(belongs, "{to} does not belong and is spoken to");
                return self.send(observer, *to, payload);
            }
            Effect::Remember { epoch } => {
                self.memory.insert(observer, *epoch);
            }
            // Whoever is told that it is superseded closes its connections.
            Effect::Left | Effect::Superseded { .. } => self.runs[run].alive = false,
            _ => {}
        }
        let at = self.now;
        self.seen.push(Seen {
            at,
            observer,
            effect,
        });
    }

    fn send(&mut self, from: NodeId, to: NodeId, payload: &[u8]) {
        self.packets += 1;
        self.packet_bytes += payload.len() as u64;
        let copies = 1 + usize::from(self.rng.unit() < self.duplicates);
        for _ in 0..copies {
            if self.cuts.contains(&(from, to)) || self.rng.unit() < self.loss {
                continue;
            }
            // Of two runs with one key, one is reached.
            let runs: Vec<usize> = (0..self.runs.len())
                .filter(|run| self.runs[*run].node == to && self.runs[*run].alive)
                .collect();
            let at = self.rng.below(runs.len() as u64);
            let Some(run) = runs.get(usize::try_from(at).expect("few")).copied() else {
                continue;
            };
            let (least, most) = self.delay;
            let spread = u64::try_from(most.abs_diff(least).as_nanos()).expect("short");
            let mut delay = least + Duration::from_nanos(self.rng.below(spread.max(1)));
            if self.runs[run].slow {
                let most = u64::try_from(self.slowness.as_nanos()).expect("short");
                delay += Duration::from_nanos(self.rng.below(most.max(1)));
            }
            let payload = payload.to_vec();
            self.put(self.now + delay, Later::Arrive { run, from, payload });
        }
    }

    pub fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(first) = self.later.first_entry() {
            let (at, _) = *first.key();
            if at > until {
                break;
            }
            let what = first.remove();
            self.now = self.now.max(at);
            self.happen(what);
        }
        self.now = until;
    }

    /// Until it holds; how long that took.
    pub fn until(&mut self, most: Duration, holds: impl Fn(&Self) -> bool) -> Duration {
        let began = self.now;
        while !holds(self) {
            let took = self.now.since(began);
            assert!(took < most, "not within {most:?}");
            self.pass(ms(10));
        }
        self.now.since(began)
    }

    fn happen(&mut self, what: Later) {
        let (Later::Wake(run) | Later::Arrive { run, .. }) = what;
        let paused_until = self.runs[run].paused_until;
        if paused_until > self.now {
            return self.put(paused_until, what);
        }
        match what {
            Later::Wake(run) => {
                if self.runs[run].wake.is_some_and(|wake| wake <= self.now) {
                    self.runs[run].wake = None;
                    self.tell(run, Event::Tick);
                }
            }
            Later::Arrive { run, from, payload } => {
                self.tell(run, Event::Received { from, payload });
            }
        }
    }

    pub fn all_see(&self, of: NodeId, reach: Reach) -> bool {
        let others = self.living().into_iter().filter(|one| *one != of);
        others.into_iter().all(|one| self.reach(one, of) == reach)
    }

    pub fn all_alive(&self) -> bool {
        let living = self.living();
        living.iter().all(|one| self.all_see(*one, Reach::Alive))
    }

    pub fn assert_all_alive(&self) {
        for observer in self.living() {
            for other in self.living().into_iter().filter(|one| *one != observer) {
                let reach = self.reach(observer, other);
                assert_eq!(reach, Reach::Alive, "{observer} sees {other}");
            }
        }
    }

    /// What was seen of `of`.
    pub fn turns(&self, of: NodeId) -> Vec<(Time, NodeId, Reach)> {
        let turns = self.seen.iter().filter_map(|seen| match seen.effect {
            Effect::Reach { node, is, .. } if node == of => Some((seen.at, seen.observer, is)),
            _ => None,
        });
        turns.collect()
    }

    pub fn deaths(&self) -> Vec<(NodeId, NodeId)> {
        let deaths = self.seen.iter().filter_map(|seen| match seen.effect {
            Effect::Reach {
                node,
                is: Reach::Dead,
                ..
            } => Some((seen.observer, node)),
            _ => None,
        });
        deaths.collect()
    }
}
