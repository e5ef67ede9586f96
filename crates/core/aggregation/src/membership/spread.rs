//! Puts news into packets, and packets on their way.
//!
//! Holds: a suspect is told of it before all else, so that it can refute.

use super::Membership;
use super::event::{Effect, Reach};
use super::probe::draw;
use super::rumour::{Key, Kind};
use kernel::{NodeId, Time};
use std::collections::BTreeSet;
use wire::gossip::{Body, News, Writer, decode, encode_news};

/// Packets to one node at one time.
const BURST_MAX: usize = 4;

impl Membership {
    pub(super) fn on_received(&mut self, from: NodeId, payload: &[u8]) {
        self.counts.received += 1;
        self.counts.received_bytes += payload.len() as u64;
        let is_self = from == self.own.node;
        if !self.own.belongs || !(is_self || self.members.contains_key(&from)) {
            let other = self.whole.get(&from).filter(|one| !one.revoked);
            if self.own.belongs && other.is_some() {
                self.on_outside(from, payload);
            } else {
                self.counts.strangers += 1;
            }
            return;
        }
        let Ok(packet) = decode(payload) else {
            self.counts.garbled += 1;
            return;
        };
        if is_self {
            // Somebody else has this node's key.
            return self.hear_of_self(packet.life, wire::gossip::Said::Alive);
        }
        let run = (packet.life.epoch, packet.life.nonce);
        let known = self.members.get(&from);
        let is_old = known.is_some_and(|one| run < (one.life.epoch, one.life.nonce));
        if is_old {
            self.counts.outdated += 1;
            if let Body::Ping { seq } = packet.body {
                self.answer_outdated(from, seq);
            }
            return;
        }
        let saying = super::hear::Saying {
            node: from,
            life: packet.life,
            said: wire::gossip::Said::Alive,
            by: from,
        };
        let _ = self.hear(saying, from);
        for news in packet.news {
            self.hear_news(news, from);
        }
        match packet.body {
            Body::Gossip => {}
            Body::Ping { seq } => self.on_ping(from, seq),
            Body::Ack { seq } => self.on_ack(from, seq),
            Body::PingFor { seq, target } => self.on_ping_for(from, seq, target),
            Body::AckFor { seq, target } => self.on_ack_for(seq, target),
            Body::NackFor { seq, target } => self.on_nack_for(from, seq, target),
            Body::Ranges(ranges) => self.on_ranges(from, &ranges),
            Body::Entries { low, high, entries } => self.on_entries(from, low, high, &entries),
            Body::Want(nodes) => self.on_want(from, &nodes),
        }
    }

    /// Tells an earlier run which one must be outdone.
    fn answer_outdated(&mut self, from: NodeId, seq: u32) {
        let mut writer = Writer::new(self.own.life, &Body::Ack { seq });
        if let Some(news) = self.reach_news(from) {
            writer.push(&news);
        }
        self.put_on_the_way(from, writer);
    }

    /// With what its receiver must know, and what else there is room for.
    pub(super) fn send(&mut self, to: NodeId, body: &Body) {
        let Some(member) = self.members.get(&to) else {
            return;
        };
        let mut writer = Writer::new(self.own.life, body);
        if matches!(member.reach, Reach::Suspect | Reach::Dead | Reach::Left)
            && let Some(news) = self.reach_news(to)
        {
            writer.push(&news);
        }
        if matches!(body, Body::Ping { .. } | Body::Ack { .. }) && !self.rumours.is_empty() {
            let told = self.fill(&mut writer, to, &BTreeSet::new());
            for key in told {
                self.rumours.count(key, 1);
            }
            self.rumours.expire(self.retransmissions());
        }
        self.put_on_the_way(to, writer);
    }

    pub(super) fn put_on_the_way(&mut self, to: NodeId, writer: Writer) {
        let payload = writer.into_bytes();
        self.counts.sent += 1;
        self.counts.sent_bytes += payload.len() as u64;
        self.out.push(Effect::Send { to, payload });
    }

    pub(super) fn reach_news(&self, node: NodeId) -> Option<Vec<u8>> {
        let member = self.members.get(&node)?;
        Some(encode_news(&News::Reach {
            node,
            life: member.life,
            said: member.said()?,
            by: self.own.node,
        }))
    }

    /// What was put in, the least told first.
    fn fill(&self, writer: &mut Writer, to: NodeId, but: &BTreeSet<Key>) -> Vec<Key> {
        let mut told = Vec::new();
        for (key, news) in self.rumours.by_need() {
            if key.0 == to || but.contains(&key) {
                continue;
            }
            if writer.push(news) {
                told.push(key);
            } else if writer.room() < 40 {
                break;
            }
        }
        told
    }

    pub(super) fn up_neighbours(&mut self) -> Vec<NodeId> {
        let members = &self.members;
        let up = |node: &NodeId| members.get(node).is_some_and(|one| one.reach.is_up());
        let found = self.neighbours_up.take();
        let found = found.unwrap_or_else(|| self.mesh.all().filter(up).collect());
        self.neighbours_up = Some(found.clone());
        found
    }

    /// Whether what is left needs no packets of its own.
    fn can_ride(&self) -> bool {
        self.mesh.tells_all() && !self.rumours.has(Kind::Reach)
    }

    /// One telling of what is told at all. Where whoever knows first tells all,
    /// only copies that were lost are left: those of attributes can wait for
    /// pings and answers to ride on.
    pub(super) fn flush(&mut self) -> Option<Time> {
        self.renew_mesh();
        let up = self.up_neighbours();
        if up.is_empty() || self.rumours.is_empty() {
            return None;
        }
        let far: BTreeSet<NodeId> = self.mesh.far.iter().copied().collect();
        let to_near = self.rumours.eager(false);
        let to_far = self.rumours.eager(true);
        let fanout = if self.can_ride() {
            0
        } else {
            self.parameters.fanout
        };
        let chosen = draw(up.clone(), fanout, &mut self.rng);
        // Most tellings are of old news, to few.
        let quiet = to_far.is_empty();
        let mut told: BTreeSet<Key> = BTreeSet::new();
        for node in up {
            if quiet && !chosen.contains(&node) {
                continue;
            }
            let eager = if far.contains(&node) {
                &to_far
            } else {
                &to_near
            };
            let unsent = self.tell(node, eager, chosen.contains(&node));
            told.extend(eager.iter().filter(|key| !unsent.contains(key)));
        }
        for key in told {
            self.rumours.count(key, 1);
        }
        self.rumours.eager_done();
        let most = self.retransmissions();
        self.rumours.expire(most);
        if self.rumours.is_empty() || self.can_ride() {
            return None;
        }
        let wait = if self.rumours.has_fresh() {
            self.parameters.coalesce * 2
        } else {
            self.parameters.gossip_interval
        };
        Some(self.now + wait)
    }

    /// Returns what of `eager` found no room.
    fn tell(&mut self, node: NodeId, eager: &[Key], is_chosen: bool) -> Vec<Key> {
        let mut left: Vec<Key> = eager.iter().copied().filter(|key| key.0 != node).collect();
        let said: BTreeSet<Key> = left.iter().copied().collect();
        for burst in 0..BURST_MAX {
            let mut writer = Writer::new(self.own.life, &Body::Gossip);
            let bare = writer.room();
            left.retain(|key| {
                let news = self.rumours.bytes(*key);
                news.is_some_and(|news| !writer.push(news))
            });
            if is_chosen && burst == 0 {
                for key in self.fill(&mut writer, node, &said) {
                    self.rumours.count(key, 1);
                }
            }
            if writer.room() == bare {
                break;
            }
            self.put_on_the_way(node, writer);
        }
        left
    }

    /// Attributes and reach of these nodes, as far as the packets go.
    /// Returns whether all went.
    pub(super) fn tell_all(&mut self, to: NodeId, keys: &[Key], packets_max: usize) -> bool {
        let mut writer = Writer::new(self.own.life, &Body::Gossip);
        let bare = writer.room();
        let mut packets = 0;
        for key in keys {
            let Some(news) = self.news(*key) else {
                continue;
            };
            if !writer.push(&news) {
                packets += 1;
                if packets >= packets_max || !self.may_answer() {
                    return false;
                }
                let full =
                    std::mem::replace(&mut writer, Writer::new(self.own.life, &Body::Gossip));
                self.put_on_the_way(to, full);
                writer.push(&news);
            }
        }
        if writer.room() < bare {
            if !self.may_answer() {
                return false;
            }
            self.put_on_the_way(to, writer);
        }
        true
    }

    fn news(&self, (node, kind): Key) -> Option<Vec<u8>> {
        let is_self = node == self.own.node;
        if kind == Kind::Reach {
            if is_self {
                let by = node;
                let said = wire::gossip::Said::Alive;
                let life = self.own.life;
                return Some(encode_news(&News::Reach {
                    node,
                    life,
                    said,
                    by,
                }));
            }
            return self.reach_news(node);
        }
        let (version, bytes) = if is_self {
            (self.own.version, self.own.attributes.clone())
        } else {
            let member = self.members.get(&node)?;
            (member.version, member.attributes.clone())
        };
        (version.number > 0).then(|| {
            encode_news(&News::Attributes {
                node,
                version,
                bytes,
            })
        })
    }
}
