//! Answers on a lab's socket: one line in, one line out.
//!
//! Holds: who says nothing, or too much, is not waited for.

use super::{Keeper, refusal};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use wire::lab::{FromKeeper, ToKeeper};

const LINE_BYTES_MAX: u64 = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(2);

/// The stream that waits for the lab's end, if that was asked for.
pub async fn answer(mut stream: UnixStream, keeper: &mut Keeper) -> Option<UnixStream> {
    let mut line = String::new();
    let mut reader = BufReader::new((&mut stream).take(LINE_BYTES_MAX));
    let read = tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await;
    if !matches!(read, Ok(Ok(count)) if count > 0) {
        return None;
    }
    let answer = match serde_json::from_str(&line) {
        Ok(ToKeeper::Down) => return Some(stream),
        Ok(request) => respond(request, keeper),
        Err(error) => FromKeeper::Failed {
            why: format!("the request cannot be read: {error}"),
            help: None,
        },
    };
    send(stream, &answer).await;
    None
}

fn respond(request: ToKeeper, keeper: &mut Keeper) -> FromKeeper {
    match request {
        ToKeeper::Status => FromKeeper::Status(keeper.status()),
        ToKeeper::Begin { fault, for_ms } => {
            match keeper.begin(&fault, for_ms.map(Duration::from_millis)) {
                Ok(id) => FromKeeper::Begun { id },
                Err(error) => refusal(&error),
            }
        }
        ToKeeper::Undo { id } => {
            let taken = keeper.ledger.end(id);
            let count = taken.len() as u64;
            keeper.undo(&taken);
            FromKeeper::Undone { count }
        }
        ToKeeper::Restart { node, command } => {
            keeper.restarts.insert(node, command);
            FromKeeper::Done
        }
        ToKeeper::Keep => {
            keeper.kept = true;
            FromKeeper::Done
        }
        ToKeeper::Down => FromKeeper::Done,
    }
}

pub async fn send(mut stream: UnixStream, answer: &FromKeeper) {
    let mut line = serde_json::to_string(answer).unwrap_or_default();
    line.push('\n');
    // Who has gone needs no answer.
    let _ = tokio::time::timeout(PATIENCE, stream.write_all(line.as_bytes())).await;
}
