//! One replica from its start to its removal.
//!
//! In: the driver's, probes' and edge's events about it. Out: effects.
//! Holds: a replica that leaves is never started again, and is forgotten only
//! when it has ended (or has not answered for long after it was told to).

use crate::driver::{ReplicaSpec, Running, Work};
use crate::event::{NodeEffect, ReplicaStatus, Settings};
use control::readiness::{self, Kind, Readiness, Thresholds};
use control::restart::{self, Restart};
use control::{Controller, DecisionIds, Effort, Loop};
use kernel::{ObjectRef, ReplicaId, Time};
use manifest::{Check, Probe, ProbeKind, Probes, Service};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use wire::decision::Cause;
use wire::edge::ComponentView;

/// Beyond the grace, when a told end has not come.
const END_SLACK: Duration = Duration::from_secs(10);
/// Between readiness probes of a replica that was never ready: what the first
/// request waits for.
const EAGER: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Phase {
    /// The driver was told to start it.
    Starting,
    /// A component that the edge is to load.
    Loading,
    Running {
        pid: u32,
        address: Option<SocketAddr>,
        since: Time,
    },
    /// Ended, or never started.
    Idle,
}

#[derive(Clone, Copy, Debug)]
struct Leaving {
    stop_at: Time,
    /// Told to end: given up for lost then.
    lost_at: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
struct ProbeClock {
    due: Time,
    in_flight: bool,
}

pub(crate) struct Replica {
    pub spec: ReplicaSpec,
    pub phase: Phase,
    probes: Probes,
    stop_grace: Duration,
    restart: Loop<Restart>,
    readiness: Loop<Readiness>,
    leaving: Option<Leaving>,
    clocks: BTreeMap<ProbeKind, ProbeClock>,
    ever_ready: bool,
    restarts: u32,
    last_exit: Option<String>,
    since: Time,
    /// When a component was given to the edge.
    loaded: Time,
    /// No spec of its generation is at hand: not started again.
    orphan: bool,
}

/// Where one event's effects go.
pub(crate) struct Turn<'a> {
    pub ids: &'a mut DecisionIds,
    pub effects: &'a mut Vec<NodeEffect>,
    pub now: Time,
}

impl Turn<'_> {
    pub fn step<C: Controller>(
        &mut self,
        control: &mut Loop<C>,
        reading: &C::Reading,
        causes: Vec<Cause>,
    ) -> Option<C::Action> {
        let step = control.step(reading, causes, self.ids, self.now);
        let records = step.entries.into_iter().map(NodeEffect::Record);
        self.effects.extend(records);
        step.action
    }

    pub fn record(&mut self, entry: Option<wire::decision::JournalEntry>) {
        self.effects.extend(entry.map(NodeEffect::Record));
    }

    pub fn event(&self, what: impl Into<String>) -> Vec<Cause> {
        vec![Cause::Event {
            what: what.into(),
            at: self.now,
        }]
    }
}

impl Replica {
    pub fn new(spec: ReplicaSpec, service: &Service, settings: &Settings, seed: u64) -> Self {
        let probes = effective(&spec.work, &service.probes);
        let subject = ObjectRef::new("replica", &spec.id);
        let limits = |probe: &Option<Probe>| {
            probe.as_ref().map(|probe| Thresholds {
                failures: probe.failures,
                successes: probe.successes,
            })
        };
        let end_within = service.stop_grace + END_SLACK;
        let parameters = readiness::Parameters {
            startup: limits(&probes.startup),
            readiness: limits(&probes.readiness),
            liveness: limits(&probes.liveness),
            end_within_ms: u64::try_from(end_within.as_millis()).unwrap_or(u64::MAX),
        };
        let restart = restart::Parameters {
            seed,
            ..settings.restart.clone()
        };
        Self {
            spec,
            phase: Phase::Idle,
            probes,
            stop_grace: service.stop_grace,
            restart: Loop::new(restart, subject.clone(), Effort::default()),
            readiness: Loop::new(parameters, subject, Effort::default()),
            leaving: None,
            clocks: BTreeMap::new(),
            ever_ready: false,
            restarts: 0,
            last_exit: None,
            since: Time(0),
            loaded: Time(0),
            orphan: false,
        }
    }

    pub fn id(&self) -> &ReplicaId {
        &self.spec.id
    }

    pub fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    pub fn is_ready(&self) -> bool {
        self.readiness.state().ready
            && !self.is_leaving()
            && matches!(self.phase, Phase::Running { .. })
    }

    pub fn address(&self) -> Option<SocketAddr> {
        match self.phase {
            Phase::Running { address, .. } => address,
            Phase::Starting | Phase::Loading | Phase::Idle => None,
        }
    }

    pub fn ask(&mut self, causes: Vec<Cause>, turn: &mut Turn<'_>) {
        self.since = turn.now;
        let action = turn.step(&mut self.restart, &restart::Reading::Asked, causes);
        self.on_restart(action, turn);
    }

    /// Found running by a restarted agent. Only what was in the routes is
    /// believed ready before its next probe.
    pub fn adopt(&mut self, found: Running, routed: bool, turn: &mut Turn<'_>) {
        let Running {
            pid,
            address,
            since,
        } = found;
        self.phase = Phase::Running {
            pid,
            address,
            since,
        };
        self.since = since;
        self.loaded = since;
        self.start_clocks(turn.now);
        let reading = if routed {
            readiness::Reading::Adopted
        } else {
            readiness::Reading::Started
        };
        let causes = turn.event("the agent started");
        let action = turn.step(&mut self.readiness, &reading, causes);
        self.on_readiness(action, turn);
    }

    pub fn orphaned(&mut self) {
        self.orphan = true;
    }

    pub fn prepared(&mut self, now: Time) {
        if self.phase == Phase::Starting {
            self.phase = Phase::Loading;
            self.loaded = now;
        }
    }

    /// As the edge is to run it, once it is prepared.
    pub fn component(&self) -> Option<ComponentView> {
        let Work::Component(component) = &self.spec.work else {
            return None;
        };
        matches!(self.phase, Phase::Loading | Phase::Running { .. }).then(|| ComponentView {
            module: component.module,
            since: self.loaded,
            memory: self.spec.limits.memory,
            time: component.time,
            concurrency: self.spec.limits.concurrency,
            reuse: self.spec.limits.reuse,
            environment: self.spec.environment.clone(),
            secrets: BTreeMap::new(),
            calls: component.calls.clone(),
            capability: None,
        })
    }

    pub fn started(&mut self, pid: u32, address: Option<SocketAddr>, turn: &mut Turn<'_>) {
        match &mut self.phase {
            Phase::Starting | Phase::Loading => {}
            // Another edge says the same of a component.
            Phase::Running { pid: before, .. } => {
                *before = pid;
                return;
            }
            Phase::Idle => return,
        }
        self.phase = Phase::Running {
            pid,
            address,
            since: turn.now,
        };
        self.since = turn.now;
        self.start_clocks(turn.now);
        let causes = self
            .restart
            .last()
            .map(Cause::Decision)
            .into_iter()
            .collect();
        let action = turn.step(&mut self.readiness, &readiness::Reading::Started, causes);
        self.on_readiness(action, turn);
    }

    /// Ended or not started; `true` when a running or starting one did.
    pub fn ended(&mut self, how: &str, turn: &mut Turn<'_>) -> bool {
        let ran = match self.phase {
            Phase::Idle => return false,
            Phase::Starting | Phase::Loading => Duration::ZERO,
            Phase::Running { since, .. } => turn.now.since(since),
        };
        self.phase = Phase::Idle;
        self.clocks.clear();
        self.since = turn.now;
        self.last_exit = Some(how.to_owned());
        turn.record(self.readiness.came("it ended", turn.now));
        let mut causes = turn.event(how);
        if self.is_leaving() || self.orphan {
            turn.record(self.restart.abandon("it was stopped", turn.now));
            let _ = turn.step(&mut self.readiness, &readiness::Reading::Ended, causes);
            return true;
        }
        turn.record(
            self.restart
                .failed(&format!("it ended again: {how}"), turn.now),
        );
        let _ = turn.step(
            &mut self.readiness,
            &readiness::Reading::Ended,
            causes.clone(),
        );
        causes.extend(self.readiness.last().map(Cause::Decision));
        let ran_ms = u64::try_from(ran.as_millis()).unwrap_or(u64::MAX);
        let reading = restart::Reading::Ended {
            how: how.to_owned(),
            ran_ms,
        };
        let action = turn.step(&mut self.restart, &reading, causes);
        self.on_restart(action, turn);
        true
    }

    pub fn probed(&mut self, kind: ProbeKind, healthy: bool, detail: String, turn: &mut Turn<'_>) {
        let every = self
            .probe(kind)
            .map_or(Duration::from_secs(1), |probe| probe.every);
        let eager = kind == ProbeKind::Readiness && !self.ever_ready;
        if let Some(clock) = self.clocks.get_mut(&kind) {
            clock.in_flight = false;
            clock.due = turn.now + if eager { every.min(EAGER) } else { every };
        }
        if self.address().is_none() {
            return;
        }
        let causes = turn.event(detail.clone());
        let kind = match kind {
            ProbeKind::Startup => Kind::Startup,
            ProbeKind::Readiness => Kind::Readiness,
            ProbeKind::Liveness => Kind::Liveness,
        };
        let reading = readiness::Reading::Probed {
            kind,
            healthy,
            detail,
        };
        let action = turn.step(&mut self.readiness, &reading, causes);
        self.on_readiness(action, turn);
    }

    pub fn edge_failed(&mut self, why: String, others_answer: bool, turn: &mut Turn<'_>) {
        let causes = turn.event(why.clone());
        let reading = readiness::Reading::EdgeFailed { why, others_answer };
        let action = turn.step(&mut self.readiness, &reading, causes);
        self.on_readiness(action, turn);
        if let Some(clock) = self.clocks.get_mut(&ProbeKind::Readiness) {
            clock.due = turn.now;
        }
    }

    /// Out of the routes now, told to end once requests in flight had time.
    pub fn leave(&mut self, drain: Duration, now: Time) {
        let drain = if self.ever_ready {
            drain
        } else {
            Duration::ZERO
        };
        let stop_at = now + drain;
        let leaving = self.leaving.get_or_insert(Leaving {
            stop_at,
            lost_at: None,
        });
        leaving.stop_at = leaving.stop_at.min(stop_at);
    }

    /// What is due; `true` when the replica has gone.
    pub fn tick(&mut self, turn: &mut Turn<'_>) -> bool {
        turn.record(self.restart.expire(turn.now));
        turn.record(self.readiness.expire(turn.now));
        if let Some(leaving) = &mut self.leaving {
            let gone = match self.phase {
                // The edge lets go of what the snapshot has no more.
                Phase::Idle | Phase::Loading => true,
                // Its start ends in an event; then it is told to end.
                Phase::Starting => false,
                Phase::Running { .. } if leaving.stop_at > turn.now => false,
                Phase::Running { .. } => {
                    if leaving.lost_at.is_none() {
                        leaving.lost_at = Some(turn.now + self.stop_grace + END_SLACK);
                        let (replica, grace) = (self.spec.id.clone(), self.stop_grace);
                        turn.effects.push(NodeEffect::Stop { replica, grace });
                    }
                    leaving.lost_at.is_some_and(|lost_at| lost_at <= turn.now)
                }
            };
            if gone {
                let _ = turn.step(&mut self.readiness, &readiness::Reading::Ended, Vec::new());
                turn.record(self.restart.abandon("it was removed", turn.now));
                turn.record(self.readiness.abandon("it was removed", turn.now));
            }
            return gone;
        }
        if self.phase == Phase::Idle {
            if self.orphan {
                return true;
            }
            let resting = self.restart.resting_until();
            let due = self.restart.state().due;
            if resting.is_some_and(|until| until <= turn.now) && due.is_none() {
                self.ask(turn.event("the loop has rested"), turn);
            } else if due.is_some_and(|due| due <= turn.now) {
                let causes = self
                    .restart
                    .last()
                    .map(Cause::Decision)
                    .into_iter()
                    .collect();
                let action = turn.step(&mut self.restart, &restart::Reading::Due, causes);
                self.on_restart(action, turn);
            }
        }
        self.probe_what_is_due(turn);
        false
    }

    pub fn next_wake(&self) -> Option<Time> {
        let mut wakes: Vec<Time> = self.restart.next_wake().into_iter().collect();
        wakes.extend(self.readiness.next_wake());
        match (&self.leaving, self.phase) {
            (Some(leaving), Phase::Running { .. }) => {
                wakes.push(leaving.lost_at.unwrap_or(leaving.stop_at));
            }
            (None, Phase::Idle) if !self.orphan => {
                let until = self.restart.resting_until();
                wakes.extend(self.restart.state().due.max(until));
            }
            (None, Phase::Running { .. }) => {
                wakes.extend(self.asked_kinds().filter_map(|kind| {
                    let clock = self.clocks.get(&kind)?;
                    (!clock.in_flight).then_some(clock.due)
                }));
            }
            _ => {}
        }
        wakes.into_iter().min()
    }

    pub fn status(&self) -> ReplicaStatus {
        let pid = match self.phase {
            Phase::Running { pid, .. } => Some(pid),
            Phase::Starting | Phase::Loading | Phase::Idle => None,
        };
        ReplicaStatus {
            replica: self.spec.id.clone(),
            state: self.word().to_owned(),
            pid,
            address: self.address(),
            restarts: self.restarts,
            last_exit: self.last_exit.clone(),
            since: self.since,
        }
    }

    fn word(&self) -> &'static str {
        match self.phase {
            Phase::Idle if self.is_leaving() || self.orphan => "stopped",
            _ if self.is_leaving() => "draining",
            Phase::Idle => "backing-off",
            Phase::Running { .. } if self.is_ready() => "ready",
            Phase::Running { .. } if self.ever_ready => "unready",
            Phase::Starting | Phase::Loading | Phase::Running { .. } => "starting",
        }
    }

    fn on_restart(&mut self, action: Option<restart::Action>, turn: &mut Turn<'_>) {
        if action == Some(restart::Action::Start) {
            if self.last_exit.is_some() {
                self.restarts = self.restarts.saturating_add(1);
            }
            self.phase = Phase::Starting;
            turn.effects.push(NodeEffect::Start {
                spec: self.spec.clone(),
            });
        }
    }

    fn on_readiness(&mut self, action: Option<readiness::Action>, turn: &mut Turn<'_>) {
        match action {
            Some(readiness::Action::In) => {
                self.ever_ready = true;
                turn.record(self.restart.came("ready", turn.now));
            }
            Some(readiness::Action::Restart) => {
                self.clocks.clear();
                let (replica, grace) = (self.spec.id.clone(), self.stop_grace);
                turn.effects.push(NodeEffect::Stop { replica, grace });
            }
            Some(readiness::Action::Out) | None => {}
        }
    }

    fn probe(&self, kind: ProbeKind) -> Option<&Probe> {
        match kind {
            ProbeKind::Startup => self.probes.startup.as_ref(),
            ProbeKind::Readiness => self.probes.readiness.as_ref(),
            ProbeKind::Liveness => self.probes.liveness.as_ref(),
        }
    }

    fn start_clocks(&mut self, now: Time) {
        let kinds = [
            ProbeKind::Startup,
            ProbeKind::Readiness,
            ProbeKind::Liveness,
        ];
        let clock = ProbeClock {
            due: now,
            in_flight: false,
        };
        let asked = kinds.into_iter().filter(|kind| self.probe(*kind).is_some());
        self.clocks = asked.map(|kind| (kind, clock)).collect();
    }

    /// The startup probe alone until it has succeeded, then the others.
    fn asked_kinds(&self) -> impl Iterator<Item = ProbeKind> + use<> {
        let done = self.readiness.state().startup_done;
        let kinds: &'static [ProbeKind] = if done {
            &[ProbeKind::Readiness, ProbeKind::Liveness]
        } else {
            &[ProbeKind::Startup]
        };
        kinds.iter().copied()
    }

    fn probe_what_is_due(&mut self, turn: &mut Turn<'_>) {
        let Some(address) = self.address() else {
            return;
        };
        for kind in self.asked_kinds() {
            let Some(Probe { check, timeout, .. }) = self.probe(kind).cloned() else {
                continue;
            };
            if let Some(clock) = self.clocks.get_mut(&kind)
                && !clock.in_flight
                && clock.due <= turn.now
            {
                clock.in_flight = true;
                let replica = self.spec.id.clone();
                turn.effects.push(NodeEffect::Probe {
                    replica,
                    kind,
                    address,
                    check,
                    timeout,
                });
            }
        }
    }
}

/// A replica without a readiness probe is ready when it takes connections; a
/// component when the edge says so.
fn effective(work: &Work, probes: &Probes) -> Probes {
    if matches!(work, Work::Component(_)) {
        return Probes::default();
    }
    let default = || Probe {
        check: Check::Tcp,
        every: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        failures: 3,
        successes: 1,
    };
    Probes {
        readiness: Some(probes.readiness.clone().unwrap_or_else(default)),
        ..probes.clone()
    }
}
