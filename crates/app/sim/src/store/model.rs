//! The store as a state machine: keys, revisions, a history that is short,
//! leases with fencing epochs.
//!
//! In: transactions and the time. Out: outcomes, changes.
//! Holds: what [`node::store::Store`] promises, and not more: history before
//! the last few revisions is gone.

use kernel::{FencingEpoch, Revision, Time};
use node::store::{
    Compare, Entry, Event, Key, Lease, Operation, Outcome, RangeReply, StoreError, Transaction,
    WatchEvent,
};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How a store makes life hard for its clients.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreFaults {
    /// Of all writes, 0 to 1: whose outcome nobody learns, done or not.
    pub unknown: f64,
    /// Changes may be told as much later.
    pub lag: Duration,
    /// Revisions of history that are kept.
    pub history: usize,
    /// Between two times without an answer, in the mean; zero: never.
    pub away_every: Duration,
    /// How long such a time lasts at most.
    pub away: Duration,
}

impl Default for StoreFaults {
    fn default() -> Self {
        Self {
            unknown: 0.05,
            lag: Duration::from_millis(200),
            history: 64,
            away_every: Duration::from_secs(40),
            away: Duration::from_secs(2),
        }
    }
}

#[derive(Clone, Debug)]
struct Held {
    holder: String,
    epoch: FencingEpoch,
    time_to_live: Duration,
    until: Time,
}

#[derive(Clone, Debug)]
pub struct Model {
    revision: Revision,
    entries: BTreeMap<Key, Entry>,
    history: VecDeque<(Revision, Vec<Event>)>,
    history_max: usize,
    leases: BTreeMap<String, Held>,
    last_epoch: FencingEpoch,
}

impl Model {
    pub fn new(history_max: usize) -> Self {
        Self {
            revision: Revision(0),
            entries: BTreeMap::new(),
            history: VecDeque::new(),
            history_max,
            leases: BTreeMap::new(),
            last_epoch: FencingEpoch(0),
        }
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn transact(
        &mut self,
        transaction: &Transaction,
        now: Time,
    ) -> Result<Outcome, StoreError> {
        transaction.check()?;
        let compare = transaction.compare.iter();
        let succeeded = compare.into_iter().all(|one| self.holds(one, now));
        let operations = if succeeded {
            &transaction.then
        } else {
            &transaction.otherwise
        };
        let next = Revision(self.revision.0 + 1);
        let mut events: BTreeMap<Key, Event> = BTreeMap::new();
        for operation in operations {
            self.operate(operation, next, &mut events);
        }
        if !events.is_empty() {
            self.revision = next;
            self.history
                .push_back((next, events.into_values().collect()));
            while self.history.len() > self.history_max {
                self.history.pop_front();
            }
        }
        let revision = self.revision;
        Ok(Outcome {
            succeeded,
            revision,
        })
    }

    fn holds(&self, compare: &Compare, now: Time) -> bool {
        match compare {
            Compare::Absent(key) => !self.entries.contains_key(key),
            Compare::Present(key) => self.entries.contains_key(key),
            Compare::Modified(key, at) => {
                let entry = self.entries.get(key);
                entry.is_some_and(|entry| entry.modified == *at)
            }
            Compare::Value(key, value) => {
                let entry = self.entries.get(key);
                entry.is_some_and(|entry| entry.value == *value)
            }
            Compare::Lease(name, epoch) => self.lease(name, *epoch, now).is_ok(),
        }
    }

    fn operate(
        &mut self,
        operation: &Operation,
        revision: Revision,
        events: &mut BTreeMap<Key, Event>,
    ) {
        match operation {
            Operation::Put(key, value) => {
                let before = self.entries.get(key);
                let entry = Entry {
                    key: key.clone(),
                    value: value.clone(),
                    created: before.map_or(revision, |entry| entry.created),
                    modified: revision,
                };
                self.entries.insert(key.clone(), entry.clone());
                events.insert(key.clone(), Event::Put(entry));
            }
            Operation::Delete(key) => {
                if self.entries.remove(key).is_some() {
                    events.insert(key.clone(), Event::Deleted(key.clone()));
                }
            }
            Operation::DeletePrefix(prefix) => {
                let all = self.entries.range(prefix.clone()..);
                let below = all.take_while(|(key, _)| key.starts_with(prefix.as_str()));
                let below: Vec<Key> = below.map(|(key, _)| key.clone()).collect();
                for key in below {
                    self.entries.remove(&key);
                    events.insert(key.clone(), Event::Deleted(key));
                }
            }
        }
    }

    pub fn range(&self, prefix: &str) -> RangeReply {
        let all = self.entries.range(prefix.to_owned()..);
        let below = all.take_while(|(key, _)| key.starts_with(prefix));
        RangeReply {
            revision: self.revision,
            entries: below.map(|(_, entry)| entry.clone()).collect(),
        }
    }

    /// Changes under `prefix` after revision `after`, oldest first; or that
    /// they are gone.
    pub fn changes(&self, prefix: &str, after: Revision) -> Vec<WatchEvent> {
        let first = self.history.front().map(|(revision, _)| *revision);
        let oldest = first.unwrap_or(Revision(self.revision.0 + 1));
        if after.0 + 1 < oldest.0 {
            return vec![WatchEvent::Resync { oldest }];
        }
        let later = self
            .history
            .iter()
            .filter(|(revision, _)| *revision > after);
        let mut found = Vec::new();
        for (revision, events) in later {
            let events: Vec<Event> = events
                .iter()
                .filter(|event| key(event).starts_with(prefix))
                .cloned()
                .collect();
            if !events.is_empty() {
                let revision = *revision;
                found.push(WatchEvent::Changes { revision, events });
            }
        }
        found
    }

    pub fn grant(
        &mut self,
        name: &str,
        holder: &str,
        time_to_live: Duration,
        now: Time,
    ) -> Result<Lease, StoreError> {
        let held = self.leases.get(name);
        if let Some(held) = held.filter(|held| held.until > now && held.holder != holder) {
            return Err(StoreError::LeaseHeld {
                name: name.to_owned(),
                holder: held.holder.clone(),
            });
        }
        self.last_epoch.0 += 1;
        let epoch = self.last_epoch;
        self.leases.insert(
            name.to_owned(),
            Held {
                holder: holder.to_owned(),
                epoch,
                time_to_live,
                until: now + time_to_live,
            },
        );
        Ok(Lease {
            name: name.to_owned(),
            holder: holder.to_owned(),
            epoch,
            time_to_live,
        })
    }

    pub fn renew(&mut self, name: &str, epoch: FencingEpoch, now: Time) -> Result<(), StoreError> {
        self.lease(name, epoch, now)?;
        if let Some(held) = self.leases.get_mut(name) {
            held.until = now + held.time_to_live;
        }
        Ok(())
    }

    pub fn release(
        &mut self,
        name: &str,
        epoch: FencingEpoch,
        now: Time,
    ) -> Result<(), StoreError> {
        self.lease(name, epoch, now)?;
        self.leases.remove(name);
        Ok(())
    }

    fn lease(&self, name: &str, epoch: FencingEpoch, now: Time) -> Result<(), StoreError> {
        let held = self.leases.get(name);
        let holds = held.is_some_and(|held| held.epoch == epoch && held.until > now);
        if holds {
            return Ok(());
        }
        let name = name.to_owned();
        Err(StoreError::LeaseLost { name })
    }
}

fn key(event: &Event) -> &str {
    match event {
        Event::Put(entry) => &entry.key,
        Event::Deleted(key) => key,
    }
}
