//! Joins what others say with what is known, and tells it on where it is new.

use super::event::{Effect, Reach};
use super::member::{Suspicion, rank, reach, suspicion_wait};
use super::mesh::Standing;
use super::rumour::{Eager, Kind};
use super::{Membership, digits};
use kernel::NodeId;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::Duration;
use wire::gossip::patch::apply;
use wire::gossip::{AttributesVersion, Body, Life, News, Said, encode_news};

/// A saying about a node's reach.
#[derive(Clone, Copy, Debug)]
pub struct Saying {
    pub node: NodeId,
    pub life: Life,
    pub said: Said,
    pub by: NodeId,
}

impl Membership {
    pub(super) fn hear_news(&mut self, news: News, from: NodeId) {
        match news {
            News::Reach {
                node,
                life,
                said,
                by,
            } => {
                let saying = Saying {
                    node,
                    life,
                    said,
                    by,
                };
                let _ = self.hear(saying, from);
            }
            News::Attributes {
                node,
                version,
                bytes,
            } => {
                let news = None;
                let _ = self.hear_attributes(node, version, bytes, news, from);
            }
            News::Patch {
                node,
                base,
                version,
                ref patch,
            } => {
                let member = self.members.get(&node);
                let known = member.map(|one| (one.version, &one.attributes));
                let Some((known, attributes)) = known.filter(|_| node != self.own.node) else {
                    return;
                };
                if version <= known {
                    if version == known && from != node {
                        self.rumours.heard_again((node, Kind::Attributes));
                    }
                    return;
                }
                let bytes = (known == base).then(|| apply(attributes, patch));
                match bytes.flatten() {
                    Some(bytes) => {
                        let news = Some(encode_news(&news));
                        let _ = self.hear_attributes(node, version, bytes, news, from);
                    }
                    // What it is made for is not here.
                    None => self.answer(from, &Body::Want(vec![node])),
                }
            }
        }
    }

    /// Whether it was new.
    pub(super) fn hear(&mut self, saying: Saying, from: NodeId) -> bool {
        if saying.node == self.own.node {
            self.hear_of_self(saying.life, saying.said);
            return false;
        }
        let Some(member) = self.members.get(&saying.node) else {
            self.counts.unknown += 1;
            return false;
        };
        let order = match member.rank() {
            None => Ordering::Greater,
            Some(known) => rank(saying.life, saying.said).cmp(&known),
        };
        match order {
            Ordering::Less => false,
            Ordering::Equal => {
                self.hear_again(saying, from);
                false
            }
            Ordering::Greater => {
                self.accept(saying, from);
                true
            }
        }
    }

    fn hear_again(&mut self, saying: Saying, from: NodeId) {
        if saying.said == Said::Suspect && self.confirm(saying) {
            return self.tell_on(saying, from);
        }
        if from != saying.node && from != self.own.node {
            self.rumours.heard_again((saying.node, Kind::Reach));
        }
    }

    /// Whether one more has found a suspect silent, of as many as are wanted.
    fn confirm(&mut self, saying: Saying) -> bool {
        let (min, max) = self.suspicion_bounds();
        let is_own = saying.by == self.own.node;
        let Some(member) = self.members.get_mut(&saying.node) else {
            return false;
        };
        let Some(suspicion) = &mut member.suspicion else {
            return false;
        };
        let enough = suspicion.by.len() > suspicion.wanted && !is_own;
        if enough || !suspicion.by.insert(saying.by) {
            return false;
        }
        let confirmed = suspicion.by.len() - 1;
        let wait = suspicion_wait(min, max, suspicion.wanted, confirmed);
        suspicion.deadline = suspicion.began + wait;
        true
    }

    fn accept(&mut self, saying: Saying, from: NodeId) {
        let suspicion = (saying.said == Said::Suspect).then(|| self.suspicion(saying.by));
        let Some(member) = self.members.get_mut(&saying.node) else {
            return;
        };
        let (was, is) = (member.reach, reach(saying.said));
        let is_new_run = !member.life.is_same_run(&saying.life);
        let nonce = saying.life.nonce;
        let mut clone = None;
        if is_new_run && was != Reach::Unheard && member.life.nonce != nonce {
            // A run that was replaced has come back: it lives beside the other.
            if member.nonce_before == Some(nonce) && !member.cloned {
                member.cloned = true;
                clone = Some([member.life.nonce, nonce]);
            }
            member.nonce_before = Some(member.life.nonce);
        }
        member.life = saying.life;
        member.reach = is;
        if suspicion.is_some() {
            self.agenda.suspects.insert(saying.node);
        } else {
            self.agenda.suspects.remove(&saying.node);
        }
        member.suspicion = suspicion;
        if was != is {
            member.since = self.now;
        }
        if let Some(nonces) = clone {
            let node = saying.node;
            self.out.push(Effect::Cloned { node, nonces });
        }
        if was != is || is_new_run {
            self.out.push(Effect::Reach {
                node: saying.node,
                was,
                is,
                life: saying.life,
                by: saying.by,
            });
        }
        self.up += usize::from(is.is_up());
        self.up -= usize::from(was.is_up());
        self.mesh_is_old |= Standing::of(was) != Standing::of(is);
        if was.is_up() != is.is_up() {
            self.neighbours_up = None;
            if is.is_up() && from == saying.node {
                // What the other side of a healed cut knows is asked for.
                self.agenda.compare_soon(self.now, &self.parameters);
                self.agenda.compare_with = Some(from);
            }
            self.agenda.knock_soon(self.now);
        }
        if was != Reach::Unheard || !self.is_told_already(saying.node, from) {
            self.tell_on(saying, from);
        }
        if is == Reach::Suspect && saying.by != self.own.node {
            self.maybe_confirm(saying.node);
        }
    }

    /// One of a few who probe a suspect at once, to confirm or to clear it.
    fn maybe_confirm(&mut self, node: NodeId) {
        self.renew_mesh();
        let few = 3 * self.parameters.confirmations;
        let chosen = self.rng.below(self.mesh.size().max(1) as u64) < few as u64;
        if chosen && self.mesh.all().any(|one| one == node) {
            self.probe(node);
        }
    }

    /// What a node hears first after its start, all others knew before it.
    fn is_told_already(&self, node: NodeId, from: NodeId) -> bool {
        from != node && self.now < self.agenda.young_until
    }

    fn tell_on(&mut self, saying: Saying, from: NodeId) {
        let Saying {
            node,
            life,
            said,
            by,
        } = saying;
        let news = encode_news(&News::Reach {
            node,
            life,
            said,
            by,
        });
        let eager = self.eagerness(from);
        self.rumours.add((node, Kind::Reach), news, eager);
        self.agenda.flush_soon(self.now, &self.parameters);
    }

    /// News from here or from another zone is first known here.
    fn eagerness(&self, from: NodeId) -> Eager {
        let zone = |node| self.table.get(&node).map(|one| &one.zone);
        if from == self.own.node || zone(from) != zone(self.own.node) {
            Eager::All
        } else {
            Eager::Far
        }
    }

    fn suspicion(&self, by: NodeId) -> Suspicion {
        let (min, max) = self.suspicion_bounds();
        // The suspect and this node confirm nothing.
        let others = self.mesh.size().min(self.up).saturating_sub(1);
        let wanted = self.parameters.confirmations.min(others);
        Suspicion {
            began: self.now,
            deadline: self.now + suspicion_wait(min, max, wanted, 0),
            by: BTreeSet::from([by]),
            wanted,
        }
    }

    /// Longer in clusters whose news take longer, and while this node has
    /// reason to doubt itself.
    fn suspicion_bounds(&self) -> (Duration, Duration) {
        let beyond = digits(self.up / 32 + 1);
        let doubt = self.probes.health + 2;
        let scaled = |span: Duration| span * beyond * doubt / 2;
        let parameters = &self.parameters;
        (
            scaled(parameters.suspicion_min),
            scaled(parameters.suspicion_max),
        )
    }

    /// Whether they were new. They are told on as `told`, or whole.
    pub(super) fn hear_attributes(
        &mut self,
        node: NodeId,
        version: AttributesVersion,
        bytes: Vec<u8>,
        told: Option<Vec<u8>>,
        from: NodeId,
    ) -> bool {
        if node == self.own.node {
            return false;
        }
        let Some(member) = self.members.get_mut(&node) else {
            self.counts.unknown += 1;
            return false;
        };
        let key = (node, Kind::Attributes);
        if version <= member.version {
            if version == member.version && from != node {
                self.rumours.heard_again(key);
            }
            return false;
        }
        let is_first = member.version.number == 0;
        member.version = version;
        member.attributes.clone_from(&bytes);
        let told = told.unwrap_or_else(|| {
            encode_news(&News::Attributes {
                node,
                version,
                bytes: bytes.clone(),
            })
        });
        self.out.push(Effect::Attributes {
            node,
            version,
            bytes,
        });
        if !is_first || !self.is_told_already(node, from) {
            let eager = self.eagerness(from);
            self.rumours.add(key, told, eager);
            self.agenda.flush_soon(self.now, &self.parameters);
        }
        true
    }
}
