//! What befalls a job, and what it wants done.

use crate::record::{Cause, End, Verdict};
use kernel::{FencingEpoch, NodeId, UnixMillis, format_duration};
use std::time::Duration;

/// Two clocks: schedules go by the wall's, which people set; spans by one that
/// is like it but goes on evenly while the same node leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    pub wall: UnixMillis,
    pub steady: UnixMillis,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time has passed, or the job was applied.
    Tick,
    /// A person wants a run.
    Asked {
        arguments: Vec<String>,
    },
    /// A person ends a run; all that go on, if none is named.
    Cancelled {
        run: Option<u64>,
    },
    /// An answer to [`Effect::Place`].
    Placed {
        run: u64,
        index: u32,
        node: NodeId,
        epoch: FencingEpoch,
    },
    /// The other answer: there is no place now.
    Refused {
        run: u64,
        index: u32,
        why: String,
    },
    Running {
        attempt: u64,
    },
    Ended {
        attempt: u64,
        end: End,
    },
    /// Nothing will be heard of it. Of what runs `once`: it is surely over.
    Lost {
        attempt: u64,
        why: String,
        /// Whether it may have run at all.
        may_have_run: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Find a node for this part; told again while it has none.
    Place {
        run: u64,
        index: u32,
    },
    Began {
        run: u64,
        cause: Cause,
    },
    /// Nothing was begun, or ended.
    Declined {
        why: String,
    },
    /// A run that was due was not begun.
    Skipped {
        due: UnixMillis,
        why: String,
    },
    Retried {
        run: u64,
        index: u32,
        after: Duration,
        why: String,
    },
    Finished {
        run: u64,
        verdict: Verdict,
    },
}

impl Effect {
    /// For whoever asks why: what was seen, what was decided. None of what is
    /// between the job and its owner alone.
    pub fn told(&self) -> Option<(String, String)> {
        match self {
            Self::Place { .. } | Self::Declined { .. } => None,
            Self::Began { run, cause } => Some((cause.to_string(), format!("begin run {run}"))),
            Self::Skipped { why, .. } => Some((why.clone(), "skip a run that was due".to_owned())),
            Self::Retried {
                run,
                index,
                after,
                why,
            } => Some((
                format!("part {index} of run {run}: {why}"),
                format!("try again in {}", format_duration(*after)),
            )),
            Self::Finished { run, verdict } => Some((
                verdict.why().unwrap_or("every part succeeded").to_owned(),
                format!("run {run} is over: {}", verdict.word()),
            )),
        }
    }
}
