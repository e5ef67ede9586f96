//! One line: an entry and its hash.
//!
//! Holds: what reads back writes the same bytes, so that no byte of a line can
//! change without being seen.

use kernel::Hash;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the first line names as the hash before it.
pub const GENESIS: [u8; 32] = [0; 32];
/// Hashes of other things must not pass for a line's.
const CONTEXT: &str = "homeostat 2026 audit line";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It begins now; without a later line of its own, its end is not known.
    Asked,
    Done,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Counts lines, from 1.
    pub number: u64,
    pub at_unix_ms: u64,
    /// `owner`, `token/ID`, or `node` for what the node says of the log itself.
    pub who: String,
    /// `apply`, `secret-set`, …
    pub act: String,
    /// `project/news`, `secret/news/db`, …
    pub object: String,
    pub outcome: Outcome,
    /// The line in which it was asked for; 0 in that line.
    pub change: u64,
    /// The error's code, where it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The hash of the line before.
    #[schema(value_type = String)]
    pub previous: Hash,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    entry: Entry,
    hash: Hash,
}

/// The line with its newline, and its hash.
pub fn text_of(entry: &Entry) -> (String, Hash) {
    let hash = hash_of(entry);
    let line = Line {
        entry: entry.clone(),
        hash,
    };
    // Maps with odd keys are what cannot be written, and there are none.
    let mut text = serde_json::to_string(&line).unwrap_or_default();
    text.push('\n');
    (text, hash)
}

fn hash_of(entry: &Entry) -> Hash {
    let text = serde_json::to_vec(entry).unwrap_or_default();
    Hash(vault::derived(CONTEXT, &text))
}

/// Reads a line, without its newline, whose hash is its own.
pub fn read(text: &str) -> Result<(Entry, Hash), String> {
    let line: Line = serde_json::from_str(text).map_err(|error| format!("unreadable: {error}"))?;
    let (again, hash) = text_of(&line.entry);
    if hash != line.hash {
        return Err("its hash is not that of its entry".to_owned());
    }
    if again.trim_end_matches('\n') != text {
        return Err("it is not as it was written".to_owned());
    }
    Ok((line.entry, hash))
}
