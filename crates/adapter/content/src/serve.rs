//! Answers those who fetch content from this node.
//!
//! In: a stream with a request. Out: descriptions, pieces and refusals on it.
//! Holds: a piece is checked before it is sent, and a damaged file is set aside
//! and reported; what is being read is leased; requests, what they ask for, and
//! how long they take are bounded, so that a client that says nothing, reads
//! nothing or asks for nonsense costs one place for a while.

use crate::Content;
use crate::damage::read_piece;
use crate::error::ContentError;
use crate::leases::Lease;
use crate::pieces::Pieces;
use kernel::Hash;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use wire::exchange::{ExchangeError, HEADER_BYTES, Header, Kind, Refusal, Request, VERSION, Want};

/// A part of the answer is at least as long, if there is that much.
const PART_BYTES: usize = 256 << 10;

#[derive(Clone, Copy, Debug)]
pub struct ServeOptions {
    /// Requests answered at the same time; more are refused as busy.
    pub requests_max: usize,
    /// How long a client may take to send its request.
    pub request_within: Duration,
    /// How long it may take to accept a part of 256 KiB or one piece.
    pub part_within: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            requests_max: 64,
            request_within: Duration::from_secs(10),
            part_within: Duration::from_secs(30),
        }
    }
}

/// Serves one store's content. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Server {
    content: Content,
    options: ServeOptions,
    places: Arc<Semaphore>,
}

/// What one request was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    pub pieces: u64,
    pub refusals: u64,
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    #[error("the client did not {what} in time")]
    Slow { what: &'static str },
    #[error("the client's stream broke")]
    Stream(#[source] io::Error),
    #[error("the client's request cannot be read")]
    Request(#[source] ExchangeError),
    #[error("the client sent something that is no request")]
    NoRequest,
    #[error("all {limit} places for requests are taken")]
    Busy { limit: usize },
    #[error("this node could not read its content")]
    Reading(#[source] ContentError),
}

impl Server {
    pub fn new(content: Content, options: ServeOptions) -> Self {
        let places = Arc::new(Semaphore::new(options.requests_max));
        Self {
            content,
            options,
            places,
        }
    }

    /// Reads one request and answers it. The caller ends the stream afterwards.
    pub async fn serve(
        &self,
        mut reader: impl AsyncRead + Unpin,
        mut writer: impl AsyncWrite + Unpin,
    ) -> Result<Served, ServeError> {
        let request = timeout(self.options.request_within, read_request(&mut reader))
            .await
            .unwrap_or(Err(ServeError::Slow {
                what: "send its request",
            }));
        let place = self.places.clone().try_acquire_owned();
        let (request, _place) = match (request, place) {
            (Ok(request), Ok(place)) => (request, place),
            (Ok(_), Err(_)) => {
                let limit = self.options.requests_max;
                let busy = ServeError::Busy { limit };
                return Err(self.refuse(&mut writer, Refusal::Busy, busy).await);
            }
            (Err(error), _) => {
                let refusal = match &error {
                    ServeError::Request(ExchangeError::Version { .. }) => {
                        Refusal::Version { spoken: VERSION }
                    }
                    _ => Refusal::BadRequest,
                };
                return Err(self.refuse(&mut writer, refusal, error).await);
            }
        };
        self.answer(request, &mut writer).await
    }

    async fn refuse(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        refusal: Refusal,
        error: ServeError,
    ) -> ServeError {
        if let Ok(frame) = refusal.frame() {
            // The client may be gone: then there is nobody to tell.
            let _ = self.write(writer, &frame).await;
        }
        error
    }

    /// Reads the next part from disk while the last one is being sent.
    async fn answer(
        &self,
        request: Request,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Served, ServeError> {
        let answer = Answer {
            content: self.content.clone(),
            wants: request.wants.into(),
            open: None,
            served: Served::default(),
        };
        let mut next = read_on(answer);
        loop {
            let read = next.await.map_err(io::Error::other);
            let (answer, part) = read
                .map_err(ServeError::Stream)?
                .map_err(ServeError::Reading)?;
            let served = answer.served;
            if part.is_empty() {
                let flushed = timeout(self.options.part_within, writer.flush()).await;
                let slow = ServeError::Slow {
                    what: "accept the answer",
                };
                flushed.map_err(|_| slow)?.map_err(ServeError::Stream)?;
                return Ok(served);
            }
            next = read_on(answer);
            self.write(writer, &part).await?;
        }
    }

    async fn write(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        part: &[u8],
    ) -> Result<(), ServeError> {
        let written = timeout(self.options.part_within, writer.write_all(part)).await;
        let slow = ServeError::Slow {
            what: "accept the answer",
        };
        written.map_err(|_| slow)?.map_err(ServeError::Stream)
    }
}

async fn read_request(reader: &mut (impl AsyncRead + Unpin)) -> Result<Request, ServeError> {
    let mut head = [0; HEADER_BYTES];
    let read = reader.read_exact(&mut head).await;
    read.map_err(ServeError::Stream)?;
    let header = Header::decode(head).map_err(ServeError::Request)?;
    if header.kind != Kind::Request {
        return Err(ServeError::NoRequest);
    }
    let mut body = vec![0; usize::try_from(header.length).unwrap_or(0)];
    let read = reader.read_exact(&mut body).await;
    read.map_err(ServeError::Stream)?;
    Request::decode(&body).map_err(ServeError::Request)
}

type Part = Result<(Answer, Vec<u8>), ContentError>;

fn read_on(mut answer: Answer) -> JoinHandle<Part> {
    spawn_blocking(move || {
        let mut part = Vec::new();
        while part.len() < PART_BYTES && answer.step(&mut part)? {}
        Ok((answer, part))
    })
}

/// Where an answer stands.
struct Answer {
    content: Content,
    wants: VecDeque<Want>,
    open: Option<Open>,
    served: Served,
}

struct Open {
    file: File,
    pieces: Arc<Pieces>,
    _lease: Lease,
}

impl Answer {
    /// One more frame or two into `part`; false when there are no more.
    fn step(&mut self, part: &mut Vec<u8>) -> Result<bool, ContentError> {
        let Some(want) = self.wants.pop_front() else {
            return Ok(false);
        };
        let before = part.len();
        let given = match want {
            Want::Describe { hash } => self.describe(Hash(hash), part)?,
            Want::Pieces { hash, first, count } => {
                let given = self.piece(Hash(hash), first, count, part)?;
                if given.is_ok() && count > 1 {
                    self.wants.push_front(Want::Pieces {
                        hash,
                        first: first + 1,
                        count: count - 1,
                    });
                }
                given
            }
        };
        match given {
            Ok(()) => self.served.pieces += 1,
            Err(refusal) => {
                part.truncate(before);
                self.served.refusals += 1;
                let frame = refusal.frame();
                part.extend(frame.map_err(|source| ContentError::Exchange { source })?);
            }
        }
        self.served.bytes += (part.len() - before) as u64;
        Ok(true)
    }

    fn describe(
        &mut self,
        hash: Hash,
        part: &mut Vec<u8>,
    ) -> Result<Result<(), Refusal>, ContentError> {
        let open = match self.open(hash)? {
            Ok(open) => open,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let last = open.pieces.count() - 1;
        let frame = open.pieces.description().frame();
        part.extend(frame.map_err(|source| ContentError::Exchange { source })?);
        self.piece(hash, last, 1, part)
    }

    fn piece(
        &mut self,
        hash: Hash,
        index: u32,
        count: u32,
        part: &mut Vec<u8>,
    ) -> Result<Result<(), Refusal>, ContentError> {
        let content = self.content.clone();
        let open = match self.open(hash)? {
            Ok(open) => open,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let length = open.pieces.range(index).map(|(_, length)| length);
        let Some(length) = length.and_then(|length| u32::try_from(length).ok()) else {
            return Ok(Err(Refusal::NoSuchPiece));
        };
        if count == 0 || index.checked_add(count).is_none() {
            return Ok(Err(Refusal::BadRequest));
        }
        let kind = Kind::Piece;
        part.extend(Header { kind, length }.encode());
        let path = content.path(hash);
        if read_piece(&open.pieces, &open.file, index, part, &path)? {
            return Ok(Ok(()));
        }
        self.open = None;
        content.set_aside(hash)?;
        Ok(Err(Refusal::Damaged))
    }

    fn open(&mut self, hash: Hash) -> Result<Result<&Open, Refusal>, ContentError> {
        if self
            .open
            .as_ref()
            .is_none_or(|open| open.pieces.hash != hash)
        {
            let lease = self.content.lease(hash);
            let file = match self.content.open_blob(hash) {
                Ok(file) => file,
                Err(ContentError::Missing { .. }) => return Ok(Err(Refusal::Missing)),
                Err(error) => return Err(error),
            };
            let pieces = match self.content.pieces_of(hash, &file) {
                Ok(pieces) => pieces,
                Err(ContentError::Damaged { .. }) => {
                    self.content.set_aside(hash)?;
                    return Ok(Err(Refusal::Damaged));
                }
                Err(error) => return Err(error),
            };
            self.open = Some(Open {
                file,
                pieces,
                _lease: lease,
            });
        }
        Ok(self.open.as_ref().ok_or(Refusal::Failed))
    }
}
