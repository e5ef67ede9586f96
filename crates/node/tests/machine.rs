//! The node against a small world that starts, probes and ends replicas.

mod support;

use kernel::{Name, ObjectRef, ReplicaId, Revision, Time};
use node::desired::Desired;
use node::driver::{Adopted, DriverEvent, Found, ProbeOutcome, Running};
use node::{Node, NodeEffect, NodeEvent, Settings};
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;
use support::{desired, name};
use wire::decision::JournalEntry;
use wire::shim::Exit;

const ADDRESS: &str = "127.0.0.1:9";

fn id(generation: u64, index: u32) -> ReplicaId {
    ReplicaId {
        service: name(),
        generation: Revision(generation),
        index,
    }
}

fn running() -> Found {
    Found::Running(Running {
        pid: 1,
        address: ADDRESS.parse().ok(),
        since: Time(0),
    })
}

/// Carries effects out at once; generations in `broken` end when started.
struct World {
    node: Node,
    now: Time,
    running: BTreeSet<ReplicaId>,
    broken: BTreeSet<u64>,
    endpoints: Vec<ReplicaId>,
    /// The fewest endpoints ever published since it was last set.
    fewest: usize,
    starts: Vec<ReplicaId>,
    failed: Vec<Revision>,
    settled: Vec<Revision>,
    restarted: Vec<Option<String>>,
    down: bool,
    journal: Vec<JournalEntry>,
}

impl World {
    fn new(found: Vec<Adopted>) -> Self {
        let mut world = Self {
            node: Node::new(7, Settings::default()),
            now: Time(1),
            running: (found.iter())
                .filter(|one| matches!(one.state, Found::Running(_)))
                .map(|one| one.replica.clone())
                .collect(),
            broken: BTreeSet::new(),
            endpoints: vec![],
            fewest: usize::MAX,
            starts: vec![],
            failed: vec![],
            settled: vec![],
            restarted: vec![],
            down: false,
            journal: vec![],
        };
        world.tell(NodeEvent::Adopted(found));
        world
    }

    fn tell(&mut self, event: NodeEvent) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.node.handle(event, self.now) {
                self.carry_out(effect, &mut events);
            }
        }
    }

    fn carry_out(&mut self, effect: NodeEffect, events: &mut VecDeque<NodeEvent>) {
        let at = self.now;
        match effect {
            NodeEffect::Start { spec } => {
                let replica = spec.id;
                self.starts.push(replica.clone());
                assert!(
                    self.running.insert(replica.clone()),
                    "{replica} was started twice"
                );
                let address = ADDRESS.parse().ok();
                let started = DriverEvent::Started {
                    replica: replica.clone(),
                    pid: 1,
                    address,
                    at,
                };
                events.push_back(NodeEvent::Driver(started));
                if self.broken.contains(&replica.generation.0) {
                    events.push_back(self.exit(&replica));
                }
            }
            NodeEffect::Stop { replica, .. } if self.running.contains(&replica) => {
                events.push_back(self.exit(&replica));
            }
            NodeEffect::Probe { replica, kind, .. } => {
                let healthy = self.running.contains(&replica);
                let outcome = ProbeOutcome {
                    healthy,
                    detail: "connect".into(),
                    took: Duration::ZERO,
                };
                events.push_back(NodeEvent::Probed {
                    replica,
                    kind,
                    outcome,
                });
            }
            NodeEffect::Publish(snapshot) => {
                let view = &snapshot.services.values().next();
                let endpoints = view.map(|view| view.endpoints.clone()).unwrap_or_default();
                self.endpoints = endpoints.into_iter().map(|one| one.replica).collect();
                self.fewest = self.fewest.min(self.endpoints.len());
            }
            NodeEffect::Record(JournalEntry::Decision(decision)) => {
                node::replay(&decision).expect("replays bit for bit");
                let text = serde_json::to_string(&decision).expect("JSON");
                let read = serde_json::from_str(&text).expect("reads back");
                node::replay(&read).expect("replays from the journal");
                self.journal.push(JournalEntry::Decision(decision));
            }
            NodeEffect::Record(entry) => self.journal.push(entry),
            NodeEffect::RolloutFailed { generation, .. } => self.failed.push(generation),
            NodeEffect::ServiceSettled { generation, .. } => self.settled.push(generation),
            NodeEffect::RestartDone { failed, .. } => self.restarted.push(failed),
            NodeEffect::AllStopped => self.down = true,
            NodeEffect::Stop { .. }
            | NodeEffect::Remove { .. }
            | NodeEffect::FetchContent { .. }
            | NodeEffect::MendContent { .. }
            | NodeEffect::DropContent { .. }
            | NodeEffect::ContentHeldBack { .. }
            | NodeEffect::Notify { .. }
            | NodeEffect::Replace { .. }
            | NodeEffect::ReplaceWithin { .. }
            | NodeEffect::Advance { .. } => {}
        }
    }

    fn exit(&mut self, replica: &ReplicaId) -> NodeEvent {
        self.running.remove(replica);
        NodeEvent::Driver(DriverEvent::Exited {
            replica: replica.clone(),
            exit: Exit::Code(1),
            at: self.now,
        })
    }

    fn crash_one(&mut self, which: usize) {
        if let Some(replica) = self.running.iter().nth(which).cloned() {
            let event = self.exit(&replica);
            self.tell(event);
        }
    }

    fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(wake) = self.node.next_wake().filter(|wake| *wake <= until) {
            self.now = wake.max(self.now + Duration::from_micros(1));
            self.tell(NodeEvent::Tick);
        }
        self.now = self.now.max(until);
    }

    fn word(&self) -> String {
        self.node.status().services[&name()].replicas[0]
            .state
            .clone()
    }
}

const MINUTE: Duration = Duration::from_mins(1);

/// The same service, also in a project `shop`.
fn desired_twice(generation: u64, of_shop: u64) -> Desired {
    let mut both = desired(generation, 1);
    let mut shop = desired(of_shop, 1).projects.into_values().next();
    if let Some(shop) = &mut shop {
        shop.manifest.project = Name::new("shop").expect("a name");
    }
    let shop = shop.map(|shop| (shop.manifest.project.clone(), shop));
    both.projects.extend(shop);
    both
}

#[test]
fn what_happens_to_a_service_touches_none_of_that_name_in_another_project() {
    let shop = "shop.search-g1-0".parse().expect("an id");
    let mut world = World::new(vec![]);
    world.tell(NodeEvent::Desired(desired_twice(1, 1)));
    assert_eq!(world.running, BTreeSet::from([id(1, 0), shop]));
    assert_eq!(world.node.status().services.len(), 2);
    world.crash_one(0);
    world.tell(NodeEvent::Desired(desired_twice(2, 1)));
    world.pass(MINUTE);
    world.tell(NodeEvent::RestartRequested { service: name() });
    world.pass(MINUTE);
    let of_shop = |id: &&ReplicaId| id.service.project.as_str() == "shop";
    assert_eq!(world.starts.iter().filter(of_shop).count(), 1);
    let shop = ObjectRef::new("service", "shop/search");
    let told = node::why(&world.journal, &shop);
    assert!(!told.is_empty());
    assert!(
        told.iter()
            .all(|step| step.decision.subject.name.starts_with("shop"))
    );
    world.tell(NodeEvent::Desired(desired(2, 1)));
    world.pass(MINUTE);
    assert_eq!(world.running.iter().filter(of_shop).count(), 0);
    assert_eq!(world.running.len(), 1);
}

#[test]
fn service_comes_up_and_a_crash_is_answered_at_once_and_told() {
    let mut world = World::new(vec![]);
    world.tell(NodeEvent::Desired(desired(1, 2)));
    assert_eq!(world.endpoints, [id(1, 0), id(1, 1)]);
    assert_eq!(world.settled, [Revision(1)]);
    world.crash_one(0);
    assert_eq!(world.running.len(), 2, "restarted without a wait");
    world.pass(Duration::from_secs(1));
    let steps = node::why(&world.journal, &ObjectRef::new("service", name()));
    let restart = steps
        .iter()
        .find(|step| step.decision.seen.contains("exit code 1"));
    let told = restart
        .and_then(|step| step.observation.as_ref())
        .expect("observed");
    assert!(told.worked, "{told:?}");
}

#[test]
fn crash_loop_backs_off() {
    let mut world = World::new(vec![]);
    world.broken.insert(1);
    world.tell(NodeEvent::Desired(desired(1, 1)));
    assert_eq!(world.word(), "backing-off");
    world.pass(10 * MINUTE);
    assert!(
        (10..40).contains(&world.starts.len()),
        "{}",
        world.starts.len()
    );
    let disengaged = world.journal.iter().any(|entry| match entry {
        JournalEntry::Observation(seen) => seen.what.contains("disengages"),
        JournalEntry::Decision(_) => false,
    });
    assert!(disengaged);
    world.broken.clear();
    world.pass(10 * MINUTE);
    assert_eq!(world.endpoints.len(), 1, "it comes back by itself");
}

#[test]
fn failed_rollout_leaves_the_old_generation_running() {
    let mut world = World::new(vec![]);
    world.tell(NodeEvent::Desired(desired(1, 2)));
    world.broken.insert(2);
    world.fewest = usize::MAX;
    world.tell(NodeEvent::Desired(desired(2, 2)));
    world.pass(MINUTE);
    assert_eq!(world.failed, [Revision(2)]);
    assert_eq!(world.running, BTreeSet::from([id(1, 0), id(1, 1)]));
    assert_eq!(world.fewest.min(world.endpoints.len()), 2);
    world.tell(NodeEvent::Desired(desired(3, 2)));
    world.pass(MINUTE);
    assert_eq!(world.running, BTreeSet::from([id(3, 0), id(3, 1)]));
    assert!(world.fewest >= 1);
}

#[test]
fn adopted_replicas_are_not_started_again() {
    let state = running();
    let found = [id(1, 0), id(1, 1)].map(|replica| Adopted {
        replica,
        state: state.clone(),
    });
    let mut world = World::new(found.to_vec());
    world.tell(NodeEvent::Desired(desired(1, 2)));
    world.pass(MINUTE);
    assert!(world.starts.is_empty() && world.fewest == 2);
    world.tell(NodeEvent::RestartRequested { service: name() });
    world.pass(MINUTE);
    assert_eq!(world.starts.len(), 2);
    assert_eq!(world.restarted, [None], "told once, when both are replaced");
    assert!(world.fewest >= 1 && world.running.len() == 2);
    world.tell(NodeEvent::Shutdown);
    world.pass(MINUTE);
    assert!(world.down && world.running.is_empty());
}

#[test]
fn replicas_found_dead_are_replaced_beside_those_found_running() {
    let exited = Found::Ended(Some(Exit::Signal(9)));
    let states = [running(), exited, Found::Ended(None)];
    for first in &states {
        for second in &states {
            let found = [first, second].into_iter().zip(0..);
            let found = found.map(|(state, index)| Adopted {
                replica: id(1, index),
                state: state.clone(),
            });
            let mut world = World::new(found.collect());
            world.tell(NodeEvent::Desired(desired(1, 2)));
            world.pass(MINUTE);
            let seen = (world.running.len(), world.endpoints.len());
            assert_eq!(seen, (2, 2), "{first:?}, {second:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_history_ends_with_what_is_desired(
        history in prop::collection::vec((0..6_u8, 0..4_usize, 0..5_000_u64), 0..40),
    ) {
        let mut world = World::new(vec![]);
        world.tell(NodeEvent::Desired(desired(1, 2)));
        let mut generation = 1;
        for (what, which, wait_ms) in history {
            match what {
                0 => {
                    generation += 1;
                    world.tell(NodeEvent::Desired(desired(generation, 2)));
                }
                1 => world.crash_one(which),
                2 => world.tell(NodeEvent::RestartRequested { service: name() }),
                3 => {
                    let why = "connection refused".to_owned();
                    let replica = id(generation, u32::try_from(which).expect("small"));
                    world.tell(NodeEvent::EndpointFailed {
                        replica,
                        why,
                        others_answer: true,
                    });
                }
                _ => world.pass(Duration::from_millis(wait_ms)),
            }
            prop_assert!(world.endpoints.iter().all(|one| world.running.contains(one)));
        }
        world.pass(2 * MINUTE);
        prop_assert_eq!(world.running.len(), 2);
        prop_assert_eq!(world.endpoints.len(), 2);
        prop_assert!(world.running.iter().all(|one| one.generation == Revision(generation)));
    }
}
