//! The leader's look at all jobs: what became of their attempts, what is due, and
//! where what starts now runs.
//!
//! In: desired state with the jobs' records, nodes' reports, who can be reached,
//! who was granted what. Out: the records as they are to be written, and what is
//! to be told.
//! Holds: the rules are `jobs::Machine`'s; an attempt that runs `once` counts as
//! lost only when its node cannot run it any more.

use super::lease::{Grantor, Standing};
use super::placing::{Known, told, wanted, world};
use crate::attempts::{AttemptStatus, attempt_id};
use crate::desired::Desired;
use crate::nodes::{NodeRecord, NodeReport, NodeTable};
use aggregation::membership::Reach;
use jobs::{Attempt, Effect, Event, Machine, Now, Record, Run};
use kernel::{FencingEpoch, NodeId, ScopedName, Time};
use manifest::{Job, Service};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A node of which nothing was heard for so long since this one leads is gone:
/// nobody may have seen it die.
const UNHEARD_MAX: Duration = Duration::from_mins(1);

/// What the leader sees.
pub struct Look<'a> {
    pub nodes: &'a NodeTable,
    pub reports: &'a BTreeMap<NodeId, NodeReport>,
    pub grantor: &'a Grantor,
    pub reach: &'a dyn Fn(NodeId) -> Reach,
    /// Of each node, for the choice of places.
    pub known: &'a dyn Fn(NodeId) -> Known,
    pub called: &'a dyn Fn(NodeId) -> String,
    /// Greater than all before.
    pub epoch: FencingEpoch,
    /// Since when this node leads.
    pub since: Time,
    pub now: Time,
    pub clocks: Now,
}

/// What came of one job.
#[derive(Clone, Debug, PartialEq)]
pub struct Looked {
    pub job: ScopedName,
    pub record: Record,
    pub effects: Vec<Effect>,
    /// Serials of the attempts that start.
    pub placed: Vec<u64>,
}

/// The machine of one job.
pub fn machine<'a>(desired: &'a Desired, name: &ScopedName) -> Machine<'a> {
    let record = desired.jobs.get(name).cloned().unwrap_or_default();
    let job = desired.job(name);
    let generation = job.and_then(|(_, applied)| applied.generations.get(&name.name).copied());
    Machine::new(
        job.map(|(job, _)| job),
        generation.unwrap_or_default(),
        record,
    )
}

impl Look<'_> {
    /// What changes, and how long from now something is due by itself.
    ///
    /// * `desired`: with the records as they were read.
    pub fn at(&self, desired: &Desired) -> (Vec<Looked>, Option<Duration>) {
        // What starts of one takes room from the next.
        let mut seen = desired.clone();
        let mut all = Vec::new();
        let mut wakes = Vec::new();
        let wished = desired.manifest_jobs().map(|(name, ..)| name);
        let names: BTreeSet<ScopedName> = wished.chain(desired.jobs.keys().cloned()).collect();
        for name in names {
            let before = desired.jobs.get(&name);
            let (looked, wake) = self.one(&seen, desired, &name);
            wakes.extend(wake);
            if before != Some(&looked.record) || !looked.effects.is_empty() {
                seen.jobs.insert(name, looked.record.clone());
                all.push(looked);
            }
        }
        (all, wakes.into_iter().min())
    }

    fn one(
        &self,
        seen: &Desired,
        desired: &Desired,
        name: &ScopedName,
    ) -> (Looked, Option<Duration>) {
        let mut machine = machine(desired, name);
        let mut effects = Vec::new();
        for event in self.reported(name, machine.record()) {
            effects.extend(machine.handle(event, self.clocks));
        }
        effects.extend(machine.handle(Event::Tick, self.clocks));
        let mut asked = BTreeSet::new();
        for effect in &effects {
            if let Effect::Place { run, index } = effect {
                asked.insert((*run, *index));
            }
        }
        let first = machine.record().attempts_begun + 1;
        if let (Some((job, _)), false) = (desired.job(name), asked.is_empty()) {
            for answer in self.places(seen, name, job, &asked) {
                effects.extend(machine.handle(answer, self.clocks));
            }
        }
        effects.retain(|effect| !matches!(effect, Effect::Place { .. }));
        let wake = machine.wake(self.clocks);
        let record = machine.into_record();
        let looked = Looked {
            job: name.clone(),
            placed: (first..=record.attempts_begun).collect(),
            record,
            effects,
        };
        (looked, wake)
    }

    /// What is known of attempts that go on.
    fn reported(&self, name: &ScopedName, record: &Record) -> Vec<Event> {
        let mut events = Vec::new();
        for (run, _, attempt) in record.attempts() {
            let report = self.reports.get(&attempt.node);
            let id = attempt_id(name, attempt);
            let said = report.and_then(|report| report.status.attempts.get(&id));
            let serial = attempt.serial;
            if let Some(AttemptStatus::Ended(end)) = said {
                let end = end.clone();
                events.push(Event::Ended {
                    attempt: serial,
                    end,
                });
                continue;
            }
            if let Some(AttemptStatus::Running { .. }) = said
                && attempt.started.is_none()
            {
                events.push(Event::Running { attempt: serial });
            }
            if let Some((why, may_have_run)) = self.lost(name, run, attempt) {
                events.push(Event::Lost {
                    attempt: serial,
                    why,
                    may_have_run,
                });
            }
        }
        events
    }

    /// Why nothing will be heard of an attempt, and whether it may have run.
    fn lost(&self, name: &ScopedName, run: &Run, attempt: &Attempt) -> Option<(String, bool)> {
        let called = (self.called)(attempt.node);
        if run.once {
            let standing = self
                .grantor
                .standing(name, attempt.serial, attempt.node, self.now);
            return match standing {
                Standing::Held => None,
                Standing::NeverHeld => {
                    Some((format!("its node, `{called}`, never began it"), false))
                }
                Standing::Over => Some((
                    format!("its node, `{called}`, was lost, and how it ended is not known"),
                    true,
                )),
            };
        }
        let belongs = self
            .nodes
            .get(&attempt.node)
            .is_some_and(NodeRecord::belongs);
        let gone = match (self.reach)(attempt.node) {
            _ if !belongs => "does not belong to the cluster any more",
            Reach::Dead => "was lost",
            Reach::Left => "was shut down",
            Reach::Unheard if self.since + UNHEARD_MAX <= self.now => "was not heard of again",
            Reach::Unheard | Reach::Alive | Reach::Suspect => return None,
        };
        Some((format!("its node, `{called}`, {gone}"), true))
    }

    /// Places for parts that start now, as many as there are.
    fn places(
        &self,
        seen: &Desired,
        name: &ScopedName,
        job: &Job,
        asked: &BTreeSet<(u64, u32)>,
    ) -> Vec<Event> {
        let away = self.nodes.values().filter(|record| {
            !record.belongs() || !record.takes_replicas() || !(self.known)(record.id).reachable
        });
        let away: BTreeSet<NodeId> = away.map(|record| record.id).collect();
        let mut world = world(seen, self.nodes, &away, self.known);
        let there = world.running.get(name).cloned().unwrap_or_default();
        let wants = u32::try_from(asked.len()).unwrap_or(u32::MAX);
        let service = Service {
            replicas: there.values().sum::<u32>().saturating_add(wants),
            ..job.as_service()
        };
        world.services.insert(name.clone(), wanted(&service));
        let plan = placement::cluster(&world);
        let assigned = plan.assigned.get(name).cloned().unwrap_or_default();
        let mut free: Vec<NodeId> = Vec::new();
        for (node, count) in assigned {
            let new = count.saturating_sub(there.get(&node).copied().unwrap_or_default());
            free.extend(std::iter::repeat_n(node, usize::try_from(new).unwrap_or(0)));
        }
        let refused = plan.refused.iter().find(|it| it.service == *name);
        let named = self.nodes.values().map(|it| (it.id, it.name.clone()));
        let named = named.collect();
        let why = refused.map_or_else(
            || "no node can be reached".to_owned(),
            |refusal| told(refusal, &named),
        );
        let mut free = free.into_iter();
        let answers = asked.iter().map(|(run, index)| match free.next() {
            Some(node) => Event::Placed {
                run: *run,
                index: *index,
                node,
                epoch: self.epoch,
            },
            None => Event::Refused {
                run: *run,
                index: *index,
                why: why.clone(),
            },
        });
        answers.collect()
    }
}
