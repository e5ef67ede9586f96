//! A mistake in a manifest: where it is, what is wrong, what would be right.
//!
//! Holds: a span lies in the text, on character boundaries.

use std::ops::Range;

/// One mistake in a manifest's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Mistake {
    /// Stable, for programs: `unknown-key`, `type`, `range`, …
    pub code: &'static str,
    pub message: String,
    /// Byte range in the text.
    pub span: Range<usize>,
    /// What the reader can do.
    pub help: Option<String>,
}

/// A place for people; both count from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl Mistake {
    pub(crate) fn new(code: &'static str, span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            span,
            help: None,
        }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Where the mistake starts in the text that was parsed.
    pub fn position(&self, text: &str) -> Position {
        position(text, self.span.start)
    }

    /// Moves the span onto characters of `text`.
    pub(crate) fn clamp(&mut self, text: &str) {
        let start = text.floor_char_boundary(self.span.start);
        let end = text.ceil_char_boundary(self.span.end.max(start));
        self.span = start..end;
    }
}

/// Line and column of a byte offset; an offset past the end is the end.
pub fn position(text: &str, offset: usize) -> Position {
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

/// The candidate that `word` was probably meant to be.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A hostile key of a megabyte must not buy quadratic work.
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (distance(&lower, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(lower.len()) / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits between the words; a word that goes on from the other counts as near.
fn distance(word: &str, candidate: &str) -> usize {
    let shorter = word.len().min(candidate.len());
    if shorter >= 3 && (word.starts_with(candidate) || candidate.starts_with(word)) {
        return 1;
    }
    strsim::damerau_levenshtein(word, candidate)
}

/// `a`, `b` and `c`, quoted.
pub(crate) fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [] => "none".to_owned(),
        [only] => only.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

/// Text from the manifest, cut so that a message stays a line.
pub(crate) fn short(text: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    let mut escaped = text.escape_debug().to_string().replace("\\\"", "\"");
    if let Some((cut, _)) = escaped.char_indices().nth(CHARACTERS_MAX) {
        escaped.truncate(cut);
        escaped.push('…');
    }
    escaped
}
