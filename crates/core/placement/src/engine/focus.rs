//! One service as the search sees it: what it asks, and what the slots are to it.
//!
//! Holds: marks of one service are gone before the next one's are set; their cost
//! is that of what they mark, not of the slots there are.

use super::pool::{Amounts, Need, Pool};
use crate::model::{Policy, Service, Spread};
use crate::score::{FULL, Fit, Measures, Score, Weights, fit, free_by_count, latency};
use kernel::ScopedName;
use std::collections::BTreeMap;

/// No service is barred.
pub(super) const NOBODY: u32 = u32::MAX;

/// What a slot is to the service in focus.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// Copies that stay.
    pub copies: u32,
    /// A service there that it must not meet.
    pub barred: u32,
    /// As measures of a score.
    pub affinity: i32,
    pub content: i32,
}

const CLEAR: Mark = Mark {
    copies: 0,
    barred: NOBODY,
    affinity: 0,
    content: 0,
};

/// What rules out slots for the next replica, beside the service's needs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rules {
    /// A node that has a copy does not do: the service says so.
    pub own_limit: bool,
    /// Outbound-only nodes do not do.
    pub only_dialable: bool,
    /// A node that has a copy does not do: it would be of no use.
    pub only_other: bool,
}

pub(super) struct Focus {
    pub weights: Weights,
    pub fit: Fit,
    /// Zones have no names that a service could ask for.
    are_nodes: bool,
    is_weighed: bool,
    pub service: usize,
    /// Where the service stands on the ring of keys.
    pub tie: u64,
    pub need: Need,
    pub need_shares: [f64; 3],
    is_sized: bool,
    /// The slot it has to be on; one that is none when no node has the name.
    pub pin: Option<u32>,
    /// By zone, whether it may be there; all where it is empty.
    pub zone_open: Vec<bool>,
    /// By zone; none where it is empty.
    latency: Vec<i32>,
    spread: Spread,
    pub rules: Rules,
    pub marks: Vec<Mark>,
    touched: Vec<u32>,
    /// Those whose zone and domain have copies counted.
    counted: Vec<u32>,
    pub zone_copies: Vec<u32>,
    pub domain_copies: Vec<u32>,
    /// By zone, as a measure; empty where the service has no affinity.
    pub zone_affinity: Vec<i32>,
}

/// Where the services that matter to one are.
pub(super) struct Around<'a> {
    pub names: &'a BTreeMap<ScopedName, usize>,
    pub holders: &'a [BTreeMap<u32, u32>],
    pub conflicts: &'a [Vec<u32>],
}

impl Focus {
    pub fn new(pool: &Pool, policy: Policy, are_nodes: bool) -> Self {
        Self {
            weights: policy.weights,
            fit: policy.fit,
            are_nodes,
            is_weighed: false,
            service: 0,
            tie: 0,
            need: Need {
                amounts: Amounts::default(),
                architecture: None,
                devices: Vec::new(),
            },
            need_shares: [0.0; 3],
            is_sized: false,
            pin: None,
            zone_open: Vec::new(),
            latency: Vec::new(),
            spread: Spread::Zone,
            rules: Rules::default(),
            marks: vec![CLEAR; pool.slots.len()],
            touched: Vec::new(),
            counted: Vec::new(),
            zone_copies: vec![0; pool.zones.len()],
            domain_copies: vec![0; pool.domains],
            zone_affinity: Vec::new(),
        }
    }

    /// Turns to another service; none of its own copies are counted yet.
    pub fn turn(&mut self, pool: &Pool, told: (usize, &ScopedName, &Service), around: &Around) {
        let (number, name, service) = told;
        self.clear(pool);
        self.service = number;
        self.tie = pool.ties[number];
        self.need = pool.needs[number].clone();
        #[expect(clippy::cast_precision_loss, reason = "shares")]
        let shares = self.need.amounts.map(|amount| amount as f64);
        self.need_shares = shares;
        self.is_sized = self.need.amounts.iter().any(|amount| *amount > 0);
        let pin = service.node.as_ref().filter(|_| self.are_nodes);
        self.pin = pin.map(|node| pool.names.get(node).copied().unwrap_or(NOBODY));
        self.zone_open.clear();
        if let Some(only) = &service.zone {
            self.zone_open
                .extend(pool.zones.iter().map(|zone| only.contains(zone)));
        }
        self.spread = service.spread;
        self.rules = Rules {
            own_limit: service.anti_affinity.contains(name),
            ..Rules::default()
        };
        self.mark_conflicts(around);
        self.is_weighed = false;
    }

    /// Marks what scores need, once somebody needs a score; false where that was
    /// done.
    pub fn weigh(&mut self, pool: &Pool, service: &Service, around: &Around) -> bool {
        if std::mem::replace(&mut self.is_weighed, true) {
            return false;
        }
        self.tell_latency(pool, service);
        self.mark_affinity(pool, service, around);
        self.mark_content(pool, service);
        true
    }

    fn clear(&mut self, pool: &Pool) {
        for slot in self.touched.drain(..) {
            self.marks[slot as usize] = CLEAR;
        }
        for slot in self.counted.drain(..) {
            let at = &pool.slots[slot as usize];
            self.marks[slot as usize] = CLEAR;
            self.zone_copies[at.zone as usize] = 0;
            self.domain_copies[at.domain as usize] = 0;
        }
    }

    fn mark(&mut self, slot: u32) -> &mut Mark {
        self.touched.push(slot);
        &mut self.marks[slot as usize]
    }

    /// Copies come to stay, or are counted no longer.
    pub fn count(&mut self, pool: &Pool, slot: u32, copies: i32) {
        let at = &pool.slots[slot as usize];
        let add = |number: &mut u32| *number = number.saturating_add_signed(copies);
        self.counted.push(slot);
        add(&mut self.marks[slot as usize].copies);
        add(&mut self.zone_copies[at.zone as usize]);
        add(&mut self.domain_copies[at.domain as usize]);
    }

    fn tell_latency(&mut self, pool: &Pool, service: &Service) {
        self.latency.clear();
        let Some(farthest) = service.latency.values().max() else {
            return;
        };
        let mut by_area = vec![None; pool.areas.len()];
        for (zone, told) in &service.latency {
            if let Some(area) = pool.areas.get(zone) {
                by_area[*area as usize] = Some(latency(*told));
            }
        }
        let farthest = latency(*farthest);
        let to = |areas: &Vec<u32>| areas.iter().find_map(|area| by_area[*area as usize]);
        let all = pool
            .areas_of
            .iter()
            .map(|areas| to(areas).unwrap_or(farthest));
        self.latency.extend(all);
    }

    fn mark_conflicts(&mut self, around: &Around) {
        for other in &around.conflicts[self.service] {
            for slot in around.holders[*other as usize].keys() {
                self.mark(*slot).barred = *other;
            }
        }
    }

    fn mark_affinity(&mut self, pool: &Pool, service: &Service, around: &Around) {
        self.zone_affinity.clear();
        let near = service
            .affinity
            .iter()
            .filter_map(|name| around.names.get(name));
        let near: Vec<usize> = near
            .copied()
            .filter(|other| *other != self.service)
            .collect();
        let Ok(count @ 1..) = i32::try_from(near.len()) else {
            return;
        };
        self.zone_affinity.resize(pool.zones.len(), 0);
        for other in near {
            let mut last = NOBODY;
            for slot in around.holders[other].keys() {
                // On the node counts twice what in the zone does.
                self.mark(*slot).affinity += FULL / 2 / count;
                // Slots are zone by zone.
                let zone = pool.slots[*slot as usize].zone;
                if zone != last {
                    self.zone_affinity[zone as usize] += FULL / 2 / count;
                }
                last = zone;
            }
        }
    }

    fn mark_content(&mut self, pool: &Pool, service: &Service) {
        let total: u64 = service.content.values().map(|size| size.0.max(1)).sum();
        for (hash, size) in &service.content {
            #[expect(clippy::cast_precision_loss, reason = "a share")]
            let share = size.0.max(1) as f64 / total as f64;
            for slot in pool.content.get(hash).into_iter().flatten() {
                let mark = self.mark(*slot);
                mark.content = (mark.content + crate::score::measure(share)).min(FULL);
            }
        }
    }

    /// By slot number: its marks that raise a score.
    pub fn raised(&self) -> impl Iterator<Item = (u32, Mark)> {
        let all = self
            .touched
            .iter()
            .map(|slot| (*slot, self.marks[*slot as usize]));
        all.filter(|(_, mark)| mark.affinity > 0 || mark.content > 0)
    }

    /// Copies that are in what the service is spread over.
    pub fn spread_copies(&self, zone: u32, domain: u32) -> i32 {
        let copies = match self.spread {
            Spread::Zone => self.zone_copies[zone as usize],
            Spread::Domain => self.domain_copies[domain as usize],
        };
        i32::try_from(copies).unwrap_or(i32::MAX)
    }

    pub fn is_sized(&self) -> bool {
        self.is_sized
    }

    fn has_disk(&self) -> bool {
        self.need.amounts[super::pool::DISK] > 0
    }

    pub fn is_by_zone(&self) -> bool {
        self.spread == Spread::Zone
    }

    pub fn latency(&self, zone: u32) -> i32 {
        self.latency.get(zone as usize).copied().unwrap_or(0)
    }

    pub fn zone_affinity(&self, zone: u32) -> i32 {
        self.zone_affinity.get(zone as usize).copied().unwrap_or(0)
    }

    /// Of the scarcest resource, the share that is free once a replica is there.
    ///
    /// * `share`: what is free of each now; `per_unit`: of the capacities.
    pub fn free_after(
        &self,
        share: [f64; 3],
        per_unit: [f64; 3],
        per_machine: impl FnOnce() -> f64,
    ) -> f64 {
        if !self.is_sized {
            return free_by_count(per_machine());
        }
        let after = |kind: usize| share[kind] - self.need_shares[kind] * per_unit[kind];
        let two = after(0).min(after(1));
        if self.has_disk() {
            two.min(after(2))
        } else {
            two
        }
    }

    /// What a slot's own marks add to its score at most.
    pub fn marked(&self, slot: u32) -> i32 {
        let mark = self.marks[slot as usize];
        if mark.affinity == 0 && mark.content == 0 {
            return 0;
        }
        self.marks_score(mark.affinity, mark.content)
    }

    /// What marks add to a score.
    pub fn marks_score(&self, affinity: i32, content: i32) -> i32 {
        let measures = Measures {
            affinity,
            content,
            ..Measures::default()
        };
        self.weights.measures(&measures).total()
    }

    /// By how much at most a slot's [`lasting_and_free`] grows with a replica on it,
    /// as its score has it; none where the score does not follow what is free.
    ///
    /// * `per_unit`: the least of several slots, and the most.
    pub fn grows(&self, per_unit: [[f64; 3]; 2]) -> Option<f64> {
        let takes = |kind: usize, which: usize| self.need_shares[kind] * per_unit[which][kind];
        let share = match self.fit {
            // The scarcest sinks by the lesser of the two at least.
            Fit::Balance => -takes(0, 0).min(takes(1, 0)),
            Fit::Pack if self.has_disk() => return None,
            Fit::Pack => takes(0, 1).max(takes(1, 1)),
        };
        let weight = f64::from(FULL) * f64::from(self.weights.fit.min(Weights::MAX));
        self.is_sized.then_some(share * weight)
    }

    pub fn score(&self, pool: &Pool, slot: u32) -> Score {
        let at = &pool.slots[slot as usize];
        let mark = self.marks[slot as usize];
        let free = self.free_after(free_shares(at), at.per_unit, || per_machine(at));
        self.weights.measures(&Measures {
            domain_copies: self.spread_copies(at.zone, at.domain),
            own_copies: match mark.copies {
                0 => 0,
                copies => i32::try_from(copies / at.machines.max(1)).unwrap_or(i32::MAX),
            },
            affinity: self.zone_affinity(at.zone) + mark.affinity,
            latency: self.latency(at.zone),
            fit: fit(self.fit, free),
            failure: at.failure_measure,
            content: mark.content,
            price: at.price,
        })
    }
}

/// What is free of each resource, as a share of the capacity.
pub(super) fn free_shares(slot: &super::pool::Slot) -> [f64; 3] {
    #[expect(clippy::cast_precision_loss, reason = "shares")]
    let share = |kind: usize| slot.free[kind] as f64 * slot.per_unit[kind];
    [share(0), share(1), share(2)]
}

/// What of a slot's score does not depend on the service, and what is free now as
/// if that were its fit.
pub(super) fn lasting_and_free(policy: Policy, slot: &super::pool::Slot) -> f64 {
    let lasting = policy.weights.measures(&Measures {
        failure: slot.failure_measure,
        price: slot.price,
        ..Measures::default()
    });
    let shares = free_shares(slot);
    // Where less than nothing is free, the fit is that of nothing.
    let free = shares[0].min(shares[1]).max(0.0);
    let share = match policy.fit {
        Fit::Balance => free,
        Fit::Pack => 1.0 - free,
    };
    let weight = f64::from(FULL) * f64::from(policy.weights.fit.min(Weights::MAX));
    f64::from(lasting.total()) + share * weight
}

pub(super) fn per_machine(slot: &super::pool::Slot) -> f64 {
    f64::from(slot.replicas) / f64::from(slot.machines.max(1))
}
