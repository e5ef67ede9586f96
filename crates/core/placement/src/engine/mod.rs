//! Places what is missing, service by service.
//!
//! Those that name their node come first, then the largest, then by name. Of each
//! service what has to leave is found, what is too many removed, what is missing
//! placed one by one, and what has to leave let go once its successor has a
//! place.
//!
//! In: places (nodes or zones), services, what runs where. Out: a plan.
//! Holds: a replica that runs on a place that there is leaves it only for a place
//! that takes it, or because it is wanted no longer.

mod fits;
mod focus;
mod index;
mod leaving;
mod pool;
mod refuse;
mod why;

pub(crate) use pool::{Place, key_of_text};
pub(crate) use why::why_not;

use crate::availability::{COPIES_MAX, Domain, EPSILON, copies_for, domain_down};
use crate::model::{Policy, Running, Service, Zone};
use crate::plan::{Choice, Leaving, Plan, Reached, Removal, RunnerUp};
use focus::{Around, Focus};
use index::Index;
use kernel::{ScopedName, ZonePath};
use pool::{Amounts, Pool, amounts};
use std::collections::BTreeMap;

/// What a plan follows from, whatever replicas are assigned to.
pub(crate) struct Inputs<'a, P> {
    pub services: &'a BTreeMap<ScopedName, Service>,
    pub places: Vec<Place<P>>,
    pub zones: &'a BTreeMap<ZonePath, Zone>,
    pub running: &'a Running<P>,
    pub policy: Policy,
    /// Whether places are single nodes: services keep apart on nodes, not in zones.
    pub are_nodes: bool,
}

/// A replica that needs another place, and why.
struct Leaver<P> {
    /// None where the place is not there any more.
    slot: Option<u32>,
    place: P,
    why: Leaving,
}

struct Engine<'a, P: Ord> {
    services: Vec<(&'a ScopedName, &'a Service)>,
    names: Vec<&'a ScopedName>,
    by_name: BTreeMap<ScopedName, usize>,
    places: Vec<Place<P>>,
    pool: Pool,
    index: Index,
    focus: Focus,
    /// By service, how many on each slot.
    holders: Vec<BTreeMap<u32, u32>>,
    /// By service, on places that are gone.
    gone: Vec<Vec<(P, u32)>>,
    conflicts: Vec<Vec<u32>>,
    /// The best open nodes of each zone, once somebody has asked.
    domains: Option<Vec<Domain>>,
    plan: Plan<P>,
}

pub(crate) fn plan<P: Ord + Clone>(inputs: Inputs<'_, P>) -> Plan<P> {
    let order = order(inputs.services, &inputs.places);
    let mut engine = Engine::new(inputs);
    for service in order {
        engine.settle(service);
    }
    engine.finish()
}

/// In which services are settled.
fn order<P>(services: &BTreeMap<ScopedName, Service>, places: &[Place<P>]) -> Vec<usize> {
    let mut largest: Amounts = [1; 3];
    for place in places {
        for (most, has) in largest.iter_mut().zip(amounts(place.capacity)) {
            *most = (*most).max(has);
        }
    }
    // Thousandths of the largest place, of the need that is greatest.
    let size = |service: &Service| {
        let each = amounts(service.need).into_iter().zip(largest);
        let each = each.map(|(need, most)| i128::from(need) * 1_000 / i128::from(most));
        each.max().unwrap_or(0)
    };
    let told: Vec<&Service> = services.values().collect();
    let mut order: Vec<usize> = (0..told.len()).collect();
    order.sort_by_key(|at| {
        let service = told[*at];
        let is_free = (service.node.is_none(), service.devices.is_empty());
        (is_free, std::cmp::Reverse(size(service)))
    });
    order
}

fn conflicts(
    services: &[(&ScopedName, &Service)],
    by_name: &BTreeMap<ScopedName, usize>,
) -> Vec<Vec<u32>> {
    let mut conflicts = vec![Vec::new(); services.len()];
    let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    for (number, (_, service)) in services.iter().enumerate() {
        let others = service
            .anti_affinity
            .iter()
            .filter_map(|name| by_name.get(name));
        for other in others.copied().filter(|other| *other != number) {
            conflicts[number].push(short(other));
            conflicts[other].push(short(number));
        }
    }
    for all in &mut conflicts {
        all.sort_unstable();
        all.dedup();
    }
    conflicts
}

/// What runs, by service.
struct Entered<P> {
    holders: Vec<BTreeMap<u32, u32>>,
    gone: Vec<Vec<(P, u32)>>,
    removed: Vec<Removal<P>>,
}

/// Counts what runs, and takes its room.
fn enter<P: Ord + Clone>(
    running: &Running<P>,
    pool: &mut Pool,
    places: &[Place<P>],
    by_name: &BTreeMap<ScopedName, usize>,
) -> Entered<P> {
    let mut entered = Entered {
        holders: vec![BTreeMap::new(); by_name.len()],
        gone: vec![Vec::new(); by_name.len()],
        removed: Vec::new(),
    };
    let numbered = (0_u32..).zip(places);
    let slots: BTreeMap<P, u32> = numbered.map(|(at, place)| (place.id.clone(), at)).collect();
    let measured: Vec<Amounts> = pool.slots.iter().map(|slot| slot.free).collect();
    for (slot, place) in pool.slots.iter_mut().zip(places) {
        slot.free = amounts(place.capacity);
    }
    for (name, on) in running {
        let Some(service) = by_name.get(name).copied() else {
            let removed = on
                .iter()
                .flat_map(|(place, count)| (0..*count).map(move |_| place));
            entered.removed.extend(removed.map(|place| Removal {
                service: name.clone(),
                place: place.clone(),
                why: Leaving::NotWanted,
            }));
            continue;
        };
        for (place, count) in on.iter().filter(|(_, count)| **count > 0) {
            match slots.get(place) {
                Some(slot) => {
                    entered.holders[service].insert(*slot, *count);
                    pool.take(*slot, service, i64::from(*count));
                }
                None => entered.gone[service].push((place.clone(), *count)),
            }
        }
    }
    for (slot, measured) in pool.slots.iter_mut().zip(measured) {
        for (free, measured) in slot.free.iter_mut().zip(measured) {
            *free = (*free).min(measured);
        }
    }
    entered
}

impl<'a, P: Ord + Clone> Engine<'a, P> {
    fn new(inputs: Inputs<'a, P>) -> Self {
        let mut places = inputs.places;
        let mut pool = Pool::new(inputs.services, &mut places, inputs.zones);
        let services: Vec<(&ScopedName, &Service)> = inputs.services.iter().collect();
        let numbered = services.iter().enumerate();
        let by_name = numbered
            .map(|(at, (name, _))| ((*name).clone(), at))
            .collect();
        let conflicts = if inputs.are_nodes {
            conflicts(&services, &by_name)
        } else {
            vec![Vec::new(); services.len()]
        };
        let running = enter(inputs.running, &mut pool, &places, &by_name);
        Self {
            names: services.iter().map(|(name, _)| *name).collect(),
            holders: running.holders,
            gone: running.gone,
            services,
            by_name,
            focus: Focus::new(&pool, inputs.policy, inputs.are_nodes),
            index: Index::new(&pool, inputs.policy),
            places,
            pool,
            conflicts,
            domains: None,
            plan: Plan {
                removed: running.removed,
                ..Plan::default()
            },
        }
    }

    fn turn(&mut self, service: usize) {
        let (name, told) = self.services[service];
        let around = Around {
            names: &self.by_name,
            holders: &self.holders,
            conflicts: &self.conflicts,
        };
        self.focus.turn(&self.pool, (service, name, told), &around);
        for (slot, count) in &self.holders[service] {
            self.focus.count(&self.pool, *slot, count.cast_signed());
        }
    }

    /// Before a score is asked for.
    fn weigh(&mut self) {
        let around = Around {
            names: &self.by_name,
            holders: &self.holders,
            conflicts: &self.conflicts,
        };
        let told = self.services[self.focus.service].1;
        if self.focus.weigh(&self.pool, told, &around) {
            self.index.turn(&self.focus);
        }
    }

    fn settle(&mut self, service: usize) {
        self.turn(service);
        let (_, told) = self.services[service];
        let wanted = if told.singleton {
            told.replicas.min(1)
        } else {
            told.replicas
        };
        // From here on, what has to leave is no copy any more.
        let mut leavers = self.gone(service);
        leavers.extend(self.leavers(service));
        let goal = told
            .availability
            .filter(|goal| !told.singleton && wanted > 0 && *goal > 0.0);
        self.spare(service, (wanted, goal), false);
        let mut missing = wanted.saturating_sub(self.copies(service, &leavers));
        if missing == 0
            && let Some(leaver) = self.sole_holder(service)
        {
            leavers.push(leaver);
            missing = 1;
        }
        leavers.reverse();
        while missing > 0 && self.place(service, &mut leavers, false) {
            missing -= 1;
        }
        if missing > 0 {
            let stay = self.stay(service, &mut leavers, missing);
            self.refuse(service, missing, stay);
        } else if let Some(goal) = goal {
            self.reach(service, goal, &mut leavers);
            // One more can make another superfluous; what ran is not moved for that.
            self.spare(service, (wanted, Some(goal)), true);
        }
        for leaver in leavers.into_iter().rev() {
            if let Some(slot) = leaver.slot {
                self.release(service, slot);
                self.remove(service, leaver);
            }
        }
        self.tell_reached(service);
    }

    /// Copies more until the goal is reached; none where the best nodes there are
    /// would not reach it.
    fn reach(&mut self, service: usize, goal: f64, leavers: &mut Vec<Leaver<P>>) {
        if self.reached(service) + EPSILON >= goal || !self.can_reach(goal) {
            return;
        }
        while self.reached(service) + EPSILON < goal {
            let copies = self.copies(service, leavers);
            if copies >= COPIES_MAX {
                return;
            }
            if !self.place(service, leavers, true) {
                let stay = self.stay(service, leavers, u32::MAX);
                let missing = u32::try_from(stay.len()).unwrap_or(u32::MAX).max(1);
                return self.refuse(service, missing, stay);
            }
        }
    }

    /// Whether copies on the best nodes of all that are open reach a goal.
    fn can_reach(&mut self, goal: f64) -> bool {
        let pool = &self.pool;
        let domains = self.domains.get_or_insert_with(|| {
            let zones = pool.zone_failure.iter();
            let domain = |failure: &f64| Domain {
                failure: *failure,
                nodes: Vec::new(),
            };
            let mut domains: Vec<Domain> = zones.map(domain).collect();
            for slot in pool.slots.iter().filter(|slot| slot.is_open()) {
                let machines = slot.machines.clamp(1, COPIES_MAX);
                let each = (0..machines).map(|_| slot.failure);
                domains[slot.zone as usize].nodes.extend(each);
            }
            for domain in &mut domains {
                domain.nodes.sort_by(f64::total_cmp);
                domain.nodes.truncate(COPIES_MAX as usize);
            }
            domains
        });
        copies_for(goal, domains).is_ok()
    }

    /// Copies that stay or are new.
    fn copies(&self, service: usize, leavers: &[Leaver<P>]) -> u32 {
        let all: u32 = self.holders[service].values().sum();
        let leaving = leavers
            .iter()
            .filter(|leaver| leaver.slot.is_some())
            .count();
        all.saturating_sub(u32::try_from(leaving).unwrap_or(u32::MAX))
    }

    /// Whether somebody who can be called has a copy that stays.
    fn has_dialable(&self, service: usize) -> bool {
        let told = self.services[service].1;
        let holds = |slot: &u32| {
            self.focus.marks[*slot as usize].copies > 0
                && !self.pool.slots[*slot as usize].outbound_only
        };
        told.node.is_some() || told.held_elsewhere || self.holders[service].keys().any(holds)
    }

    /// Puts one replica on the best slot; the next leaver is what it succeeds.
    ///
    /// * `is_other`: only on a node that has no copy.
    fn place(&mut self, service: usize, leavers: &mut Vec<Leaver<P>>, is_other: bool) -> bool {
        self.weigh();
        self.focus.rules.only_dialable = !self.has_dialable(service);
        self.focus.rules.only_other = is_other;
        let [Some(best), next] = self.index.best(&self.pool, &self.focus) else {
            return false;
        };
        self.pool.take(best.slot, service, 1);
        self.index.renew(&self.pool, best.slot);
        *self.holders[service].entry(best.slot).or_default() += 1;
        self.focus.count(&self.pool, best.slot, 1);
        let (name, told) = self.services[service];
        let leaver = leavers.pop();
        let is_silent = leaver.as_ref().is_some_and(|leaver| {
            leaver
                .slot
                .is_none_or(|slot| !self.pool.slots[slot as usize].reachable)
        });
        if let Some(slot) = leaver.as_ref().and_then(|leaver| leaver.slot) {
            self.release(service, slot);
        }
        let id = |slot: u32| self.places[slot as usize].id.clone();
        self.plan.choices.push(Choice {
            service: name.clone(),
            place: id(best.slot),
            score: best.score,
            runner_up: next.map(|next| RunnerUp {
                place: id(next.slot),
                score: next.score,
            }),
            waits_for_lease: told.singleton && is_silent,
            from: leaver.map(|leaver| (leaver.place, leaver.why)),
        });
        true
    }

    /// A replica that is counted no longer gives its room back.
    fn release(&mut self, service: usize, slot: u32) {
        self.pool.take(slot, service, -1);
        self.index.renew(&self.pool, slot);
        if let Some(count) = self.holders[service].get_mut(&slot) {
            *count -= 1;
            if *count == 0 {
                self.holders[service].remove(&slot);
            }
        }
    }

    fn remove(&mut self, service: usize, leaver: Leaver<P>) {
        self.plan.removed.push(Removal {
            service: self.services[service].0.clone(),
            place: leaver.place,
            why: leaver.why,
        });
    }

    /// Share of the time that at least one copy that stays is up.
    fn reached(&self, service: usize) -> f64 {
        let copies = self.holders[service].keys().map(|slot| {
            let copies = self.focus.marks[*slot as usize].copies;
            (*slot, copies)
        });
        self.reached_by(copies)
    }

    fn reached_by(&self, copies: impl Iterator<Item = (u32, u32)>) -> f64 {
        // Per zone, that all its nodes with copies are down while it is up.
        let mut zones: BTreeMap<u32, f64> = BTreeMap::new();
        for (slot, copies) in copies {
            let slot = &self.pool.slots[slot as usize];
            let machines = copies.min(slot.machines.max(1)).cast_signed();
            *zones.entry(slot.zone).or_insert(1.0) *= slot.failure.powi(machines);
        }
        let each = zones
            .iter()
            .map(|(zone, down)| domain_down(self.pool.zone_failure[*zone as usize], *down));
        1.0 - each.product::<f64>()
    }

    fn tell_reached(&mut self, service: usize) {
        let (name, told) = self.services[service];
        if let Some(goal) = told.availability {
            let all = &self.holders[service];
            let reached = Reached {
                goal,
                reached: self.reached_by(all.iter().map(|(slot, count)| (*slot, *count))),
                copies: all.values().sum(),
            };
            self.plan.availability.insert(name.clone(), reached);
        }
    }

    fn finish(mut self) -> Plan<P> {
        for (service, on) in self
            .holders
            .iter()
            .enumerate()
            .filter(|(_, on)| !on.is_empty())
        {
            let on = on
                .iter()
                .map(|(slot, count)| (self.places[*slot as usize].id.clone(), *count));
            let name = self.services[service].0.clone();
            self.plan.assigned.insert(name, on.collect());
        }
        self.plan
    }
}
