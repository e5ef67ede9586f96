//! What is due when.

use super::event::Effect;
use super::{Tools, Tree};
use kernel::Time;
use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub struct Agenda {
    pub began: Time,
    look_at: Time,
    compare_at: Time,
    /// Answers, in the second that began then.
    pub second: Time,
    pub answered: u32,
}

impl Tree {
    pub(super) fn begin(&mut self) {
        let now = self.now;
        let phase = |span: Duration, rng: &mut kernel::Rng| {
            let thousandths = u32::try_from(rng.below(1_000)).unwrap_or_default();
            span * thousandths / 1_000
        };
        self.agenda.began = now;
        self.agenda.second = now;
        self.agenda.look_at = now + phase(self.parameters.look_interval, &mut self.rng);
        self.agenda.compare_at = now + phase(self.parameters.compare_interval, &mut self.rng);
    }

    /// When [`super::Event::Tick`] is due, if nothing else comes before.
    pub fn next_wake(&self) -> Option<Time> {
        let mut next = self.agenda.look_at.min(self.agenda.compare_at);
        if let Some(at) = self.links.next() {
            next = next.min(at);
        }
        for (level, post) in self.posts.iter().enumerate() {
            let beat = post.lead.as_ref().map(|lead| lead.beat_at);
            let take_over = self.take_over_at(level);
            // A post that another holds looks at its inputs at leisure.
            let issue = post.issue_at.filter(|_| post.rank.is_some());
            for at in [beat, take_over, issue].into_iter().flatten() {
                next = next.min(at);
            }
        }
        Some(next)
    }

    pub(super) fn on_time(&mut self, tools: Tools) {
        let now = self.now;
        if self.agenda.look_at <= now {
            self.agenda.look_at = now + self.around(self.parameters.look_interval);
            self.look();
            self.look_at_programs();
        }
        // The leaf zone's row goes into the one above it.
        for level in (0..self.depth()).rev() {
            if self.election_is_old {
                self.elect();
            }
            self.consider(level, tools);
            let lead = self.posts[level].lead.as_ref();
            if lead.is_some_and(|lead| lead.beat_at <= now) {
                self.beat(level, tools);
            }
        }
        if self.agenda.compare_at <= now {
            self.agenda.compare_at = now + self.around(self.parameters.compare_interval);
            self.compare();
        }
        self.send_due();
    }

    /// What comes by time alone.
    fn look(&mut self) {
        let (now, limits) = (self.now, self.parameters.clone());
        // A suspect may have lost its posts meanwhile.
        let doubted = self.mates.values().any(|one| {
            let since = now.since(one.since);
            one.reach == crate::membership::Reach::Suspect && since >= limits.doubt_hold
        });
        self.election_is_old |= doubted;
        for level in 0..self.depth() {
            let mut ended = Vec::new();
            let mut lost = false;
            for (key, entry) in self.tables[level].entries_mut() {
                let age = entry.confirmed.age(now);
                if entry.row.row.ended {
                    if age > limits.ended_keep {
                        ended.push(key);
                    }
                } else if !entry.unknown && age > limits.unknown_after {
                    entry.unknown = true;
                    lost = true;
                    let zone = entry.row.row.zone.clone();
                    self.out.push(Effect::Unknown { zone, age });
                }
            }
            for key in ended {
                self.tables[level].remove(key);
            }
            if lost {
                self.election_is_old = true;
                self.inputs_changed(level);
            }
        }
        let advised = limits.leaf_advised;
        let nodes = self.mates.len();
        if nodes > advised && !self.warned {
            self.out.push(Effect::LargeZone { nodes, advised });
        }
        self.warned = nodes > advised;
        self.links.forget_idle(now, limits.link_idle);
    }

    /// Up to a tenth more or less, so that nodes do not fall into step.
    pub(super) fn around(&mut self, span: Duration) -> Duration {
        let thousandths = 900 + u32::try_from(self.rng.below(201)).unwrap_or_default();
        span * thousandths / 1_000
    }
}
