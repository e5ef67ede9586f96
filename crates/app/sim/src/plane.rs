//! One node's replicas: the real `node` core over a modelled driver.
//!
//! In: desired state, what the driver and the probes say; on the leader, what is
//! seen of the cluster. Out: what happens later; what this node runs; what is to
//! be placed elsewhere.
//! Holds: each decision replays; replicas start, become ready and crash at
//! times of their own; one that is leased ends with its lease, by its shim, whether
//! its agent is there or not.

use crate::network::part;
use kernel::{Bytes, NodeId, ReplicaId, Rng, ScopedName, Time};
use manifest::ProbeKind;
use node::desired::Desired;
use node::driver::{Adopted, DriverEvent, Found, ProbeOutcome};
use node::lease::{self, Knows, Lease};
use node::nodes::{MachineReport, NodeReport};
use node::{Node, NodeEffect, NodeEvent, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use wire::decision::JournalEntry;
use wire::shim::Exit;

/// Between two crashes of one replica, in the mean.
const CRASHES_EVERY: Duration = Duration::from_mins(20);
/// Of the replicas that run while their agent does not.
const ENDED_MEANWHILE: f64 = 0.1;
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1_000);

#[derive(Clone, Debug)]
pub enum Later {
    Tick,
    Started {
        replica: ReplicaId,
        leased: bool,
    },
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

/// A replica's, with its shim.
#[derive(Clone, Debug)]
pub struct Process {
    pub running: bool,
    ready_at: Time,
    /// Counts its starts: an end belongs to one.
    start: u64,
    /// It runs only as long as its shim was told.
    pub leased: bool,
    /// By the machine's own clock.
    until: Option<Time>,
}

impl Process {
    /// Whether its shim ends it now.
    pub fn is_over(&self, local: Time) -> bool {
        self.running && self.leased && self.until.is_none_or(|until| until <= local)
    }

    /// With its machine's power.
    pub fn cut(&mut self) {
        self.running = false;
        self.until = None;
    }
}

pub struct Plane {
    node: Node,
    pub processes: BTreeMap<ReplicaId, Process>,
    /// What the driver was told of leases: until when, by the machine's clock.
    leases: BTreeMap<ScopedName, Time>,
    /// There are some that need leases.
    pub has_singletons: bool,
    /// By the machine's own clock.
    pub local: Time,
    /// When shims are to look, by the same.
    pub shims: Vec<Time>,
    /// A leased one has started since it was last asked for.
    pub leased_began: bool,
    /// In the routes of this node's edge.
    pub endpoints: Vec<ReplicaId>,
    pub wake: Option<Time>,
    /// What to do, and after how long.
    pub later: Vec<(Duration, Later)>,
    /// Decided on the leader, and to be carried out: when, nodes to do without, and
    /// how many replicas may move.
    pub replaces: Vec<(Time, BTreeSet<NodeId>, u32)>,
    /// Since it was last asked for.
    pub status_changed: bool,
    pub decisions: u64,
    /// A decision that did not replay.
    pub broken: Option<String>,
}

impl Plane {
    /// * `left`: replicas of before.
    pub fn new(
        seed: u64,
        settings: Settings,
        left: &BTreeMap<ReplicaId, Process>,
        rng: &mut Rng,
        now: Time,
    ) -> Self {
        let mut plane = Self {
            node: Node::new(seed, settings),
            processes: BTreeMap::new(),
            leases: BTreeMap::new(),
            has_singletons: false,
            local: Time(0),
            shims: Vec::new(),
            leased_began: false,
            endpoints: Vec::new(),
            wake: None,
            later: Vec::new(),
            replaces: Vec::new(),
            status_changed: false,
            decisions: 0,
            broken: None,
        };
        let mut found = Vec::new();
        for (replica, before) in left {
            // Nobody saw how it ended meanwhile.
            let running = before.running && rng.unit() >= ENDED_MEANWHILE;
            let process = Process {
                running,
                ready_at: now,
                start: u64::from(running),
                ..before.clone()
            };
            plane.processes.insert(replica.clone(), process);
            let state = if running {
                plane.crash_later(replica, 1, rng);
                Found::Running(node::driver::Running {
                    pid: 1,
                    address: Some(ADDRESS),
                    since: now,
                })
            } else {
                Found::Ended(None)
            };
            let replica = replica.clone();
            found.push(Adopted { replica, state });
        }
        plane.tell(NodeEvent::Adopted(found), rng, now);
        plane
    }

    fn crash_later(&mut self, replica: &ReplicaId, start: u64, rng: &mut Rng) {
        let ended = Later::Ended {
            replica: replica.clone(),
            start,
            exit: Exit::Signal(11),
        };
        self.later.push((part(CRASHES_EVERY * 2, rng), ended));
    }

    /// What the leader's node sees of the cluster.
    pub fn see(&mut self, seen: NodeEvent, rng: &mut Rng, now: Time) {
        self.tell(seen, rng, now);
    }

    /// * `memory`: of its machine; none is enough for anything.
    pub fn report(&self, memory: Option<Bytes>) -> NodeReport {
        let machine = Some(MachineReport {
            cpu_thousandths: 1 << 40,
            memory: memory.unwrap_or(Bytes(1 << 50)),
            disk: Bytes(1 << 50),
            architecture: String::new(),
        });
        NodeReport {
            status: self.node.status(),
            machine,
            ..NodeReport::default()
        }
    }

    pub fn want(&mut self, desired: Desired, rng: &mut Rng, now: Time) {
        self.has_singletons |= !lease::placed(&desired).is_empty();
        self.tell(NodeEvent::Desired(desired), rng, now);
    }

    /// What this node knows of singletons.
    pub fn singletons(&self) -> BTreeMap<ScopedName, Knows> {
        self.node.status().singletons
    }

    /// What it may run of them.
    pub fn hold(&mut self, leases: BTreeMap<ScopedName, Lease>, rng: &mut Rng, now: Time) {
        self.tell(NodeEvent::Leases(leases), rng, now);
    }

    /// As the driver's: shims are told.
    pub fn lease(&mut self, service: &ScopedName, until: Time) {
        self.leases.insert(service.clone(), until);
        let its = self.processes.iter_mut();
        for (_, one) in its.filter(|(id, one)| id.service == *service && one.leased) {
            one.until = one.until.max(Some(until));
            self.shims.push(until);
        }
    }

    /// Shims end what has no lease any more.
    pub fn end_leased(&mut self, rng: &mut Rng, now: Time) {
        let over = self.processes.iter();
        let over = over.filter(|(_, one)| one.is_over(self.local));
        let over: Vec<(ReplicaId, u64)> = over.map(|(id, one)| (id.clone(), one.start)).collect();
        for (replica, start) in over {
            self.ended(&replica, start, Exit::Signal(9), rng, now);
        }
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
            Later::Started { replica, leased } => self.started(replica, leased, rng, now),
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

    fn started(&mut self, replica: ReplicaId, leased: bool, rng: &mut Rng, now: Time) {
        let before = self.processes.get(&replica);
        if before.is_some_and(|one| one.running) {
            return;
        }
        let start = before.map_or(0, |one| one.start) + 1;
        let told = self.leases.get(&replica.service).copied();
        let until = before.and_then(|one| one.until).max(told);
        if leased && until.is_none_or(|until| until <= self.local) {
            let event = DriverEvent::StartFailed {
                replica,
                why: "its node has no lease for it".to_owned(),
                at: now,
            };
            return self.tell(NodeEvent::Driver(event), rng, now);
        }
        self.shims.extend(until.filter(|_| leased));
        self.leased_began |= leased;
        self.processes.insert(
            replica.clone(),
            Process {
                running: true,
                ready_at: now + Duration::from_millis(50) + part(Duration::from_secs(1), rng),
                start,
                leased,
                until,
            },
        );
        self.crash_later(&replica, start, rng);
        let event = DriverEvent::Started {
            replica,
            pid: 1,
            address: Some(ADDRESS),
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
        self.status_changed = true;
        for effect in self.node.handle(event, now) {
            self.carry_out(effect, rng, now);
        }
    }

    fn carry_out(&mut self, effect: NodeEffect, rng: &mut Rng, now: Time) {
        match effect {
            NodeEffect::Start { spec } => {
                let wait = Duration::from_millis(5) + part(Duration::from_millis(100), rng);
                let (replica, leased) = (spec.id, spec.leased);
                self.later.push((wait, Later::Started { replica, leased }));
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
            NodeEffect::Replace { nodes, at_most } => self.replaces.push((now, nodes, at_most)),
            NodeEffect::FetchContent { .. }
            | NodeEffect::MendContent { .. }
            | NodeEffect::DropContent { .. }
            | NodeEffect::ContentHeldBack { .. }
            | NodeEffect::Notify { .. }
            | NodeEffect::ReplaceWithin { .. }
            | NodeEffect::Advance { .. }
            | NodeEffect::Record(_)
            | NodeEffect::ServiceSettled { .. }
            | NodeEffect::RolloutFailed { .. }
            | NodeEffect::RestartDone { .. }
            | NodeEffect::AllStopped => {}
        }
    }
}
