//! A group's heartbeats, and how soon a leader that went silent has a successor.
//!
//! openraft's own timers have one span for three things: between two heartbeats,
//! for a member's answer, and (half as long again) between two looks at the
//! clock. A far member needs that span to be long; a successor, short. So
//! heartbeats and elections are asked for here, and openraft keeps the lease, in
//! which a member that has heard the leader votes for nobody else (Raft, §6 of
//! Ongaro's thesis, "disruptive servers").
//!
//! Holds: silence is counted in this member's own beats, so that one that was
//! stopped for a while does not take its own absence for the leader's; no two
//! members stand for election at the same beat unless both were; whose disk is in
//! trouble stands later, and steps aside where it leads.

use super::fitness::{Aside, Fitness, UNFIT_WAIT_FACTOR};
use crate::types::TypeConfig;
use openraft::Raft;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// That a member may take to answer, in beats.
pub const ANSWER_BEATS: u32 = 3;
/// After it has heard the leader, a member votes for nobody else for so long.
pub const LEASE_BEATS: u64 = 5;
/// From one member's turn to stand for election to the next one's.
const TURN_BEATS: u32 = 2;
/// Who stood in vain waits longer, at most so many times as long.
const WAIT_FACTOR_MAX: u32 = 8;

/// Beats since a leader was heard, or another got this member's vote.
#[derive(Debug, Default)]
pub struct Silence(AtomicU32);

impl Silence {
    pub fn ends(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// So long that no living leader is.
    pub fn is_long(&self) -> bool {
        u64::from(self.0.load(Ordering::Relaxed)) > 4 * LEASE_BEATS
    }

    fn goes_on(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }
}

/// Runs until the store stops.
///
/// * `in_trouble`: whether this member's disk is.
pub async fn pulse(
    raft: Raft<TypeConfig>,
    (silence, aside): (Arc<Silence>, Arc<Aside>),
    in_trouble: impl Fn() -> bool,
    beat: Duration,
) {
    let mut beats = tokio::time::interval(beat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stood = 0;
    let mut fitness = Fitness::default();
    loop {
        beats.tick().await;
        let (leads, several, turn) = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow();
            let membership = metrics.membership_config.membership();
            let own = metrics.id;
            let leads = metrics.current_leader == Some(own);
            let several = membership.voter_ids().nth(1).is_some();
            let turn = turn(own, membership.voter_ids(), metrics.current_term);
            (leads, several, turn)
        };
        let is_aside = fitness.beat(several && in_trouble(), leads);
        if aside.set(is_aside) && is_aside {
            tracing::warn!("the disk is slow or full: another member is to lead");
        }
        if is_aside {
            continue;
        }
        let done = if leads {
            silence.ends();
            raft.trigger().heartbeat().await
        } else {
            let silent = silence.goes_on();
            if silent == 1 {
                stood = 0;
            }
            let Some(wait) = turn.map(|turn| wait(turn, stood)) else {
                continue;
            };
            let later = if fitness.is_unfit() {
                UNFIT_WAIT_FACTOR
            } else {
                1
            };
            if silent < wait.saturating_mul(later) {
                continue;
            }
            stood += 1;
            // Not none: that would be a leader's voice.
            silence.0.store(1, Ordering::Relaxed);
            raft.trigger().elect().await
        };
        if done.is_err() {
            return;
        }
    }
}

/// Which of the voters this one is, another way round in each term: one whose turn
/// is first and who cannot win is not always first.
fn turn(own: u64, voters: impl Iterator<Item = u64>, term: u64) -> Option<u32> {
    let voters: BTreeSet<u64> = voters.collect();
    let place = voters.iter().position(|voter| *voter == own)?;
    let turn = (place as u64 + term) % voters.len() as u64;
    u32::try_from(turn).ok()
}

/// Of silence before this member stands for election, in beats.
fn wait(turn: u32, stood: u32) -> u32 {
    let lease = u32::try_from(LEASE_BEATS).unwrap_or(u32::MAX);
    let factor = 2_u32.saturating_pow(stood).min(WAIT_FACTOR_MAX);
    (lease + 1 + turn * TURN_BEATS).saturating_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_voter_has_its_own_turn_and_another_one_in_the_next_term() {
        let voters = [3, 7, 9, 12, 40];
        for term in 0..7 {
            let turns: Vec<_> = voters
                .iter()
                .filter_map(|own| turn(*own, voters.into_iter(), term))
                .collect();
            let mut sorted = turns.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
            let next = turn(voters[0], voters.into_iter(), term + 1);
            assert_ne!(Some(turns[0]), next);
        }
        assert_eq!(turn(4, voters.into_iter(), 1), None);
    }

    #[test]
    fn who_stands_waits_for_the_lease_and_longer_when_it_was_in_vain() {
        assert!(u64::from(wait(0, 0)) > LEASE_BEATS);
        assert!(wait(1, 0) > wait(0, 0));
        assert_eq!(wait(0, 1), 2 * wait(0, 0));
        assert_eq!(wait(4, 40), WAIT_FACTOR_MAX * wait(4, 0));
    }
}
