//! Plays a script in the simulated world.
//!
//! In: a script and a seed. Out: a report: the hash of all that happened, how
//! long each expectation took, what was broken.

use crate::store::StoreFaults;
use crate::world::{Turn, World};
use aggregation::membership::Event;
use kernel::{Name, NodeId, format_duration};
use manifest::Manifest;
use node::script::{Action, Expectation, Memory, PROJECT, Script};
use std::fmt;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub expectation: Expectation,
    /// None: it did not come true in time.
    pub took: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub script: String,
    pub seed: u64,
    /// Of all that happened, in order.
    pub hash: u64,
    pub events: u64,
    pub packets: u64,
    pub packet_bytes: u64,
    pub outcomes: Vec<Outcome>,
    /// Invariants that did not hold.
    pub broken: Vec<String>,
}

impl Report {
    pub fn is_good(&self) -> bool {
        self.broken.is_empty() && self.outcomes.iter().all(|one| one.took.is_some())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_good() { "held" } else { "broken" };
        writeln!(f, "script {} seed {} {word}", self.script, self.seed)?;
        for Outcome { expectation, took } in &self.outcomes {
            let within = format_duration(expectation.within);
            let at = format_duration(expectation.at);
            let took = took.map_or_else(|| "not in time".to_owned(), format_duration);
            let what = &expectation.what;
            writeln!(f, "  from {at} within {within} {what}: {took}")?;
        }
        for broken in &self.broken {
            writeln!(f, "  broken {broken}")?;
        }
        write!(
            f,
            "  events {} packets {} bytes {} hash {:016x}",
            self.events, self.packets, self.packet_bytes, self.hash
        )
    }
}

const SMALL: usize = 100;

struct Play<'a> {
    script: &'a Script,
    /// Of its services, or why there is none.
    manifest: Result<Manifest, String>,
    world: World,
    outcomes: Vec<Outcome>,
    /// What remains of starts that are spread over time.
    starts: Vec<(usize, Memory, i64)>,
}

pub fn play(script: &Script, seed: u64) -> Report {
    let mut world = World::new(seed, StoreFaults::default());
    for node in &script.nodes {
        world.add_machine(node.name.clone(), &node.zone);
    }
    for (one, other, distance) in &script.distances {
        world.network.set_distance(one, other, *distance);
    }
    world.check.always.extend(script.always.iter().copied());
    for service in &script.services {
        let wanted = (service.name.clone(), service.replicas);
        world.check.wanted_replicas.extend([wanted]);
    }
    let outcomes = script.expectations.iter().map(|expectation| Outcome {
        expectation: expectation.clone(),
        took: None,
    });
    let mut play = Play {
        script,
        manifest: manifest(script),
        world,
        outcomes: outcomes.collect(),
        starts: Vec::new(),
    };
    play.run();
    let Play {
        world, outcomes, ..
    } = play;
    Report {
        script: script.name.clone(),
        seed,
        hash: world.trace.hash,
        events: world.trace.events,
        packets: world.packets,
        packet_bytes: world.packet_bytes,
        outcomes,
        broken: world.check.broken,
    }
}

fn manifest(script: &Script) -> Result<Manifest, String> {
    let project = Name::new(PROJECT).map_err(|why| why.to_string())?;
    manifest::parse(&script.manifest("./program"), &project).map_err(|mistakes| {
        let first = mistakes.first();
        first.map_or_else(String::new, |mistake| mistake.message.clone())
    })
}

impl Play<'_> {
    fn run(&mut self) {
        let began = self.world.now;
        for (at, step) in self.script.steps.iter().enumerate() {
            self.world.put_act(began + step.at, at);
        }
        let large = self.script.nodes.len() > SMALL;
        let (look, all) = if large { (1_000, 10) } else { (50, 5) };
        let (look, mut looks) = (Duration::from_millis(look), 0_u64);
        self.world.put_look(began);
        let end = began + self.script.end;
        loop {
            match self.world.advance(end) {
                Turn::Over => break,
                Turn::Act(act) => self.act(act),
                Turn::Look => {
                    looks += 1;
                    self.look(self.world.now.since(began));
                    if looks.is_multiple_of(all) {
                        self.world.check_all();
                    }
                    self.world.put_look(self.world.now + look);
                }
            }
        }
        self.look(self.script.end);
    }

    fn look(&mut self, since: Duration) {
        for Outcome { expectation, took } in &mut self.outcomes {
            let waited = since.checked_sub(expectation.at);
            let in_time = waited.filter(|waited| *waited <= expectation.within);
            if took.is_none() && in_time.is_some() && self.world.is_so(&expectation.what) {
                *took = in_time;
            }
        }
    }

    fn act(&mut self, act: usize) {
        let steps = self.script.steps.len();
        if act >= steps {
            let (node, memory, clock_off_s) = self.starts[act - steps];
            return self.start(node, memory, clock_off_s);
        }
        match &self.script.steps[act].action {
            Action::Start {
                nodes,
                over,
                memory,
                clock_off_s,
            } => {
                let count = u32::try_from(nodes.len()).unwrap_or(u32::MAX).max(1);
                for (at, node) in (0..).zip(nodes) {
                    let wait = *over * at / count;
                    self.starts.push((*node, *memory, *clock_off_s));
                    let act = steps + self.starts.len() - 1;
                    self.world.put_act(self.world.now + wait, act);
                }
            }
            Action::PowerOff(nodes) => nodes.iter().for_each(|node| self.world.power_off(*node)),
            Action::Leave(nodes) => {
                for node in nodes {
                    self.world.tell(*node, Event::Leaving);
                }
            }
            Action::Crash(nodes) => {
                let now = self.world.now;
                for node in nodes {
                    self.world
                        .with_plane(*node, |plane, rng| plane.crash(rng, now));
                }
            }
            Action::Cut { from, to, both } => self.cut(from, to, *both),
            Action::Heal => self.heal(),
            Action::Slow { nodes, by } => {
                for node in nodes {
                    self.world.machines[*node].slow = *by;
                }
            }
            Action::Loss(share) => self.world.network.loss = *share,
            Action::Clone(node) => self.world.clone_of(*node),
            Action::Revoke(node) => self.world.revoke(NodeId(*node as u64 + 1)),
            Action::Apply => match &self.manifest {
                Ok(manifest) => self.world.apply(manifest),
                Err(why) => self.world.check.broken(self.world.now, why),
            },
        }
    }

    fn cut(&mut self, from: &[usize], to: &[usize], both: bool) {
        for one in from {
            for other in to {
                self.world.network.cuts.insert((*one, *other));
                if both {
                    self.world.network.cuts.insert((*other, *one));
                }
            }
        }
    }

    fn heal(&mut self) {
        self.world.network.cuts.clear();
        self.world.network.loss = 0.0;
        for machine in &mut self.world.machines {
            machine.slow = Duration::ZERO;
        }
    }

    fn start(&mut self, node: usize, memory: Memory, clock_off_s: i64) {
        let machine = &mut self.world.machines[node];
        machine.clock_off_s = clock_off_s;
        if memory == Memory::Lost {
            machine.disk = crate::machine::Disk::default();
        }
        self.world.start(node);
    }
}
