//! What this node says of itself: its life, its attributes, its leaving, and
//! what it does about a clone.
//!
//! Holds: a run outdoes every earlier one of its node, with memory of their
//! epochs or by asking: whoever knows a later life tells it. A run that was
//! outdone and raises itself again is alive: both are clones, the one with the
//! smaller nonce falls silent.

use super::Membership;
use super::event::{Effect, Start};
use super::rumour::{Eager, Kind};
use kernel::{NodeId, Time};
use std::collections::BTreeMap;
use wire::gossip::patch::diff;
use wire::gossip::{ATTRIBUTES_BYTES_MAX, AttributesVersion, Life, News, Said, encode_news};

/// Lives outdone by one run; more is an attack or a fault of the key.
const OUTDONE_MAX: usize = 8;

/// What a version's number has of its run's nonce: three bytes on the wire.
const NUMBERS_BITS: u32 = 20;

#[derive(Clone, Debug, Default)]
pub struct Own {
    pub node: NodeId,
    pub life: Life,
    pub version: AttributesVersion,
    pub attributes: Vec<u8>,
    /// As the others were told last.
    pub told: (AttributesVersion, Vec<u8>),
    /// In the table, and not revoked.
    pub belongs: bool,
    pub leaves_at: Option<Time>,
    /// It has left, or a clone has prevailed.
    pub is_silent: bool,
    /// Epochs of other runs that this one has outdone, by nonce.
    outdone: BTreeMap<u32, u64>,
    cloned: bool,
}

impl Own {
    /// Runs without memory may come to the same epoch: of two, that with the
    /// larger nonce prevails, and so do its attributes.
    fn numbers_begin(&self) -> u32 {
        self.life.nonce >> (32 - NUMBERS_BITS)
    }
}

impl Membership {
    pub(super) fn begin(&mut self, start: Start) {
        let remembered = start.remembered.map(|epoch| epoch.saturating_add(1));
        self.own.node = start.node;
        self.own.life = Life {
            epoch: remembered.unwrap_or(start.wall.0.max(1)),
            nonce: start.nonce,
            incarnation: 0,
        };
        self.remember();
        self.on_attributes(start.attributes);
        self.say_of_self(Said::Alive);
        let phase = self.rng.below(1_000);
        self.agenda.begin(self.now, phase, &self.parameters);
        self.agenda.due = self.wake();
    }

    fn remember(&mut self) {
        let epoch = self.own.life.epoch;
        self.out.push(Effect::Remember { epoch });
    }

    pub(super) fn on_attributes(&mut self, bytes: Vec<u8>) {
        if bytes.len() > ATTRIBUTES_BYTES_MAX {
            self.counts.oversized += 1;
            return;
        }
        if bytes == self.own.attributes && self.own.version.number > 0 {
            return;
        }
        let old = std::mem::replace(&mut self.own.attributes, bytes);
        if !self.rumours.is_untold((self.own.node, Kind::Attributes)) {
            self.own.told = (self.own.version, old);
        }
        let before = self.own.version.number;
        self.own.version = AttributesVersion {
            epoch: self.own.life.epoch,
            number: before.max(self.own.numbers_begin()).saturating_add(1),
        };
        self.say_own_attributes();
    }

    /// What has changed since what was told last, where that is less than all.
    fn say_own_attributes(&mut self) {
        let (node, version) = (self.own.node, self.own.version);
        let (base, told) = &self.own.told;
        let is_next = base.number > 0 && base.epoch == version.epoch;
        let patch = diff(told, &self.own.attributes).filter(|_| is_next);
        let news = encode_news(&match patch {
            Some(patch) => News::Patch {
                node,
                base: *base,
                version,
                patch,
            },
            None => News::Attributes {
                node,
                version,
                bytes: self.own.attributes.clone(),
            },
        });
        let key = (self.own.node, Kind::Attributes);
        self.rumours.add(key, news, Eager::All);
        self.agenda.flush_soon(self.now, &self.parameters);
    }

    pub(super) fn say_of_self(&mut self, said: Said) {
        let news = encode_news(&News::Reach {
            node: self.own.node,
            life: self.own.life,
            said,
            by: self.own.node,
        });
        let key = (self.own.node, Kind::Reach);
        self.rumours.add(key, news, Eager::All);
        self.agenda.flush_soon(self.now, &self.parameters);
    }

    pub(super) fn on_leaving(&mut self) {
        if self.own.leaves_at.is_none() {
            self.own.leaves_at = Some(self.now + self.parameters.leave);
            self.say_of_self(Said::Left);
        }
    }

    /// Others say this of the node that this run is.
    pub(super) fn hear_of_self(&mut self, life: Life, said: Said) {
        let own = self.own.life;
        if life.is_same_run(&own) {
            let refutable = matches!(said, Said::Suspect | Said::Dead);
            if self.own.leaves_at.is_some() {
                return;
            }
            if said == Said::Left {
                // Only a later run can come back from having left.
                self.outdo(own);
            } else if refutable && life.incarnation >= own.incarnation {
                self.refute(life);
            } else if life.incarnation > own.incarnation {
                self.own.life.incarnation = life.incarnation;
            }
            return;
        }
        if (life.epoch, life.nonce) < (own.epoch, own.nonce) {
            return;
        }
        let raised_again = self
            .own
            .outdone
            .get(&life.nonce)
            .is_some_and(|epoch| *epoch < life.epoch);
        if raised_again {
            self.tell_of_clone(life.nonce);
        }
        let yields = raised_again && life.nonce > own.nonce;
        let too_many =
            self.own.outdone.len() >= OUTDONE_MAX && !self.own.outdone.contains_key(&life.nonce);
        if yields || too_many {
            return self.fall_silent(life.nonce);
        }
        self.own.outdone.insert(life.nonce, life.epoch);
        self.outdo(life);
    }

    fn tell_of_clone(&mut self, other: u32) {
        if !std::mem::replace(&mut self.own.cloned, true) {
            self.out.push(Effect::Cloned {
                node: self.own.node,
                nonces: [self.own.life.nonce, other],
            });
        }
    }

    fn fall_silent(&mut self, by: u32) {
        self.own.is_silent = true;
        self.out.push(Effect::Superseded { by });
    }

    fn refute(&mut self, life: Life) {
        match life.incarnation.checked_add(1) {
            Some(next) => self.own.life.incarnation = next,
            None => return self.outdo(life),
        }
        self.counts.refuted += 1;
        self.probes.worsen(1, &self.parameters);
        self.say_of_self(Said::Alive);
    }

    /// Becomes the later run.
    fn outdo(&mut self, life: Life) {
        let Some(epoch) = life.epoch.checked_add(1) else {
            return self.fall_silent(life.nonce);
        };
        self.own.life.epoch = epoch;
        self.own.life.incarnation = 0;
        self.remember();
        self.own.version = AttributesVersion {
            epoch,
            number: self.own.numbers_begin().saturating_add(1),
        };
        self.own.told = Default::default();
        self.say_own_attributes();
        self.say_of_self(Said::Alive);
    }
}
