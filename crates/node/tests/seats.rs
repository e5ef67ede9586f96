//! A zone's seat under pauses, deaths, lost and late messages, clocks that run at
//! different speeds, leaders that do not know that they were replaced, and writes whose
//! outcome is not known: what is written under an epoch comes before anything under a
//! later one, and somebody holds it soon after all is well.

use control::repair::{Reading, Seen};
use kernel::{
    FencingEpoch, NodeId, ObjectRef, Revision, Rng, ScopedName, Time, UnixMillis, ZonePath,
};
use node::mending::Look;
use node::seats::{self, Answer, Ask, Holder, Keeper, Seat, Verdict, Zones, written_at};
use node::{Node, NodeEffect, NodeEvent, Settings};
use std::collections::{BTreeMap, BTreeSet};
use wire::decision::JournalEntry;

const STEP_MS: u64 = 20;
const NODES: u64 = 5;
const TROUBLE_MS: u64 = 60_000;
/// From the death of a leader until there is another.
const ELECTION_MS: u64 = 1_500;
/// From the death of a holder until another one writes, and the same with the leader's.
const MOVED_MS: u64 = 3_000;
const MOVED_WITH_LEADER_MS: u64 = 6_000;
/// No answer came: another ask.
const GIVEN_UP_MS: u64 = 1_000;

enum Message {
    Ask { from: NodeId, asked: Time },
    Answer { asked: Time, answer: Answer },
    Write { epoch: FencingEpoch },
}

struct Agent {
    /// Of true time: this clock's speed, in thousandths.
    speed: u64,
    holder: Holder,
    dead: bool,
    paused_until: u64,
    asks_at: u64,
    asking: bool,
    writes_at: u64,
}

/// What is different from how it should be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Writes do not compare the seat's record.
    NoFence,
    /// A holder counts from when it hears, and for as long as the leader does.
    HeldTooLong,
}

struct World {
    now_ms: u64,
    rng: Rng,
    fault: Fault,
    /// Whether leaders change, and believe wrongly that holders are gone.
    leaders_change: bool,
    agents: BTreeMap<NodeId, Agent>,
    /// All that ever led: the last one does, as soon as it is elected.
    leaders: Vec<Keeper>,
    elected_at: u64,
    /// The seat's record, and the store's revision.
    record: Option<(Seat, Revision)>,
    revision: Revision,
    written: Vec<FencingEpoch>,
    last_written_ms: u64,
    /// To a node, or to a leader.
    to_nodes: Vec<(u64, NodeId, Message)>,
    to_leaders: Vec<(u64, usize, Message)>,
}

fn zone() -> ZonePath {
    "/eu/1".parse().expect("a zone")
}

fn seated() -> Zones {
    Zones::from([(zone(), (1..=NODES).map(NodeId).collect())])
}

impl World {
    fn new(seed: u64, fault: Fault, leaders_change: bool) -> Self {
        let mut rng = Rng::seeded(seed);
        let agent = |id: u64| {
            let agent = Agent {
                speed: 970 + rng.below(61),
                holder: Holder::default(),
                dead: false,
                paused_until: 0,
                asks_at: rng.below(500),
                asking: false,
                writes_at: 0,
            };
            (NodeId(id), agent)
        };
        let agents = (1..=NODES).map(agent).collect();
        let mut world = Self {
            now_ms: 0,
            rng,
            fault,
            leaders_change,
            agents,
            leaders: Vec::new(),
            elected_at: 0,
            record: None,
            revision: Revision(0),
            written: Vec::new(),
            last_written_ms: 0,
            to_nodes: Vec::new(),
            to_leaders: Vec::new(),
        };
        world.leaders.push(Keeper::new(world.leaders_clock()));
        world
    }

    fn clock(&self, node: NodeId) -> Time {
        Time(1_000_000_000_000 + self.now_ms * 1_000 * self.agents[&node].speed)
    }

    fn leaders_clock(&self) -> Time {
        Time(5_000_000_000_000 + self.now_ms * 1_000_000)
    }

    fn is_calm(&self) -> bool {
        self.now_ms >= TROUBLE_MS
    }

    /// When a message arrives, if it does.
    fn arrives(&mut self) -> Option<u64> {
        if self.is_calm() {
            return Some(self.now_ms + 1 + self.rng.below(30));
        }
        let late = if self.rng.below(50) == 0 { 4_000 } else { 150 };
        let at = self.now_ms + 1 + self.rng.below(late);
        (self.rng.below(20) > 0).then_some(at)
    }

    /// The one that is asked: now and then one that leads no more.
    fn believed(&mut self) -> Option<usize> {
        let last = self.leaders.len() - 1;
        if !self.is_calm() && last > 0 && self.rng.below(8) == 0 {
            return Some(last - 1);
        }
        (self.elected_at <= self.now_ms).then_some(last)
    }

    fn trouble(&mut self) {
        if self.is_calm() || self.rng.below(60) > 0 {
            return;
        }
        let holder = self.record.map(|(seat, _)| seat.holder);
        let any = NodeId(1 + self.rng.below(NODES));
        let node = holder.filter(|_| self.rng.below(2) == 0).unwrap_or(any);
        let until = self.now_ms + self.rng.below(6_000);
        match self.rng.below(3) {
            0 | 1 => self.agents.get_mut(&node).expect("there").paused_until = until,
            _ if self.leaders_change => self.next_leader(),
            _ => {}
        }
    }

    fn next_leader(&mut self) {
        self.elected_at = self.now_ms + ELECTION_MS;
        let began = self.leaders_clock() + std::time::Duration::from_millis(ELECTION_MS);
        self.leaders.push(Keeper::new(began));
    }

    fn act(&mut self, node: NodeId) {
        let (now, now_ms) = (self.clock(node), self.now_ms);
        let able: BTreeSet<NodeId> = (1..=NODES).map(NodeId).collect();
        let alive: BTreeSet<NodeId> = able
            .iter()
            .copied()
            .filter(|it| !self.agents[it].dead)
            .collect();
        let agent = self.agents.get_mut(&node).expect("there");
        let epoch = agent.holder.held(now).map(|held| held.epoch);
        let keeps = agent.holder.keeps(&zone());
        let asks = seats::asks(node, &able, keeps, |it| alive.contains(&it));
        let asks = asks && agent.asks_at <= now_ms;
        if asks {
            let wait = if agent.asking { GIVEN_UP_MS } else { 500 };
            agent.asking = true;
            agent.asks_at = now_ms + wait;
        }
        let writes = epoch.filter(|_| agent.writes_at <= now_ms);
        if writes.is_some() {
            agent.writes_at = now_ms + 100;
        }
        let ask = asks.then_some(Message::Ask {
            from: node,
            asked: now,
        });
        let write = writes.map(|epoch| Message::Write { epoch });
        for message in ask.into_iter().chain(write) {
            if let (Some(leader), Some(at)) = (self.believed(), self.arrives()) {
                self.to_leaders.push((at, leader, message));
            }
        }
    }

    fn deliver_to_nodes(&mut self) {
        let now_ms = self.now_ms;
        let (due, later) = self.to_nodes.drain(..).partition(|it| it.0 <= now_ms);
        self.to_nodes = later;
        let due: Vec<(u64, NodeId, Message)> = due;
        for (_, to, message) in due {
            let now = self.clock(to);
            let fault = self.fault;
            let agent = self.agents.get_mut(&to).expect("there");
            if agent.dead {
                continue;
            }
            if agent.paused_until > now_ms {
                let at = agent.paused_until + 1;
                self.to_nodes.push((at, to, message));
                continue;
            }
            if let Message::Answer { asked, answer } = message {
                let margin = seats::TIME_TO_LIVE.saturating_sub(seats::HELD_FOR);
                let asked = match fault {
                    Fault::HeldTooLong => now + margin,
                    _ => asked,
                };
                agent.asking = false;
                agent.holder.answered(&zone(), asked, answer);
            }
        }
    }

    fn deliver_to_leaders(&mut self) {
        let now_ms = self.now_ms;
        let (due, later) = self.to_leaders.drain(..).partition(|it| it.0 <= now_ms);
        self.to_leaders = later;
        let due: Vec<(u64, usize, Message)> = due;
        for (_, leader, message) in due {
            let leads = leader + 1 == self.leaders.len() && self.elected_at <= now_ms;
            match message {
                Message::Ask { from, asked } => {
                    let answer = self.ask(leader, leads, from);
                    if let (Some(answer), Some(at)) = (answer, self.arrives()) {
                        let message = Message::Answer { asked, answer };
                        self.to_nodes.push((at, from, message));
                    }
                }
                Message::Write { epoch } => self.write(leads, epoch),
                Message::Answer { .. } => {}
            }
        }
    }

    /// None: it does not answer, or its answer is lost.
    fn ask(&mut self, leader: usize, leads: bool, from: NodeId) -> Option<Answer> {
        let now = self.leaders_clock();
        let ask = Ask {
            zone: zone(),
            left: BTreeSet::new(),
        };
        // In a cluster whose leaders change, gossip may be wrong too.
        let wrong = self.leaders_change && !self.is_calm() && self.rng.below(40) == 0;
        let dead: BTreeSet<NodeId> = self
            .agents
            .iter()
            .filter(|it| it.1.dead)
            .map(|it| *it.0)
            .collect();
        let gone = |node: NodeId| wrong || (leader.is_multiple_of(2) && dead.contains(&node));
        let keeper = &mut self.leaders[leader];
        let mut verdict = keeper.asked(from, &ask, &seated(), gone, now);
        if verdict == Verdict::Unread {
            if !leads {
                return None;
            }
            let read = self.record.map(|(seat, written)| (zone(), seat, written));
            keeper.read(read);
            verdict = keeper.asked(from, &ask, &seated(), gone, now);
        }
        let over = match verdict {
            Verdict::Renewed(epoch) => return Some(Answer { epoch: Some(epoch) }),
            Verdict::Refused | Verdict::Unread => return Some(Answer::default()),
            Verdict::Give { over } => over,
        };
        let is_known = self.is_calm() || self.rng.below(6) > 0;
        let written = self.record.map(|(_, written)| written);
        if !leads || written != over.map(written_at) {
            self.leaders[leader].forget();
            return leads.then(Answer::default);
        }
        self.revision = Revision(self.revision.0 + 1);
        let seat = Seat {
            holder: from,
            since: UnixMillis(self.now_ms),
        };
        self.record = Some((seat, self.revision));
        if !is_known {
            self.leaders[leader].forget();
            return None;
        }
        let written = self.revision;
        self.leaders[leader].given(&zone(), seat, written, now);
        let epoch = Some(seats::epoch_at(written));
        Some(Answer { epoch })
    }

    fn write(&mut self, leads: bool, epoch: FencingEpoch) {
        let written = self.record.map(|(_, written)| written);
        let is_fenced = written == Some(written_at(epoch)) || self.fault == Fault::NoFence;
        if leads && is_fenced {
            self.revision = Revision(self.revision.0 + 1);
            self.written.push(epoch);
            self.last_written_ms = self.now_ms;
        }
    }

    fn step(&mut self) {
        self.trouble();
        self.deliver_to_leaders();
        self.deliver_to_nodes();
        let nodes: Vec<NodeId> = self.agents.keys().copied().collect();
        for node in nodes {
            let agent = &self.agents[&node];
            if !agent.dead && agent.paused_until <= self.now_ms {
                self.act(node);
            }
        }
        self.now_ms += STEP_MS;
    }

    fn holders(&self) -> Vec<NodeId> {
        let holding = self
            .agents
            .iter()
            .filter(|(node, agent)| agent.holder.held(self.clock(**node)).is_some());
        holding.map(|(node, _)| *node).collect()
    }

    /// What is wrong after so long, if anything is.
    fn run_until(&mut self, end_ms: u64) -> Result<(), String> {
        while self.now_ms < end_ms {
            self.step();
            if !self.written.is_sorted() {
                let now = self.now_ms;
                return Err(format!(
                    "after {now} ms an earlier holder wrote after a later one"
                ));
            }
            let holders = self.holders();
            if !self.leaders_change && holders.len() > 1 {
                return Err(format!("after {} ms {holders:?} hold it", self.now_ms));
            }
        }
        Ok(())
    }

    /// Until what is written next, from now on, by another than `before`.
    fn moves_within(&mut self, before: NodeId, limit_ms: u64) {
        let (began, count) = (self.now_ms, self.written.len());
        while self.written.len() == count {
            self.step();
            let took = self.now_ms - began;
            assert!(took <= limit_ms, "nobody writes {took} ms after the death");
        }
        let holder = self.record.map(|(seat, _)| seat.holder);
        assert_ne!(holder, Some(before));
    }

    fn kill_holder(&mut self) -> NodeId {
        let (seat, _) = self.record.expect("somebody holds it");
        let agent = self.agents.get_mut(&seat.holder).expect("there");
        agent.dead = true;
        // What it had sent has arrived, or never does.
        self.to_leaders.clear();
        seat.holder
    }
}

fn run(seed: u64, fault: Fault, leaders_change: bool) -> Result<World, String> {
    let mut world = World::new(seed, fault, leaders_change);
    let told = |why: String| format!("seed {seed}: {why}");
    world.run_until(TROUBLE_MS).map_err(told)?;
    // What was late or paused is over.
    world.run_until(TROUBLE_MS + 15_000).map_err(told)?;
    let since = world.now_ms - world.last_written_ms;
    if since > 1_000 {
        return Err(told(format!(
            "nobody writes though all is well for {since} ms"
        )));
    }
    Ok(world)
}

#[test]
fn what_an_earlier_holder_writes_never_comes_after_a_later_one() {
    let mut holders = 0;
    for seed in 0..60 {
        let mut world = run(seed, Fault::None, true).unwrap_or_else(|why| panic!("{why}"));
        world.written.dedup();
        holders += world.written.len();
    }
    assert!(holders > 300, "only {holders} held it in all");
}

#[test]
fn with_one_leader_nobody_believes_to_hold_it_besides_its_holder() {
    for seed in 0..60 {
        if let Err(why) = run(seed, Fault::None, false) {
            panic!("{why}");
        }
    }
}

#[test]
fn a_seat_moves_in_time_when_its_holder_dies_and_when_the_leader_does_too() {
    for seed in 0..40 {
        let mut world = run(seed, Fault::None, true).unwrap_or_else(|why| panic!("{why}"));
        let first = world.kill_holder();
        world.moves_within(first, MOVED_MS);
        let end = world.now_ms + 3_000;
        world.run_until(end).unwrap_or_else(|why| panic!("{why}"));
        let second = world.kill_holder();
        world.next_leader();
        world.moves_within(second, MOVED_WITH_LEADER_MS);
    }
}

#[test]
fn who_holds_a_seat_places_within_its_zone_and_says_so() {
    let mut node = Node::new(1, Settings::default());
    let seen = |up| Seen {
        up,
        movable: 2,
        ..Seen::default()
    };
    let service: ScopedName = "p/s".parse().expect("a name");
    let mut look = Look {
        reading: Reading {
            nodes: BTreeMap::from([(NodeId(1), seen(true)), (NodeId(2), seen(true))]),
        },
        as_wished: true,
        about: Vec::new(),
    };
    let event = |look: &Look| NodeEvent::ZoneSeen {
        zone: zone(),
        epoch: FencingEpoch(7),
        look: look.clone(),
    };
    assert_eq!(node.handle(event(&look), Time(1)), []);
    look.reading.nodes.insert(NodeId(2), seen(false));
    look.as_wished = false;
    look.about = vec![service.clone()];
    let effects = node.handle(event(&look), Time(2));
    let told = effects.iter().find_map(|effect| match effect {
        NodeEffect::Record(JournalEntry::Decision(decision)) => Some(decision),
        _ => None,
    });
    let told = told.expect("it is told");
    node::replay(told).expect("replays");
    assert_eq!(told.subject, ObjectRef::new("zone", zone()));
    assert_eq!(told.about, [ObjectRef::new("service", &service)]);
    assert!(told.decided.contains("elsewhere in /eu/1"), "{told:?}");
    let place = NodeEffect::ReplaceWithin {
        zone: zone(),
        epoch: FencingEpoch(7),
        nodes: BTreeSet::from([NodeId(2)]),
        at_most: 2,
    };
    assert!(effects.contains(&place), "{effects:?}");
}

#[test]
fn a_write_without_its_fence_and_a_hold_that_is_too_long_are_found() {
    let fails =
        |fault, leaders_change| (0..60).any(|seed| run(seed, fault, leaders_change).is_err());
    assert!(fails(Fault::NoFence, true));
    assert!(fails(Fault::HeldTooLong, false));
}
