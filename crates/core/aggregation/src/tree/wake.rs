//! What is due when.

use super::event::Effect;
use super::{Tools, Tree};
use crate::membership::Reach;
use kernel::Time;
use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub struct Agenda {
    pub began: Time,
    look_at: Time,
    compare_at: Time,
    /// Nothing is due at any post before.
    posts_at: Time,
    /// A suspect loses its posts.
    doubt_at: Option<Time>,
    forget_at: Time,
    /// Answers, in the second that began then.
    pub second: Time,
    pub answered: u32,
}

impl Agenda {
    /// Something is due at a post then, or before.
    pub fn posts_by(&mut self, at: Time) {
        self.posts_at = self.posts_at.min(at);
    }

    pub fn doubt_by(&mut self, at: Time) {
        self.doubt_at = Some(self.doubt_at.map_or(at, |before| before.min(at)));
    }
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
        let agenda = &self.agenda;
        let next = agenda.look_at.min(agenda.compare_at).min(agenda.posts_at);
        let others = [agenda.doubt_at, self.links.next()];
        others.into_iter().flatten().chain([next]).min()
    }

    pub(super) fn on_time(&mut self, tools: Tools) {
        let now = self.now;
        if self.agenda.look_at <= now {
            self.agenda.look_at = now + self.around(self.parameters.look_interval);
            self.look();
            self.look_at_programs();
        }
        if self.agenda.doubt_at.is_some_and(|at| at <= now) {
            self.agenda.doubt_at = self.next_doubt();
            self.election_is_old(self.depth());
        }
        if self.agenda.posts_at <= now {
            self.look_at_posts(tools);
        }
        if self.agenda.compare_at <= now {
            self.agenda.compare_at = now + self.around(self.parameters.compare_interval);
            self.compare();
        }
        self.send_due();
    }

    fn next_doubt(&self) -> Option<Time> {
        let suspects = self.mates.values();
        let suspects = suspects.filter(|one| one.reach == Reach::Suspect);
        let doubts = suspects.map(|one| one.since + self.parameters.doubt_hold);
        doubts.filter(|at| *at > self.now).min()
    }

    /// The leaf zone's row goes into the one above it.
    fn look_at_posts(&mut self, tools: Tools) {
        let now = self.now;
        self.agenda.posts_at = Time(u64::MAX);
        for level in (0..self.depth()).rev() {
            self.elect();
            self.consider(level, tools);
            let lead = self.posts[level].lead.as_ref();
            if lead.is_some_and(|lead| lead.beat_at <= now) {
                self.beat(level, tools);
            }
        }
        let all = 0..self.depth();
        let next = all.filter_map(|level| self.post_due(level)).min();
        self.agenda.posts_at = next.unwrap_or(Time(u64::MAX));
    }

    fn post_due(&self, level: usize) -> Option<Time> {
        let post = &self.posts[level];
        let beat = post.lead.as_ref().map(|lead| lead.beat_at);
        let own = self.tables[level].get(self.path[level + 1].key);
        let silent = own.filter(|_| post.lead.is_none()).map(|entry| {
            let left = self.parameters.takeover_after;
            self.now + left.saturating_sub(entry.confirmed.age(self.now))
        });
        let silent = silent.filter(|at| post.rank.is_some() && *at > self.now);
        let old = post.election_is_old.then_some(self.now);
        let due = [beat, self.take_over_at(level), post.issue_at, silent, old];
        due.into_iter().flatten().min()
    }

    /// What comes by time alone.
    fn look(&mut self) {
        let (now, limits) = (self.now, self.parameters.clone());
        for level in 0..self.depth() {
            let table = &self.tables[level];
            if table.age_max(now) > limits.unknown_after || table.has_ended() {
                self.look_at_rows(level);
            }
        }
        let advised = limits.leaf_advised;
        let nodes = self.mates.len();
        if nodes > advised && !self.warned {
            self.out.push(Effect::LargeZone { nodes, advised });
        }
        self.warned = nodes > advised;
        if self.agenda.forget_at <= now {
            self.agenda.forget_at = now + limits.link_idle / 8;
            self.links.forget_idle(now, limits.link_idle);
        }
    }

    fn look_at_rows(&mut self, level: usize) {
        let (now, limits) = (self.now, self.parameters.clone());
        let mut ended = Vec::new();
        let mut lost = false;
        for (key, entry) in self.tables[level].entries_mut() {
            let age = entry.confirmed.age(now);
            if entry.ended {
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
        self.tables[level].look();
        if lost {
            self.election_is_old(level);
            self.inputs_changed(level);
        }
    }

    /// Up to a tenth more or less, so that nodes do not fall into step.
    pub(super) fn around(&mut self, span: Duration) -> Duration {
        let thousandths = 900 + u32::try_from(self.rng.below(201)).unwrap_or_default();
        span * thousandths / 1_000
    }
}
