//! A node's side of its zone's seat: whether it holds it.
//!
//! In: answers of the leader, and when they were asked for. Out: the epoch, and until
//! when it counts.
//! Holds: what is held ends by itself where no answer comes, sooner than the leader
//! would give it to another.

use super::{Answer, HELD_FOR};
use kernel::{FencingEpoch, Time, ZonePath};

/// A seat that this node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub zone: ZonePath,
    pub epoch: FencingEpoch,
    until: Time,
}

impl Held {
    /// Looked at anew before each act: a node may have stood still meanwhile.
    pub fn is_held(&self, now: Time) -> bool {
        now < self.until
    }
}

/// Made anew with each agent.
#[derive(Clone, Debug, Default)]
pub struct Holder {
    last: Option<Held>,
}

impl Holder {
    /// * `asked`: the time before the ask was sent.
    pub fn answered(&mut self, zone: &ZonePath, asked: Time, answer: Answer) {
        let Some(epoch) = answer.epoch else {
            return self.let_go();
        };
        let until = asked + HELD_FOR;
        match &mut self.last {
            Some(held) if held.zone == *zone && held.epoch == epoch => {
                held.until = held.until.max(until);
            }
            // Of a leader that knows less than the one before it.
            Some(held) if held.zone == *zone && held.epoch > epoch => {}
            last => {
                *last = Some(Held {
                    zone: zone.clone(),
                    epoch,
                    until,
                });
            }
        }
    }

    /// It is another's, or the zone has none.
    pub fn let_go(&mut self) {
        self.last = None;
    }

    /// Whether it goes on asking for the zone's seat: it held it last, as far as it was
    /// told, and a new leader may not have heard of it yet.
    pub fn keeps(&self, zone: &ZonePath) -> bool {
        self.last.as_ref().is_some_and(|held| held.zone == *zone)
    }

    pub fn held(&self, now: Time) -> Option<&Held> {
        self.last.as_ref().filter(|held| held.is_held(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn holds(holder: &Holder, at: Time) -> Option<u64> {
        holder.held(at).map(|held| held.epoch.0)
    }

    #[test]
    fn what_is_held_counts_from_before_it_was_asked_for_and_ends_by_itself() {
        let zone: ZonePath = "/eu/1".parse().expect("a zone");
        let mut holder = Holder::default();
        let at = |ms: u64| Time(0) + Duration::from_millis(ms);
        let epoch = |epoch: u64| Answer {
            epoch: Some(FencingEpoch(epoch)),
        };
        holder.answered(&zone, at(100), epoch(7));
        assert_eq!(holds(&holder, at(1_699)), Some(7));
        assert_eq!(holds(&holder, at(1_700)), None);
        holder.answered(&zone, at(600), epoch(7));
        assert_eq!(holds(&holder, at(2_199)), Some(7));
        // What an older leader says is no news.
        holder.answered(&zone, at(900), epoch(6));
        assert_eq!(holds(&holder, at(2_000)), Some(7));
        holder.answered(&zone, at(1_000), Answer::default());
        assert_eq!(holds(&holder, at(1_001)), None);
    }

    #[test]
    fn a_node_that_moves_holds_what_it_is_given_where_it_is() {
        let mut holder = Holder::default();
        for (zone, epoch) in [("/eu/1", 9), ("/us/1", 3)] {
            let answer = Answer {
                epoch: Some(FencingEpoch(epoch)),
            };
            holder.answered(&zone.parse().expect("a zone"), Time(0), answer);
            let held = holder.held(Time(1)).expect("holds");
            assert_eq!(
                (held.zone.to_string().as_str(), held.epoch.0),
                (zone, epoch)
            );
        }
    }
}
