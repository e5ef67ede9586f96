//! What is due when.
//!
//! Holds: whoever is woken too late has slept itself: waits for others are
//! longer by as much, and its score of health is worse.

use super::event::{Effect, Reach};
use super::probe::draw;
use super::{Membership, Parameters};
use kernel::{NodeId, Time};
use std::collections::BTreeSet;
use std::time::Duration;

/// Those tried at once while nobody is up.
const KNOCKS_ALONE: usize = 4;

#[derive(Clone, Debug, Default)]
pub struct Agenda {
    /// When this node wished to be woken last.
    pub due: Option<Time>,
    probe_at: Time,
    knock_at: Option<Time>,
    flush_at: Option<Time>,
    compare_at: Time,
    pub young_until: Time,
    /// Until the next but one comparison; doubles while they find nothing.
    compare_wait: Duration,
    pub compare_with: Option<NodeId>,
    /// May hold some that are settled already.
    pub suspects: BTreeSet<NodeId>,
    /// To be probed without waiting for their turn.
    pub ask_soon: BTreeSet<NodeId>,
    /// Answers to comparisons, in the second that began then.
    pub second: Time,
    pub answered: u32,
}

impl Agenda {
    /// `phase` in thousandths: those that start together do not act together.
    pub fn begin(&mut self, now: Time, phase: u64, parameters: &Parameters) {
        let phase = u32::try_from(phase).unwrap_or_default();
        self.probe_at = now + parameters.probe_interval * phase / 1_000;
        self.compare_wait = parameters.entropy_again;
        self.compare_at = now + parameters.entropy_again * phase / 1_000;
        self.second = now;
        self.young_until = now + parameters.young;
    }

    pub fn flush_soon(&mut self, now: Time, parameters: &Parameters) {
        sooner(&mut self.flush_at, now + parameters.coalesce);
    }

    pub fn knock_soon(&mut self, now: Time) {
        sooner(&mut self.knock_at, now + Duration::from_millis(5));
    }

    pub fn compare_soon(&mut self, now: Time, parameters: &Parameters) {
        self.compare_wait = parameters.entropy_again;
        self.compare_at = self.compare_at.min(now + parameters.entropy_again);
    }
}

fn sooner(at: &mut Option<Time>, other: Time) {
    *at = Some(at.map_or(other, |at| at.min(other)));
}

impl Membership {
    pub(super) fn wake(&self) -> Option<Time> {
        let agenda = &self.agenda;
        if !self.own.belongs {
            return self.own.leaves_at;
        }
        let suspicions = agenda.suspects.iter().filter_map(|node| {
            let member = self.members.get(node)?;
            member.suspicion.as_ref().map(|one| one.deadline)
        });
        [Some(agenda.probe_at), Some(agenda.compare_at)]
            .into_iter()
            .chain([agenda.knock_at, agenda.flush_at, self.own.leaves_at])
            .chain([self.probes.deadline(), suspicions.min()])
            .flatten()
            .min()
    }

    pub(super) fn forgive_lateness(&mut self) {
        let Some(due) = self.agenda.due else {
            return;
        };
        let late = self.now.since(due);
        if late <= self.parameters.late {
            return;
        }
        self.probes.shift(late);
        for node in &self.agenda.suspects {
            let member = self.members.get_mut(node);
            if let Some(suspicion) = member.and_then(|one| one.suspicion.as_mut()) {
                suspicion.began = suspicion.began + late;
                suspicion.deadline = suspicion.deadline + late;
            }
        }
        self.probes.worsen(1, &self.parameters);
    }

    pub(super) fn on_time(&mut self) {
        let now = self.now;
        if self.own.leaves_at.is_some_and(|at| at <= now) {
            self.own.is_silent = true;
            self.out.push(Effect::Left);
            return;
        }
        if !self.own.belongs {
            return;
        }
        self.probes_on_time();
        self.suspects_on_time();
        for node in std::mem::take(&mut self.agenda.ask_soon) {
            self.probe(node);
        }
        if self.agenda.probe_at <= now {
            self.agenda.probe_at = now + self.around(self.probe_interval());
            self.probe_next();
        }
        if self.agenda.knock_at.is_some_and(|at| at <= now) {
            self.agenda.knock_at = self.knock_some();
        }
        if self.agenda.compare_at <= now {
            let wait = self.agenda.compare_wait;
            self.agenda.compare_at = now + self.around(wait);
            self.agenda.compare_wait = (wait * 2).min(self.parameters.entropy_interval);
            self.compare();
        }
        if self.agenda.flush_at.is_some_and(|at| at <= now) {
            self.agenda.flush_at = self.flush();
        }
    }

    fn probe_interval(&self) -> Duration {
        self.parameters.probe_interval * (self.probes.health + 1)
    }

    /// Up to a tenth more or less, so that nodes do not fall into step.
    fn around(&mut self, span: Duration) -> Duration {
        let thousandths = 900 + u32::try_from(self.rng.below(201)).unwrap_or_default();
        span * thousandths / 1_000
    }

    /// Tries to reach some of the unreachable; when to do so again.
    fn knock_some(&mut self) -> Option<Time> {
        self.renew_mesh();
        let is =
            |node: &NodeId, reach| self.members.get(node).is_some_and(|one| one.reach == reach);
        let all = self.mesh.knockable();
        let dead: Vec<NodeId> = all
            .iter()
            .copied()
            .filter(|one| is(one, Reach::Dead))
            .collect();
        let unheard = all.iter().copied().filter(|one| is(one, Reach::Unheard));
        let unheard: Vec<NodeId> = unheard.collect();
        if dead.is_empty() && unheard.is_empty() {
            return None;
        }
        let (count, wait) = if self.up == 0 {
            (KNOCKS_ALONE, self.parameters.knock_interval / 5)
        } else {
            (1, self.parameters.knock_interval)
        };
        for some in [dead, unheard] {
            for node in draw(some, count, &mut self.rng) {
                self.knock(node);
            }
        }
        Some(self.now + self.around(wait))
    }
}
