//! What a change does to the state.
//!
//! In: changes in log order. Out: their results.
//! Holds: what was remembered or fenced lies among the keys, so that snapshots
//! have it; it makes no events; weights are kept from the first time that a
//! bound asks for them, and are always those of the keys that are there.

use crate::change::{
    BOUND_SLASHES_MAX, Bound, Change, ChangeRefusal, Changed, FENCE_PREFIX, Fence, Once, Step,
    once_prefix, weight,
};
use crate::disk::{decode, encode};
use crate::state::{State, Value, entry};
use kernel::{FencingEpoch, Revision};
use node::store::{Entry, Event, Key};
use std::ops::Bound as End;

/// Sorts before all numbers.
const ANSWERED: &str = "-";

/// How to undo what was done so far, last first.
#[derive(Default)]
struct Undo(Vec<(Key, Option<Value>)>);

enum Stopped {
    Refused(ChangeRefusal),
    Differs(Option<Entry>),
}

impl From<ChangeRefusal> for Stopped {
    fn from(refusal: ChangeRefusal) -> Self {
        Self::Refused(refusal)
    }
}

impl State {
    pub fn change(&mut self, change: Change) -> Result<Changed, ChangeRefusal> {
        if let Some(once) = &change.once
            && let Some(result) = self.remembered(once)?
        {
            return Ok(result);
        }
        if let Some(fence) = &change.fence {
            self.fence(fence)?;
        }
        let changed = self.take_steps(change.steps, &change.bounds)?;
        if let Some(once) = change.once {
            self.remember(&once, &changed);
        }
        Ok(changed)
    }

    /// The highest epoch that was seen for `holder`.
    pub fn fenced(&self, holder: &str) -> Option<FencingEpoch> {
        let kept = self.value(&format!("{FENCE_PREFIX}{holder}"))?;
        decode(&kept.bytes).ok()
    }

    /// Of all entries under `prefix`, in bytes.
    pub fn weight(&self, prefix: &str) -> u64 {
        let kept = self.weights.get(prefix).copied();
        kept.unwrap_or_else(|| {
            let all = self.under(prefix);
            all.map(|(key, value)| weight(key, &value.bytes)).sum()
        })
    }

    fn fence(&mut self, fence: &Fence) -> Result<(), ChangeRefusal> {
        let seen = self.fenced(&fence.holder);
        if let Some(highest) = seen.filter(|seen| *seen > fence.epoch) {
            let holder = fence.holder.clone();
            return Err(ChangeRefusal::Fenced { holder, highest });
        }
        if seen != Some(fence.epoch) {
            let key = format!("{FENCE_PREFIX}{}", fence.holder);
            self.keep(key, &fence.epoch);
        }
        Ok(())
    }

    /// Among the keys, and of no interest to watches.
    fn keep<R: serde::Serialize>(&mut self, key: Key, record: &R) {
        let revision = self.revision();
        let value = encode(record).map(|bytes| Value {
            bytes,
            created: revision,
            modified: revision,
        });
        // These records hold plain numbers and texts: they can be written.
        if let Ok(value) = value {
            self.replace(key, Some(value));
        }
    }

    fn remembered(&self, once: &Once) -> Result<Option<Changed>, ChangeRefusal> {
        let prefix = once_prefix(&once.client);
        let answered = self.value(&format!("{prefix}{ANSWERED}"));
        let answered: u64 = answered.map_or(0, |kept| decode(&kept.bytes).unwrap_or(0));
        let number = once.number;
        if number <= answered || number <= once.answered {
            return Err(ChangeRefusal::Answered { number });
        }
        let kept = self.value(&format!("{prefix}{number:016x}"));
        Ok(kept.and_then(|kept| decode(&kept.bytes).ok()))
    }

    fn remember(&mut self, once: &Once, changed: &Changed) {
        let prefix = once_prefix(&once.client);
        let floor = format!("{prefix}{ANSWERED}");
        let known = self.value(&floor).map(|kept| decode::<u64>(&kept.bytes));
        if once.answered > 0 && known.is_none_or(|known| known.is_ok_and(|n| n < once.answered)) {
            let first = format!("{prefix}{:016x}", 0);
            let last = format!("{prefix}{:016x}", once.answered);
            let ends = (End::Included(first.as_str()), End::Included(last.as_str()));
            let gone: Vec<Key> = self.between(ends).map(|(key, _)| key.clone()).collect();
            for key in gone {
                self.replace(key, None);
            }
            self.keep(floor, &once.answered);
        }
        self.keep(format!("{prefix}{:016x}", once.number), changed);
    }

    fn take_steps(&mut self, steps: Vec<Step>, bounds: &[Bound]) -> Result<Changed, ChangeRefusal> {
        let before: Vec<u64> = bounds
            .iter()
            .map(|bound| self.measure(&bound.prefix))
            .collect();
        let revision = Revision(self.revision().0 + 1);
        let (mut undo, mut sum) = (Undo::default(), None);
        let done = steps
            .into_iter()
            .try_for_each(|step| self.step(step, revision, &mut undo, &mut sum))
            .and_then(|()| Ok(self.within(bounds, &before)?));
        match done {
            Ok(()) => {
                self.tell(undo);
                let revision = self.revision();
                Ok(Changed::Done { revision, sum })
            }
            Err(stopped) => {
                for (key, old) in undo.0.into_iter().rev() {
                    self.replace(key, old);
                }
                match stopped {
                    Stopped::Refused(refusal) => Err(refusal),
                    Stopped::Differs(current) => Ok(Changed::Differs { current }),
                }
            }
        }
    }

    /// Keeps the weight of `prefix` from now on.
    fn measure(&mut self, prefix: &str) -> u64 {
        let bytes = self.weight(prefix);
        if !self.weights.contains_key(prefix) {
            self.weights.insert(prefix.to_owned(), bytes);
        }
        bytes
    }

    fn within(&self, bounds: &[Bound], before: &[u64]) -> Result<(), ChangeRefusal> {
        for (bound, used) in bounds.iter().zip(before) {
            let wanted = self.weight(&bound.prefix);
            if wanted > bound.bytes_max && wanted > *used {
                return Err(ChangeRefusal::Full {
                    prefix: bound.prefix.clone(),
                    used: *used,
                    wanted,
                    bytes_max: bound.bytes_max,
                });
            }
        }
        Ok(())
    }

    fn step(
        &mut self,
        step: Step,
        revision: Revision,
        undo: &mut Undo,
        sum: &mut Option<i64>,
    ) -> Result<(), Stopped> {
        let (key, bytes) = match step {
            Step::Put(key, bytes) => (key, Some(bytes)),
            Step::Delete(key) => (key, None),
            Step::CompareAndSet {
                key,
                expected,
                value,
            } => {
                let found = self.value(&key);
                if found.map(|value| value.modified) != expected {
                    let current = found.map(|value| entry(&key, value));
                    return Err(Stopped::Differs(current));
                }
                (key, value)
            }
            Step::Add(key, delta) => {
                let made = added(self.value(&key), &key, delta)?;
                *sum = Some(made);
                (key, Some(made.to_string().into_bytes()))
            }
        };
        let created = self.value(&key).map_or(revision, |old| old.created);
        let value = bytes.map(|bytes| Value {
            bytes,
            created,
            modified: revision,
        });
        let wrote = value.is_some();
        let old = self.replace(key.clone(), value);
        if wrote || old.is_some() {
            undo.0.push((key, old));
        }
        Ok(())
    }

    /// Makes events of what was done: the last state of each key that changed.
    fn tell(&mut self, undo: Undo) {
        let mut keys: Vec<Key> = undo.0.into_iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        keys.dedup();
        let events = keys.into_iter().map(|key| match self.value(&key) {
            Some(value) => Event::Put(entry(&key, value)),
            None => Event::Deleted(key),
        });
        let events = events.collect();
        self.record(events);
    }

    /// Puts or removes, and keeps the weights; returns what was there.
    pub(crate) fn replace(&mut self, key: Key, value: Option<Value>) -> Option<Value> {
        let Some(value) = value else {
            let old = self.keys.remove(&key);
            self.weigh(&key, 0, old.as_ref());
            return old;
        };
        if self.weights.is_empty() {
            return self.keys.insert(key, value);
        }
        let added = weight(&key, &value.bytes);
        let old = self.keys.insert(key.clone(), value);
        self.weigh(&key, added, old.as_ref());
        old
    }

    fn weigh(&mut self, key: &str, added: u64, old: Option<&Value>) {
        let gone = old.map_or(0, |old| weight(key, &old.bytes));
        if self.weights.is_empty() {
            return;
        }
        for (at, _) in key.match_indices('/').take(BOUND_SLASHES_MAX) {
            if let Some(bytes) = self.weights.get_mut(&key[..=at]) {
                *bytes = *bytes + added - gone;
            }
        }
    }
}

fn added(found: Option<&Value>, key: &str, delta: i64) -> Result<i64, ChangeRefusal> {
    let number = match found {
        None => Some(0),
        Some(value) => std::str::from_utf8(&value.bytes)
            .ok()
            .and_then(|text| text.parse::<i64>().ok()),
    };
    let number = number.ok_or_else(|| ChangeRefusal::NotANumber { key: key.into() })?;
    let overflow = || ChangeRefusal::Overflow { key: key.into() };
    number.checked_add(delta).ok_or_else(overflow)
}
