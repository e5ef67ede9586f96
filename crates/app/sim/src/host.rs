//! The store's side: what the first node answers, late, or not at all.

use crate::client::{Answer, Ask};
use crate::network::part;
use crate::store::{Model, StoreFaults};
use kernel::{Revision, Rng, Time};
use node::store::{RangeReply, WatchEvent};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
struct Watcher {
    boot: u32,
    after: Revision,
    push_is_due: bool,
}

/// Its state lasts: every acknowledged write is on disk.
pub struct Host {
    model: Model,
    faults: StoreFaults,
    watchers: BTreeMap<usize, Watcher>,
    /// The last that was read whole.
    read: Arc<RangeReply>,
    /// What has changed since these, up to now.
    changed: (Revision, BTreeMap<Revision, Arc<Vec<WatchEvent>>>),
    away_from: Time,
    away_until: Time,
}

/// A push to a watcher, after so long.
pub type Push = (usize, u32, Duration);

impl Host {
    pub fn new(faults: StoreFaults) -> Self {
        Self {
            model: Model::new(faults.history),
            changed: Default::default(),
            away_from: Time(0) + faults.away_every,
            away_until: Time(0),
            faults,
            watchers: BTreeMap::new(),
            read: Arc::new(RangeReply {
                revision: Revision(0),
                entries: Vec::new(),
            }),
        }
    }

    pub fn revision(&self) -> Revision {
        self.model.revision()
    }

    /// What the first node reads from its own disk.
    pub fn range(&self, prefix: &str) -> RangeReply {
        self.model.range(prefix)
    }

    /// Whoever watched must ask again after the store's machine was off.
    pub fn forget_watchers(&mut self) {
        self.watchers.clear();
    }

    fn is_away(&mut self, now: Time, rng: &mut Rng) -> bool {
        if self.faults.away_every > Duration::ZERO && now >= self.away_from {
            self.away_until = now + part(self.faults.away, rng);
            self.away_from = self.away_until + part(self.faults.away_every * 2, rng);
        }
        now < self.away_until
    }

    /// None: no answer comes. Pushes follow from writes.
    pub fn on_ask(
        &mut self,
        (machine, boot): (usize, u32),
        ask: Ask,
        now: Time,
        rng: &mut Rng,
    ) -> (Option<Answer>, Vec<Push>) {
        if self.is_away(now, rng) {
            return (None, Vec::new());
        }
        match ask {
            Ask::Range => (Some(Answer::Range(self.whole())), Vec::new()),
            Ask::Poll(after) => {
                let answer = self.changes(after);
                let upto = self.model.revision();
                let watcher = Watcher {
                    boot,
                    after: upto,
                    push_is_due: false,
                };
                self.watchers.insert(machine, watcher);
                (Some(answer), Vec::new())
            }
            Ask::Transact {
                number,
                transaction,
            } => {
                let is_unknown = rng.unit() < self.faults.unknown;
                if is_unknown && rng.below(2) == 0 {
                    return (Some(Answer::Unknown { number }), Vec::new());
                }
                // What is refused is as settled as what is done.
                let _ = self.model.transact(&transaction, now);
                let answer = if is_unknown {
                    Answer::Unknown { number }
                } else {
                    Answer::Done { number }
                };
                (Some(answer), self.pushes(rng))
            }
        }
    }

    fn whole(&mut self) -> Arc<RangeReply> {
        if self.read.revision != self.model.revision() {
            self.read = Arc::new(self.model.range(""));
        }
        Arc::clone(&self.read)
    }

    fn pushes(&mut self, rng: &mut Rng) -> Vec<Push> {
        let mut pushes = Vec::new();
        let upto = self.model.revision();
        for (machine, watcher) in &mut self.watchers {
            if watcher.after < upto && !watcher.push_is_due {
                watcher.push_is_due = true;
                pushes.push((*machine, watcher.boot, part(self.faults.lag, rng)));
            }
        }
        pushes
    }

    /// What a watcher is told now.
    pub fn push(&mut self, machine: usize, boot: u32) -> Option<Answer> {
        let upto = self.model.revision();
        let watcher = self.watchers.get_mut(&machine)?;
        if watcher.boot != boot || !watcher.push_is_due {
            return None;
        }
        let after = watcher.after;
        watcher.after = upto;
        watcher.push_is_due = false;
        Some(self.changes(after))
    }

    fn changes(&mut self, after: Revision) -> Answer {
        let upto = self.model.revision();
        let (at, known) = &mut self.changed;
        if *at != upto {
            known.clear();
            *at = upto;
        }
        let model = &self.model;
        let changes = known.entry(after);
        let events = changes.or_insert_with(|| Arc::new(model.changes("", after)));
        Answer::Changes {
            after,
            upto,
            events: Arc::clone(events),
        }
    }
}
