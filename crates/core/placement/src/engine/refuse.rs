//! Says why no slot can take a replica.

use super::Engine;
use super::fits::lacks;
use crate::plan::{Constraint, Failed, Lack, Leaving, Near, Refusal};
use std::collections::{BTreeMap, BTreeSet};

/// What a person named comes first, then the fewer lacks, then the smaller their
/// gaps, then nearer on the ring.
type Distance = (bool, usize, u64, u64, u32);

impl<P: Ord + Clone> Engine<'_, P> {
    /// * `stay`: what should leave and stays for want of a place.
    pub(super) fn refuse(&mut self, service: usize, missing: u32, stay: Vec<(P, Leaving)>) {
        let (name, told) = self.services[service];
        let mut failed: BTreeMap<Constraint, Failed> = BTreeMap::new();
        let mut closest: Vec<(Distance, Vec<Lack>)> = Vec::new();
        for (slot, at) in (0_u32..).zip(&self.pool.slots) {
            let lacks = lacks(&self.pool, &self.focus, slot, (told, &self.names));
            let kinds: BTreeSet<Constraint> = lacks.iter().map(Lack::constraint).collect();
            for kind in &kinds {
                let failed = failed.entry(*kind).or_default();
                failed.places += 1;
                failed.only += u32::from(kinds.len() == 1);
            }
            let gap: f64 = lacks.iter().map(Lack::gap).sum();
            let near = at.key.wrapping_sub(self.focus.tie);
            // Not negative, so its bits are in its order.
            let is_named = |kind: &Constraint| matches!(kind, Constraint::Pin | Constraint::Zone);
            let is_other = kinds.iter().any(is_named);
            let distance = (is_other, lacks.len(), gap.to_bits(), near, slot);
            let is_far = |worst: &(Distance, Vec<Lack>)| worst.0 < distance;
            if closest.len() == Refusal::<P>::CLOSEST_MAX && closest.last().is_some_and(is_far) {
                continue;
            }
            closest.push((distance, lacks));
            closest.sort_by_key(|one| one.0);
            closest.truncate(Refusal::<P>::CLOSEST_MAX);
        }
        let near = |(distance, lacks): (Distance, Vec<Lack>)| Near {
            place: self.places[distance.4 as usize].id.clone(),
            lacks,
        };
        self.plan.refused.push(Refusal {
            service: name.clone(),
            missing,
            stay,
            places: u32::try_from(self.pool.slots.len()).unwrap_or(u32::MAX),
            failed,
            closest: closest.into_iter().map(near).collect(),
        });
    }
}
