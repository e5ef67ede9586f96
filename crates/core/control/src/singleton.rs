//! Writes down where what must never run twice is placed.
//!
//! The rule itself (`node::lease`) needs more than a reading can hold: who was
//! granted what, and when. In: what came of it, and why. Out: the same as a
//! decision, so that it can be told.

use crate::engine::{Controller, Decided};
use kernel::Time;
use serde::{Deserialize, Serialize};

pub struct Singleton;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// A node's name; none: it stops where it is.
    pub to: Option<String>,
    pub why: String,
}

impl Controller for Singleton {
    const NAME: &'static str = "singleton";
    type Parameters = ();
    type State = ();
    type Reading = Reading;
    type Action = Option<String>;

    fn decide(
        (): &Self::Parameters,
        (): &Self::State,
        reading: &Reading,
        _: Time,
    ) -> Decided<(), Option<String>> {
        let decided = match &reading.to {
            Some(node) => format!("run it on `{node}`"),
            None => "stop it, then run it elsewhere".to_owned(),
        };
        Decided::act((), reading.to.clone(), reading.why.clone(), decided)
    }
}
