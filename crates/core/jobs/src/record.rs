//! All that is known of a job's runs, as it lies in the store.
//!
//! Holds: it is small enough for one entry of the store, whatever happens: what
//! is remembered is bounded, and texts are cut.

use kernel::{FencingEpoch, NodeId, Revision, UnixMillis};
use manifest::Schedule;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Of what a person is told.
pub const WHY_BYTES_MAX: usize = 200;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Of the version that was seen last.
    pub generation: Revision,
    pub schedule: Option<Schedule>,
    /// All instants of the schedule up to this one have been dealt with.
    pub dealt_until: UnixMillis,
    /// Counted for ever, also while the job is in no manifest.
    pub runs_begun: u64,
    pub attempts_begun: u64,
    /// The oldest first.
    pub runs: Vec<Run>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub number: u64,
    pub cause: Cause,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    pub began: UnixMillis,
    pub indices: u32,
    pub once: bool,
    /// Parts that have succeeded.
    pub succeeded: u32,
    /// Parts that have not, while the run goes on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<u32, Part>,
    /// How it ends; its last attempts may still be stopping.
    pub verdict: Option<Verdict>,
    pub ended: Option<UnixMillis>,
    /// Attempts that have ended, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<EndedAttempt>,
    /// Why a part has no place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It was applied, in a version that did not run yet.
    Applied,
    /// When it was due.
    Scheduled(UnixMillis),
    Asked,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    Waiting { attempts: u32, due: UnixMillis },
    Going(Attempt),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Among all attempts of the job, ever.
    pub serial: u64,
    /// Of this part, from 1.
    pub number: u32,
    pub node: NodeId,
    /// Greater than that of every attempt before.
    pub epoch: FencingEpoch,
    pub placed: UnixMillis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<UnixMillis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping: Option<Stopping>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopping {
    TookTooLong,
    RunIsOver,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    Succeeded,
    Failed(String),
    /// It is over, and nobody can say how.
    Unknown(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedAttempt {
    pub index: u32,
    pub number: u32,
    pub serial: u64,
    pub node: NodeId,
    pub end: End,
    pub at: UnixMillis,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Succeeded,
    Failed(String),
    /// A part that runs `once` has ended, and nobody can say how.
    Unknown(String),
    Cancelled(String),
}

impl Verdict {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed(_) => "failed",
            Self::Unknown(_) => "unknown",
            Self::Cancelled(_) => "cancelled",
        }
    }

    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Succeeded => None,
            Self::Failed(why) | Self::Unknown(why) | Self::Cancelled(why) => Some(why),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Applied => "a version was applied that did not run yet",
            Self::Scheduled(_) => "its schedule says so",
            Self::Asked => "somebody asked for it",
        })
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeeded => f.write_str("succeeded"),
            Self::Failed(why) | Self::Unknown(why) => f.write_str(why),
        }
    }
}

impl Record {
    /// Runs that are not over.
    pub fn going(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| run.ended.is_none())
    }

    /// What runs, or is to run, and where.
    pub fn attempts(&self) -> impl Iterator<Item = (&Run, u32, &Attempt)> {
        self.going().flat_map(Run::attempts)
    }
}

impl Run {
    pub fn attempts(&self) -> impl Iterator<Item = (&Self, u32, &Attempt)> {
        self.parts
            .iter()
            .filter_map(move |(index, part)| match part {
                Part::Going(attempt) => Some((self, *index, attempt)),
                Part::Waiting { .. } => None,
            })
    }

    /// `going`, `stopping`, or how it ended.
    pub fn word(&self) -> &'static str {
        match (&self.verdict, self.ended) {
            (Some(verdict), Some(_)) => verdict.word(),
            (Some(_), None) => "stopping",
            (None, _) => "going",
        }
    }
}

/// As much of a text as is kept.
pub(crate) fn cut(text: &str) -> String {
    if text.len() <= WHY_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(WHY_BYTES_MAX - 4);
    format!("{}…", &text[..end])
}
