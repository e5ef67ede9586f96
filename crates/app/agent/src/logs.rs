//! A service's captured output, all replicas together, as lines.

use crate::shared::Shared;
use drivers::LogCursor;
use kernel::ScopedName;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use wire::api::LogLine;

/// How often files are looked at while following.
const LOOK: Duration = Duration::from_millis(200);

/// Sends the last `tail` lines, then what comes, until the reader leaves.
pub async fn send(
    shared: Arc<Shared>,
    service: ScopedName,
    tail: usize,
    follow: bool,
    lines: mpsc::Sender<LogLine>,
) {
    let replicas = shared.layout.replicas();
    let mut cursors = BTreeMap::new();
    let mut pending = match first(&replicas, &service, tail, &mut cursors) {
        Ok(pending) => pending,
        Err(error) => {
            tracing::warn!(%error, %service, "logs cannot be read");
            return;
        }
    };
    loop {
        for line in pending.drain(..) {
            if lines.send(line).await.is_err() {
                return;
            }
        }
        if !follow || lines.is_closed() {
            return;
        }
        tokio::time::sleep(LOOK).await;
        pending = more(&replicas, &service, &mut cursors).unwrap_or_default();
    }
}

type Cursors = BTreeMap<PathBuf, LogCursor>;

fn first(
    replicas: &std::path::Path,
    service: &ScopedName,
    tail: usize,
    cursors: &mut Cursors,
) -> std::io::Result<Vec<LogLine>> {
    let mut all = Vec::new();
    for directory in drivers::replica_directories(replicas, service)? {
        let (lines, cursor) = drivers::read_log(&directory, tail)?;
        all.extend(lines);
        cursors.insert(directory, cursor);
    }
    all.sort_by_key(|line| line.at_unix_ms);
    all.drain(..all.len().saturating_sub(tail));
    Ok(all)
}

fn more(
    replicas: &std::path::Path,
    service: &ScopedName,
    cursors: &mut Cursors,
) -> std::io::Result<Vec<LogLine>> {
    let mut all = Vec::new();
    for directory in drivers::replica_directories(replicas, service)? {
        let cursor = cursors
            .entry(directory)
            .or_insert_with_key(|directory| LogCursor::oldest(directory));
        all.extend(cursor.next_lines()?);
    }
    all.sort_by_key(|line| line.at_unix_ms);
    Ok(all)
}
