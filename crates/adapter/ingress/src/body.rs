//! The bodies of answers and of requests on their way to a replica.
//!
//! Holds: an answer's body carries its [`Account`], so the row is written when
//! the body ends or is dropped; a body that brings nothing for too long, or too
//! much, ends with an error; a replica's connection goes back to the pool only
//! after a complete answer.

use crate::log::Account;
use crate::pool::Lease;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes read from a file at once.
const BLOCK_BYTES: u64 = 128 * 1024;

pub enum Piece {
    Memory(Bytes),
    File { file: Arc<File>, span: Range<u64> },
}

impl Piece {
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { span, .. } => span.end - span.start,
        }
    }
}

enum Kind {
    Empty,
    Memory(Bytes),
    Pieces {
        pieces: VecDeque<Piece>,
        reading: Option<JoinHandle<io::Result<Bytes>>>,
        left: u64,
    },
    Replica {
        incoming: Timed,
        lease: Option<Lease>,
    },
}

pub struct Answer {
    kind: Kind,
    pub account: Option<Box<Account>>,
}

impl Answer {
    pub fn empty() -> Self {
        Self::of(Kind::Empty)
    }

    pub fn memory(bytes: Bytes) -> Self {
        Self::of(if bytes.is_empty() {
            Kind::Empty
        } else {
            Kind::Memory(bytes)
        })
    }

    pub fn pieces(pieces: VecDeque<Piece>) -> Self {
        let left = pieces.iter().map(Piece::len).sum();
        Self::of(Kind::Pieces {
            pieces,
            reading: None,
            left,
        })
    }

    pub fn replica(incoming: Incoming, idle: Duration, mut lease: Lease) -> Self {
        if incoming.is_end_stream() {
            lease.complete();
            return Self::empty();
        }
        let incoming = Timed::new(incoming, idle, u64::MAX);
        Self::of(Kind::Replica {
            incoming,
            lease: Some(lease),
        })
    }

    fn of(kind: Kind) -> Self {
        Self {
            kind,
            account: None,
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let frame = match &mut this.kind {
            Kind::Empty => None,
            Kind::Memory(bytes) => {
                let bytes = std::mem::take(bytes);
                this.kind = Kind::Empty;
                Some(Ok(Frame::data(bytes)))
            }
            Kind::Pieces {
                pieces,
                reading,
                left,
            } => ready!(next_piece(pieces, reading, left, cx)),
            Kind::Replica { incoming, lease } => {
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
                if (frame.is_none() || incoming.is_end_stream())
                    && let Some(mut lease) = lease.take()
                {
                    lease.complete();
                }
                frame
            }
        };
        if let (Some(account), Some(Ok(frame))) = (&mut this.account, &frame)
            && let Some(data) = frame.data_ref()
        {
            account.row.bytes += data.len() as u64;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Memory(_) => false,
            Kind::Pieces { left, .. } => *left == 0,
            Kind::Replica { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Memory(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Pieces { left, .. } => SizeHint::with_exact(*left),
            Kind::Replica { incoming, .. } => incoming.size_hint(),
        }
    }
}

type Next = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

fn next_piece(
    pieces: &mut VecDeque<Piece>,
    reading: &mut Option<JoinHandle<io::Result<Bytes>>>,
    left: &mut u64,
    cx: &mut Context<'_>,
) -> Next {
    loop {
        if let Some(handle) = reading {
            let read = ready!(Pin::new(handle).poll(cx));
            *reading = None;
            let bytes = read.map_err(BoxError::from)??;
            *left -= bytes.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match pieces.front_mut() {
            None => return Poll::Ready(None),
            Some(Piece::Memory(bytes)) => {
                let bytes = std::mem::take(bytes);
                pieces.pop_front();
                *left -= bytes.len() as u64;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Some(Piece::File { span, .. }) if span.is_empty() => {
                pieces.pop_front();
            }
            Some(Piece::File { file, span }) => {
                let block = span.start..span.end.min(span.start + BLOCK_BYTES);
                span.start = block.end;
                let file = Arc::clone(file);
                *reading = Some(tokio::task::spawn_blocking(move || {
                    read_block(&file, &block)
                }));
            }
        }
    }
}

fn read_block(file: &File, block: &Range<u64>) -> io::Result<Bytes> {
    let length = usize::try_from(block.end - block.start).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, block.start)?;
    Ok(bytes.into())
}

/// A body that must keep moving and end within a size. The timer is made only
/// when the body has to be waited for.
pub struct Timed {
    incoming: Incoming,
    idle: Duration,
    bytes_left: u64,
    timer: Option<Pin<Box<Sleep>>>,
    armed: bool,
}

impl Timed {
    pub fn new(incoming: Incoming, idle: Duration, bytes_max: u64) -> Self {
        Self {
            incoming,
            idle,
            bytes_left: bytes_max,
            timer: None,
            armed: false,
        }
    }
}

impl Body for Timed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Next {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) {
            this.armed = false;
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
            {
                match this.bytes_left.checked_sub(data.len() as u64) {
                    Some(left) => this.bytes_left = left,
                    None => return Poll::Ready(Some(Err("the body exceeds its limit".into()))),
                }
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)));
        }
        let deadline = Instant::now() + this.idle;
        let timer = this
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if !this.armed {
            timer.as_mut().reset(deadline);
            this.armed = true;
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err("the body brought nothing for too long".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// What goes to a replica.
pub enum Outgoing {
    Empty,
    Stream(Timed),
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Next {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Stream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(body) => body.size_hint(),
        }
    }
}
