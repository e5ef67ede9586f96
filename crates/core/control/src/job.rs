//! Writes down what becomes of a job.
//!
//! The rule itself (`jobs::Machine`) lies in the store with all its runs. In: what
//! it saw and decided. Out: the same as a decision, so that it can be told.

use crate::engine::{Controller, Decided};
use kernel::Time;
use serde::{Deserialize, Serialize};

pub struct Job;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    pub seen: String,
    pub decided: String,
}

impl Controller for Job {
    const NAME: &'static str = "job";
    type Parameters = ();
    type State = ();
    type Reading = Reading;
    type Action = String;

    fn decide(
        (): &Self::Parameters,
        (): &Self::State,
        reading: &Reading,
        _: Time,
    ) -> Decided<(), String> {
        let Reading { seen, decided } = reading.clone();
        Decided::act((), decided.clone(), seen, decided)
    }
}
