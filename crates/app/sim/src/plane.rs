//! One node's replicas: the real `node` core over a modelled driver.
//!
//! In: desired state, what the driver and the probes say. Out: what happens
//! later.
//! Holds: each decision replays; replicas start, become ready and crash at
//! times of their own.

use crate::network::part;
use kernel::{NodeId, ReplicaId, Rng, Time};
use manifest::ProbeKind;
use node::desired::Desired;
use node::driver::{Adopted, DriverEvent, Found, ProbeOutcome};
use node::{Node, NodeEffect, NodeEvent, Settings};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use wire::decision::JournalEntry;
use wire::shim::Exit;

/// Between two crashes of one replica, in the mean.
const CRASHES_EVERY: Duration = Duration::from_mins(20);

#[derive(Clone, Debug)]
pub enum Later {
    Tick,
    Started(ReplicaId),
    Ended {
        replica: ReplicaId,
        start: u64,
        exit: Exit,
    },
    Looked {
        replica: ReplicaId,
        kind: ProbeKind,
    },
}

#[derive(Clone, Debug)]
struct Process {
    running: bool,
    ready_at: Time,
    /// Counts its starts: an end belongs to one.
    start: u64,
}

pub struct Plane {
    node: Node,
    processes: BTreeMap<ReplicaId, Process>,
    /// In the routes of this node's edge.
    pub endpoints: Vec<ReplicaId>,
    pub wake: Option<Time>,
    /// What to do, and after how long.
    pub later: Vec<(Duration, Later)>,
    pub decisions: u64,
    /// A decision that did not replay.
    pub broken: Option<String>,
}

impl Plane {
    /// `left` are replicas of before a power cut, all ended.
    pub fn new(seed: u64, node: NodeId, left: &[ReplicaId], rng: &mut Rng, now: Time) -> Self {
        let settings = Settings {
            node,
            ..Settings::default()
        };
        let mut plane = Self {
            node: Node::new(seed, settings),
            processes: BTreeMap::new(),
            endpoints: Vec::new(),
            wake: None,
            later: Vec::new(),
            decisions: 0,
            broken: None,
        };
        let mut found = Vec::new();
        for replica in left {
            plane.processes.insert(
                replica.clone(),
                Process {
                    running: false,
                    ready_at: now,
                    start: 0,
                },
            );
            found.push(Adopted {
                replica: replica.clone(),
                state: Found::Ended(None),
            });
        }
        plane.tell(NodeEvent::Adopted(found), rng, now);
        plane
    }

    pub fn want(&mut self, desired: Desired, rng: &mut Rng, now: Time) {
        self.tell(NodeEvent::Desired(desired), rng, now);
    }

    pub fn tick(&mut self, rng: &mut Rng, now: Time) {
        self.wake = None;
        self.tell(NodeEvent::Tick, rng, now);
    }

    /// The next time it is due, if that was not said before.
    pub fn new_wake(&mut self, now: Time) -> Option<Time> {
        // A machine that asks to be woken now must go on.
        let next = self.node.next_wake()?.max(now + Duration::from_micros(1));
        let is_new = self.wake.is_none_or(|wake| next < wake);
        if is_new {
            self.wake = Some(next);
        }
        is_new.then_some(next)
    }

    pub fn running(&self) -> impl Iterator<Item = &ReplicaId> {
        let running = self.processes.iter().filter(|(_, one)| one.running);
        running.map(|(replica, _)| replica)
    }

    /// All that the disk knows of.
    pub fn all(&self) -> Vec<ReplicaId> {
        self.processes.keys().cloned().collect()
    }

    pub fn crash(&mut self, rng: &mut Rng, now: Time) {
        let victims: Vec<(ReplicaId, u64)> = self
            .processes
            .iter()
            .filter(|(_, one)| one.running)
            .map(|(replica, one)| (replica.clone(), one.start))
            .collect();
        for (replica, start) in victims {
            self.ended(&replica, start, Exit::Signal(11), rng, now);
        }
    }

    pub fn happen(&mut self, what: Later, rng: &mut Rng, now: Time) {
        match what {
            Later::Tick => {
                if self.wake.is_some_and(|wake| wake <= now) {
                    self.tick(rng, now);
                }
            }
            Later::Started(replica) => self.started(replica, rng, now),
            Later::Ended {
                replica,
                start,
                exit,
            } => self.ended(&replica, start, exit, rng, now),
            Later::Looked { replica, kind } => {
                let process = self.processes.get(&replica);
                let healthy = process.is_some_and(|one| one.running && one.ready_at <= now);
                let outcome = ProbeOutcome {
                    healthy,
                    detail: if healthy { "200 OK" } else { "no answer" }.to_owned(),
                    took: Duration::from_millis(1),
                };
                let event = NodeEvent::Probed {
                    replica,
                    kind,
                    outcome,
                };
                self.tell(event, rng, now);
            }
        }
    }

    fn started(&mut self, replica: ReplicaId, rng: &mut Rng, now: Time) {
        let before = self.processes.get(&replica);
        if before.is_some_and(|one| one.running) {
            return;
        }
        let start = before.map_or(0, |one| one.start) + 1;
        self.processes.insert(
            replica.clone(),
            Process {
                running: true,
                ready_at: now + Duration::from_millis(50) + part(Duration::from_secs(1), rng),
                start,
            },
        );
        let until_crash = part(CRASHES_EVERY * 2, rng);
        self.later.push((
            until_crash,
            Later::Ended {
                replica: replica.clone(),
                start,
                exit: Exit::Signal(11),
            },
        ));
        let event = DriverEvent::Started {
            replica,
            pid: 1,
            address: Some(SocketAddr::from(([127, 0, 0, 1], 1_000))),
            at: now,
        };
        self.tell(NodeEvent::Driver(event), rng, now);
    }

    fn ended(&mut self, replica: &ReplicaId, start: u64, exit: Exit, rng: &mut Rng, now: Time) {
        let process = self.processes.get_mut(replica);
        let Some(process) = process.filter(|one| one.running && one.start == start) else {
            return;
        };
        process.running = false;
        let event = DriverEvent::Exited {
            replica: replica.clone(),
            exit,
            at: now,
        };
        self.tell(NodeEvent::Driver(event), rng, now);
    }

    fn tell(&mut self, event: NodeEvent, rng: &mut Rng, now: Time) {
        for effect in self.node.handle(event, now) {
            self.carry_out(effect, rng);
        }
    }

    fn carry_out(&mut self, effect: NodeEffect, rng: &mut Rng) {
        match effect {
            NodeEffect::Start { spec } => {
                let wait = Duration::from_millis(5) + part(Duration::from_millis(100), rng);
                self.later.push((wait, Later::Started(spec.id)));
            }
            NodeEffect::Stop { replica, grace } => {
                let start = self.processes.get(&replica).map_or(0, |one| one.start);
                let exit = Exit::Signal(15);
                let wait = part(grace, rng);
                self.later.push((
                    wait,
                    Later::Ended {
                        replica,
                        start,
                        exit,
                    },
                ));
            }
            NodeEffect::Remove { replica } => {
                if self.processes.get(&replica).is_some_and(|one| !one.running) {
                    self.processes.remove(&replica);
                }
            }
            NodeEffect::Probe { replica, kind, .. } => {
                let wait = part(Duration::from_millis(30), rng);
                self.later.push((wait, Later::Looked { replica, kind }));
            }
            NodeEffect::Publish(snapshot) => {
                let views = snapshot.services.into_values();
                let endpoints = views.flat_map(|view| view.endpoints);
                self.endpoints = endpoints.map(|one| one.replica).collect();
            }
            NodeEffect::Record(JournalEntry::Decision(decision)) => {
                self.decisions += 1;
                if let Err(why) = node::replay(&decision) {
                    self.broken = Some(format!("decision {} does not replay: {why}", decision.id));
                }
            }
            NodeEffect::FetchContent { .. }
            | NodeEffect::MendContent { .. }
            | NodeEffect::DropContent { .. }
            | NodeEffect::ContentHeldBack { .. }
            | NodeEffect::Notify { .. }
            | NodeEffect::Replace { .. }
            | NodeEffect::Record(_)
            | NodeEffect::ServiceSettled { .. }
            | NodeEffect::RolloutFailed { .. }
            | NodeEffect::RestartDone { .. }
            | NodeEffect::AllStopped => {}
        }
    }
}
