//! Carries out one run: one request to one holder, whose answer is checked and
//! written as it comes.
//!
//! In: what to ask for. Out: a [`Note`] for each thing that came, or did not.
//! Holds: nothing is believed that was not checked against its hash; each frame
//! has a deadline; bytes are read only when the memory for them is there.

use super::{Context, Holder, HolderStream, Partial};
use crate::error::ContentError;
use crate::fetch::plan::{HolderId, RunId, UnitId};
use crate::pieces::Pieces;
use kernel::Hash;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use wire::exchange::{
    Description, ExchangeError, HEADER_BYTES, Header, Kind, PIECE_BYTES_MIN, Refusal, Request,
    Want, piece_bytes,
};

/// Small files are written together: so many bytes, so many, for so long.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_FILES: usize = 64;
const BATCH_TIME: Duration = Duration::from_millis(20);
/// Memory is counted in these.
pub(crate) const MEMORY_UNIT: u32 = 4 << 10;

/// One unit of a run.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub unit: UnitId,
    pub job: Job,
}

#[derive(Clone, Debug)]
pub(crate) enum Job {
    /// Describe a file of which this much is known.
    Describe(super::Wanted),
    Piece {
        partial: Arc<Partial>,
        index: u32,
    },
}

/// What became of a unit, or of the run; `bytes` that came.
#[derive(Debug)]
pub(crate) enum Note {
    /// A file of one piece: written, and visible after the next flush; or the
    /// bytes themselves, where that was asked for.
    Whole {
        unit: UnitId,
        bytes: u64,
        held: Option<Vec<u8>>,
    },
    Described {
        unit: UnitId,
        partial: Arc<Partial>,
        bytes: u64,
    },
    Piece {
        unit: UnitId,
        bytes: u64,
    },
    /// What came goes to the disk now.
    Writing,
    Lacking {
        unit: UnitId,
        refusal: Refusal,
    },
    Length {
        hash: Hash,
        expected: u64,
        found: u64,
    },
    Wrong {
        hash: Hash,
    },
    Failed {
        why: String,
    },
    /// This node cannot go on.
    Fatal(ContentError),
}

/// Why a run ended before its answer did.
enum End {
    Note(Note),
    Failed(String),
}

/// A note, of which run and holder.
#[derive(Debug)]
pub(crate) struct Told {
    pub run: RunId,
    pub holder: HolderId,
    pub note: Note,
}

pub(crate) struct Run {
    pub id: RunId,
    pub holder_id: HolderId,
    pub holder: Arc<dyn Holder>,
    pub items: Vec<Item>,
    pub context: Arc<Context>,
    /// For each frame of up to 256 KiB; longer ones have longer.
    pub within: Duration,
    pub notes: mpsc::Sender<Told>,
}

struct Frame {
    kind: Kind,
    body: Vec<u8>,
    _memory: OwnedSemaphorePermit,
}

/// Small files that came and are not yet written.
#[derive(Default)]
struct Batch {
    files: Vec<(UnitId, super::Wanted, Frame)>,
    bytes: usize,
    since: Option<tokio::time::Instant>,
}

impl Run {
    pub async fn carry_out(self) {
        let mut batch = Batch::default();
        let mut end = self.exchange(&mut batch).await.err();
        if let Err(other) = self.write_batch(&mut batch).await {
            end = Some(other);
        }
        let note = match end {
            None => return,
            Some(End::Note(note)) => note,
            Some(End::Failed(why)) => Note::Failed { why },
        };
        self.tell(note).await;
    }

    async fn tell(&self, note: Note) {
        // The fetch may be over: then nobody wants to know.
        let (run, holder) = (self.id, self.holder_id);
        let _ = self.notes.send(Told { run, holder, note }).await;
    }

    async fn exchange(&self, batch: &mut Batch) -> Result<(), End> {
        let request = Request {
            wants: wants(&self.items),
        };
        let frame = request.frame().map_err(|error| failed(&error))?;
        let opened = timeout(self.within, self.holder.open()).await;
        let mut stream = opened
            .map_err(|_| End::Failed("it could not be reached in time".to_owned()))?
            .map_err(|error| failed(&error))?;
        let sent = timeout(self.within, async {
            stream.writer.write_all(&frame).await?;
            stream.writer.shutdown().await
        });
        sent.await
            .map_err(|_| slow())?
            .map_err(|error| failed(&error))?;
        let mut items = self.items.iter();
        while let Some(item) = items.next() {
            let (hash, limit) = item.expects();
            let frame = self.frame(&mut stream, batch, hash, limit).await?;
            if frame.kind == Kind::Refusal {
                let refusal = Refusal::decode(&frame.body);
                let refusal = refusal.map_err(|_| wrong(hash))?;
                self.refused(refusal, item, &mut items).await?;
                continue;
            }
            match &item.job {
                Job::Describe(wanted) => {
                    self.described(item.unit, wanted, frame, &mut stream, batch)
                        .await?;
                }
                Job::Piece { partial, index } => {
                    if frame.kind != Kind::Piece {
                        return Err(wrong(hash));
                    }
                    self.piece(item.unit, Arc::clone(partial), *index, frame)
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// A refusal is for all that is left of its want.
    async fn refused(
        &self,
        refusal: Refusal,
        item: &Item,
        items: &mut std::slice::Iter<'_, Item>,
    ) -> Result<(), End> {
        match refusal {
            Refusal::Missing | Refusal::Damaged | Refusal::NoSuchPiece => {}
            other => return Err(End::Failed(other.to_string())),
        }
        let mut last = item;
        loop {
            let unit = last.unit;
            self.tell(Note::Lacking { unit, refusal }).await;
            match items.as_slice().first() {
                Some(next) if follows(last, next) => last = items.next().unwrap_or(next),
                _ => return Ok(()),
            }
        }
    }

    async fn described(
        &self,
        unit: UnitId,
        wanted: &super::Wanted,
        frame: Frame,
        stream: &mut HolderStream,
        batch: &mut Batch,
    ) -> Result<(), End> {
        let hash = wanted.hash;
        if frame.kind != Kind::Description {
            return Err(wrong(hash));
        }
        let description = Description::decode(&frame.body).map_err(|_| wrong(hash))?;
        drop(frame);
        let pieces = Pieces::new(hash, description).ok_or_else(|| wrong(hash))?;
        let limit = piece_bytes(pieces.length());
        let last = self.frame(stream, batch, hash, limit).await?;
        if last.kind == Kind::Refusal {
            return Err(End::Failed("it could not go on with it".to_owned()));
        }
        if last.kind != Kind::Piece {
            return Err(wrong(hash));
        }
        if pieces.count() > 1 {
            return self.begin(unit, wanted, pieces, last).await;
        }
        batch.bytes += last.body.len();
        batch.since.get_or_insert_with(tokio::time::Instant::now);
        batch.files.push((unit, *wanted, last));
        let old = batch
            .since
            .is_some_and(|since| since.elapsed() > BATCH_TIME);
        if old || batch.bytes >= BATCH_BYTES || batch.files.len() >= BATCH_FILES {
            self.write_batch(batch).await?;
        }
        Ok(())
    }

    /// Begins or resumes a long file; its length is proven by its last piece.
    async fn begin(
        &self,
        unit: UnitId,
        wanted: &super::Wanted,
        pieces: Pieces,
        last: Frame,
    ) -> Result<(), End> {
        let context = Arc::clone(&self.context);
        let (hash, executable) = (wanted.hash, wanted.executable);
        let (expected, found) = (wanted.bytes, pieces.length());
        self.tell(Note::Writing).await;
        let opened = spawn_blocking(move || {
            let index = pieces.count() - 1;
            if !pieces.is_right(index, &last.body) {
                return Ok(None);
            }
            if expected.is_some_and(|expected| expected != found) {
                return Ok(Some(None));
            }
            let partial = context.partial(Arc::new(pieces), executable)?;
            let new = partial.write(index, &last.body)?;
            let bytes = if new { last.body.len() as u64 } else { 0 };
            Ok(Some(Some((partial, bytes))))
        });
        let note = match joined(opened.await)? {
            None => Note::Wrong { hash },
            Some(None) => Note::Length {
                hash,
                expected: expected.unwrap_or(0),
                found,
            },
            Some(Some((partial, bytes))) => {
                self.tell(Note::Described {
                    unit,
                    partial,
                    bytes,
                })
                .await;
                return Ok(());
            }
        };
        Err(End::Note(note))
    }

    async fn piece(
        &self,
        unit: UnitId,
        partial: Arc<Partial>,
        index: u32,
        frame: Frame,
    ) -> Result<(), End> {
        let hash = partial.pieces().hash;
        let bytes = frame.body.len() as u64;
        self.tell(Note::Writing).await;
        let written = spawn_blocking(move || {
            let right = partial.is_right(index, &frame.body);
            if right {
                partial.write(index, &frame.body)?;
            }
            Ok(right)
        });
        if !joined(written.await)? {
            return Err(wrong(hash));
        }
        self.tell(Note::Piece { unit, bytes }).await;
        Ok(())
    }

    /// Checks small files and writes them where they wait to become visible.
    async fn write_batch(&self, batch: &mut Batch) -> Result<(), End> {
        let Batch { files, .. } = std::mem::take(batch);
        if files.is_empty() {
            return Ok(());
        }
        self.tell(Note::Writing).await;
        let context = Arc::clone(&self.context);
        let written = spawn_blocking(move || {
            let mut notes = Vec::new();
            for (unit, wanted, frame) in files {
                let note = small(&context, unit, &wanted, frame)?;
                let ends = matches!(note, Note::Wrong { .. } | Note::Length { .. });
                notes.push(note);
                if ends {
                    break;
                }
            }
            Ok(notes)
        });
        for note in joined(written.await)? {
            if matches!(note, Note::Wrong { .. } | Note::Length { .. }) {
                return Err(End::Note(note));
            }
            self.tell(note).await;
        }
        Ok(())
    }

    /// The next frame; a piece in it has at most `limit` bytes.
    async fn frame(
        &self,
        stream: &mut HolderStream,
        batch: &mut Batch,
        hash: Hash,
        limit: u64,
    ) -> Result<Frame, End> {
        let mut head = [0; HEADER_BYTES];
        let read = timeout(self.within, stream.reader.read_exact(&mut head)).await;
        let read = read.map_err(|_| slow())?;
        read.map_err(|error| failed(&error))?;
        let header = Header::decode(head).map_err(|error| match error {
            ExchangeError::Version { .. } => failed(&error),
            _ => wrong(hash),
        })?;
        if header.kind == Kind::Piece && u64::from(header.length) > limit {
            return Err(wrong(hash));
        }
        let units = header.length.div_ceil(MEMORY_UNIT);
        let memory = Arc::clone(&self.context.memory);
        let at_once = Arc::clone(&memory).try_acquire_many_owned(units);
        let memory = if let Ok(memory) = at_once {
            memory
        } else {
            // Whoever waits for memory holds none.
            self.write_batch(batch).await?;
            let waited = memory.acquire_many_owned(units).await;
            waited.map_err(|error| failed(&error))?
        };
        let mut body = vec![0; usize::try_from(header.length).unwrap_or(0)];
        let least = u64::from(header.length).div_ceil(PIECE_BYTES_MIN).max(1);
        let within = self.within * u32::try_from(least).unwrap_or(u32::MAX);
        let read = timeout(within, stream.reader.read_exact(&mut body)).await;
        let read = read.map_err(|_| slow())?;
        read.map_err(|error| failed(&error))?;
        Ok(Frame {
            kind: header.kind,
            body,
            _memory: memory,
        })
    }
}

impl Item {
    /// The hash it is about, and how long a piece it may be given.
    fn expects(&self) -> (Hash, u64) {
        match &self.job {
            Job::Describe(wanted) => (wanted.hash, 0),
            Job::Piece { partial, index } => {
                let pieces = partial.pieces();
                let range = pieces.range(*index);
                (pieces.hash, range.map_or(0, |(_, length)| length as u64))
            }
        }
    }
}

fn small(
    context: &Context,
    unit: UnitId,
    wanted: &super::Wanted,
    frame: Frame,
) -> Result<Note, ContentError> {
    let hash = wanted.hash;
    let bytes = frame.body.len() as u64;
    if blake3::hash(&frame.body).as_bytes() != &hash.0 {
        return Ok(Note::Wrong { hash });
    }
    if let Some(expected) = wanted.bytes.filter(|&expected| expected != bytes) {
        let found = bytes;
        return Ok(Note::Length {
            hash,
            expected,
            found,
        });
    }
    if wanted.hold {
        let held = Some(frame.body);
        return Ok(Note::Whole { unit, bytes, held });
    }
    let mut stage = context.stage.lock().unwrap_or_else(PoisonError::into_inner);
    let path = context.content.path(hash);
    if !stage.holds(&path) {
        stage.add_bytes_as(path, &frame.body, wanted.executable)?;
        context.flush_when_many(&mut stage, bytes)?;
    }
    Ok(Note::Whole {
        unit,
        bytes,
        held: None,
    })
}

/// The wants for these items; neighbouring pieces of a file are one.
fn wants(items: &[Item]) -> Vec<Want> {
    let mut wants: Vec<Want> = Vec::new();
    let mut last: Option<&Item> = None;
    for item in items {
        let joins = last.is_some_and(|last| follows(last, item));
        match (wants.last_mut(), &item.job) {
            (Some(Want::Pieces { count, .. }), _) if joins => *count += 1,
            (_, Job::Describe(wanted)) => wants.push(Want::Describe {
                hash: wanted.hash.0,
            }),
            (_, Job::Piece { partial, index }) => wants.push(Want::Pieces {
                hash: partial.pieces().hash.0,
                first: *index,
                count: 1,
            }),
        }
        last = Some(item);
    }
    wants
}

fn follows(before: &Item, after: &Item) -> bool {
    match (&before.job, &after.job) {
        (
            Job::Piece { partial, index },
            Job::Piece {
                partial: next,
                index: at,
            },
        ) => partial.pieces().hash == next.pieces().hash && index + 1 == *at,
        _ => false,
    }
}

fn wrong(hash: Hash) -> End {
    End::Note(Note::Wrong { hash })
}

fn slow() -> End {
    End::Failed("it did not go on in time".to_owned())
}

fn failed(error: &dyn std::error::Error) -> End {
    End::Failed(kernel::error_chain(error))
}

fn joined<T>(result: Result<Result<T, ContentError>, tokio::task::JoinError>) -> Result<T, End> {
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(End::Note(Note::Fatal(error))),
        Err(error) => Err(failed(&io::Error::other(error))),
    }
}
