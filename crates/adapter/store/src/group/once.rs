//! What was done last for each member, so that it is done once.

use crate::types::Replies;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Runs of one member that are remembered: what an earlier one still has under
/// way is long answered or lost.
const RUNS_MAX: usize = 4;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Once(BTreeMap<u64, VecDeque<Last>>);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Last {
    nonce: u64,
    number: u64,
    replies: Replies,
}

pub enum Before {
    /// With what was answered.
    Done(Replies),
    /// Another of its has been done since: nobody waits for this one.
    Late,
    New,
}

impl Once {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn look(&self, member: u64, nonce: u64, number: u64) -> Before {
        let mut runs = self.0.get(&member).into_iter().flatten();
        match runs.find(|run| run.nonce == nonce) {
            Some(run) if run.number == number => Before::Done(run.replies.clone()),
            Some(run) if run.number > number => Before::Late,
            _ => Before::New,
        }
    }

    pub fn remember(&mut self, member: u64, nonce: u64, number: u64, replies: Replies) {
        let runs = self.0.entry(member).or_default();
        runs.retain(|run| run.nonce != nonce);
        if runs.len() == RUNS_MAX {
            runs.pop_front();
        }
        runs.push_back(Last {
            nonce,
            number,
            replies,
        });
    }
}
