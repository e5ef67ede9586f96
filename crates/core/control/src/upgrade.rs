//! Whether a node goes over to another program.
//!
//! In: what both programs say of themselves, and what the other nodes speak.
//! Out: go, or stay and why.

use crate::engine::{Controller, Decided};
use kernel::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use wire::supervise::release::{AGENTS, Release, Span, Unfit};

/// A node that has not come up by then goes back.
const WITHIN: Duration = Duration::from_mins(1);

pub struct Upgrade;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Its name.
    pub node: String,
    /// The file.
    pub program: String,
    /// Who asked.
    pub who: String,
    pub running: Release,
    pub offered: Release,
    /// By name: what the other nodes can agree on, as far as they tell.
    pub others: BTreeMap<String, Span>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Go,
    Stay { why: String },
}

impl Reading {
    /// # Errors
    /// What does not fit.
    pub fn fits(&self) -> Result<(), Unfit> {
        self.offered.can_follow(&self.running)?;
        let mut others = self.others.iter();
        others.try_for_each(|(name, speaks)| {
            let who = format!("node `{name}`");
            self.offered.can_speak(AGENTS, *speaks, &who)
        })
    }
}

impl Controller for Upgrade {
    const NAME: &'static str = "upgrade";
    type Parameters = ();
    type State = ();
    type Reading = Reading;
    type Action = Action;

    fn decide((): &(), (): &(), reading: &Reading, now: Time) -> Decided<(), Action> {
        let (from, to) = (&reading.running.version, &reading.offered.version);
        let seen = format!(
            "{} asks for {to} ({}) in the place of {from}",
            reading.who, reading.program
        );
        match reading.fits() {
            Ok(()) => Decided::act((), Action::Go, seen, format!("go over to {to}")).expecting(
                "edge, agent and supervisor are the new program",
                now + WITHIN,
            ),
            Err(unfit) => {
                let decided = format!("stay with {from}: {unfit}");
                let why = unfit.to_string();
                Decided::act((), Action::Stay { why }, seen, decided)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(offered: &Release, others: &[(&str, Span)]) -> Reading {
        Reading {
            node: "one".to_owned(),
            program: "/new".to_owned(),
            who: "owner".to_owned(),
            running: Release::of("1", &(1..=2)),
            offered: offered.clone(),
            others: others
                .iter()
                .map(|(name, span)| ((*name).to_owned(), *span))
                .collect(),
        }
    }

    #[test]
    fn a_node_that_still_speaks_the_oldest_alone_holds_back_who_speaks_it_no_more() {
        let later = Release::of("2", &(2..=3));
        let (both, oldest) = (
            Span {
                oldest: 1,
                newest: 2,
            },
            Span::only(1),
        );
        let decide = |others: &[(&str, Span)]| {
            Upgrade::decide(&(), &(), &reading(&later, others), Time(0)).action
        };
        assert_eq!(decide(&[]), Some(Action::Go));
        assert_eq!(decide(&[("two", both)]), Some(Action::Go));
        let Some(Action::Stay { why }) = decide(&[("two", both), ("three", oldest)]) else {
            panic!("it goes");
        };
        assert!(why.contains("three"), "{why}");
    }
}
