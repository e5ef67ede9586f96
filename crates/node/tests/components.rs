//! The node with a component, whose edge and compiler take time, fail and
//! restart at random: one seed, one history. `NODE_SEED` replays one.
//!
//! Holds: what is in the routes is in the snapshot; routes that had a loaded
//! replica are never left empty while it is loaded; once faults end, exactly
//! what is desired is in the routes, and the edge is asked for nothing else.

#[path = "support/agenda.rs"]
mod agenda;
mod support;

use agenda::{Agenda, Next};
use kernel::{Hash, ReplicaId, Revision, Rng, Time};
use manifest::Run;
use node::desired::Desired;
use node::driver::{Adopted, DriverEvent, Found, Running, Work};
use node::{Node, NodeEffect, NodeEvent, Settings};
use std::collections::BTreeSet;
use std::time::Duration;
use support::{desired, name};
use wire::decision::JournalEntry;
use wire::shim::Exit;

const SEEDS: u64 = 300;
const FAULTS: u64 = 40;
const SETTLING: Duration = Duration::from_mins(15);

/// The service as a component.
fn desired_component(generation: u64, replicas: u32) -> Desired {
    let mut desired = desired(generation, replicas);
    for applied in desired.projects.values_mut() {
        for (name, service) in &mut applied.manifest.services {
            service.run = Run::Wasm("search.wasm".into());
            applied.programs.insert(name.clone(), Hash([7; 32]));
        }
    }
    desired
}

enum Later {
    Tell(NodeEvent),
    /// The edge gets round to loading it.
    Load(ReplicaId),
}

struct World {
    rng: Rng,
    node: Node,
    agenda: Agenda<Later>,
    /// Generations whose component cannot be instantiated.
    broken: BTreeSet<Revision>,
    /// What the last snapshot asks of the edge, and what it has loaded.
    asked: BTreeSet<ReplicaId>,
    loaded: BTreeSet<ReplicaId>,
    routed: Vec<ReplicaId>,
    wanted: Desired,
    settled: Vec<Revision>,
    failed: Vec<Revision>,
    calm: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            rng: Rng::seeded(seed),
            node: Node::new(seed, Settings::default()),
            agenda: Agenda::new(),
            broken: BTreeSet::new(),
            asked: BTreeSet::new(),
            loaded: BTreeSet::new(),
            routed: Vec::new(),
            wanted: desired_component(1, 2),
            settled: Vec::new(),
            failed: Vec::new(),
            calm: false,
        };
        world.tell(NodeEvent::Adopted(Vec::new()));
        world.tell(NodeEvent::Desired(world.wanted.clone()));
        world
    }

    fn after(&mut self, millis_max: u64, what: Later) {
        let wait = Duration::from_micros(self.rng.below(millis_max * 1_000));
        self.agenda.after(wait, what);
    }

    fn tell(&mut self, event: NodeEvent) {
        for effect in self.node.handle(event, self.agenda.now) {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: NodeEffect) {
        let at = self.agenda.now;
        match effect {
            NodeEffect::Start { spec } => {
                assert!(matches!(spec.work, Work::Component(_)));
                let replica = spec.id;
                let fails = !self.calm && self.rng.below(20) == 0;
                let event = if fails {
                    let why = "no room for its code".to_owned();
                    DriverEvent::StartFailed { replica, why, at }
                } else {
                    DriverEvent::Prepared { replica, at }
                };
                self.after(500, Later::Tell(NodeEvent::Driver(event)));
            }
            NodeEffect::Stop { replica, .. } => {
                let exit = Exit::Code(0);
                let event = DriverEvent::Exited { replica, exit, at };
                self.after(5, Later::Tell(NodeEvent::Driver(event)));
            }
            NodeEffect::Probe { replica, .. } => panic!("{replica} has nothing to probe"),
            NodeEffect::Publish(snapshot) => {
                let views = snapshot.services.values();
                let endpoints = views.flat_map(|view| &view.endpoints);
                let routed: Vec<_> = endpoints.map(|one| one.replica.clone()).collect();
                self.asked = snapshot.components.keys().cloned().collect();
                self.loaded.retain(|one| self.asked.contains(one));
                for replica in &routed {
                    assert!(
                        self.asked.contains(replica),
                        "{replica} is routed, not asked for"
                    );
                }
                let left = self.routed.iter().find(|one| self.loaded.contains(*one));
                assert!(!routed.is_empty() || left.is_none(), "{left:?} is left out");
                self.routed = routed;
                self.ask_edge();
            }
            NodeEffect::Record(JournalEntry::Decision(decision)) => {
                node::replay(&decision).expect("replays bit for bit");
            }
            NodeEffect::ServiceSettled { generation, .. } => self.settled.push(generation),
            NodeEffect::RolloutFailed { generation, .. } => self.failed.push(generation),
            _ => {}
        }
    }

    /// It says of each component how it is, loaded before or not.
    fn ask_edge(&mut self) {
        for replica in self.asked.clone() {
            self.after(200, Later::Load(replica));
        }
    }

    fn load(&mut self, replica: ReplicaId) {
        let at = self.agenda.now;
        if !self.asked.contains(&replica) {
            return;
        }
        let fails = !self.calm && self.rng.below(30) == 0;
        if fails || self.broken.contains(&replica.generation) {
            self.loaded.remove(&replica);
            let why = "its start traps".to_owned();
            return self.tell(NodeEvent::Driver(DriverEvent::StartFailed {
                replica,
                why,
                at,
            }));
        }
        self.loaded.insert(replica.clone());
        let (pid, address) = (2, None);
        self.tell(NodeEvent::Driver(DriverEvent::Started {
            replica,
            pid,
            address,
            at,
        }));
    }

    fn pass(&mut self, span: Duration) {
        let until = self.agenda.now + span;
        while let Some(next) = self.agenda.next(self.node.next_wake(), until) {
            match next {
                Next::Happens(Later::Tell(event)) => self.tell(event),
                Next::Happens(Later::Load(replica)) => self.load(replica),
                Next::Wakes => self.tell(NodeEvent::Tick),
            }
        }
    }

    fn fault(&mut self) {
        match self.rng.below(6) {
            // The edge is killed; the next one loads its snapshot and tells.
            0 => {
                self.loaded.clear();
                self.ask_edge();
            }
            1 => self.restart_agent(),
            2 => self.tell(NodeEvent::RestartRequested { service: name() }),
            3 | 4 => {
                let generation = self.wanted.revision.0 + 1;
                if self.rng.below(3) == 0 {
                    self.broken.insert(Revision(generation));
                }
                let replicas = u32::try_from(1 + self.rng.below(3)).expect("small");
                self.wanted = desired_component(generation, replicas);
                self.tell(NodeEvent::Desired(self.wanted.clone()));
            }
            _ => {}
        }
    }

    /// It finds in the edge's snapshot what was in the routes.
    fn restart_agent(&mut self) {
        self.agenda.keep(|_| false);
        self.node = Node::new(self.rng.next_u64(), Settings::default());
        let found = self.routed.iter().map(|replica| Adopted {
            replica: replica.clone(),
            state: Found::Running(Running {
                pid: 2,
                address: None,
                since: Time(0),
            }),
        });
        let found = found.collect();
        self.tell(NodeEvent::Adopted(found));
        self.tell(NodeEvent::Desired(self.wanted.clone()));
        self.ask_edge();
    }
}

fn play(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..FAULTS {
        let wait = world.rng.below(6_000);
        world.pass(Duration::from_millis(wait));
        world.fault();
    }
    world.calm = true;
    let generation = Revision(world.wanted.revision.0 + 1);
    world.wanted = desired_component(generation.0, 3);
    world.tell(NodeEvent::Desired(world.wanted.clone()));
    world.pass(SETTLING);
    let right =
        |all: Vec<&ReplicaId>| all.len() == 3 && all.iter().all(|one| one.generation == generation);
    assert!(right(world.routed.iter().collect()), "{:?}", world.routed);
    assert!(right(world.asked.iter().collect()), "{:?}", world.asked);
    assert!(world.settled.contains(&generation));
}

#[test]
fn random_faults_end_with_the_desired_components_in_the_routes() {
    for seed in seeds() {
        let played = std::panic::catch_unwind(|| play(seed));
        assert!(played.is_ok(), "NODE_SEED={seed} replays this");
    }
}

#[test]
fn a_component_that_does_not_start_leaves_the_one_before_in_the_routes() {
    let mut world = World::new(1);
    world.calm = true;
    world.pass(Duration::from_secs(5));
    assert_eq!(
        (world.routed.len(), world.settled.as_slice()),
        (2, &[Revision(1)][..])
    );
    world.broken.insert(Revision(2));
    world.tell(NodeEvent::Desired(desired_component(2, 2)));
    world.pass(Duration::from_mins(2));
    assert_eq!(world.failed, [Revision(2)]);
    assert!(world.routed.iter().all(|one| one.generation == Revision(1)));
}

#[test]
fn a_killed_edge_or_agent_takes_no_component_out_of_the_routes() {
    let mut world = World::new(1);
    world.calm = true;
    world.pass(Duration::from_secs(5));
    let before = world.routed.clone();
    world.restart_agent();
    assert_eq!(world.routed, before);
    world.loaded.clear();
    world.ask_edge();
    world.pass(Duration::from_secs(5));
    assert_eq!(world.routed, before);
}

#[expect(clippy::disallowed_methods, reason = "a person chooses the seed")]
fn seeds() -> std::ops::Range<u64> {
    match std::env::var("NODE_SEED").map(|seed| seed.parse()) {
        Ok(Ok(seed)) => seed..seed + 1,
        _ => 0..SEEDS,
    }
}
