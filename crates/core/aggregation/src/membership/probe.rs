//! Asks one neighbour after the other whether it is there: itself, then
//! through others; and keeps the score of this node's own health.
//!
//! Holds: one probe a target at a time; each ends in an answer or a suspicion.
//! A probe that failed while those who were asked to help were silent too says
//! more of this node than of the target.

use super::event::Reach;
use super::hear::Saying;
use super::member::Member;
use super::{Membership, Parameters};
use kernel::{NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::gossip::{Body, Said};

/// Every third probe goes to another zone: its few links must not wait for a
/// round through all of this one.
const FAR_TURN: u32 = 3;
/// Pings on behalf of others that may be under way.
const RELAYED_MAX: usize = 256;

#[derive(Clone, Debug, Default)]
pub struct Probes {
    pending: BTreeMap<u32, Pending>,
    /// The rest of this round, of the leaf zone and of the others.
    near: Vec<NodeId>,
    far: Vec<NodeId>,
    turn: u32,
    /// Those within the zone.
    near_turn: u32,
    pub health: u32,
    /// Even: the second ping of a probe has the odd number after it, so that
    /// each answer tells which round trip it measures.
    next: u32,
}

#[derive(Clone, Debug)]
struct Pending {
    target: NodeId,
    sent: Time,
    deadline: Time,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    Direct,
    Indirect {
        /// When it was pinged again.
        again: Time,
        /// Those of this zone who were asked and have not said that the target
        /// does not answer them.
        owing: BTreeSet<NodeId>,
        /// Nobody near could be asked, and the target is near.
        alone: bool,
    },
    For {
        asker: NodeId,
        seq: u32,
    },
}

impl Probes {
    pub fn worsen(&mut self, by: u32, parameters: &Parameters) {
        self.health = (self.health + by).min(parameters.health_max);
    }

    pub fn forget_strangers(&mut self, members: &BTreeMap<NodeId, Member>) {
        self.pending.retain(|_, one| {
            let asker = match one.stage {
                Stage::For { asker, .. } => members.contains_key(&asker),
                _ => true,
            };
            asker && members.contains_key(&one.target)
        });
    }

    pub fn deadline(&self) -> Option<Time> {
        self.pending.values().map(|one| one.deadline).min()
    }

    /// Time in which this node slept counts for nobody.
    pub fn shift(&mut self, by: Duration) {
        for one in self.pending.values_mut() {
            one.deadline = one.deadline + by;
        }
    }

    fn is_probed(&self, node: NodeId) -> bool {
        let mut pending = self.pending.values();
        pending.any(|one| one.target == node && !matches!(one.stage, Stage::For { .. }))
    }

    fn add(&mut self, pending: Pending) -> u32 {
        let seq = self.number();
        self.pending.insert(seq, pending);
        seq
    }

    fn number(&mut self) -> u32 {
        self.next = self.next.wrapping_add(2);
        self.next
    }
}

impl Membership {
    /// The next of this round.
    pub(super) fn probe_next(&mut self) {
        self.renew_mesh();
        let suspect = self.least_asked_suspect();
        if let Some(suspect) = suspect {
            self.probe(suspect);
        }
        self.probes.turn = self.probes.turn.wrapping_add(1);
        let far_first = self.probes.turn.is_multiple_of(FAR_TURN);
        for far in [far_first, !far_first] {
            if let Some(node) = self.next_of_round(far, suspect) {
                return self.probe(node);
            }
        }
    }

    /// Random rounds alone leave one node in a hundred without a probe for five
    /// intervals; by the ring each has one who asks it every other time.
    fn next_in_ring(&self, but: Option<NodeId>) -> Option<NodeId> {
        let up = |node: &NodeId| self.members.get(node).is_some_and(|one| one.reach.is_up());
        let next = self.mesh.ring.iter().copied().find(up)?;
        (Some(next) != but && !self.probes.is_probed(next)).then_some(next)
    }

    fn next_of_round(&mut self, far: bool, but: Option<NodeId>) -> Option<NodeId> {
        if !far {
            self.probes.near_turn = self.probes.near_turn.wrapping_add(1);
            let by_ring = self.probes.near_turn.is_multiple_of(2);
            let next = by_ring.then(|| self.next_in_ring(but)).flatten();
            if next.is_some() {
                return next;
            }
        }
        let members = &self.members;
        let up = |node: &NodeId| members.get(node).is_some_and(|one| one.reach.is_up());
        let (of, all) = if far {
            (&mut self.probes.far, &self.mesh.far)
        } else {
            (&mut self.probes.near, &self.mesh.near)
        };
        let mut round = std::mem::take(of);
        let mut found = None;
        for fresh in [false, true] {
            if fresh {
                round = all.iter().copied().filter(up).collect();
                shuffle(&mut round, &mut self.rng);
            }
            while let Some(node) = round.pop() {
                if up(&node) && !self.probes.is_probed(node) && Some(node) != but {
                    found = Some(node);
                    break;
                }
            }
            if found.is_some() {
                break;
            }
        }
        if far {
            self.probes.far = round;
        } else {
            self.probes.near = round;
        }
        found
    }

    /// Whom this node has found silent is asked again, until it is settled.
    fn least_asked_suspect(&mut self) -> Option<NodeId> {
        let own = self.own.node;
        let found = self.agenda.suspects.iter().copied().filter(|node| {
            let suspicion = self
                .members
                .get(node)
                .and_then(|one| one.suspicion.as_ref());
            suspicion.is_some_and(|one| one.by.contains(&own)) && !self.probes.is_probed(*node)
        });
        let found: Vec<NodeId> = found.collect();
        let at = usize::try_from(self.rng.below(found.len() as u64)).unwrap_or_default();
        found.get(at).copied()
    }

    pub(super) fn probe(&mut self, target: NodeId) {
        let known = self.members.get(&target);
        if !known.is_some_and(|one| one.reach.is_up()) || self.probes.is_probed(target) {
            return;
        }
        let seq = self.probes.add(Pending {
            target,
            sent: self.now,
            deadline: self.now + self.answer_wait(target),
            stage: Stage::Direct,
        });
        self.send(target, &Body::Ping { seq });
    }

    /// A ping that nothing depends on: its answer is heard like all else.
    pub(super) fn knock(&mut self, target: NodeId) {
        let seq = self.probes.number();
        self.send(target, &Body::Ping { seq });
    }

    pub(super) fn on_doubted(&mut self, node: NodeId) {
        self.probe(node);
    }

    /// For an answer of `target`, the longer the worse this node feels.
    fn answer_wait(&self, target: NodeId) -> Duration {
        let parameters = &self.parameters;
        let measured = self
            .members
            .get(&target)
            .and_then(|one| one.round_trip.wait());
        let wait = measured.map_or(parameters.answer_first, |wait| {
            wait.clamp(parameters.answer_min, parameters.answer_max)
        });
        wait * (self.probes.health + 1)
    }

    pub(super) fn probes_on_time(&mut self) {
        let now = self.now;
        if self.probes.deadline().is_none_or(|at| at > now) {
            return;
        }
        let due = self.probes.pending.iter();
        let due = due
            .filter(|(_, one)| one.deadline <= now)
            .map(|(seq, _)| *seq);
        for seq in due.collect::<Vec<u32>>() {
            let Some(pending) = self.probes.pending.remove(&seq) else {
                continue;
            };
            match pending.stage {
                Stage::Direct => self.ask_others(seq, pending.target, pending.sent),
                Stage::Indirect {
                    ref owing, alone, ..
                } => {
                    let owing = u32::try_from(owing.len()).unwrap_or(u32::MAX);
                    let worse = if alone { 1 } else { owing };
                    self.probes.worsen(worse, &self.parameters);
                    self.found_silent(pending.target);
                }
                Stage::For { asker, seq } => {
                    let target = pending.target;
                    self.send(asker, &Body::NackFor { seq, target });
                }
            }
        }
    }

    fn ask_others(&mut self, seq: u32, target: NodeId, sent: Time) {
        if !self
            .members
            .get(&target)
            .is_some_and(|one| one.reach.is_up())
        {
            return;
        }
        let others = self.helpers(target);
        let others = draw(others, self.parameters.relays, &mut self.rng);
        let is_near = |node: &NodeId| self.mesh.near.contains(node);
        // The silence of another zone says nothing of this node.
        let owing: BTreeSet<NodeId> = others.iter().copied().filter(is_near).collect();
        let alone = owing.is_empty() && is_near(&target);
        let wait = self.answer_wait(target) * 2;
        self.probes.pending.insert(
            seq,
            Pending {
                deadline: self.now + wait,
                stage: Stage::Indirect {
                    again: self.now,
                    owing,
                    alone,
                },
                target,
                sent,
            },
        );
        // The first try may just have been lost.
        self.send(target, &Body::Ping { seq: seq + 1 });
        for other in others {
            self.send(other, &Body::PingFor { seq, target });
        }
    }

    /// Who can be asked to ping it.
    fn helpers(&self, target: NodeId) -> Vec<NodeId> {
        let mut helpers = if !self.mesh.near.contains(&target) {
            self.mesh.allies(target).to_vec()
        } else if self.mesh.full {
            self.mesh.near.clone()
        } else {
            // In a ring with chords, only common neighbours reach it.
            let common = self.common_neighbours(target);
            let near = self.mesh.near.iter().copied();
            near.filter(|node| common.contains(node)).collect()
        };
        helpers.retain(|node| {
            let member = self.members.get(node);
            *node != target && member.is_some_and(|one| one.reach == Reach::Alive)
        });
        helpers
    }

    fn found_silent(&mut self, node: NodeId) {
        let Some(member) = self.members.get(&node).filter(|one| one.reach.is_up()) else {
            return;
        };
        let own = self.own.node;
        let saying = Saying {
            node,
            life: member.life,
            said: Said::Suspect,
            by: own,
        };
        let _ = self.hear(saying, own);
        // If a zone is cut off, its others are silent too.
        let zone = |node| self.table.get(&node).map(|one| &one.zone);
        if zone(node) != zone(own) {
            let others = self.mesh.far.iter().copied();
            let others = others.filter(|one| zone(*one) == zone(node));
            self.agenda.ask_soon.extend(others);
        }
    }

    pub(super) fn suspects_on_time(&mut self) {
        let (now, own) = (self.now, self.own.node);
        if self.agenda.suspects.is_empty() {
            return;
        }
        for node in self.agenda.suspects.clone() {
            let Some(member) = self.members.get(&node) else {
                self.agenda.suspects.remove(&node);
                continue;
            };
            let Some(suspicion) = member.suspicion.as_ref() else {
                continue;
            };
            if suspicion.deadline > now {
                continue;
            }
            if !suspicion.by.contains(&own) {
                self.see_for_itself(node);
                continue;
            }
            let saying = Saying {
                node,
                life: member.life,
                said: Said::Dead,
                by: own,
            };
            let _ = self.hear(saying, own);
        }
    }

    /// Nobody is called dead by hearsay: a refutation may have been lost here.
    /// Whoever is silent to this node too is called dead then.
    fn see_for_itself(&mut self, node: NodeId) {
        let wait = self.answer_wait(node) * 4;
        let until = self.now + wait;
        if let Some(suspicion) = self
            .members
            .get_mut(&node)
            .and_then(|one| one.suspicion.as_mut())
        {
            suspicion.deadline = until;
        }
        self.probe(node);
    }

    pub(super) fn on_ping(&mut self, from: NodeId, seq: u32) {
        self.send(from, &Body::Ack { seq });
    }

    pub(super) fn on_ack(&mut self, from: NodeId, seq: u32) {
        let (first, is_second) = (seq & !1, seq & 1 == 1);
        let Some(pending) = self.probes.pending.get(&first) else {
            return;
        };
        if pending.target != from {
            return;
        }
        let (sent, stage) = (pending.sent, pending.stage.clone());
        // A late answer counts too: else only fast ones were ever measured.
        let sent = match stage {
            Stage::Indirect { again, .. } if is_second => again,
            _ => sent,
        };
        self.probes.pending.remove(&first);
        if let Some(member) = self.members.get_mut(&from) {
            member.round_trip.sample(self.now.since(sent));
        }
        match stage {
            Stage::Direct => self.probes.health = self.probes.health.saturating_sub(1),
            Stage::Indirect { .. } => {}
            Stage::For { asker, seq } => self.send(asker, &Body::AckFor { seq, target: from }),
        }
    }

    pub(super) fn on_ping_for(&mut self, asker: NodeId, seq: u32, target: NodeId) {
        if !self.members.contains_key(&target) {
            self.counts.unknown += 1;
            return;
        }
        if self.probes.pending.len() >= RELAYED_MAX {
            return;
        }
        let own = self.probes.add(Pending {
            target,
            sent: self.now,
            deadline: self.now + self.answer_wait(target),
            stage: Stage::For { asker, seq },
        });
        self.send(target, &Body::Ping { seq: own });
    }

    pub(super) fn on_ack_for(&mut self, seq: u32, target: NodeId) {
        let pending = self.probes.pending.get(&seq);
        let awaited = pending
            .is_some_and(|one| one.target == target && matches!(one.stage, Stage::Indirect { .. }));
        if awaited {
            self.probes.pending.remove(&seq);
        }
    }

    pub(super) fn on_nack_for(&mut self, from: NodeId, seq: u32, target: NodeId) {
        let Some(pending) = self.probes.pending.get_mut(&seq) else {
            return;
        };
        if let Stage::Indirect { owing, .. } = &mut pending.stage
            && pending.target == target
        {
            owing.remove(&from);
        }
    }
}

pub fn shuffle<T>(all: &mut [T], rng: &mut kernel::Rng) {
    for last in (1..all.len()).rev() {
        let other = usize::try_from(rng.below(last as u64 + 1)).unwrap_or_default();
        all.swap(last, other);
    }
}

/// `count` of them, or all.
pub fn draw<T>(mut all: Vec<T>, count: usize, rng: &mut kernel::Rng) -> Vec<T> {
    for at in 0..count.min(all.len()) {
        let rest = (all.len() - at) as u64;
        let other = at + usize::try_from(rng.below(rest)).unwrap_or_default();
        all.swap(at, other);
    }
    all.truncate(count);
    all
}
