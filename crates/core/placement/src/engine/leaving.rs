//! Decides which running replicas cannot stay, and which are too many.
//!
//! Holds: what is on a node that cannot be reached has no reason to leave in
//! that; of a service with an availability goal, a copy is removed only when the rest
//! is down for at most half of what the goal allows, so that failure rates that
//! waver add and remove nothing in turn.

use super::fits::misfits;
use super::{Engine, Leaver};
use crate::availability::EPSILON;
use crate::plan::{Lack, Leaving};
use kernel::Bytes;

/// Of the time that a goal allows to be down, what must do for fewer copies.
const MARGIN: f64 = 0.5;

impl<P: Ord + Clone> Engine<'_, P> {
    /// Replicas whose place is not there, the nearest to be replaced first.
    pub(super) fn gone(&mut self, service: usize) -> Vec<Leaver<P>> {
        let all = std::mem::take(&mut self.gone[service]);
        let each = all.into_iter().flat_map(|(place, count)| {
            (0..count).map(move |_| Leaver {
                slot: None,
                place: place.clone(),
                why: Leaving::Gone,
            })
        });
        each.collect()
    }

    /// Replicas whose place does not meet the service's needs.
    pub(super) fn leavers(&mut self, service: usize) -> Vec<Leaver<P>> {
        let mut leavers = Vec::new();
        let holders: Vec<(u32, u32)> = self.holders[service]
            .iter()
            .map(|(slot, count)| (*slot, *count))
            .collect();
        for (slot, count) in holders {
            let told = (self.services[service].1, self.names.as_slice());
            let (leaving, lack) = match misfits(&self.pool, &self.focus, slot, told) {
                Some(lack) => (count, Some(lack)),
                None => self.too_many(service, slot, count),
            };
            let Some(lack) = lack.filter(|_| leaving > 0) else {
                continue;
            };
            self.focus.count(&self.pool, slot, -leaving.cast_signed());
            leavers.extend((0..leaving).map(|_| self.leaver(slot, Leaving::Unfit(lack.clone()))));
        }
        leavers
    }

    fn leaver(&self, slot: u32, why: Leaving) -> Leaver<P> {
        Leaver {
            slot: Some(slot),
            place: self.places[slot as usize].id.clone(),
            why,
        }
    }

    /// How many have to leave a place that could do for fewer, and what it lacks.
    fn too_many(&self, service: usize, slot: u32, count: u32) -> (u32, Option<Lack>) {
        let at = &self.pool.slots[slot as usize];
        let (name, told) = self.services[service];
        let need = self.pool.needs[service].amounts;
        let mut most: (u32, Option<Lack>) = (0, None);
        let mut note = |leaving: u32, lack: Lack| {
            if leaving > most.0 {
                most = (leaving.min(count), Some(lack));
            }
        };
        if self.focus.rules.own_limit {
            let spare = count.saturating_sub(at.machines.max(1));
            note(spare, Lack::AntiAffinity { with: name.clone() });
        }
        let over = |free: i64, need: i64| {
            let short = if free < 0 && need > 0 {
                (free.unsigned_abs()).div_ceil(need.unsigned_abs())
            } else {
                0
            };
            u32::try_from(short).unwrap_or(u32::MAX)
        };
        let [cpu, memory, disk] = need.map(i64::unsigned_abs);
        let (memory, disk, nothing) = (Bytes(memory), Bytes(disk), Bytes(0));
        let lacks = [
            Lack::Cpu { need: cpu, free: 0 },
            Lack::Memory {
                need: memory,
                free: nothing,
            },
            Lack::Disk {
                need: disk,
                free: nothing,
            },
        ];
        for (kind, lack) in lacks.into_iter().enumerate() {
            note(over(at.free[kind], need[kind]), lack);
        }
        let devices = told.devices.iter().filter(|(_, count)| **count > 0);
        for ((name, each), (device, need)) in devices.zip(&self.pool.needs[service].devices) {
            let leaving = over(at.devices_free(*device), *need);
            note(
                leaving,
                Lack::Device {
                    name: name.clone(),
                    need: *each,
                    free: 0,
                },
            );
        }
        most
    }

    /// Removes copies that are too many, the worst placed first; with a goal, the
    /// one that is missed least.
    ///
    /// * `only_new`: of those that this plan chose.
    pub(super) fn spare(&mut self, service: usize, told: (u32, Option<f64>), only_new: bool) {
        let (wanted, goal) = told;
        loop {
            let kept: u32 = self.kept(service).map(|(_, copies)| copies).sum();
            if kept <= wanted {
                return;
            }
            let Some((slot, down)) = self.worst(service, goal.is_some(), only_new) else {
                return;
            };
            if goal.is_some_and(|goal| down > (1.0 - goal) * MARGIN + EPSILON) {
                return;
            }
            self.focus.count(&self.pool, slot, -1);
            self.release(service, slot);
            if !self.unmake(service, slot) {
                let leaver = self.leaver(slot, Leaving::Surplus);
                self.remove(service, leaver);
            }
        }
    }

    /// Takes back a choice of this plan; false where there is none.
    fn unmake(&mut self, service: usize, slot: u32) -> bool {
        let Some(at) = self.chosen(service, slot) else {
            return false;
        };
        let choice = self.plan.choices.remove(at);
        if let Some((place, why)) = choice.from.filter(|(_, why)| *why != Leaving::Gone) {
            self.remove(
                service,
                Leaver {
                    slot: None,
                    place,
                    why,
                },
            );
        }
        true
    }

    /// This plan's last choice of the slot for the service.
    fn chosen(&self, service: usize, slot: u32) -> Option<usize> {
        let name = self.services[service].0;
        let place = &self.places[slot as usize].id;
        // The service's own are the last.
        let own = self.plan.choices.iter().enumerate().rev();
        let mut own = own.take_while(|(_, choice)| choice.service == *name);
        let found = own.find(|(_, choice)| choice.place == *place);
        found.map(|(at, _)| at)
    }

    /// One that leaves so that a node that can be called takes it.
    pub(super) fn sole_holder(&mut self, service: usize) -> Option<Leaver<P>> {
        if self.has_dialable(service) {
            return None;
        }
        let (slot, _) = self.worst(service, false, false)?;
        self.focus.count(&self.pool, slot, -1);
        Some(self.leaver(slot, Leaving::SoleHolder))
    }

    /// Slots with copies that stay, and how many.
    fn kept(&self, service: usize) -> impl Iterator<Item = (u32, u32)> {
        let all = self.holders[service].keys();
        let all = all.map(|slot| (*slot, self.focus.marks[*slot as usize].copies));
        all.filter(|(_, copies)| *copies > 0)
    }

    /// The slot whose copy is to leave first, and how probable it is that all
    /// others are down then; never the last that can be called while others hold
    /// copies.
    ///
    /// * `by_goal`: who is missed least, before who is placed worst.
    fn worst(&mut self, service: usize, by_goal: bool, only_new: bool) -> Option<(u32, f64)> {
        self.weigh();
        let kept: Vec<(u32, u32)> = self.kept(service).collect();
        let is_dialable = |slot: u32| !self.pool.slots[slot as usize].outbound_only;
        let dialable = kept.iter().filter(|(slot, _)| is_dialable(*slot));
        let dialable: u32 = dialable.map(|(_, copies)| copies).sum();
        let all: u32 = kept.iter().map(|(_, copies)| copies).sum();
        let is_last = |slot: u32| dialable == 1 && all > 1 && is_dialable(slot);
        let may_leave: Vec<u32> = kept
            .iter()
            .map(|(slot, _)| *slot)
            .filter(|slot| !is_last(*slot) && (!only_new || self.chosen(service, *slot).is_some()))
            .collect();
        let ranked = may_leave.into_iter().map(|slot| {
            let without = kept
                .iter()
                .map(|(at, copies)| (*at, copies - u32::from(*at == slot)));
            let down = 1.0 - self.reached_by(without.filter(|(_, copies)| *copies > 0));
            let missed = if by_goal { down.max(0.0).to_bits() } else { 0 };
            // As if it were to be placed there now.
            self.focus.count(&self.pool, slot, -1);
            let score = self.focus.score(&self.pool, slot).total();
            self.focus.count(&self.pool, slot, 1);
            let at = &self.pool.slots[slot as usize];
            let near = at.key.wrapping_sub(self.focus.tie);
            ((missed, at.reachable, score, near), (slot, down))
        });
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, found)| found)
    }

    /// Of what should leave, what has no successor and so stays.
    pub(super) fn stay(
        &mut self,
        service: usize,
        leavers: &mut Vec<Leaver<P>>,
        missing: u32,
    ) -> Vec<(P, Leaving)> {
        let mut stay = Vec::new();
        let mut left = Vec::new();
        while let Some(leaver) = leavers.pop() {
            let is_free = u32::try_from(stay.len()).is_ok_and(|count| count < missing);
            match leaver.slot.filter(|_| is_free) {
                Some(slot) => {
                    debug_assert!(self.holders[service].contains_key(&slot));
                    stay.push((leaver.place, leaver.why));
                }
                None => left.push(leaver),
            }
        }
        left.reverse();
        *leavers = left;
        stay
    }
}
