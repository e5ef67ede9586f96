//! Decides which notices of programs are believed, and whom they are told to.
//!
//! Holds: a notice is told once by each who did not know it: down to those whom
//! it serves, up to those who lead, across by them; what that does not carry,
//! comparisons do. A program is quarantined by who represents its canary zone
//! and by nobody else.

use super::Tree;
use super::board::{Applied, Held, Standing};
use super::event::{Effect, Failed};
use super::link::{Item, Kind};
use super::spread::Packets;
use super::table::Moment;
use super::tools::{Tools, Verdict};
use kernel::{NodeId, ZonePath};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use wire::tree::{Contact, Notice, NoticeKey, Part, Says, SignedNotice, WHY_BYTES_MAX, ZoneKey};

/// Notices told to one who lacks them, at a time.
const TOLD_MAX: usize = 8;
/// Mates told at once where nobody represents anything.
const MATES_TOLD_MAX: usize = 64;

impl Tree {
    /// What is to run at this node's zones, and what became of what was.
    pub fn programs(&self) -> Vec<Applied> {
        let boards = self.boards.iter();
        boards.flat_map(|board| board.applied(self.now)).collect()
    }

    pub(super) fn hear_notice(
        &mut self,
        from: Option<Contact>,
        bytes: &[u8],
        age: Duration,
        tools: Tools,
    ) {
        let Ok(notice) = SignedNotice::decode(bytes) else {
            self.counts.garbled += 1;
            return;
        };
        let place = self.place_of(&notice.notice.zone);
        let Some(place) = place.filter(|_| is_sound(&notice.notice)) else {
            self.counts.strange += 1;
            return;
        };
        let (key, now) = (notice.key, self.now);
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let signed = Moment::before(now, age_ms);
        if let Some(held) = self.boards[place].get(key) {
            let is_same = held.notice.bytes() == bytes;
            self.counts.repeated += 1;
            if let Some(from) = from {
                let item = Item::Notice(small(place), key);
                self.links.has(from.node, item, Kind::Row);
            }
            if is_same {
                self.boards[place].was_signed(key, signed);
            }
            return;
        }
        if self.boards[place].is_outdone(&notice.notice, age, now) {
            self.counts.outdated += 1;
            return;
        }
        match self.verdict(place, &notice, tools) {
            Verdict::Good => self.take_notice(place, Arc::new(notice), signed, from),
            Verdict::Bad => self.counts.forged += 1,
            // Comparisons bring it again.
            Verdict::UnknownKey => {
                self.counts.unproven += 1;
                let issuer = notice.notice.issuer;
                self.out
                    .extend(from.map(|from| Effect::KeyWanted { issuer, from }));
            }
        }
    }

    fn verdict(&mut self, place: usize, signed: &SignedNotice, tools: Tools) -> Verdict {
        let notice = &signed.notice;
        let signature = signed.signature();
        self.counts.verified += 1;
        if let Says::Quarantine { .. } = notice.says {
            let run = self.boards[place].run_of(&notice.program, notice.version);
            // Without the program nobody can tell who may say it.
            let Some(run) = run else {
                return Verdict::UnknownKey;
            };
            let bytes = signed.signed();
            return tools
                .keys
                .verify(notice.issuer, &run.canary, bytes, &signature);
        }
        tools.keys.may_install(notice, signed.signed(), &signature)
    }

    fn take_notice(
        &mut self,
        place: usize,
        notice: Arc<SignedNotice>,
        signed: Moment,
        from: Option<Contact>,
    ) {
        if self.boards[place].is_full() {
            self.counts.oversized += 1;
            return;
        }
        let key = notice.key;
        self.counts.accepted += 1;
        self.boards[place].put(notice, signed);
        self.boards[place].prune(self.now);
        self.programs_changed();
        self.tell_notice(place, key, from.map(|from| from.node));
    }

    /// By a notice, or by time.
    pub(super) fn programs_changed(&mut self) {
        let standing = self.programs();
        let standing: Vec<(NoticeKey, Standing)> = standing
            .into_iter()
            .map(|one| (one.notice.key, one.standing))
            .collect();
        if standing == self.standing {
            return;
        }
        self.standing = standing;
        self.out.push(Effect::Programs);
        for place in 1..=self.depth() {
            self.inputs_changed(place);
        }
    }

    /// What comes by time alone.
    pub(super) fn look_at_programs(&mut self) {
        if self.boards.iter().all(super::board::Board::is_empty) {
            return;
        }
        for board in &mut self.boards {
            board.prune(self.now);
        }
        self.programs_changed();
    }

    /// Of this node's zones.
    fn place_of(&self, zone: &ZonePath) -> Option<usize> {
        self.path.iter().position(|step| step.zone == *zone)
    }

    pub(super) fn place_of_key(&self, zone: ZoneKey) -> Option<usize> {
        self.path.iter().position(|step| step.key == zone)
    }

    fn tell_notice(&mut self, place: usize, key: NoticeKey, from: Option<NodeId>) {
        let mut told: BTreeMap<NodeId, (Contact, Kind)> = BTreeMap::new();
        let mut has_post = false;
        for level in place.saturating_sub(1)..self.depth() {
            let post = &self.posts[level];
            let is_from_below = from.is_none_or(|node| self.is_below(level + 1, node));
            if level >= place && post.lead.is_some() && is_from_below {
                self.tell_siblings(level, self.path[level + 1].key, Kind::Row, &mut told);
            }
            if post.rank.is_some() {
                has_post = true;
                for one in &post.servers {
                    told.insert(one.node, (*one, Kind::Row));
                }
                for contacts in &post.served {
                    self.tell_zone(contacts, Kind::Row, &mut told);
                }
            }
        }
        if !has_post {
            let servers = self.posts.last().map(|post| post.servers.clone());
            let servers = servers.unwrap_or_else(|| self.some_mates());
            for one in servers {
                told.insert(one.node, (one, Kind::Row));
            }
        }
        told.remove(&self.own.node);
        if let Some(from) = from {
            told.remove(&from);
        }
        for (contact, kind) in told.into_values() {
            self.queue(contact, Item::Notice(small(place), key), kind);
        }
    }

    fn some_mates(&self) -> Vec<Contact> {
        let up = self.mates.values().filter(|one| one.reach.is_up());
        up.map(|one| one.contact).take(MATES_TOLD_MAX).collect()
    }

    /// Whether a node is known to lie in the zone at this place.
    fn is_below(&self, place: usize, node: NodeId) -> bool {
        let tables = self.tables.iter().skip(place);
        let mut rows = tables.flat_map(super::Table::iter);
        self.is_mate(node)
            || rows.any(|(_, entry)| entry.row.row.contacts.iter().any(|one| one.node == node))
    }

    pub(super) fn write_notice(&self, packets: &mut Packets, held: &Held) {
        packets.push(&Part::Notice {
            age_ms: held.signed.age_ms(self.now),
            bytes: held.notice.bytes(),
        });
    }

    pub(super) fn on_notices_hash(&mut self, from: Contact, zone: ZoneKey, hash: u64) {
        let Some(place) = self.place_of_key(zone) else {
            return;
        };
        if self.boards[place].hash() == hash || !self.may_answer() {
            return;
        }
        let mut packets = Packets::default();
        let keys = self.boards[place].keys().collect();
        packets.push(&Part::Notices { zone, keys });
        self.send_bare(from, packets);
    }

    pub(super) fn on_notices(&mut self, from: Contact, zone: ZoneKey, keys: &[NoticeKey]) {
        let Some(place) = self.place_of_key(zone) else {
            return;
        };
        if !self.may_answer() {
            return;
        }
        let board = &self.boards[place];
        let wanted = keys.iter().filter(|key| board.get(**key).is_none());
        let wanted: Vec<NoticeKey> = wanted.copied().collect();
        let lacking = board.keys().filter(|key| !keys.contains(key));
        let lacking: Vec<NoticeKey> = lacking.take(TOLD_MAX).collect();
        let mut packets = Packets::default();
        if !wanted.is_empty() {
            let keys = wanted;
            packets.push(&Part::WantNotices { zone, keys });
        }
        for held in lacking.iter().filter_map(|key| board.get(*key)) {
            self.write_notice(&mut packets, held);
        }
        self.send_bare(from, packets);
    }

    pub(super) fn on_want_notices(&mut self, from: Contact, zone: ZoneKey, keys: &[NoticeKey]) {
        let Some(place) = self.place_of_key(zone) else {
            return;
        };
        if !self.may_answer() {
            return;
        }
        let board = &self.boards[place];
        let mut packets = Packets::default();
        for held in keys.iter().take(TOLD_MAX).filter_map(|key| board.get(*key)) {
            self.write_notice(&mut packets, held);
        }
        self.send_bare(from, packets);
    }

    /// What of the programs gave nothing for the zone at this place. One that
    /// is only tried is said to fail everywhere.
    pub(super) fn on_failed(&mut self, place: usize, failed: Vec<Failed>, tools: Tools) {
        let Some(post) = place
            .checked_sub(1)
            .and_then(|level| self.posts.get_mut(level))
        else {
            return;
        };
        if post.failed == failed {
            return;
        }
        post.failed.clone_from(&failed);
        for one in &failed {
            self.quarantine(one, tools);
        }
        let zone = self.path[place].zone.clone();
        self.out.push(Effect::Failed { zone, failed });
    }

    fn quarantine(&mut self, failed: &Failed, tools: Tools) {
        let is_tried = |one: &&Applied| {
            one.notice.key == failed.key && matches!(one.standing, Standing::Canary { .. })
        };
        let Some(tried) = self.programs().iter().find(is_tried).cloned() else {
            return;
        };
        let tried = &tried.notice.notice;
        let mut why = failed.why.clone();
        while why.len() > WHY_BYTES_MAX {
            why.pop();
        }
        let notice = Notice {
            program: tried.program.clone(),
            zone: tried.zone.clone(),
            version: tried.version,
            issuer: self.own.node,
            lifetime_ms: tried.lifetime_ms,
            says: Says::Quarantine { why },
        };
        let (Some(place), Ok(encoded)) = (self.place_of(&notice.zone), notice.encode()) else {
            return;
        };
        self.counts.signed += 1;
        let signature = tools.keys.sign(&encoded);
        let notice = Arc::new(SignedNotice::new(notice, encoded, &signature));
        if self.boards[place].get(notice.key).is_none() {
            self.take_notice(place, notice, Moment::of(self.now), None);
        }
    }
}

/// A program is tried where it will run.
fn is_sound(notice: &Notice) -> bool {
    match &notice.says {
        Says::Run(run) => notice.zone.contains(&run.canary),
        _ => true,
    }
}

fn small(place: usize) -> u8 {
    u8::try_from(place).unwrap_or(u8::MAX)
}
