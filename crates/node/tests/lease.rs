//! Singletons under cuts, pauses, lost messages, clocks that run at different
//! speeds, and leaders that do not know that they were replaced: two never run at
//! once, and one runs again when all is well.

use kernel::{
    Bytes, FencingEpoch, Hash, Name, NodeId, ReplicaId, Revision, Rng, ScopedName, Time, UnixMillis,
};
use node::desired::{Applied, Desired};
use node::driver::{Adopted, DriverEvent, Found, Running};
use node::lease::{self, Ask, Change, Grant, Grantor, Holder, Knows, Lease};
use node::nodes::{MachineReport, NodeRecord, NodeTable};
use node::placing::Known;
use node::{Node, NodeEvent, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::shim::Exit;

const STEP_MS: u64 = 20;
const NODES: u64 = 5;
/// Then nothing goes wrong any more, and one runs soon.
const TROUBLE_MS: u64 = 90_000;
const CALM_MS: u64 = 50_000;
/// Of that: what was late, paused or cut is over, and leases are too.
const SETTLED_MS: u64 = 40_000;
/// A leader that is not heard for so long has a successor.
const ELECTION_MS: u64 = 600;
const LEADER_LOOKS_EVERY_MS: u64 = 240;
const CUTS_PER_RUN: u64 = 12;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn service() -> ScopedName {
    ScopedName::new(name("p"), name("s"))
}

fn first_desired() -> Desired {
    let text = "[service.s]\nrun = { process = [\"true\"] }\nsingleton = true\n";
    let mut applied = Applied {
        number: 1,
        at_unix: UnixMillis(0),
        manifest: manifest::parse(text, &name("p")).expect("a manifest"),
        directory: "/p".into(),
        trees: BTreeMap::new(),
        programs: BTreeMap::new(),
        generations: BTreeMap::new(),
        placements: BTreeMap::new(),
        epochs: BTreeMap::new(),
        rollouts: BTreeMap::new(),
        origin: NodeId(1),
    };
    applied.keep_singletons(None, FencingEpoch(1));
    Desired {
        revision: Revision(1),
        projects: BTreeMap::from([(name("p"), applied)]),
        ..Desired::default()
    }
}

/// A node that has told what it has.
fn known(reachable: bool) -> Known {
    let machine = MachineReport {
        cpu_thousandths: 8_000,
        memory: Bytes::mebibytes(8_192),
        disk: Bytes::mebibytes(8_192),
        architecture: String::new(),
    };
    Known {
        machine: Some(machine),
        ..Known::reach(reachable)
    }
}

fn table() -> NodeTable {
    let record = |id: u64| {
        let zone = format!("/z{id}").parse().expect("a zone");
        let name = name(&format!("n{id}"));
        NodeRecord::new(NodeId(id), name, zone, Hash([0; 32]), UnixMillis(0))
    };
    (1..=NODES).map(|id| (NodeId(id), record(id))).collect()
}

enum Message {
    Ask(NodeId, Ask),
    Grant(Grant),
    /// The state as of a revision.
    Mirror(Box<Desired>),
}

/// An agent with its shim.
struct Agent {
    /// Of true time: this clock's speed, in thousandths.
    speed: u64,
    holder: Holder,
    desired: Option<Desired>,
    runs: bool,
    /// Asked to end, it ends then, in true milliseconds.
    ends_at: Option<u64>,
    /// The shim's, on this node's clock.
    until: Time,
    paused_until: u64,
    asks_at: u64,
    /// What it thinks of itself as the leader.
    grantor: Option<Grantor>,
    looks_at: u64,
    /// Asks that came, to be answered at the next look.
    asked: Vec<(NodeId, Ask)>,
}

struct World {
    now_ms: u64,
    rng: Rng,
    agents: BTreeMap<NodeId, Agent>,
    /// Nodes on the smaller side of a cut.
    cut: BTreeSet<NodeId>,
    cut_until: u64,
    /// The one whom a majority has elected.
    leader: NodeId,
    silent_since: Option<u64>,
    /// What is written durably.
    desired: Desired,
    /// Written by the leader and not yet by a majority: when it is, if nothing else
    /// was written before.
    pending: Vec<(u64, Revision, Change)>,
    nodes: NodeTable,
    under_way: Vec<(u64, NodeId, Message)>,
    cuts: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::seeded(seed);
        let agent = |id: u64, rng: &mut Rng| {
            let agent = Agent {
                speed: 970 + rng.below(61),
                holder: Holder::default(),
                desired: None,
                runs: false,
                ends_at: None,
                until: Time(0),
                paused_until: 0,
                asks_at: rng.below(500),
                grantor: None,
                looks_at: 0,
                asked: Vec::new(),
            };
            (NodeId(id), agent)
        };
        let agents = (1..=NODES).map(|id| agent(id, &mut rng)).collect();
        Self {
            now_ms: 0,
            agents,
            rng,
            cut: BTreeSet::new(),
            cut_until: 0,
            leader: NodeId(1),
            silent_since: None,
            desired: first_desired(),
            pending: Vec::new(),
            nodes: table(),
            under_way: Vec::new(),
            cuts: 0,
        }
    }

    /// What a node's clock says.
    fn clock(&self, node: NodeId) -> Time {
        Time(1_000_000_000_000 + self.now_ms * 1_000 * self.agents[&node].speed)
    }

    fn is_paused(&self, node: NodeId) -> bool {
        self.agents[&node].paused_until > self.now_ms
    }

    fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.contains(&from) == self.cut.contains(&to)
    }

    fn has_majority(&self, node: NodeId) -> bool {
        let with = |other: &&NodeId| self.reaches(node, **other) && !self.is_paused(**other);
        !self.is_paused(node) && self.agents.keys().filter(with).count() as u64 > NODES / 2
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        let is_lost = !self.reaches(from, to) || self.rng.below(20) == 0;
        if is_lost {
            return;
        }
        // Now and then one is very late.
        let late = if self.rng.below(50) == 0 { 4_000 } else { 150 };
        let at = self.now_ms + 1 + self.rng.below(late);
        self.under_way.push((at, to, message));
    }

    fn trouble(&mut self) {
        if self.cut_until <= self.now_ms {
            self.cut.clear();
        }
        if self.now_ms >= TROUBLE_MS || self.rng.below(90) > 0 {
            return;
        }
        let node = NodeId(1 + self.rng.below(NODES));
        match self.rng.below(6) {
            0..3 if self.cut.is_empty() => {
                let count = 1 + self.rng.below(NODES / 2);
                // The one that runs it, and the leader, are cut off most often.
                let runs = self.agents.iter().find(|(_, it)| it.runs).map(|it| *it.0);
                let first = match self.rng.below(3) {
                    0 => runs.unwrap_or(node),
                    1 => self.leader,
                    _ => node,
                };
                self.cut.insert(first);
                while (self.cut.len() as u64) < count {
                    self.cut.insert(NodeId(1 + self.rng.below(NODES)));
                }
                self.cut_until = self.now_ms + 200 + self.rng.below(12_000);
                self.cuts += 1;
            }
            3 => {
                let until = self.now_ms + 100 + self.rng.below(15_000);
                self.agents.get_mut(&node).expect("there").paused_until = until;
            }
            4 => {
                // The agent is killed and starts anew; shim and replica go on.
                let agent = self.agents.get_mut(&node).expect("there");
                agent.holder = Holder::default();
                agent.grantor = None;
                agent.asked.clear();
            }
            5 => {
                let record = self.nodes.get_mut(&node).expect("there");
                record.draining = !record.draining;
            }
            _ => {}
        }
    }

    fn elect(&mut self) {
        if self.has_majority(self.leader) {
            self.silent_since = None;
            return;
        }
        let since = *self.silent_since.get_or_insert(self.now_ms);
        if self.now_ms < since + ELECTION_MS {
            return;
        }
        let mut others = self.agents.keys().copied();
        if let Some(next) = others.find(|node| self.has_majority(*node)) {
            // A new leader has an entry or has it not, before it leads.
            for (_, expected, change) in std::mem::take(&mut self.pending) {
                if self.rng.below(2) == 0 {
                    self.commit(expected, &change);
                }
            }
            self.leader = next;
            self.silent_since = None;
            let now = self.clock(next);
            let agent = self.agents.get_mut(&next).expect("there");
            agent.grantor = Some(Grantor::new(now));
            agent.asked.clear();
        }
    }

    fn deliver(&mut self) {
        let now_ms = self.now_ms;
        let due = |it: &(u64, NodeId, Message)| it.0 <= now_ms;
        let (due, later): (Vec<_>, Vec<_>) = self.under_way.drain(..).partition(due);
        self.under_way = later;
        for (_, to, message) in due {
            // Whoever is paused finds it when it goes on.
            if self.is_paused(to) {
                let at = self.agents[&to].paused_until + 1;
                self.under_way.push((at, to, message));
                continue;
            }
            let agent = self.agents.get_mut(&to).expect("there");
            match message {
                Message::Ask(from, ask) => agent.asked.push((from, ask)),
                Message::Grant(grant) => {
                    for (_, until) in agent.holder.granted(grant) {
                        agent.until = agent.until.max(until);
                    }
                }
                Message::Mirror(desired) => {
                    let known = agent.desired.as_ref().map(|it| it.revision);
                    if known < Some(desired.revision) {
                        agent.desired = Some(*desired);
                    }
                }
            }
        }
    }

    /// As long as it thinks that it leads: also when it does not any more, for what
    /// it does then must come to nothing.
    fn lead(&mut self, node: NodeId) {
        let agent = self.agents.get_mut(&node).expect("there");
        if agent.grantor.is_none() && self.leader == node {
            agent.grantor = Some(Grantor::new(Time(
                1_000_000_000_000 + self.now_ms * 1_000 * agent.speed,
            )));
        }
        if agent.grantor.is_none() || agent.looks_at > self.now_ms {
            return;
        }
        agent.looks_at = self.now_ms + LEADER_LOOKS_EVERY_MS;
        // A majority says whether it leads.
        if self.leader != node || !self.has_majority(node) {
            let agent = self.agents.get_mut(&node).expect("there");
            agent.asked.clear();
            if self.leader != node {
                agent.grantor = None;
            }
            return;
        }
        let now = self.clock(node);
        let placed = lease::rights(&self.desired);
        let agent = self.agents.get_mut(&node).expect("there");
        let grantor = agent.grantor.as_mut().expect("leads");
        let answers: Vec<(NodeId, Grant)> = std::mem::take(&mut agent.asked)
            .into_iter()
            .map(|(from, ask)| (from, grantor.grant(from, ask, &placed, now)))
            .collect();
        let reach: BTreeSet<NodeId> = self
            .agents
            .keys()
            .copied()
            .filter(|other| self.reaches(node, *other))
            .collect();
        let known = |node: NodeId| known(reach.contains(&node));
        let grantor = self.agents[&node].grantor.as_ref().expect("leads");
        let changes = lease::changes(&self.desired, &self.nodes, grantor, known, now);
        for (to, grant) in answers {
            self.send(node, to, Message::Grant(grant));
        }
        for change in changes {
            self.write(node, &change);
        }
        let others: Vec<NodeId> = self.agents.keys().copied().collect();
        for other in others {
            self.send(node, other, Message::Mirror(Box::new(self.desired.clone())));
        }
    }

    fn write(&mut self, node: NodeId, change: &Change) {
        let agent = self.agents.get_mut(&node).expect("there");
        let clock = Time(1_000_000_000_000 + self.now_ms * 1_000 * agent.speed);
        let grantor = agent.grantor.as_mut().expect("leads");
        grantor.changes(change, clock);
        let expected = self.desired.revision;
        // Sometimes it is not known what becomes of it: it is done later, or not.
        if self.rng.below(5) == 0 {
            let at = self.now_ms + self.rng.below(8_000);
            self.pending.push((at, expected, change.clone()));
            return;
        }
        grantor.is_sure(&change.service);
        self.commit(expected, change);
    }

    fn commit(&mut self, expected: Revision, change: &Change) {
        if self.desired.revision != expected {
            return;
        }
        let revision = expected.0 + 1;
        let project = self.desired.projects.get_mut(&name("p")).expect("applied");
        *project = change.made(project, FencingEpoch(revision));
        self.desired.revision = Revision(revision);
    }

    fn commit_what_is_due(&mut self) {
        let now_ms = self.now_ms;
        let due = |it: &(u64, Revision, Change)| it.0 <= now_ms;
        let (due, later): (Vec<_>, Vec<_>) = self.pending.drain(..).partition(due);
        self.pending = later;
        for (_, expected, change) in due {
            self.commit(expected, &change);
        }
    }

    fn act(&mut self, node: NodeId) {
        let clock = self.clock(node);
        let now_ms = self.now_ms;
        let stop_takes = self.rng.below(400);
        let leader = self.leader;
        let agent = self.agents.get_mut(&node).expect("there");
        // The shim is first after a pause.
        if agent.runs && (agent.until <= clock || agent.ends_at.is_some_and(|at| at <= now_ms)) {
            agent.runs = false;
            agent.ends_at = None;
        }
        let placed = agent.desired.as_ref().map(lease::placed);
        let placed = placed.and_then(|all| all.get(&service()).copied());
        let lease = agent.holder.leases(clock).get(&service()).copied();
        let here = placed.is_some_and(|it| it.on == Some(node));
        let epoch = placed.map(|it| it.epoch);
        let held = matches!(lease, Some(Lease::Held(held)) if Some(held) == epoch);
        let unknown = lease.is_none() && agent.runs;
        if here && held && !agent.runs && agent.until > clock {
            agent.runs = true;
            agent.ends_at = None;
        } else if agent.runs && agent.ends_at.is_none() && !(here && (held || unknown)) {
            agent.ends_at = Some(now_ms + stop_takes);
        }
        if agent.asks_at <= now_ms {
            agent.asks_at = now_ms + 500;
            let knows = Knows {
                epoch,
                runs: agent.runs,
            };
            let ask = agent
                .holder
                .ask(BTreeMap::from([(service(), knows)]), clock);
            self.send(node, leader, Message::Ask(node, ask));
        }
    }

    fn running(&self) -> Vec<NodeId> {
        let running = self.agents.iter().filter(|(node, agent)| {
            // What stands still does nothing; it is killed when it goes on.
            agent.runs && !self.is_paused(**node) && agent.until > self.clock(**node)
        });
        running.map(|(node, _)| *node).collect()
    }

    fn step(&mut self) {
        self.trouble();
        self.elect();
        self.commit_what_is_due();
        self.deliver();
        let nodes: Vec<NodeId> = self.agents.keys().copied().collect();
        for node in nodes {
            if !self.is_paused(node) {
                self.lead(node);
                self.act(node);
            }
        }
        self.now_ms += STEP_MS;
    }
}

fn run(seed: u64) -> u64 {
    let mut world = World::new(seed);
    let mut longest_without = 0;
    let mut without_since = 0;
    let mut settled = None;
    while world.now_ms < TROUBLE_MS + CALM_MS {
        world.step();
        if world.now_ms >= TROUBLE_MS + SETTLED_MS {
            let epoch = *settled.get_or_insert(world.desired.revision);
            assert_eq!(
                epoch, world.desired.revision,
                "seed {seed}: it moves for nothing"
            );
        }
        let running = world.running();
        assert!(
            running.len() < 2,
            "seed {seed}: after {} ms on {running:?}",
            world.now_ms
        );
        if running.is_empty() {
            longest_without = longest_without.max(world.now_ms - without_since);
        } else {
            without_since = world.now_ms;
        }
    }
    let can_run = world.nodes.values().any(|record| !record.draining);
    assert!(
        !can_run || world.running().len() == 1,
        "seed {seed}: it runs nowhere though all is well"
    );
    world.cuts
}

#[test]
fn two_never_run_at_once_in_a_thousand_cuts() {
    let mut cuts = 0;
    let mut seed = 0;
    while cuts < 1_000 {
        seed += 1;
        cuts += run(seed);
    }
    assert!(
        cuts / seed >= CUTS_PER_RUN / 4,
        "{cuts} cuts in {seed} runs"
    );
}

#[test]
fn a_grant_is_no_longer_than_what_the_grantor_counts_on() {
    assert!(lease::HELD_FOR + Duration::from_millis(500) < lease::TIME_TO_LIVE);
    let mut holder = Holder::default();
    let asked = Time(1_000_000_000);
    let ask = holder.ask(BTreeMap::new(), asked);
    let grant = Grant {
        number: ask.number,
        epochs: BTreeMap::from([(service(), FencingEpoch(3))]),
    };
    let held = holder.granted(grant.clone());
    assert_eq!(held, [(service(), asked + lease::HELD_FOR)]);
    assert_eq!(holder.granted(grant), [], "an answer counts once");
    let late = asked + lease::HELD_FOR;
    assert_eq!(holder.leases(late)[&service()], Lease::Over);
    let early = asked + Duration::from_secs(1);
    assert_eq!(
        holder.leases(early)[&service()],
        Lease::Held(FencingEpoch(3))
    );
}

#[test]
fn what_a_node_said_before_it_knew_of_the_change_does_not_free_it() {
    let desired = first_desired();
    let nodes = table();
    let began = Time(1);
    let mut grantor = Grantor::new(began);
    let known = |_| known(true);
    let at = began + Duration::from_millis(100);
    let says = |epoch: u64| Ask {
        number: 1,
        singletons: BTreeMap::from([(
            service(),
            Knows {
                epoch: Some(FencingEpoch(epoch)),
                runs: false,
            },
        )]),
    };
    for node in nodes.keys() {
        let _ = grantor.grant(*node, says(0), &lease::rights(&desired), at);
    }
    assert_eq!(lease::changes(&desired, &nodes, &grantor, known, at), []);
    for node in nodes.keys() {
        let _ = grantor.grant(*node, says(1), &lease::rights(&desired), at);
    }
    let changes = lease::changes(&desired, &nodes, &grantor, known, at);
    assert!(matches!(&changes[..], [Change { to: Some(_), .. }]));
    // What nodes have is not known to a leader that has just begun.
    let untold = |_| Known::reach(true);
    assert_eq!(lease::changes(&desired, &nodes, &grantor, untold, at), []);
}

/// An agent that starts where its replica has no place any more ends it, and that
/// takes a while.
#[test]
fn what_an_earlier_agent_left_runs_until_it_has_ended() {
    let mut node = Node::new(1, Settings::default());
    let replica = ReplicaId {
        service: service(),
        generation: Revision(1),
        index: 0,
    };
    let state = Found::Running(Running {
        pid: 1,
        address: None,
        since: Time(1),
    });
    let _ = node.handle(NodeEvent::Desired(first_desired()), Time(1));
    let knows = |node: &Node| node.status().singletons.get(&service()).copied();
    assert_eq!(knows(&node), None, "it does not know what was left");
    let found = Adopted {
        replica: replica.clone(),
        state,
    };
    let _ = node.handle(NodeEvent::Adopted(vec![found]), Time(2));
    let epoch = Some(FencingEpoch(1));
    let runs = Some(Knows { epoch, runs: true });
    assert_eq!(knows(&node), runs);
    let _ = node.handle(NodeEvent::Desired(first_desired()), Time(3));
    assert_eq!(knows(&node), runs);
    let ended = DriverEvent::Exited {
        replica,
        exit: Exit::Signal(15),
        at: Time(4),
    };
    let _ = node.handle(NodeEvent::Driver(ended), Time(4));
    assert_eq!(knows(&node), Some(Knows { epoch, runs: false }));
}
