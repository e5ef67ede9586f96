//! Plays a script in the simulated world.
//!
//! In: a script and a seed. Out: a report: the hash of all that happened, how
//! long each expectation took, what was broken.

use crate::apply::What;
use crate::network::part;
use crate::store::StoreFaults;
use crate::world::{Turn, World};
use aggregation::membership::Event;
use control::repair::Parameters;
use kernel::{Name, NodeId, format_duration};
use node::script::Expected::AsWished;
use node::script::{Action, Change, Expectation, Memory, Script, ScriptService};
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
    /// As they are to be now.
    services: Vec<ScriptService>,
    world: World,
    outcomes: Vec<Outcome>,
    /// What remains of steps that go on over time.
    later: Vec<Later>,
    ends_early: bool,
}

#[derive(Clone, Copy, Debug)]
enum Later {
    Start {
        node: usize,
        memory: Memory,
        clock_off_s: i64,
    },
    /// An agent that ended in that run.
    Revive { node: usize, boot: u32 },
}

/// The supervisor starts an agent again within.
const REVIVE: Duration = Duration::from_secs(3);

pub fn play(script: &Script, seed: u64) -> Report {
    play_with(script, seed, &Options::default())
}

/// How a script is played otherwise than is usual.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub repair: Parameters,
    /// Ends as soon as all that is expected came true.
    pub ends_early: bool,
}

/// The same, played otherwise.
pub fn play_with(script: &Script, seed: u64, options: &Options) -> Report {
    let mut world = World::new(seed, StoreFaults::default());
    world.repair = options.repair.clone();
    for node in &script.nodes {
        let at = world.add_machine(node.name.clone(), &node.zone);
        world.machines[at].memory = node.memory;
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
        services: script.services.clone(),
        world,
        outcomes: outcomes.collect(),
        later: Vec::new(),
        ends_early: options.ends_early,
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
                    if self.ends_early && self.outcomes.iter().all(|one| one.took.is_some()) {
                        return;
                    }
                    if looks.is_multiple_of(all) {
                        self.world.check_all();
                    }
                    self.world.put_look(self.world.now + look);
                }
            }
        }
        self.look(self.script.end);
        let unmet = |one: &Outcome| one.took.is_none() && one.expectation.what == AsWished;
        if self.outcomes.iter().any(unmet)
            && let Some(why) = self.world.unlike_wished()
        {
            let why = format!("not as wished: {why}");
            self.world.check.broken(self.world.now, &why);
        }
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
            return self.go_on(self.later[act - steps]);
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
                    let start = Later::Start {
                        node: *node,
                        memory: *memory,
                        clock_off_s: *clock_off_s,
                    };
                    self.put_later(wait, start);
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
            Action::Kill(nodes) => nodes.iter().for_each(|node| self.kill(*node)),
            Action::Revoke(node) => self.world.order(What::Revoke(NodeId(*node as u64 + 1))),
            Action::Drain { node, draining } => self.world.order(What::Drain {
                node: NodeId(*node as u64 + 1),
                draining: *draining,
            }),
            Action::Pause { nodes, span } => {
                for node in nodes {
                    self.world.pause(*node, *span);
                }
            }
            Action::Apply => self.apply(None),
            Action::Change { service, change } => self.change(service, *change),
        }
    }

    fn put_later(&mut self, wait: Duration, later: Later) {
        self.later.push(later);
        let act = self.script.steps.len() + self.later.len() - 1;
        self.world.put_act(self.world.now + wait, act);
    }

    fn go_on(&mut self, later: Later) {
        match later {
            Later::Start {
                node,
                memory,
                clock_off_s,
            } => self.start(node, memory, clock_off_s),
            Later::Revive { node, boot } => {
                let machine = &self.world.machines[node];
                if machine.has_power && machine.boot == boot {
                    self.world.start(node);
                }
            }
        }
    }

    fn kill(&mut self, node: usize) {
        if self.world.machines[node].running.is_some() {
            self.world.kill(node);
            let boot = self.world.machines[node].boot;
            let wait = part(REVIVE, &mut self.world.rng);
            self.put_later(wait, Later::Revive { node, boot });
        }
    }

    /// All projects, or one.
    fn apply(&mut self, only: Option<&Name>) {
        let manifests = self.script.manifests(&self.services, "./program");
        for (project, text) in &manifests {
            if only.is_some_and(|only| only != project) {
                continue;
            }
            match manifest::parse(text, project) {
                Ok(manifest) => self.world.apply(&manifest),
                Err(mistakes) => {
                    let first = mistakes.first();
                    let why = first.map_or_else(String::new, |it| it.message.clone());
                    self.world.check.broken(self.world.now, &why);
                }
            }
        }
    }

    fn change(&mut self, service: &Name, change: Change) {
        let mut services = self.services.iter_mut();
        let Some(service) = services.find(|one| one.name == *service) else {
            return;
        };
        match change {
            Change::Replicas(count) => service.replicas = count,
            Change::Anew => service.version += 1,
        }
        let project = service.project.clone();
        self.apply(Some(&project));
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
