//! Attempts of jobs on this node: what is placed here starts once, and how it
//! ended is kept until the leader has written it down.
//!
//! In: jobs' records, what the driver found and says, leases. Out: starts, stops,
//! removals; a status for the leader.
//! Holds: an attempt of which there is any trace here is not started again; one
//! that runs `once` starts only while this node has the right to run it, given
//! for its epoch.
//! Never: decides whether something is tried again.

use crate::cluster::lease::{Knows, Lease};
use crate::desired::{Applied, Desired};
use crate::driver::{Adopted, DriverEvent, Found, ReplicaSpec, Work};
use crate::event::{NodeEffect, Settings};
use crate::nodes::first_index;
use crate::replica::Turn;
use crate::spec::{EPOCH_VARIABLE, replica_spec};
use jobs::{Attempt, End, Run};
use kernel::{FencingEpoch, ReplicaId, Revision, ScopedName};
use manifest::Job;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use wire::shim::Exit;

/// Of what no manifest has any more.
const GRACE: Duration = Duration::from_secs(10);

/// What a node says of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptStatus {
    Starting,
    Running { pid: u32 },
    Ended(End),
}

/// Attempts are numbered through all runs of a job, so their ids differ.
pub fn attempt_id(job: &ScopedName, attempt: &Attempt) -> ReplicaId {
    ReplicaId {
        service: job.clone(),
        generation: Revision(attempt.serial),
        index: first_index(attempt.node),
    }
}

/// What an attempt is started from.
pub fn attempt_spec(
    id: ReplicaId,
    (run, index, attempt): (&Run, u32, &Attempt),
    (job, applied): (&Job, &Applied),
    desired: &Desired,
    settings: &Settings,
) -> ReplicaSpec {
    let mut spec = replica_spec(id, &job.as_service(), applied, desired, settings);
    let told = [
        ("HOMEOSTAT_JOB_RUN", run.number.to_string()),
        ("HOMEOSTAT_JOB_INDEX", index.to_string()),
        ("HOMEOSTAT_JOB_INDICES", run.indices.to_string()),
        ("HOMEOSTAT_JOB_ATTEMPT", attempt.number.to_string()),
        (EPOCH_VARIABLE, attempt.epoch.0.to_string()),
    ];
    let told = told.map(|(variable, value)| (variable.to_owned(), value));
    spec.environment.extend(told);
    if let Work::Process { command, .. } = &mut spec.work {
        command.extend(run.arguments.iter().cloned());
    }
    spec.singleton = run.once;
    spec.leased = run.once;
    spec
}

#[derive(Default)]
pub(crate) struct Attempts {
    all: BTreeMap<ReplicaId, One>,
    /// Which of them run `once`, with their epochs, as they are placed here.
    once: BTreeMap<ReplicaId, FencingEpoch>,
}

struct One {
    status: AttemptStatus,
    /// It was asked to end.
    stopping: bool,
    /// The leader knows how it ended, or gave it up.
    unwanted: bool,
    /// The driver has something of it.
    recorded: bool,
    grace: Duration,
}

impl Attempts {
    pub fn has(&self, id: &ReplicaId) -> bool {
        self.all.contains_key(id)
    }

    /// Takes over what an earlier agent left.
    pub fn adopt(&mut self, found: Vec<Adopted>) {
        for Adopted { replica, state } in found {
            let status = match state {
                Found::Running(running) => AttemptStatus::Running { pid: running.pid },
                Found::Ended(Some(exit)) => AttemptStatus::Ended(end(exit)),
                Found::Ended(None) => {
                    let why = "its node does not know whether it ran";
                    AttemptStatus::Ended(End::Unknown(why.to_owned()))
                }
            };
            self.all.insert(replica, One::new(status, GRACE));
        }
    }

    pub fn want(
        &mut self,
        desired: &Desired,
        leases: &BTreeMap<ScopedName, Lease>,
        settings: &Settings,
        turn: &mut Turn<'_>,
    ) {
        let mut wanted = BTreeMap::new();
        for (name, record) in &desired.jobs {
            for placed in record.attempts() {
                if placed.2.node == settings.node {
                    wanted.insert(attempt_id(name, placed.2), placed);
                }
            }
        }
        let exclusive = wanted.iter().filter(|(_, (run, ..))| run.once);
        let exclusive = exclusive.map(|(id, (.., attempt))| (id.clone(), attempt.epoch));
        self.once = exclusive.collect();
        self.let_go(|id| wanted.contains_key(id), turn);
        for (id, placed) in wanted {
            let (run, _, attempt) = placed;
            let of = desired.job(&id.service);
            if let Some(one) = self.all.get_mut(&id) {
                one.grace = of.map_or(one.grace, |(job, _)| job.stop_grace);
                if attempt.stopping.is_some() {
                    one.stop(&id, turn);
                }
                continue;
            }
            if attempt.stopping.is_some() {
                let why = End::Failed("it was stopped before it began".to_owned());
                let mut one = One::new(AttemptStatus::Ended(why), GRACE);
                one.recorded = false;
                self.all.insert(id, one);
                continue;
            }
            let lease = leases.get(&id.service);
            let may =
                !run.once || matches!(lease, Some(Lease::Held(from)) if *from <= attempt.epoch);
            if let (Some(of), true) = (of, may) {
                let spec = attempt_spec(id.clone(), placed, of, desired, settings);
                let one = One::new(AttemptStatus::Starting, of.0.stop_grace);
                self.all.insert(id, one);
                turn.effects.push(NodeEffect::Start { spec });
            }
        }
    }

    fn let_go(&mut self, is_wanted: impl Fn(&ReplicaId) -> bool, turn: &mut Turn<'_>) {
        for (id, one) in &mut self.all {
            if !is_wanted(id) {
                one.unwanted = true;
                one.stop(id, turn);
            }
        }
        self.sweep(turn);
    }

    /// Forgets what is over and not wanted any more.
    fn sweep(&mut self, turn: &mut Turn<'_>) {
        self.all.retain(|id, one| {
            let goes = one.unwanted && matches!(one.status, AttemptStatus::Ended(_));
            if goes && one.recorded {
                let replica = id.clone();
                turn.effects.push(NodeEffect::Remove { replica });
            }
            !goes
        });
    }

    pub fn heard(&mut self, event: DriverEvent, turn: &mut Turn<'_>) {
        let id = event.replica().clone();
        let Some(one) = self.all.get_mut(&id) else {
            return;
        };
        match event {
            DriverEvent::Prepared { .. } => {}
            DriverEvent::Started { pid, .. } => {
                one.status = AttemptStatus::Running { pid };
                // What was asked before it ran was asked of nobody.
                if std::mem::take(&mut one.stopping) {
                    one.stop(&id, turn);
                }
            }
            DriverEvent::StartFailed { why, .. } => {
                one.status = AttemptStatus::Ended(End::Failed(format!("not started: {why}")));
            }
            DriverEvent::Exited { exit, .. } => one.status = AttemptStatus::Ended(end(exit)),
        }
        self.sweep(turn);
    }

    /// The node goes down; what ended is told when it is back.
    pub fn stop_all(&mut self, turn: &mut Turn<'_>) {
        for (id, one) in &mut self.all {
            one.stop(id, turn);
        }
    }

    pub fn is_still(&self) -> bool {
        let ended = |one: &One| matches!(one.status, AttemptStatus::Ended(_));
        self.all.values().all(ended)
    }

    pub fn status(&self) -> BTreeMap<ReplicaId, AttemptStatus> {
        let all = self.all.iter();
        all.map(|(id, one)| (id.clone(), one.status.clone()))
            .collect()
    }

    /// What this node must ask for the right to run.
    pub fn leased(&self) -> BTreeMap<ScopedName, Knows> {
        let mut known: BTreeMap<ScopedName, Knows> = BTreeMap::new();
        for (id, epoch) in &self.once {
            let ended = |one: &One| matches!(one.status, AttemptStatus::Ended(_));
            if self.all.get(id).is_some_and(ended) {
                continue;
            }
            let of = known.entry(id.service.clone()).or_default();
            of.epoch = Some(of.epoch.map_or(*epoch, |least| least.min(*epoch)));
            of.runs |= self.all.contains_key(id);
        }
        known
    }
}

impl One {
    fn new(status: AttemptStatus, grace: Duration) -> Self {
        Self {
            status,
            stopping: false,
            unwanted: false,
            recorded: true,
            grace,
        }
    }

    fn stop(&mut self, id: &ReplicaId, turn: &mut Turn<'_>) {
        let is_over = matches!(self.status, AttemptStatus::Ended(_));
        if is_over || std::mem::replace(&mut self.stopping, true) {
            return;
        }
        if let AttemptStatus::Running { .. } = self.status {
            let (replica, grace) = (id.clone(), self.grace);
            turn.effects.push(NodeEffect::Stop { replica, grace });
        }
    }
}

fn end(exit: Exit) -> End {
    match exit {
        Exit::Code(0) => End::Succeeded,
        Exit::Unknown => End::Unknown("nobody saw how it ended".to_owned()),
        other => End::Failed(other.to_string()),
    }
}
