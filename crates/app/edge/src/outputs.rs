//! Guests' output, written where the logs of all replicas are.
//!
//! Holds: one thread for all components, made by the first line; what the disk
//! cannot take in time is dropped, never waited for.

use drivers::{LogWriter, Stream};
use kernel::ReplicaId;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use wasm::{Line, OutputSink};

const WAITING_MAX: usize = 4_096;
/// Logs kept open; beyond them all are closed and opened as they are needed.
const OPEN_MAX: usize = 256;

struct Piece {
    replica: ReplicaId,
    stream: Stream,
    bytes: Vec<u8>,
}

pub struct Outputs {
    replicas: PathBuf,
    pieces: Arc<OnceLock<SyncSender<Piece>>>,
}

impl Outputs {
    /// * `replicas`: the directory of all replicas.
    pub fn new(replicas: PathBuf) -> Self {
        Self {
            replicas,
            pieces: Arc::default(),
        }
    }

    pub fn of(&self, replica: &ReplicaId) -> OutputSink {
        let (pieces, replicas) = (Arc::clone(&self.pieces), self.replicas.clone());
        let replica = replica.clone();
        Arc::new(move |line, bytes| {
            let sender = pieces.get_or_init(|| start(replicas.clone()));
            let piece = Piece {
                replica: replica.clone(),
                stream: match line {
                    Line::Out => Stream::Out,
                    Line::Error => Stream::Err,
                },
                bytes: bytes.to_vec(),
            };
            if sender.try_send(piece).is_err() {
                tracing::debug!(%replica, "output dropped: the disk is slower than the guest");
            }
        })
    }
}

fn start(replicas: PathBuf) -> SyncSender<Piece> {
    let (sender, pieces) = sync_channel(WAITING_MAX);
    std::thread::spawn(move || write(&replicas, &pieces));
    sender
}

fn write(replicas: &Path, pieces: &Receiver<Piece>) {
    let mut open: BTreeMap<ReplicaId, LogWriter> = BTreeMap::new();
    while let Ok(piece) = pieces.recv() {
        if open.len() >= OPEN_MAX && !open.contains_key(&piece.replica) {
            open.values_mut().for_each(LogWriter::flush);
            open.clear();
        }
        let writer = match open.entry(piece.replica) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                match LogWriter::of_replica(replicas, entry.key()) {
                    Ok(writer) => entry.insert(writer),
                    Err(error) => {
                        tracing::warn!(replica = %entry.key(), %error, "its output is not kept");
                        continue;
                    }
                }
            }
        };
        writer.push(piece.stream, &piece.bytes);
    }
    open.values_mut().for_each(LogWriter::flush);
}
