//! Desired state in memory: what each committed command does.
//!
//! In: commands in log order. Out: replies, and the history that watches read.
//! Holds: a transaction is applied whole or not at all; revisions grow by one
//! per transaction that writes; fencing epochs only grow.
//! Never: reads a clock, does I/O.

use crate::types::{Command, Refusal, Reply};
use kernel::{FencingEpoch, Revision};
use node::store::{Compare, Entry, Event, Key, Lease, Operation, Outcome, Transaction};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

/// Of keys and values in the events that watches can still read.
const HISTORY_BYTES_MAX: usize = 32 << 20;
/// The generation is the high 16 bits of an epoch.
pub const GENERATION_SHIFT: u32 = 48;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Value {
    pub bytes: Vec<u8>,
    pub created: Revision,
    pub modified: Revision,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub holder: String,
    pub epoch: FencingEpoch,
    pub time_to_live: Duration,
    pub renewals: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    revision: Revision,
    pub(crate) keys: BTreeMap<Key, Value>,
    leases: BTreeMap<String, Held>,
    last_epoch: FencingEpoch,
    /// Not in snapshots: watches that need older history must resync.
    #[serde(skip)]
    history: VecDeque<(Revision, Vec<Event>)>,
    #[serde(skip)]
    history_bytes: usize,
    /// By prefix, of those that changes are bounded by; made from the keys.
    #[serde(skip)]
    pub(crate) weights: BTreeMap<Key, u64>,
}

impl State {
    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn generation(&self) -> u16 {
        u16::try_from(self.last_epoch.0 >> GENERATION_SHIFT).unwrap_or(u16::MAX)
    }

    pub fn leases(&self) -> &BTreeMap<String, Held> {
        &self.leases
    }

    pub fn range(&self, prefix: &str) -> Vec<Entry> {
        self.under(prefix)
            .map(|(key, value)| entry(key, value))
            .collect()
    }

    /// The oldest revision that history still has, or will have first.
    pub fn oldest(&self) -> Revision {
        self.history
            .front()
            .map_or(Revision(self.revision.0 + 1), |(revision, _)| *revision)
    }

    /// Events of the first revision after `after` that touches `prefix`.
    pub fn next_events(&self, prefix: &str, after: Revision) -> Option<(Revision, Vec<Event>)> {
        let start = self.history.partition_point(|(at, _)| *at <= after);
        self.history.range(start..).find_map(|(revision, events)| {
            let events: Vec<Event> = events
                .iter()
                .filter(|event| key_of(event).starts_with(prefix))
                .cloned()
                .collect();
            (!events.is_empty()).then_some((*revision, events))
        })
    }

    pub fn apply(&mut self, command: Command) -> Result<Reply, Refusal> {
        match command {
            Command::Transact(transaction) => Ok(Reply::Transacted(self.transact(transaction))),
            Command::Change(change) => Ok(Reply::Changed(self.change(change))),
            // Anywhere but before a batch it says nothing.
            Command::From { .. } => Ok(Reply::Done),
            Command::Raise { generation } => {
                let least = u64::from(generation) << GENERATION_SHIFT;
                self.revision.0 = self.revision.0.max(least);
                self.last_epoch.0 = self.last_epoch.0.max(least);
                Ok(Reply::Done)
            }
            Command::Grant {
                name,
                holder,
                time_to_live,
            } => self.grant(name, holder, time_to_live).map(Reply::Granted),
            Command::Renew { name, epoch } => {
                let held = self.held(&name, epoch)?;
                held.renewals += 1;
                Ok(Reply::Done)
            }
            Command::Release { name, epoch } => {
                self.held(&name, epoch)?;
                self.leases.remove(&name);
                Ok(Reply::Done)
            }
            Command::Expire {
                name,
                epoch,
                renewals,
            } => {
                if self.held(&name, epoch)?.renewals == renewals {
                    self.leases.remove(&name);
                }
                Ok(Reply::Done)
            }
        }
    }

    /// Forgets the oldest events beyond what memory may hold.
    pub fn trim_history(&mut self, revisions_max: usize) {
        while self.history.len() > revisions_max || self.history_bytes > HISTORY_BYTES_MAX {
            let Some((_, events)) = self.history.pop_front() else {
                return;
            };
            self.history_bytes -= events_bytes(&events);
        }
    }

    pub(crate) fn value(&self, key: &str) -> Option<&Value> {
        self.keys.get(key)
    }

    pub(crate) fn between(
        &self,
        ends: (Bound<&str>, Bound<&str>),
    ) -> impl Iterator<Item = (&Key, &Value)> {
        self.keys.range::<str, _>(ends)
    }

    pub(crate) fn under<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a Key, &'a Value)> {
        self.between((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// One revision's events, if there are any.
    pub(crate) fn record(&mut self, events: Vec<Event>) {
        if !events.is_empty() {
            self.revision.0 += 1;
            self.history_bytes += events_bytes(&events);
            self.history.push_back((self.revision, events));
        }
    }

    fn transact(&mut self, transaction: Transaction) -> Outcome {
        let succeeded = transaction
            .compare
            .iter()
            .all(|compare| self.holds(compare));
        let operations = if succeeded {
            transaction.then
        } else {
            transaction.otherwise
        };
        let revision = Revision(self.revision.0 + 1);
        let mut events = Vec::new();
        for operation in operations {
            self.operate(operation, revision, &mut events);
        }
        self.record(events);
        Outcome {
            succeeded,
            revision: self.revision,
        }
    }

    fn operate(&mut self, operation: Operation, revision: Revision, events: &mut Vec<Event>) {
        match operation {
            Operation::Put(key, value) => {
                let created = self.keys.get(&key).map_or(revision, |old| old.created);
                let value = Value {
                    bytes: value,
                    created,
                    modified: revision,
                };
                events.push(Event::Put(entry(&key, &value)));
                self.replace(key, Some(value));
            }
            Operation::Delete(key) => {
                if self.replace(key.clone(), None).is_some() {
                    events.push(Event::Deleted(key));
                }
            }
            Operation::DeletePrefix(prefix) => {
                let keys: Vec<Key> = self.under(&prefix).map(|(key, _)| key.clone()).collect();
                for key in keys {
                    self.replace(key.clone(), None);
                    events.push(Event::Deleted(key));
                }
            }
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Absent(key) => !self.keys.contains_key(key),
            Compare::Present(key) => self.keys.contains_key(key),
            Compare::Modified(key, revision) => self
                .keys
                .get(key)
                .is_some_and(|value| value.modified == *revision),
            Compare::Value(key, expected) => self
                .keys
                .get(key)
                .is_some_and(|value| value.bytes == *expected),
            Compare::Lease(name, epoch) => self
                .leases
                .get(name)
                .is_some_and(|held| held.epoch == *epoch),
        }
    }

    fn grant(
        &mut self,
        name: String,
        holder: String,
        time_to_live: Duration,
    ) -> Result<Lease, Refusal> {
        if let Some(held) = self.leases.get(&name)
            && held.holder != holder
        {
            let holder = held.holder.clone();
            return Err(Refusal::LeaseHeld { name, holder });
        }
        self.last_epoch.0 += 1;
        let epoch = self.last_epoch;
        let held = Held {
            holder: holder.clone(),
            epoch,
            time_to_live,
            renewals: 0,
        };
        self.leases.insert(name.clone(), held);
        Ok(Lease {
            name,
            holder,
            epoch,
            time_to_live,
        })
    }

    fn held(&mut self, name: &str, epoch: FencingEpoch) -> Result<&mut Held, Refusal> {
        self.leases
            .get_mut(name)
            .filter(|held| held.epoch == epoch)
            .ok_or_else(|| Refusal::LeaseLost {
                name: name.to_owned(),
            })
    }
}

pub(crate) fn entry(key: &str, value: &Value) -> Entry {
    Entry {
        key: key.to_owned(),
        value: value.bytes.clone(),
        created: value.created,
        modified: value.modified,
    }
}

fn events_bytes(events: &[Event]) -> usize {
    let bytes = events.iter().map(|event| match event {
        Event::Put(entry) => entry.key.len() + entry.value.len(),
        Event::Deleted(key) => key.len(),
    });
    bytes.sum()
}

fn key_of(event: &Event) -> &str {
    match event {
        Event::Put(entry) => &entry.key,
        Event::Deleted(key) => key,
    }
}
