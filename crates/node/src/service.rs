//! One service: its replicas, its rollout, and restarts asked for by people.
//!
//! Holds: replicas of a new generation are endpoints only once the rollout
//! has flipped, or when nothing ran before; a restart replaces one replica at
//! a time, and takes the old one out only when the new one is ready.

use crate::driver::{Adopted, Found, ReplicaSpec};
use crate::event::{NodeEffect, ServiceStatus, Settings};
use crate::replica::{Phase, Replica, Turn};
use control::rollout::{Action, Reading, Rollout, State};
use control::{Effort, Loop};
use kernel::{FencingEpoch, ObjectRef, ReplicaId, Revision, Rng, ScopedName, Time};
use manifest::Service;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use wire::decision::Cause;
use wire::edge::{ComponentView, Endpoint};

/// What desired state says of a service.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub service: Service,
    /// Its id's index is filled in for each replica.
    pub template: ReplicaSpec,
    /// Of a singleton's place.
    pub epoch: FencingEpoch,
    /// The old generation, while the whole cluster goes from it to this one by stages.
    pub beside: Option<Beside>,
}

#[derive(Clone)]
pub(crate) struct Beside {
    pub service: Service,
    pub template: ReplicaSpec,
    pub routed: bool,
    /// Whether the new one is.
    pub new_routed: bool,
    /// The generation to go back to, or on from.
    pub current: Revision,
}

impl Wanted {
    /// What replicas of a generation are started from, and how many there are to be.
    fn part(&self, generation: Revision) -> (&Service, &ReplicaSpec) {
        let beside = self.beside.as_ref();
        match beside.filter(|it| it.template.id.generation == generation) {
            Some(old) => (&old.service, &old.template),
            None => (&self.service, &self.template),
        }
    }

    fn generations(&self) -> impl Iterator<Item = Revision> {
        let beside = self.beside.as_ref();
        let templates = beside.map(|it| &it.template).into_iter();
        templates
            .chain([&self.template])
            .map(|template| template.id.generation)
    }
}

pub(crate) struct Tended {
    name: ScopedName,
    wanted: Option<Wanted>,
    rollout: Loop<Rollout>,
    pub replicas: BTreeMap<ReplicaId, Replica>,
    /// Replicas that a person asked to restart, and the one coming up instead
    /// of the first, with the time at which it is given up.
    to_replace: VecDeque<ReplicaId>,
    replacement: Option<(ReplicaId, Time)>,
    /// The newest generation that did not come up, until another is wanted.
    failed: Option<(Revision, String)>,
}

impl Tended {
    pub fn new(name: ScopedName, settings: &Settings) -> Self {
        let subject = ObjectRef::new("service", &name);
        Self {
            name,
            wanted: None,
            rollout: Loop::new(settings.rollout.clone(), subject, Effort::default()),
            replicas: BTreeMap::new(),
            to_replace: VecDeque::new(),
            replacement: None,
            failed: None,
        }
    }

    fn state(&self) -> &State {
        self.rollout.state()
    }

    /// Whether two of it must never run at once.
    pub fn is_leased(&self) -> bool {
        let wanted = self.wanted.as_ref();
        let is = |spec: &ReplicaSpec| spec.leased;
        wanted.is_some_and(|wanted| is(&wanted.template))
            || self.replicas.values().any(|one| is(&one.spec))
    }

    /// Whether a replica of it runs, or is starting.
    pub fn runs(&self) -> bool {
        self.replicas.values().any(|one| one.phase != Phase::Idle)
    }

    fn ready(&self, generation: Revision) -> u32 {
        let ready = self.replicas.values().filter(|one| one.is_ready());
        let count = ready
            .filter(|one| one.id().generation == generation)
            .count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// `None`: the service is no longer wanted.
    pub fn want(
        &mut self,
        wanted: Option<Wanted>,
        settings: &Settings,
        rng: &mut Rng,
        turn: &mut Turn<'_>,
    ) {
        self.wanted = wanted;
        let Some(wanted) = &self.wanted else {
            self.end_restart(Some("the service is no longer wanted"), turn);
            self.leave_all(settings, turn.now);
            return;
        };
        let generation = wanted.template.id.generation;
        if self
            .failed
            .as_ref()
            .is_some_and(|(failed, _)| *failed != generation)
        {
            self.failed = None;
        }
        if let Some(beside) = wanted.beside.clone() {
            self.steer(&beside, settings, rng, turn);
            return;
        }
        let causes = turn.event("desired state changed");
        let ready = self.state().to.map_or(0, |to| self.ready(to));
        let reading = Reading::Wanted { generation, ready };
        let action = turn.step(&mut self.rollout, &reading, causes);
        self.carry_out(action, settings, rng, turn);
        self.retire(settings, turn.now);
        let state = self.state();
        if state.current == Some(generation) && state.to.is_none() {
            self.resize(generation, settings, rng, turn);
            let service = self.name.clone();
            turn.effects.push(NodeEffect::ServiceSettled {
                service,
                generation,
            });
        } else if state.to == Some(generation) {
            // As many as are wanted may have changed meanwhile.
            self.resize(generation, settings, rng, turn);
        }
        self.advance(settings, rng, turn);
    }

    /// Both generations, as the rollout over the whole cluster says.
    fn steer(&mut self, beside: &Beside, settings: &Settings, rng: &mut Rng, turn: &mut Turn<'_>) {
        let current = beside.current;
        let causes = turn.event("desired state changed");
        let reading = Reading::Steered { current };
        let action = turn.step(&mut self.rollout, &reading, causes);
        self.carry_out(action, settings, rng, turn);
        self.retire(settings, turn.now);
        let both = self.wanted.iter().flat_map(Wanted::generations);
        for generation in both.collect::<Vec<_>>() {
            self.resize(generation, settings, rng, turn);
        }
        self.advance(settings, rng, turn);
    }

    /// Whether replicas of a generation are given requests, once they are ready.
    fn is_routed(&self, generation: Revision) -> bool {
        let wanted = self.wanted.as_ref();
        match wanted.and_then(|wanted| Some((wanted, wanted.beside.as_ref()?))) {
            Some((_, beside)) if beside.template.id.generation == generation => beside.routed,
            Some((wanted, beside)) => {
                beside.new_routed && wanted.template.id.generation == generation
            }
            None => self.state().current.or(self.state().to) == Some(generation),
        }
    }

    /// Takes over what an earlier agent left running; before [`Tended::want`].
    pub fn adopt(
        &mut self,
        found: Vec<Adopted>,
        wanted: &Wanted,
        settings: &Settings,
        rng: &mut Rng,
        turn: &mut Turn<'_>,
    ) {
        let running = |found: &&Adopted| matches!(found.state, Found::Running(_));
        // The oldest is what the edge has: a newer one was still coming up.
        let current = found
            .iter()
            .filter(running)
            .map(|one| one.replica.generation)
            .min();
        if let Some(generation) = current {
            let causes = turn.event("the agent started");
            let _ = turn.step(&mut self.rollout, &Reading::Found { generation }, causes);
        }
        let desired = wanted.template.id.generation;
        let mut kept = BTreeMap::new();
        for Adopted { replica: id, state } in found {
            let (service, template) = wanted.part(id.generation);
            let spec = ReplicaSpec {
                id: id.clone(),
                ..template.clone()
            };
            let mut replica = Replica::new(spec, service, settings, rng.next_u64());
            let Found::Running(running) = state else {
                // Removed at the next tick; its index is not used before, and
                // another one takes its place.
                replica.leave(Duration::ZERO, turn.now);
                self.replicas.insert(id, replica);
                continue;
            };
            let routed = current == Some(id.generation) || self.is_routed(id.generation);
            replica.adopt(running, routed, turn);
            if wanted.generations().any(|it| it == id.generation) {
                let kept = kept.entry(id.generation).or_insert(0);
                *kept += 1;
                if *kept > service.replicas {
                    replica.leave(settings.drain, turn.now);
                }
            } else {
                replica.orphaned();
            }
            self.replicas.insert(id, replica);
        }
        if current == Some(desired) {
            self.top_up(desired, settings, rng, turn);
        }
    }

    pub fn restart(&mut self, turn: &mut Turn<'_>) {
        let current = self.state().current;
        let live = self.replicas.values().filter(|one| !one.is_leaving());
        self.to_replace = live
            .filter(|one| Some(one.id().generation) == current)
            .map(|one| one.id().clone())
            .collect();
        if self.to_replace.is_empty() {
            self.replacement = None;
            let service = self.name.clone();
            turn.effects.push(NodeEffect::RestartDone {
                service,
                failed: Some("none of its replicas has come up yet".to_owned()),
            });
        }
    }

    /// Tells how a restart that was asked for ended, if one is going on.
    fn end_restart(&mut self, failed: Option<&str>, turn: &mut Turn<'_>) {
        if self.to_replace.is_empty() && self.replacement.is_none() {
            return;
        }
        self.to_replace.clear();
        self.replacement = None;
        turn.effects.push(NodeEffect::RestartDone {
            service: self.name.clone(),
            failed: failed.map(str::to_owned),
        });
    }

    /// A replica ended, or could not be started.
    pub fn ended(
        &mut self,
        id: &ReplicaId,
        how: &str,
        settings: &Settings,
        rng: &mut Rng,
        turn: &mut Turn<'_>,
    ) {
        let Some(replica) = self.replicas.get_mut(id) else {
            return;
        };
        let counts = replica.ended(how, turn) && !replica.is_leaving();
        if counts && self.state().to == Some(id.generation) {
            let reading = Reading::Crashed {
                replica: id.to_string(),
                how: how.to_owned(),
            };
            let causes = turn.event(how);
            let action = turn.step(&mut self.rollout, &reading, causes);
            self.carry_out(action, settings, rng, turn);
        }
    }

    /// Everything that is due, after any event.
    pub fn advance(&mut self, settings: &Settings, rng: &mut Rng, turn: &mut Turn<'_>) {
        let action = turn.step(&mut self.rollout, &Reading::Tick, Vec::new());
        self.carry_out(action, settings, rng, turn);
        if let (Some(to), Some(wanted)) = (self.state().to, &self.wanted) {
            let reading = Reading::Progress {
                ready: self.ready(to),
                wanted: wanted.service.replicas,
            };
            let causes = self
                .rollout
                .last()
                .map(Cause::Decision)
                .into_iter()
                .collect();
            let action = turn.step(&mut self.rollout, &reading, causes);
            self.carry_out(action, settings, rng, turn);
        }
        turn.record(self.rollout.expire(turn.now));
        self.replace(settings, rng, turn);
        self.replicas.retain(|id, replica| {
            let gone = replica.tick(turn);
            if gone {
                turn.effects.push(NodeEffect::Remove {
                    replica: id.clone(),
                });
            }
            !gone
        });
        self.succeed(settings, rng, turn);
    }

    pub fn leave_all(&mut self, settings: &Settings, now: Time) {
        self.to_replace.clear();
        self.replacement = None;
        self.replicas
            .values_mut()
            .for_each(|one| one.leave(settings.drain, now));
    }

    pub fn is_over(&self) -> bool {
        self.wanted.is_none() && self.replicas.is_empty()
    }

    pub fn endpoints(&self) -> Vec<Endpoint> {
        let ready = self.replicas.values().filter(|one| one.is_ready());
        ready
            .filter(|one| self.is_routed(one.id().generation))
            .map(|one| Endpoint {
                replica: one.id().clone(),
                address: one.address(),
                node: None,
            })
            .collect()
    }

    /// What the edge should have loaded.
    pub fn components(&self) -> impl Iterator<Item = (ReplicaId, ComponentView)> {
        let replicas = self.replicas.values();
        replicas.filter_map(|one| Some((one.id().clone(), one.component()?)))
    }

    pub fn next_wake(&self, settings: &Settings) -> Option<Time> {
        let replicas = self.replicas.values().filter_map(Replica::next_wake);
        let deadline = self.state().deadline(&settings.rollout);
        let given_up = self.replacement.as_ref().map(|(_, at)| *at);
        replicas
            .chain(deadline)
            .chain(given_up)
            .chain(self.rollout.next_wake())
            .min()
    }

    pub fn status(&self) -> ServiceStatus {
        let replicas: Vec<_> = self.replicas.values().map(Replica::status).collect();
        let endpoints = self.endpoints().into_iter();
        let endpoints: Vec<_> = endpoints.map(|endpoint| endpoint.replica).collect();
        let wanted = self.wanted.as_ref().map_or(0, |wanted| {
            let beside = wanted.beside.as_ref();
            let routed = |it: &Beside| if it.routed { it.service.replicas } else { 0 };
            let is_new = beside.is_none_or(|it| it.new_routed);
            beside.map_or(0, routed) + if is_new { wanted.service.replicas } else { 0 }
        });
        let ready = endpoints.len();
        let words = ["backing-off", "unready", "starting", "draining"];
        let worst = words
            .into_iter()
            .find(|word| replicas.iter().any(|one| one.state == *word));
        let up = self.wanted.is_some() && ready >= wanted as usize;
        ServiceStatus {
            state: if up {
                "ready"
            } else {
                worst.unwrap_or("stopped")
            }
            .to_owned(),
            generation: self.state().current,
            replicas_wanted: wanted,
            replicas,
            endpoints,
            failed: self.failed.clone(),
        }
    }

    fn carry_out(
        &mut self,
        action: Option<Action>,
        settings: &Settings,
        rng: &mut Rng,
        turn: &mut Turn<'_>,
    ) {
        let service = self.name.clone();
        match action {
            None => {}
            Some(Action::Keep { .. }) => {
                turn.record(self.rollout.abandon("it is no longer wanted", turn.now));
                self.retire(settings, turn.now);
            }
            Some(Action::Begin { generation }) => {
                self.end_restart(Some("the service was changed meanwhile"), turn);
                self.retire(settings, turn.now);
                self.top_up(generation, settings, rng, turn);
            }
            Some(Action::Flip { generation }) => {
                turn.record(self.rollout.came("all its replicas are ready", turn.now));
                self.retire(settings, turn.now);
                turn.effects.push(NodeEffect::ServiceSettled {
                    service,
                    generation,
                });
            }
            Some(Action::Fail {
                generation,
                why,
                stop_new,
            }) => {
                turn.record(self.rollout.failed(&why, turn.now));
                if stop_new {
                    self.retire(settings, turn.now);
                }
                self.failed = Some((generation, why.clone()));
                turn.effects.push(NodeEffect::RolloutFailed {
                    service,
                    generation,
                    why,
                });
            }
        }
    }

    /// Generations that neither serve nor come up leave.
    fn retire(&mut self, settings: &Settings, now: Time) {
        let (current, to) = (self.state().current, self.state().to);
        let steered = self.wanted.iter().filter(|wanted| wanted.beside.is_some());
        let both: Vec<Revision> = steered.flat_map(Wanted::generations).collect();
        for one in self.replicas.values_mut() {
            let generation = one.id().generation;
            let is_kept = if both.is_empty() {
                [current, to].contains(&Some(generation))
            } else {
                both.contains(&generation)
            };
            if !is_kept {
                one.leave(settings.drain, now);
            }
        }
    }

    /// As many as are wanted now, of what runs already. Those that came last
    /// leave first.
    fn resize(
        &mut self,
        generation: Revision,
        settings: &Settings,
        rng: &mut Rng,
        turn: &mut Turn<'_>,
    ) {
        self.top_up(generation, settings, rng, turn);
        let wanted = self.wanted.as_ref();
        let wanted = wanted.map_or(0, |wanted| wanted.part(generation).0.replicas as usize);
        let live = |one: &&mut Replica| one.id().generation == generation && !one.is_leaving();
        let surplus = self.replicas.values_mut().filter(live).skip(wanted);
        surplus.for_each(|one| one.leave(settings.drain, turn.now));
    }

    fn top_up(
        &mut self,
        generation: Revision,
        settings: &Settings,
        rng: &mut Rng,
        turn: &mut Turn<'_>,
    ) {
        let wanted = self.wanted.as_ref();
        let count = wanted.map_or(0, |wanted| wanted.part(generation).0.replicas);
        let live = |one: &&Replica| one.id().generation == generation && !one.is_leaving();
        let have = self.replicas.values().filter(live).count();
        for _ in have..count as usize {
            let causes = self.rollout.last().map(Cause::Decision);
            let causes = causes.into_iter().collect();
            let _ = self.start_one(generation, causes, settings, rng, turn);
        }
    }

    /// Indices of replicas that still end are not used again.
    fn start_one(
        &mut self,
        generation: Revision,
        causes: Vec<Cause>,
        settings: &Settings,
        rng: &mut Rng,
        turn: &mut Turn<'_>,
    ) -> Option<ReplicaId> {
        let wanted = self.wanted.as_ref()?;
        if self.is_leased() && !self.replicas.is_empty() {
            return None;
        }
        let taken = |index: &u32| {
            self.replicas
                .keys()
                .any(|id| id.generation == generation && id.index == *index)
        };
        let (service, template) = wanted.part(generation);
        let first = template.id.index;
        let index = (first..u32::MAX).find(|index| !taken(index))?;
        let id = ReplicaId {
            service: self.name.clone(),
            generation,
            index,
        };
        let spec = ReplicaSpec {
            id: id.clone(),
            ..template.clone()
        };
        let mut replica = Replica::new(spec, service, settings, rng.next_u64());
        replica.ask(causes, turn);
        self.replicas.insert(id.clone(), replica);
        Some(id)
    }

    fn replace(&mut self, settings: &Settings, rng: &mut Rng, turn: &mut Turn<'_>) {
        let ready = |id: &ReplicaId| self.replicas.get(id).is_some_and(Replica::is_ready);
        match self.replacement.clone() {
            Some((id, _)) if ready(&id) => {
                if let Some(old) = self.to_replace.pop_front() {
                    self.leave_one(&old, settings, turn.now);
                }
                if self.to_replace.is_empty() {
                    self.end_restart(None, turn);
                }
                self.replacement = None;
            }
            Some((id, at)) if at <= turn.now => {
                let span = Duration::from_millis(settings.rollout.deadline_ms);
                let span = kernel::format_duration(span);
                let mut why = format!("{id} was not ready within {span}");
                if !self.is_leased() {
                    self.leave_one(&id, settings, turn.now);
                    why.push_str("; what ran before runs on");
                }
                self.end_restart(Some(&why), turn);
            }
            Some(_) => return,
            None => {}
        }
        let Some(next) = self.to_replace.front() else {
            return;
        };
        let generation = next.generation;
        let span = Duration::from_millis(settings.rollout.deadline_ms);
        if self.is_leased() {
            let old = next.clone();
            self.leave_one(&old, settings, turn.now);
            // Its successor has the first index again: see `succeed`.
            let first = self.wanted.as_ref().map(|wanted| wanted.template.id.index);
            let index = first.unwrap_or(old.index);
            self.replacement = Some((ReplicaId { index, ..old }, turn.now + span));
            return;
        }
        let causes = turn.event("a restart was asked for");
        let started = self.start_one(generation, causes, settings, rng, turn);
        self.replacement = started.map(|id| (id, turn.now + span));
    }

    /// Of what must never run twice, a new replica comes only when the one before
    /// it is gone.
    fn succeed(&mut self, settings: &Settings, rng: &mut Rng, turn: &mut Turn<'_>) {
        if !self.is_leased() {
            return;
        }
        let Some(wanted) = &self.wanted else { return };
        let generation = wanted.template.id.generation;
        for one in self.replicas.values_mut() {
            if one.id().generation != generation {
                one.leave(settings.drain, turn.now);
            }
        }
        let failed = self
            .failed
            .as_ref()
            .is_some_and(|(it, _)| *it == generation);
        if self.replicas.is_empty() && !failed {
            self.top_up(generation, settings, rng, turn);
        }
    }

    fn leave_one(&mut self, id: &ReplicaId, settings: &Settings, now: Time) {
        if let Some(one) = self.replicas.get_mut(id) {
            one.leave(settings.drain, now);
        }
    }

    pub fn set_wanted(&mut self, wanted: Wanted) {
        self.wanted = Some(wanted);
    }
}
