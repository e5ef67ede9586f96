//! The leader's side of the zones' seats: who is given one, and when it is free.
//!
//! Made anew with each leadership: which seats there are, and who holds them, is in the
//! store; who was heard of when is not, and a new leader counts from its beginning, not
//! for safety (what a seat writes is fenced by its record) but because whoever held it
//! mostly still does.
//!
//! In: asks, who may hold a seat, who is gone. Out: what the asking node is answered, or
//! what is to be written first.
//! Holds: a seat is given only over the record that was seen.

use super::{Ask, Seat, TIME_TO_LIVE, Zones, epoch_at};
use kernel::{FencingEpoch, NodeId, Revision, Time, ZonePath};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
pub struct Keeper {
    began: Time,
    /// As they were read, and written since; none: they are to be read.
    seats: Option<BTreeMap<ZonePath, (Seat, FencingEpoch)>>,
    heard: BTreeMap<ZonePath, Heard>,
}

/// Of a seat's holder.
#[derive(Clone, Debug)]
struct Heard {
    holder: NodeId,
    epoch: FencingEpoch,
    at: Time,
    left: BTreeSet<NodeId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What is written down is to be read first: [`Keeper::read`].
    Unread,
    /// It holds the seat, as before.
    Renewed(FencingEpoch),
    /// It is another's, or the zone has none.
    Refused,
    /// To be written down, then [`Keeper::given`].
    Give {
        /// Of the record that it is written over; none: over no record.
        over: Option<FencingEpoch>,
    },
}

/// A seat as the leader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub seat: Seat,
    pub epoch: FencingEpoch,
    /// When its holder was heard of last, by this leader.
    pub heard: Option<Time>,
}

impl Keeper {
    pub fn new(now: Time) -> Self {
        Self {
            began: now,
            seats: None,
            heard: BTreeMap::new(),
        }
    }

    /// * `seats`: all that are written down, each with the revision at which it was.
    pub fn read(&mut self, seats: impl IntoIterator<Item = (ZonePath, Seat, Revision)>) {
        let seats = seats.into_iter();
        let seats = seats.map(|(zone, seat, written)| (zone, (seat, epoch_at(written))));
        self.seats = Some(seats.collect());
    }

    /// What is written down may be another than is known: it is read again.
    pub fn forget(&mut self) {
        self.seats = None;
    }

    /// A node asks for its zone's seat.
    ///
    /// * `seated`: the zones that have one, and who may hold each.
    /// * `is_gone`: as far as this leader sees.
    pub fn asked(
        &mut self,
        from: NodeId,
        ask: &Ask,
        seated: &Zones,
        is_gone: impl Fn(NodeId) -> bool,
        now: Time,
    ) -> Verdict {
        let Some(seats) = &self.seats else {
            return Verdict::Unread;
        };
        let able = seated.get(&ask.zone);
        let Some(able) = able.filter(|able| able.contains(&from)) else {
            return Verdict::Refused;
        };
        match seats.get(&ask.zone).copied() {
            None => Verdict::Give { over: None },
            Some((seat, epoch)) if seat.holder == from => {
                self.hear(&ask.zone, (from, epoch), ask.left.clone(), now);
                Verdict::Renewed(epoch)
            }
            Some((seat, epoch)) => {
                let holds = able.contains(&seat.holder) && !is_gone(seat.holder);
                if holds && self.heard_last(&ask.zone, epoch) + TIME_TO_LIVE > now {
                    return Verdict::Refused;
                }
                Verdict::Give { over: Some(epoch) }
            }
        }
    }

    /// It is written down.
    pub fn given(&mut self, zone: &ZonePath, seat: Seat, written: Revision, now: Time) {
        let epoch = epoch_at(written);
        if let Some(seats) = &mut self.seats {
            seats.insert(zone.clone(), (seat, epoch));
        }
        self.hear(zone, (seat.holder, epoch), BTreeSet::new(), now);
    }

    fn hear(
        &mut self,
        zone: &ZonePath,
        (holder, epoch): (NodeId, FencingEpoch),
        left: BTreeSet<NodeId>,
        now: Time,
    ) {
        let heard = Heard {
            holder,
            epoch,
            at: now,
            left,
        };
        self.heard.insert(zone.clone(), heard);
    }

    fn heard_last(&self, zone: &ZonePath, epoch: FencingEpoch) -> Time {
        let heard = self.heard.get(zone).filter(|heard| heard.epoch == epoch);
        heard.map_or(self.began, |heard| heard.at.max(self.began))
    }

    /// Whether `from` holds the seat under this epoch, as far as is known.
    pub fn holds(&self, zone: &ZonePath, from: NodeId, epoch: FencingEpoch) -> bool {
        let seat = self.seats.as_ref().and_then(|seats| seats.get(zone));
        seat.is_some_and(|(seat, now)| seat.holder == from && *now == epoch)
    }

    /// Of zones that have no seat any more: to be deleted some time.
    pub fn stale(&self, seated: &Zones) -> Vec<(ZonePath, FencingEpoch)> {
        let seats = self.seats.iter().flatten();
        let stale = seats.filter(|(zone, _)| !seated.contains_key(*zone));
        stale
            .map(|(zone, (_, epoch))| (zone.clone(), *epoch))
            .collect()
    }

    /// They were deleted.
    pub fn deleted(&mut self, zones: &[(ZonePath, FencingEpoch)]) {
        for (zone, _) in zones {
            if let Some(seats) = &mut self.seats {
                seats.remove(zone);
            }
            self.heard.remove(zone);
        }
    }

    /// Whoever holds the zone's seat, if it was heard of within its time.
    pub fn at_work(&self, zone: &ZonePath, now: Time) -> Option<NodeId> {
        let heard = self.heard.get(zone);
        let heard = heard.filter(|heard| heard.at + TIME_TO_LIVE > now);
        heard.map(|heard| heard.holder)
    }

    /// Nodes that the seats at work hand over to the root.
    pub fn left(&self, now: Time) -> BTreeSet<NodeId> {
        let at_work = self.heard.values();
        let at_work = at_work.filter(|heard| heard.at + TIME_TO_LIVE > now);
        at_work
            .flat_map(|heard| heard.left.iter().copied())
            .collect()
    }

    pub fn standing(&self) -> BTreeMap<ZonePath, Standing> {
        let seats = self.seats.iter().flatten();
        let standing = seats.map(|(zone, (seat, epoch))| {
            let heard = self.heard.get(zone).filter(|heard| heard.epoch == *epoch);
            let standing = Standing {
                seat: *seat,
                epoch: *epoch,
                heard: heard.map(|heard| heard.at),
            };
            (zone.clone(), standing)
        });
        standing.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::UnixMillis;
    use std::time::Duration;

    fn zone() -> ZonePath {
        "/eu/1".parse().expect("a zone")
    }

    fn seat(holder: u64) -> Seat {
        Seat {
            holder: NodeId(holder),
            since: UnixMillis(0),
        }
    }

    fn at(ms: u64) -> Time {
        Time(0) + Duration::from_millis(ms)
    }

    fn seated(able: &[u64]) -> Zones {
        Zones::from([(zone(), able.iter().copied().map(NodeId).collect())])
    }

    struct World {
        keeper: Keeper,
        seated: Zones,
        gone: BTreeSet<NodeId>,
    }

    impl World {
        fn new(seats: &[(ZonePath, Seat, Revision)]) -> Self {
            let mut keeper = Keeper::new(at(0));
            keeper.read(seats.iter().cloned());
            Self {
                keeper,
                seated: seated(&[1, 2, 3]),
                gone: BTreeSet::new(),
            }
        }

        fn ask(&mut self, from: u64, ms: u64) -> Verdict {
            let ask = Ask {
                zone: zone(),
                left: BTreeSet::new(),
            };
            let gone = |node| self.gone.contains(&node);
            self.keeper
                .asked(NodeId(from), &ask, &self.seated, gone, at(ms))
        }
    }

    const FREE: Verdict = Verdict::Give { over: None };
    const OVER_5: Verdict = Verdict::Give {
        over: Some(FencingEpoch(5)),
    };

    #[test]
    fn whoever_asks_first_is_given_it_and_keeps_it_while_it_asks() {
        let mut world = World::new(&[]);
        assert_eq!(world.ask(2, 0), FREE);
        world.keeper.given(&zone(), seat(2), Revision(5), at(0));
        assert_eq!(world.ask(1, 1_900), Verdict::Refused);
        assert_eq!(world.ask(2, 1_900), Verdict::Renewed(FencingEpoch(5)));
        assert_eq!(world.ask(1, 3_899), Verdict::Refused);
        assert_eq!(world.ask(1, 3_900), OVER_5);
        // Until it is written, it is as it was.
        assert_eq!(world.ask(2, 3_900), Verdict::Renewed(FencingEpoch(5)));
    }

    #[test]
    fn a_holder_that_is_seen_to_be_gone_or_drained_is_not_waited_for() {
        let mut world = World::new(&[]);
        world.keeper.given(&zone(), seat(2), Revision(5), at(0));
        world.gone.insert(NodeId(2));
        assert_eq!(world.ask(1, 10), OVER_5);
        world.gone.clear();
        assert_eq!(world.ask(1, 10), Verdict::Refused);
        world.seated = seated(&[1, 3]);
        assert_eq!(world.ask(1, 10), OVER_5);
        assert_eq!(world.ask(2, 10), Verdict::Refused);
    }

    #[test]
    fn a_new_leader_leaves_it_where_it_is_for_its_time() {
        let mut world = World::new(&[(zone(), seat(2), Revision(5))]);
        assert!(
            world.keeper.at_work(&zone(), at(10)).is_none(),
            "it was not heard of yet"
        );
        assert_eq!(world.ask(1, 1_999), Verdict::Refused);
        assert_eq!(world.ask(2, 1_999), Verdict::Renewed(FencingEpoch(5)));
        assert_eq!(world.keeper.at_work(&zone(), at(2_000)), Some(NodeId(2)));
        assert_eq!(world.ask(1, 2_000), Verdict::Refused);
        let mut world = World::new(&[(zone(), seat(2), Revision(5))]);
        assert_eq!(world.ask(1, 2_000), OVER_5);
    }

    #[test]
    fn what_is_not_known_is_read_first() {
        let mut world = World::new(&[]);
        world.keeper.forget();
        assert_eq!(world.ask(1, 0), Verdict::Unread);
        world.keeper.read([(zone(), seat(3), Revision(7))]);
        assert!(world.keeper.holds(&zone(), NodeId(3), FencingEpoch(7)));
        assert!(!world.keeper.holds(&zone(), NodeId(3), FencingEpoch(6)));
    }

    #[test]
    fn what_seats_hand_over_counts_while_they_are_at_work() {
        let mut world = World::new(&[(zone(), seat(2), Revision(5))]);
        let left = BTreeSet::from([NodeId(9)]);
        let ask = Ask {
            zone: zone(),
            left: left.clone(),
        };
        let seated = world.seated.clone();
        let verdict = world
            .keeper
            .asked(NodeId(2), &ask, &seated, |_| false, at(10));
        assert_eq!(verdict, Verdict::Renewed(FencingEpoch(5)));
        assert_eq!(world.keeper.left(at(2_009)), left);
        assert_eq!(world.keeper.left(at(2_010)), BTreeSet::new());
    }

    #[test]
    fn the_seats_of_zones_that_have_none_any_more_are_stale() {
        let other: ZonePath = "/eu/2".parse().expect("a zone");
        let seats = [
            (zone(), seat(2), Revision(5)),
            (other.clone(), seat(7), Revision(6)),
        ];
        let mut world = World::new(&seats);
        let stale = world.keeper.stale(&world.seated);
        assert_eq!(stale, [(other, FencingEpoch(6))]);
        world.keeper.deleted(&stale);
        assert_eq!(world.keeper.standing().len(), 1);
        assert_eq!(world.keeper.stale(&world.seated), []);
    }
}
