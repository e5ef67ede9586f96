//! What can be wrong with a program, and with one evaluation of it.

use std::fmt;
use wire::attributes::AttributeName;

/// A program that was refused: nothing of it was kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("program `{program}`, line {line}, column {column}: {problem}")]
pub struct ProgramError {
    pub program: AttributeName,
    /// From 1, as `column`; where the trouble begins.
    pub line: u64,
    pub column: u64,
    pub problem: Problem,
}

/// What is wrong, in its own words, and the nearest that is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub what: String,
    pub nearest: Option<String>,
}

impl ProgramError {
    /// What the reader can write in its place, if we know it.
    pub fn hint(&self) -> Option<&str> {
        self.problem.nearest.as_deref()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; write {nearest}"),
            None => Ok(()),
        }
    }
}

/// One evaluation that gave nothing; the children were not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    #[error("program `{program}` spent its {fuel} units of fuel")]
    OutOfFuel { program: AttributeName, fuel: u64 },
    #[error("program `{program}` gathered {bytes} bytes of parts, over its limit of {limit}")]
    TooLarge {
        program: AttributeName,
        bytes: usize,
        limit: usize,
    },
    #[error("the children were gathered without program `{program}`: `{column}` is missing")]
    Unprepared {
        program: AttributeName,
        column: AttributeName,
    },
}

impl EvaluateError {
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::OutOfFuel { .. } => Some("compute less per row, or split the program"),
            Self::TooLarge { .. } => Some("ask for fewer entries, or split the program"),
            Self::Unprepared { .. } => Some("make the children anew with all programs"),
        }
    }
}

/// An evaluation that may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfFuel;

/// As much of a stranger's text as an error shows: no control characters, so
/// that no terminal obeys it.
pub(super) fn shown(text: &str) -> String {
    const CHARACTERS_MAX: usize = 40;
    let mut shown: String = text
        .chars()
        .take(CHARACTERS_MAX)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(CHARACTERS_MAX).is_some() {
        shown.push('…');
    }
    shown
}
