//! A node's client of the store on another machine: it reads all once, then
//! watches; it sends its writes until it learns their outcome.
//!
//! In: answers, ticks. Out: asks, and what has changed.
//! Holds: revisions never go back and none is skipped (a panic says so); what
//! is sent again is written so that twice is once.

use crate::table::{self, Tables};
use aggregation::membership::Table;
use kernel::{Revision, Time};
use node::desired::{Applied, Desired, PREFIX};
use node::store::{Entry, Event, RangeReply, Transaction, WatchEvent};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug)]
pub enum Ask {
    Range,
    /// Changes after this revision; it is also a watch from there on.
    Poll(Revision),
    Transact {
        number: u64,
        transaction: Transaction,
    },
}

#[derive(Clone, Debug)]
pub enum Answer {
    Range(Arc<RangeReply>),
    /// In answer to, or pushed after, this revision.
    Changes {
        after: Revision,
        upto: Revision,
        events: Arc<Vec<WatchEvent>>,
    },
    /// Done, whatever the comparison said.
    Done {
        number: u64,
    },
    /// Whether it was done nobody knows.
    Unknown {
        number: u64,
    },
}

/// Asked again after so long without an answer.
const PATIENCE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, Default)]
pub struct Client {
    /// None until all was read.
    known: Option<Revision>,
    pub rows: Arc<Table>,
    pub desired: Desired,
    writes: VecDeque<Transaction>,
    number: u64,
    ask_at: Time,
    write_at: Time,
    /// What the others must be told of.
    pub rows_changed: bool,
    pub desired_changed: bool,
    pub resyncs: u64,
}

impl Client {
    pub fn write(&mut self, transaction: Transaction) {
        self.writes.push_back(transaction);
        self.write_at = Time(0);
    }

    /// Whether the outcome of some is not known yet.
    pub fn writes(&self) -> bool {
        !self.writes.is_empty()
    }

    pub fn next_wake(&self) -> Time {
        if self.writes.is_empty() {
            self.ask_at
        } else {
            self.ask_at.min(self.write_at)
        }
    }

    /// What is due to be asked.
    pub fn asks(&mut self, now: Time) -> Vec<Ask> {
        let mut asks = Vec::new();
        if self.ask_at <= now {
            self.ask_at = now + self.known.map_or(PATIENCE, |_| POLL);
            asks.push(self.known.map_or(Ask::Range, Ask::Poll));
        }
        if let Some(transaction) = self.writes.front().filter(|_| self.write_at <= now) {
            self.write_at = now + PATIENCE;
            asks.push(Ask::Transact {
                number: self.number,
                transaction: transaction.clone(),
            });
        }
        asks
    }

    pub fn on_answer(&mut self, answer: Answer, tables: &mut Tables) {
        match answer {
            Answer::Range(reply) => self.on_range(&reply, tables),
            Answer::Changes {
                after,
                upto,
                events,
            } => {
                // A push that overtook another, or came late, is asked for
                // again by the next poll.
                if self.known == Some(after) {
                    self.on_changes(upto, &events, tables);
                }
            }
            Answer::Done { number } => {
                if number == self.number && !self.writes.is_empty() {
                    self.writes.pop_front();
                    self.number += 1;
                    self.write_at = Time(0);
                }
            }
            Answer::Unknown { number } => {
                if number == self.number {
                    self.write_at = Time(0);
                }
            }
        }
    }

    fn on_range(&mut self, reply: &RangeReply, tables: &mut Tables) {
        if self.known.is_some_and(|known| known > reply.revision) {
            return;
        }
        self.rows = tables.whole(reply);
        self.desired.projects.clear();
        for entry in &reply.entries {
            self.put(&entry.key, &entry.value);
        }
        self.set_known(reply.revision);
        self.rows_changed = true;
        self.desired_changed = true;
    }

    fn on_changes(&mut self, upto: Revision, events: &[WatchEvent], tables: &mut Tables) {
        let mut of_rows = Vec::new();
        let mut last = self.known.unwrap_or_default();
        for event in events {
            match event {
                WatchEvent::Resync { .. } => {
                    self.known = None;
                    self.ask_at = Time(0);
                    self.resyncs += 1;
                    return;
                }
                WatchEvent::Changes { revision, events } => {
                    assert!(*revision > last, "the watch goes back to {revision}");
                    last = *revision;
                    for event in events {
                        let (Event::Put(Entry { key, .. }) | Event::Deleted(key)) = event;
                        if table::node_of(key).is_some() {
                            of_rows.push(event);
                        } else if let Event::Put(entry) = event {
                            self.put(&entry.key, &entry.value);
                        }
                    }
                }
            }
        }
        let upto = upto.max(last);
        if !of_rows.is_empty() {
            self.rows = tables.changed(&self.rows, upto, &of_rows);
            self.rows_changed = true;
        }
        self.set_known(upto);
    }

    fn set_known(&mut self, revision: Revision) {
        self.known = Some(revision);
        self.desired.revision = revision;
    }

    fn put(&mut self, key: &str, value: &[u8]) {
        if key.starts_with(PREFIX)
            && let Ok(applied) = serde_json::from_slice::<Applied>(value)
        {
            let project = applied.manifest.project.clone();
            self.desired.projects.insert(project, applied);
            self.desired_changed = true;
        }
    }
}
