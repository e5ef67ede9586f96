//! The node: desired state, replicas and the edge's view, kept together.
//!
//! In: [`NodeEvent`]s with the time. Out: ordered [`NodeEffect`]s.
//! Holds: nothing starts before both the adopted replicas and desired state
//! are known; a snapshot is published only when it differs from the last.
//! Never: reads a clock, does I/O, draws unseeded randomness.

use crate::alerts::Alerts;
use crate::attempts::Attempts;
use crate::cluster::lease::{self, Knows, Lease};
use crate::cluster::mending::{Mending, MendingWithin};
use crate::cluster::stages::AllStages;
use crate::desired::{Applied, Desired};
use crate::driver::{Adopted, DriverEvent, Found, ReplicaSpec};
use crate::event::{NodeEffect, NodeEvent, NodeStatus, Peer, Settings};
use crate::holding::Care;
use crate::nodes::first_index;
use crate::replica::{Replica, Turn};
use crate::service::{Beside, Tended, Wanted};
use crate::snapshot::snapshot;
use crate::spec::replica_spec;
use control::singleton::Singleton;
use control::upgrade::Upgrade;
use control::{DecisionIds, Effort, Loop};
use control::{job, singleton};
use kernel::{FencingEpoch, NodeId, ObjectRef, ReplicaId, Rng, ScopedName, Time};
use manifest::Service;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::edge::{EdgeSnapshot, Endpoint};

pub struct Node {
    settings: Settings,
    rng: Rng,
    ids: DecisionIds,
    /// Found at the start; taken over with the first desired state.
    found: Option<Vec<Adopted>>,
    /// Ends that were heard of before: of what was found running, as a rule.
    early: Vec<NodeEvent>,
    taken_over: bool,
    /// Found running, wanted by nobody, and not known to have ended.
    abandoned: BTreeSet<ReplicaId>,
    desired: Option<Desired>,
    services: BTreeMap<ScopedName, Tended>,
    attempts: Attempts,
    /// Of all singletons of `desired`: asked for with each status.
    epochs: BTreeMap<ScopedName, FencingEpoch>,
    /// Of singletons: what this node may run, and may not any more.
    leases: BTreeMap<ScopedName, Lease>,
    peers: BTreeMap<NodeId, Peer>,
    care: Care,
    alerts: Alerts,
    mending: Mending,
    mending_within: MendingWithin,
    stages: AllStages,
    published: Option<EdgeSnapshot>,
    version: u64,
    going_down: bool,
    down: bool,
}

impl Node {
    pub fn new(seed: u64, settings: Settings) -> Self {
        Self {
            ids: DecisionIds::starting_at(settings.first_decision),
            care: Care::new(&settings),
            alerts: Alerts::default(),
            mending: Mending::new(settings.repair.clone()),
            mending_within: MendingWithin::new(settings.repair.clone()),
            stages: AllStages::default(),
            settings,
            rng: Rng::seeded(seed),
            found: None,
            early: Vec::new(),
            taken_over: false,
            abandoned: BTreeSet::new(),
            desired: None,
            services: BTreeMap::new(),
            attempts: Attempts::default(),
            epochs: BTreeMap::new(),
            leases: BTreeMap::new(),
            peers: BTreeMap::new(),
            published: None,
            version: 0,
            going_down: false,
            down: false,
        }
    }

    #[must_use = "effects must be carried out"]
    pub fn handle(&mut self, event: NodeEvent, now: Time) -> Vec<NodeEffect> {
        let mut effects = Vec::new();
        match event {
            NodeEvent::Adopted(found) if !self.taken_over => {
                self.found = Some(found);
                self.reconcile(&mut effects, now);
            }
            NodeEvent::Desired(desired) if !self.going_down => {
                let placed = lease::placed(&desired).into_iter();
                self.epochs = placed.map(|(name, it)| (name, it.epoch)).collect();
                self.desired = Some(desired);
                self.reconcile(&mut effects, now);
            }
            NodeEvent::Leases(leases) if !self.going_down => {
                self.leases = leases;
                self.reconcile(&mut effects, now);
            }
            // Seen when the snapshot is made.
            NodeEvent::Peers(peers) => self.peers = peers,
            end if !self.taken_over && ended(&end).is_some() => self.early.push(end),
            other => self.hear(other, &mut effects, now),
        }
        if self.taken_over {
            for end in std::mem::take(&mut self.early) {
                self.hear(end, &mut effects, now);
            }
        }
        self.conclude(&mut effects, now);
        effects
    }

    fn hear(&mut self, event: NodeEvent, effects: &mut Vec<NodeEffect>, now: Time) {
        if let NodeEvent::Driver(DriverEvent::Exited { replica, .. }) = &event {
            self.abandoned.remove(replica);
        }
        let ended = ended(&event).cloned();
        self.tend(event, effects, now);
        // One whose lease is over is not started again.
        if ended.is_some_and(|service| self.lacks_lease(&service)) {
            self.reconcile(effects, now);
        }
    }

    /// What concerns services that are known already.
    fn tend(&mut self, event: NodeEvent, effects: &mut Vec<NodeEffect>, now: Time) {
        let mut turn = Turn {
            ids: &mut self.ids,
            effects,
            now,
        };
        match event {
            NodeEvent::Driver(event) if self.attempts.has(event.replica()) => {
                self.attempts.heard(event, &mut turn);
            }
            NodeEvent::Driver(event) => {
                on_driver(
                    &mut self.services,
                    event,
                    &self.settings,
                    &mut self.rng,
                    &mut turn,
                );
            }
            NodeEvent::Probed { .. } | NodeEvent::EndpointFailed { .. } => {
                on_evidence(&mut self.services, event, &mut turn);
            }
            NodeEvent::RestartRequested { service } if !self.going_down => {
                if let Some(service) = self.services.get_mut(&service) {
                    service.restart(&mut turn);
                }
            }
            NodeEvent::ContentSeen { seen, objects } => {
                self.care.seen(*seen, objects, &mut turn);
            }
            NodeEvent::ContentFetched { hash, what } => self.care.fetched(hash, what, &mut turn),
            NodeEvent::ContentFetchFailed { hash, why } => {
                self.care.failed(hash, why, &mut turn);
            }
            NodeEvent::ClusterSeen(look) if !self.going_down => {
                self.mending.seen(&look, &mut turn);
            }
            NodeEvent::ZoneSeen { zone, epoch, look } if !self.going_down => {
                self.mending_within.seen((zone, epoch), &look, &mut turn);
            }
            NodeEvent::RolloutsSeen(all) if !self.going_down => self.stages.seen(all, &mut turn),
            NodeEvent::SingletonPlaced { .. }
            | NodeEvent::JobDecided { .. }
            | NodeEvent::UpgradeAsked(_) => tell_decided(event, &mut turn),
            NodeEvent::Alerts(specs) => self.alerts.are(specs, &mut turn),
            NodeEvent::AlertAnswered { name, value } if !self.going_down => {
                self.alerts.answered(&name, value, &mut turn);
            }
            NodeEvent::AlertDelivered { name, outcome } => {
                self.alerts.delivered(&name, outcome, &mut turn);
            }
            NodeEvent::Shutdown => {
                self.going_down = true;
                want_nothing(&mut self.services, &self.settings, &mut self.rng, &mut turn);
                self.attempts.stop_all(&mut turn);
            }
            _ => {}
        }
    }

    /// What is due after any event, then the edge's view of it all.
    fn conclude(&mut self, effects: &mut Vec<NodeEffect>, now: Time) {
        let mut turn = Turn {
            ids: &mut self.ids,
            effects,
            now,
        };
        for service in self.services.values_mut() {
            service.advance(&self.settings, &mut self.rng, &mut turn);
        }
        if !self.going_down {
            self.care.tick(&mut turn);
        }
        self.services.retain(|_, service| !service.is_over());
        self.publish(effects);
        let still = self.services.is_empty() && self.attempts.is_still();
        if self.going_down && still && !self.down {
            self.down = true;
            effects.push(NodeEffect::AllStopped);
        }
    }

    /// When [`NodeEvent::Tick`] is due, if nothing else comes before.
    pub fn next_wake(&self) -> Option<Time> {
        let care = self.care.next_wake().filter(|_| !self.going_down);
        let services = self.services.values();
        let services = services.filter_map(|one| one.next_wake(&self.settings));
        services.chain(care).min()
    }

    fn lacks_lease(&self, service: &ScopedName) -> bool {
        let held = matches!(self.leases.get(service), Some(Lease::Held(_)));
        let is_leased = |one: &Tended| one.is_leased();
        !held && self.services.get(service).is_some_and(is_leased)
    }

    /// What this node knows of singletons: those that are wished, and what still
    /// runs of others. Nothing before it knows what an earlier agent left.
    fn singletons(&self) -> BTreeMap<ScopedName, Knows> {
        let mut known: BTreeMap<ScopedName, Knows> = BTreeMap::new();
        if !self.taken_over {
            return known;
        }
        for (name, epoch) in &self.epochs {
            known.entry(name.clone()).or_default().epoch = Some(*epoch);
        }
        for (name, one) in &self.services {
            // Also what was none of it before, while it is.
            if (one.is_leased() || known.contains_key(name)) && !one.replicas.is_empty() {
                known.entry(name.clone()).or_default().runs = true;
            }
        }
        // What an earlier agent left runs until it has ended.
        for replica in &self.abandoned {
            if let Some(knows) = known.get_mut(&replica.service) {
                knows.runs = true;
            }
        }
        for (name, knows) in self.attempts.leased() {
            known.insert(name, knows);
        }
        known
    }

    pub fn status(&self) -> NodeStatus {
        let services = self.services.iter();
        NodeStatus {
            singletons: self.singletons(),
            services: services
                .map(|(name, one)| (name.clone(), one.status()))
                .collect(),
            attempts: self.attempts.status(),
            alerts: self.alerts.status(),
        }
    }

    fn reconcile(&mut self, effects: &mut Vec<NodeEffect>, now: Time) {
        let Some(desired) = &self.desired else {
            return;
        };
        if self.found.is_none() && !self.taken_over {
            return;
        }
        let (settings, rng) = (&self.settings, &mut self.rng);
        let turn = &mut Turn {
            ids: &mut self.ids,
            effects,
            now,
        };
        let mut wanted = wanted(desired, settings);
        let found = self.found.iter().flatten();
        let found: BTreeSet<ScopedName> = found
            .filter(|one| is_running(one))
            .map(|one| one.replica.service.clone())
            .collect();
        wanted.retain(|name, wanted| {
            let lease = self.leases.get(name);
            let runs = || found.contains(name) || self.services.get(name).is_some_and(Tended::runs);
            !wanted.service.singleton || may_run(lease, wanted.epoch, runs)
        });
        let mut by_service: BTreeMap<ScopedName, Vec<Adopted>> = BTreeMap::new();
        let found = self.found.take().unwrap_or_default();
        let (of_jobs, found) = found.into_iter().partition(|one| {
            let name = &one.replica.service;
            desired.jobs.contains_key(name) && !wanted.contains_key(name)
        });
        self.attempts.adopt(of_jobs);
        self.attempts.want(desired, &self.leases, settings, turn);
        for one in found {
            by_service
                .entry(one.replica.service.clone())
                .or_default()
                .push(one);
        }
        self.taken_over = true;
        for (name, found) in by_service {
            let Some(wanted) = wanted.get(&name) else {
                let running = found.iter().filter(|one| is_running(one));
                self.abandoned
                    .extend(running.map(|one| one.replica.clone()));
                abandon(found, turn);
                continue;
            };
            let service = self
                .services
                .entry(name.clone())
                .or_insert_with(|| Tended::new(name, settings));
            service.set_wanted(wanted.clone());
            service.adopt(found, wanted, settings, rng, turn);
        }
        for name in wanted.keys() {
            self.services
                .entry(name.clone())
                .or_insert_with(|| Tended::new(name.clone(), settings));
        }
        for (name, service) in &mut self.services {
            service.want(wanted.remove(name), settings, rng, turn);
        }
    }

    fn publish(&mut self, effects: &mut Vec<NodeEffect>) {
        let Some(desired) = self.desired.as_ref().filter(|_| self.taken_over) else {
            return;
        };
        let services = self.services.iter();
        let mut endpoints: BTreeMap<ScopedName, Vec<Endpoint>> = services
            .map(|(name, one)| (name.clone(), one.endpoints()))
            .collect();
        add_elsewhere(&mut endpoints, &self.peers);
        let components = self.services.values().flat_map(Tended::components);
        let made = snapshot(desired, &endpoints, components.collect());
        if self.published.as_ref() == Some(&made) {
            return;
        }
        self.version += 1;
        let version = self.version;
        // Out of the routes first: what stops must not be chosen any more.
        effects.insert(
            0,
            NodeEffect::Publish(EdgeSnapshot {
                version,
                ..made.clone()
            }),
        );
        self.published = Some(made);
    }
}

/// What was decided elsewhere, for the journal.
fn tell_decided(event: NodeEvent, turn: &mut Turn<'_>) {
    match event {
        NodeEvent::SingletonPlaced { service, to, why } => {
            let subject = ObjectRef::new("service", &service);
            let mut told: Loop<Singleton> = Loop::new((), subject, Effort::default());
            let _ = turn.step(&mut told, &singleton::Reading { to, why }, Vec::new());
        }
        NodeEvent::JobDecided { job, seen, decided } => {
            let subject = ObjectRef::new("job", &job);
            let mut told: Loop<job::Job> = Loop::new((), subject, Effort::default());
            let _ = turn.step(&mut told, &job::Reading { seen, decided }, Vec::new());
        }
        NodeEvent::UpgradeAsked(reading) => {
            let subject = ObjectRef::new("node", &reading.node);
            let mut told: Loop<Upgrade> = Loop::new((), subject, Effort::default());
            let _ = turn.step(&mut told, &reading, Vec::new());
        }
        _ => {}
    }
}

fn find<'a>(
    services: &'a mut BTreeMap<ScopedName, Tended>,
    id: &ReplicaId,
) -> Option<&'a mut Replica> {
    services.get_mut(&id.service)?.replicas.get_mut(id)
}

fn ended(event: &NodeEvent) -> Option<&ScopedName> {
    match event {
        NodeEvent::Driver(
            DriverEvent::Exited { replica, .. } | DriverEvent::StartFailed { replica, .. },
        ) => Some(&replica.service),
        _ => None,
    }
}

/// What is not known to be over and runs since before this agent, runs on: its
/// shim ends it in time.
fn may_run(lease: Option<&Lease>, epoch: FencingEpoch, runs: impl Fn() -> bool) -> bool {
    match lease {
        Some(Lease::Held(held)) => *held == epoch,
        Some(Lease::Over) => false,
        None => runs(),
    }
}

/// Going down, replicas are stopped at once: nobody is sent to them any more.
fn want_nothing(
    services: &mut BTreeMap<ScopedName, Tended>,
    settings: &Settings,
    rng: &mut Rng,
    turn: &mut Turn<'_>,
) {
    let at_once = Settings {
        drain: Duration::ZERO,
        ..settings.clone()
    };
    for service in services.values_mut() {
        service.want(None, &at_once, rng, turn);
    }
}

/// How a replica does, from its probe and from those who ask it.
fn on_evidence(services: &mut BTreeMap<ScopedName, Tended>, event: NodeEvent, turn: &mut Turn<'_>) {
    match event {
        NodeEvent::Probed {
            replica,
            kind,
            outcome,
        } => {
            if let Some(one) = find(services, &replica) {
                one.probed(kind, outcome.healthy, outcome.detail, turn);
            }
        }
        NodeEvent::EndpointFailed {
            replica,
            why,
            others_answer,
        } => {
            if let Some(one) = find(services, &replica) {
                one.edge_failed(why, others_answer, turn);
            }
        }
        _ => {}
    }
}

fn on_driver(
    services: &mut BTreeMap<ScopedName, Tended>,
    event: DriverEvent,
    settings: &Settings,
    rng: &mut Rng,
    turn: &mut Turn<'_>,
) {
    let (id, how) = match event {
        DriverEvent::Prepared { replica, .. } => {
            if let Some(one) = find(services, &replica) {
                one.prepared(turn.now);
            }
            return;
        }
        DriverEvent::Started {
            replica,
            pid,
            address,
            ..
        } => {
            match find(services, &replica) {
                Some(one) => one.started(pid, address, turn),
                None => turn.effects.push(NodeEffect::Stop {
                    replica,
                    grace: Duration::from_secs(1),
                }),
            }
            return;
        }
        DriverEvent::StartFailed { replica, why, .. } => (replica, format!("not started: {why}")),
        DriverEvent::Exited { replica, exit, .. } => (replica, exit.to_string()),
    };
    if let Some(service) = services.get_mut(&id.service) {
        service.ended(&id, &how, settings, rng, turn);
    }
}

fn is_running(found: &Adopted) -> bool {
    matches!(found.state, Found::Running(_))
}

/// Replicas of services that nobody wants any more.
fn abandon(found: Vec<Adopted>, turn: &mut Turn<'_>) {
    for one in found {
        let runs = is_running(&one);
        let replica = one.replica;
        if runs {
            let grace = Duration::from_secs(10);
            turn.effects.push(NodeEffect::Stop { replica, grace });
        } else {
            turn.effects.push(NodeEffect::Remove { replica });
        }
    }
}

/// Replicas on other nodes, of those that can be reached.
fn add_elsewhere(
    endpoints: &mut BTreeMap<ScopedName, Vec<Endpoint>>,
    peers: &BTreeMap<NodeId, Peer>,
) {
    for (node, peer) in peers.iter().filter(|(_, peer)| peer.reachable) {
        for (service, replicas) in &peer.endpoints {
            let there = replicas.iter().map(|replica| Endpoint {
                replica: replica.clone(),
                address: None,
                node: Some(*node),
            });
            endpoints.entry(service.clone()).or_default().extend(there);
        }
    }
}

/// What desired state gives to this node.
fn wanted(desired: &Desired, settings: &Settings) -> BTreeMap<ScopedName, Wanted> {
    let services = desired.services().filter_map(|(name, service, applied)| {
        let share = applied.share(&name.name, service, settings.node);
        if share == 0 {
            return None;
        }
        let both = applied.both_shares(&name.name, service, settings.node);
        let part = both.as_ref().map_or(share, |both| both.new);
        let (service, template) = part_of(&name, part, applied, desired, settings)?;
        let beside = both.and_then(|both| {
            let before = applied.as_before(&name.name)?;
            let (service, template) = part_of(&name, both.old, &before, desired, settings)?;
            Some(Beside {
                service,
                template,
                routed: both.old_routed,
                new_routed: both.new_routed,
                current: applied.stands_on_at(&name.name, &both),
            })
        });
        let wanted = Wanted {
            service,
            template,
            epoch: applied.epoch(&name.name),
            beside,
        };
        Some((name, wanted))
    });
    services.collect()
}

/// A service as so many replicas of it run here, and what they are started from.
fn part_of(
    name: &ScopedName,
    replicas: u32,
    applied: &Applied,
    desired: &Desired,
    settings: &Settings,
) -> Option<(Service, ReplicaSpec)> {
    let service = Service {
        replicas,
        ..applied.manifest.services.get(&name.name)?.clone()
    };
    let generation = applied.generations.get(&name.name).copied();
    let id = ReplicaId {
        service: name.clone(),
        generation: generation.unwrap_or_default(),
        index: first_index(settings.node),
    };
    let template = replica_spec(id, &service, applied, desired, settings);
    Some((service, template))
}
