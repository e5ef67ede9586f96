//! A question about a zone, and what a node of that zone answers.
//!
//! In: bytes of a call from a peer whose identity the transport has proven.
//! Out: questions and answers.
//! Holds: what is read is within its limits. What a program gathered is checked
//! by who merges it.

use super::Coverage;
use crate::attributes::{Partial, Row};
use crate::record::{self, RecordError};
use kernel::{NodeId, UnixMillis, ZonePath};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub const VERSION: u8 = 2;
pub const TEXT_BYTES_MAX: usize = 4 << 10;
/// Of rows that one answer shows.
pub const ROWS_MAX: usize = 500;
/// What these take together; further ones are only counted.
pub const ROWS_BYTES_MAX: usize = 256 << 10;
/// Of zones that did not answer; further ones are only counted.
pub const SILENT_MAX: usize = 64;
pub const ANSWER_BYTES_MAX: usize = 512 << 10;
/// A question goes down one level with each.
pub const HOPS_MAX: u8 = 16;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    pub zone: ZonePath,
    /// An aggregate program.
    pub text: String,
    /// Nodes that nobody has heard for longer do not count.
    pub fresh_ms: Option<u64>,
    /// How many rows behind the number to show.
    pub rows: u32,
    /// By the clock of who asks: `NOW()` for all.
    pub asked_at: UnixMillis,
    pub within_ms: u64,
    pub hops: u8,
}

/// What a zone's nodes come to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub partial: Partial,
    pub coverage: Coverage,
    pub silent: Silences,
    pub rows: Rows,
    /// Tells the zones' layout, as of the last move of a node that whoever
    /// answers knows of, from others.
    pub layout: u64,
    /// Parts of it were counted under different layouts: while nodes are moved
    /// one may be in two zones, or in none.
    pub moving: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silences {
    pub shown: Vec<Silence>,
    pub more: u64,
}

/// A zone that should have answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    pub zone: ZonePath,
    /// How many nodes belong there, as far as is known.
    pub nodes: u64,
    /// Since it was last heard of.
    pub age_ms: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    pub shown: Vec<NodeRow>,
    pub more: u64,
}

/// What a program read of one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRow {
    pub node: NodeId,
    pub zone: ZonePath,
    #[serde(with = "row")]
    pub attributes: Row,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    Answer(Answer),
    /// There is no such zone, as far as the node that was asked knows.
    NoZone(ZonePath),
    /// In words.
    Refused(String),
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuestionError {
    #[error("{what} of {found} is over the limit of {max}")]
    TooLong {
        what: &'static str,
        found: usize,
        max: usize,
    },
    #[error("it has gone from node to node too often")]
    Hops,
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Question {
    pub fn encode(&self) -> Result<Vec<u8>, QuestionError> {
        Ok(record::encode(VERSION, self)?)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, QuestionError> {
        let question: Self = read("a question", bytes, TEXT_BYTES_MAX + 1_024)?;
        within("a program", question.text.len(), TEXT_BYTES_MAX)?;
        within("a number of rows", question.rows as usize, ROWS_MAX)?;
        if question.hops > HOPS_MAX {
            return Err(QuestionError::Hops);
        }
        Ok(question)
    }
}

impl Reply {
    pub fn encode(&self) -> Result<Vec<u8>, QuestionError> {
        Ok(record::encode(VERSION, self)?)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, QuestionError> {
        let reply: Self = read("an answer", bytes, ANSWER_BYTES_MAX)?;
        if let Self::Answer(answer) = &reply {
            within("a number of rows", answer.rows.shown.len(), ROWS_MAX)?;
            let silent = answer.silent.shown.len();
            within("a number of silent zones", silent, SILENT_MAX)?;
        }
        Ok(reply)
    }
}

fn read<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
    max: usize,
) -> Result<T, QuestionError> {
    within(what, bytes.len(), max)?;
    Ok(record::decode(VERSION, bytes)?)
}

fn within(what: &'static str, found: usize, max: usize) -> Result<(), QuestionError> {
    if found > max {
        return Err(QuestionError::TooLong { what, found, max });
    }
    Ok(())
}

/// In a row's own spelling, with its limits.
mod row {
    use super::Row;
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(row: &Row, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = row.encode().map_err(S::Error::custom)?;
        bytes.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Row, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        Row::decode(&bytes).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn question() -> Question {
        Question {
            zone: "/eu".parse().expect("a zone"),
            text: "SELECT COUNT(*) AS nodes FROM children".to_owned(),
            fresh_ms: Some(5_000),
            rows: 10,
            asked_at: UnixMillis(7),
            within_ms: 1_000,
            hops: 0,
        }
    }

    fn answer() -> Answer {
        let mut attributes = Row::default();
        let name = "cpu".parse().expect("a name");
        attributes
            .0
            .insert(name, crate::attributes::Value::Float(0.5));
        Answer {
            partial: Partial {
                fingerprint: 1,
                rows: 2,
                matched: 2,
                ignored: 0,
                states: vec![crate::attributes::State::Count(2)],
            },
            coverage: Coverage {
                expected: 3,
                reporting: 2,
                oldest_ms: 40,
            },
            silent: Silences {
                shown: vec![Silence {
                    zone: "/eu/2".parse().expect("a zone"),
                    nodes: 1,
                    age_ms: 9_000,
                }],
                more: 0,
            },
            rows: Rows {
                shown: vec![NodeRow {
                    node: NodeId(1),
                    zone: "/eu/1".parse().expect("a zone"),
                    attributes,
                }],
                more: 1,
            },
            layout: 3,
            moving: true,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = question().encode().expect("writes");
        assert_eq!(Question::decode(&bytes).expect("reads"), question());
        let reply = Reply::Answer(answer());
        let bytes = reply.encode().expect("writes");
        assert_eq!(Reply::decode(&bytes).expect("reads"), reply);
    }

    #[test]
    fn what_is_over_its_limit_is_refused_by_name() {
        let refused = |question: Question| {
            let bytes = question.encode().expect("writes");
            Question::decode(&bytes).expect_err("refused").to_string()
        };
        let long = Question {
            text: "x".repeat(TEXT_BYTES_MAX + 1),
            ..question()
        };
        assert!(refused(long).contains("a program"));
        let many = Question {
            rows: 501,
            ..question()
        };
        assert!(refused(many).contains("a number of rows"));
        let far = Question {
            hops: HOPS_MAX + 1,
            ..question()
        };
        assert!(refused(far).contains("too often"));
        let mut wide = answer();
        let one = wide.silent.shown[0].clone();
        wide.silent.shown = vec![one; SILENT_MAX + 1];
        let bytes = Reply::Answer(wide).encode().expect("writes");
        let error = Reply::decode(&bytes).expect_err("refused");
        assert!(error.to_string().contains("silent zones"), "{error}");
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_without_panic(bytes: Vec<u8>, at: usize, with: u8) {
            let _ = Question::decode(&bytes);
            let _ = Reply::decode(&bytes);
            let mut reply = Reply::Answer(answer()).encode().expect("writes");
            let at = at % reply.len();
            reply[at] = with;
            let _ = Reply::decode(&reply);
            let _ = Reply::decode(&reply[..at]);
        }
    }
}
