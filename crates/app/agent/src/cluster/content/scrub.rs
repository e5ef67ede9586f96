//! Reads all content again and again, slowly, to find what the disk changed.
//!
//! Holds: at most [`RATE`] is read; a round that was cut off goes on where it
//! was. What is found is reported by content itself, and mended by the loop.

use super::told::Round;
use crate::machine::unix_now;
use crate::shared::Shared;
use ::content::ScrubCursor;
use kernel::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

/// A second. At this rate 100 GiB take 14 h.
const RATE: Bytes = Bytes::mebibytes(2);
const EVERY: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_mins(1);
/// The place of a round is written down this often.
const NOTE_EVERY: Duration = Duration::from_mins(1);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Noted {
    cursor: String,
    files: u64,
    bytes: u64,
}

/// Runs for ever.
pub async fn run(shared: Arc<Shared>) {
    let path = shared.layout.scrub_cursor();
    let noted = std::fs::read(&path).ok();
    let noted: Noted = noted
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let mut cursor = ScrubCursor::from_text(&noted.cursor);
    let mut round = Round {
        files: noted.files,
        bytes: Bytes(noted.bytes),
        done_at: None,
    };
    let mut began = Instant::now();
    let mut written = Instant::now();
    loop {
        let content = shared.content.clone();
        let work = spawn_blocking(move || content.scrub(cursor, RATE));
        let done = match work.await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => {
                tracing::warn!(%error, "content is not read through");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            Err(error) => {
                tracing::error!(%error, "reading through content ended badly");
                return;
            }
        };
        cursor = done.next;
        round.files += done.files;
        round.bytes = Bytes(round.bytes.0 + done.bytes.0);
        let every = shared.holdings.settings.scrub_every;
        if done.round_done {
            round.done_at = Some(unix_now());
            tracing::info!(?round, "all content was read through");
            shared.holdings.scrubbed(round);
            note(&shared, cursor, Round::default());
            tokio::time::sleep(every.saturating_sub(began.elapsed()).max(EVERY)).await;
            round = Round::default();
            began = Instant::now();
            continue;
        }
        shared.holdings.scrubbed(round);
        if written.elapsed() >= NOTE_EVERY {
            note(&shared, cursor, round);
            written = Instant::now();
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Lost, the round begins again.
fn note(shared: &Shared, cursor: ScrubCursor, round: Round) {
    let noted = Noted {
        cursor: cursor.to_text(),
        files: round.files,
        bytes: round.bytes.0,
    };
    let bytes = serde_json::to_vec(&noted).unwrap_or_default();
    let _ = crate::tls::write_private(&shared.layout.scrub_cursor(), &bytes);
}
