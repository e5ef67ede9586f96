//! Says why a service has no replica on one place, once a plan is carried out.

use super::fits::lacks;
use super::{Engine, Inputs, order};
use crate::plan::WhyNot;
use kernel::ScopedName;

/// None: there is no such service, or no such place.
pub(crate) fn why_not<P: Ord + Clone>(
    inputs: Inputs<'_, P>,
    service: &ScopedName,
    place: &P,
) -> Option<WhyNot<P>> {
    let order = order(inputs.services, &inputs.places);
    let mut engine = Engine::new(inputs);
    for service in order {
        engine.settle(service);
    }
    let service = *engine.by_name.get(service)?;
    let slot = engine.places.iter().position(|at| at.id == *place)?;
    let slot = u32::try_from(slot).ok()?;
    engine.turn(service);
    Some(engine.compare(service, slot))
}

impl<P: Ord + Clone> Engine<'_, P> {
    fn compare(&mut self, service: usize, slot: u32) -> WhyNot<P> {
        if let Some(copies) = self.holders[service].get(&slot) {
            return WhyNot::Runs(*copies);
        }
        let holders: Vec<u32> = self.holders[service].keys().copied().collect();
        if holders.is_empty() {
            let told = self.services[service].1;
            self.focus.rules.only_dialable = !self.has_dialable(service);
            let lacks = lacks(&self.pool, &self.focus, slot, (told, &self.names));
            return if lacks.is_empty() {
                WhyNot::Unwanted
            } else {
                WhyNot::Lacks(lacks)
            };
        }
        // Beside the copy against which it does best.
        let mut best: Option<(i32, WhyNot<P>)> = None;
        for holder in holders {
            let (ahead, found) = self.beside(service, slot, holder);
            if best.as_ref().is_none_or(|(most, _)| *most < ahead) {
                best = Some((ahead, found));
            }
        }
        best.map_or(WhyNot::Unwanted, |(_, found)| found)
    }

    /// As if one copy were to be placed again that is on `holder`.
    ///
    /// Returns by how much `slot` would be better.
    fn beside(&mut self, service: usize, slot: u32, holder: u32) -> (i32, WhyNot<P>) {
        self.pool.take(holder, service, -1);
        self.focus.count(&self.pool, holder, -1);
        self.weigh();
        let (_, told) = self.services[service];
        self.focus.rules.only_dialable = !self.has_dialable(service);
        let lacks = lacks(&self.pool, &self.focus, slot, (told, &self.names));
        let [score, its] = [slot, holder].map(|slot| self.focus.score(&self.pool, slot));
        self.focus.count(&self.pool, holder, 1);
        self.pool.take(holder, service, 1);
        if !lacks.is_empty() {
            return (i32::MIN, WhyNot::Lacks(lacks));
        }
        let ahead = score.total().saturating_sub(its.total());
        let than = self.places[holder as usize].id.clone();
        let found = WhyNot::Behind { score, than, its };
        (ahead.max(i32::MIN + 1), found)
    }
}
