//! The places replicas can go to, as numbers: what the search runs over.
//!
//! Holds: slots are in an order that follows from what they are, zone by zone;
//! what is free is signed, below nothing where more is assigned than fits.

use crate::model::{Resources, Service, Zone};
use kernel::{Hash, Name, Rng, ScopedName, ZonePath, fnv1a};
use std::collections::{BTreeMap, BTreeSet};

/// cpu, memory, disk.
pub(super) type Amounts = [i64; 3];
pub(super) const DISK: usize = 2;

pub(super) fn amounts(resources: Resources) -> Amounts {
    // Far above any machine, and sums of many still fit.
    const MAX: i64 = i64::MAX >> 24;
    let bound = |value: u64| i64::try_from(value).unwrap_or(MAX).min(MAX);
    [
        bound(resources.cpu_thousandths),
        bound(resources.memory.0),
        bound(resources.disk.0),
    ]
}

/// A node or a zone, before it is a number.
#[derive(Clone, Debug)]
pub(crate) struct Place<P> {
    pub id: P,
    /// Only of nodes: what a service can name.
    pub name: Option<Name>,
    /// What equal scores are ordered by.
    pub key: u64,
    pub zone: ZonePath,
    pub domain: Option<Name>,
    pub capacity: Resources,
    pub free: Resources,
    /// What the emptiest machine in it has free.
    pub largest: Resources,
    pub machines: u32,
    pub reachable: bool,
    pub draining: bool,
    pub outbound_only: bool,
    pub architectures: BTreeSet<String>,
    pub devices: BTreeMap<Name, u32>,
    /// Of one machine.
    pub failure: f64,
    pub price: Option<f64>,
    pub content: BTreeSet<Hash>,
}

#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub key: u64,
    pub zone: u32,
    pub domain: u32,
    pub free: Amounts,
    pub largest: Amounts,
    /// One over the capacity; 0 of nothing.
    pub per_unit: [f64; 3],
    pub machines: u32,
    /// Replicas of all services.
    pub replicas: u32,
    pub reachable: bool,
    pub draining: bool,
    pub outbound_only: bool,
    pub architectures: Vec<u32>,
    /// The first 64 of all, as a set.
    pub architecture_bits: u64,
    /// By device, how many are free; in order.
    pub devices: Vec<(u32, i64)>,
    pub failure: f64,
    /// As measures of a score.
    pub failure_measure: i32,
    pub price: i32,
}

impl Slot {
    /// Whether new replicas may come.
    pub fn is_open(&self) -> bool {
        self.reachable && !self.draining
    }

    pub fn has_architecture(&self, needed: u32) -> bool {
        match 1_u64.checked_shl(needed) {
            Some(bit) => self.architecture_bits & bit != 0,
            None => self.architectures.contains(&needed),
        }
    }

    /// Below nothing where more is assigned than fits.
    pub fn devices_free(&self, device: u32) -> i64 {
        let found = self.devices.iter().find(|(known, _)| *known == device);
        found.map_or(0, |(_, free)| *free)
    }
}

/// What one replica of a service asks of a slot, as numbers.
#[derive(Clone, Debug)]
pub(super) struct Need {
    pub amounts: Amounts,
    pub architecture: Option<u32>,
    pub devices: Vec<(u32, i64)>,
}

pub(super) struct Pool {
    pub slots: Vec<Slot>,
    pub zones: Vec<ZonePath>,
    /// The zones and all above them, numbered.
    pub areas: BTreeMap<ZonePath, u32>,
    /// By zone, its areas, the innermost first.
    pub areas_of: Vec<Vec<u32>>,
    /// That the zone as a whole is down.
    pub zone_failure: Vec<f64>,
    pub domains: usize,
    pub needs: Vec<Need>,
    /// Where each service stands on the ring of keys.
    pub ties: Vec<u64>,
    /// Slots that hold it, of content that services need.
    pub content: BTreeMap<Hash, Vec<u32>>,
    pub names: BTreeMap<Name, u32>,
}

/// Numbers names in the order of first use.
struct Numbers<K>(BTreeMap<K, u32>);

impl<K: Ord + Clone> Numbers<K> {
    fn of(&mut self, key: &K) -> u32 {
        if let Some(number) = self.0.get(key) {
            return *number;
        }
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.insert(key.clone(), next);
        next
    }
}

/// What some service needs, as numbers, and the highest price.
struct Known {
    architectures: Numbers<String>,
    devices: Numbers<Name>,
    dearest: f64,
}

pub(crate) fn key_of_text(text: &str) -> u64 {
    Rng::seeded(fnv1a(text.bytes())).next_u64()
}

fn key_of_name(name: &ScopedName) -> u64 {
    let parts = [name.project.as_str(), "/", name.name.as_str()];
    Rng::seeded(fnv1a(parts.into_iter().flat_map(str::bytes))).next_u64()
}

impl Pool {
    /// * `places`: put into the pool's order, so that a slot's number is its
    ///   place's.
    pub fn new<P: Ord>(
        services: &BTreeMap<ScopedName, Service>,
        places: &mut [Place<P>],
        zones: &BTreeMap<ZonePath, Zone>,
    ) -> Self {
        places.sort_by(|one, other| {
            let by_zone = one
                .zone
                .cmp(&other.zone)
                .then(one.domain.cmp(&other.domain));
            by_zone
                .then(one.key.cmp(&other.key))
                .then(one.id.cmp(&other.id))
        });
        let mut numbers = Known {
            architectures: Numbers(BTreeMap::new()),
            devices: Numbers(BTreeMap::new()),
            dearest: places
                .iter()
                .filter_map(|place| place.price)
                .filter(|price| price.is_finite())
                .fold(0.0, f64::max),
        };
        let needs = services.values().map(|service| numbers.need(service));
        let mut pool = Self {
            slots: Vec::with_capacity(places.len()),
            zones: Vec::new(),
            areas: BTreeMap::new(),
            areas_of: Vec::new(),
            zone_failure: Vec::new(),
            domains: 0,
            needs: needs.collect(),
            ties: services.keys().map(key_of_name).collect(),
            content: BTreeMap::new(),
            names: BTreeMap::new(),
        };
        for service in services.values() {
            for hash in service.content.keys() {
                pool.content.entry(*hash).or_default();
            }
        }
        let mut domains = Numbers(BTreeMap::new());
        for place in places.iter() {
            let number = pool.enter(place, zones);
            let zone = u32::try_from(pool.zones.len() - 1).unwrap_or(u32::MAX);
            let own = place.domain.is_none().then_some(zone);
            let domain = domains.of(&(own, place.domain.clone()));
            pool.slots.push(numbers.slot(place, zone, domain));
            for hash in &place.content {
                if let Some(holders) = pool.content.get_mut(hash) {
                    holders.push(number);
                }
            }
        }
        pool.domains = domains.0.len();
        pool
    }

    fn enter<P>(&mut self, place: &Place<P>, zones: &BTreeMap<ZonePath, Zone>) -> u32 {
        let number = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        if let Some(name) = &place.name {
            self.names.entry(name.clone()).or_insert(number);
        }
        if self.zones.last() != Some(&place.zone) {
            let otherwise = crate::model::Failure::ZONE.probability(0.0);
            let told = zones.get(&place.zone).and_then(|zone| zone.failure);
            let failure = told.map_or(otherwise, |told| told.probability(otherwise));
            let mut areas = Numbers(std::mem::take(&mut self.areas));
            let above = (0..=place.zone.depth()).rev();
            let above = above.map(|depth| areas.of(&place.zone.ancestor(depth)));
            self.areas_of.push(above.collect());
            self.areas = areas.0;
            self.zones.push(place.zone.clone());
            self.zone_failure.push(failure);
        }
        number
    }

    /// `count` replicas of a service come (or leave, where it is below nothing).
    pub fn take(&mut self, slot: u32, service: usize, count: i64) {
        let slot = &mut self.slots[slot as usize];
        let need = &self.needs[service];
        for (free, amount) in slot.free.iter_mut().zip(need.amounts) {
            *free = free.saturating_sub(amount.saturating_mul(count));
        }
        for (device, each) in &need.devices {
            match slot.devices.iter_mut().find(|(known, _)| known == device) {
                Some((_, free)) => *free -= each * count,
                None => slot.devices.push((*device, -each * count)),
            }
        }
        let replicas = i64::from(slot.replicas) + count;
        slot.replicas = u32::try_from(replicas.max(0)).unwrap_or(u32::MAX);
    }
}

fn per_unit(capacity: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let capacity = capacity as f64;
    if capacity > 0.0 { 1.0 / capacity } else { 0.0 }
}

impl Known {
    fn need(&mut self, service: &Service) -> Need {
        let devices = service.devices.iter().filter(|(_, count)| **count > 0);
        let devices = devices.map(|(name, count)| (self.devices.of(name), i64::from(*count)));
        let devices = devices.collect();
        let architecture = service.architecture.as_ref();
        Need {
            amounts: amounts(service.need),
            architecture: architecture.map(|name| self.architectures.of(name)),
            devices,
        }
    }

    fn slot<P>(&self, place: &Place<P>, zone: u32, domain: u32) -> Slot {
        let price = place
            .price
            .filter(|price| price.is_finite() && *price > 0.0);
        let architectures = place.architectures.iter();
        let architectures: Vec<u32> = architectures
            .filter_map(|name| self.architectures.0.get(name).copied())
            .collect();
        let bits = architectures
            .iter()
            .filter_map(|number| 1_u64.checked_shl(*number));
        let devices = place.devices.iter();
        Slot {
            key: place.key,
            zone,
            domain,
            free: amounts(place.free),
            largest: amounts(place.largest),
            per_unit: amounts(place.capacity).map(per_unit),
            machines: place.machines,
            replicas: 0,
            reachable: place.reachable,
            draining: place.draining,
            outbound_only: place.outbound_only,
            architecture_bits: bits.fold(0, |all, bit| all | bit),
            architectures,
            devices: devices
                .filter_map(|(name, count)| Some((*self.devices.0.get(name)?, i64::from(*count))))
                .collect(),
            failure: place.failure,
            failure_measure: crate::score::measure(place.failure),
            price: price.map_or(0, |price| crate::score::measure(price / self.dearest)),
        }
    }
}
