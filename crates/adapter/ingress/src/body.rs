//! The bodies of answers and of requests on their way to a replica.
//!
//! Holds: an answer's body carries its [`Account`], so the row is written when
//! the body ends or is dropped, and says which; a body that brings nothing for too long, or too
//! much, ends with an error; a replica's connection goes back to the pool only
//! after a complete answer.

use crate::log::Account;
use crate::peer;
use crate::pool::{Lease, Place};
use crate::proxy;
use crate::server::Ingress;
use crate::streams::Pace;
use crate::{ComponentBody, Stored};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub enum Piece {
    Memory(Bytes),
    Stored {
        document: Arc<dyn Stored>,
        span: Range<u64>,
    },
}

impl Piece {
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Stored { span, .. } => span.end - span.start,
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
    Replica(Box<Relayed>),
    Component {
        body: ComponentBody,
        _lease: Lease,
    },
}

/// An answer on its way from a replica.
struct Relayed {
    incoming: Timed,
    ingress: Arc<Ingress>,
    /// Until the answer's end.
    lease: Option<Lease>,
}

pub struct Answer {
    kind: Kind,
    pub account: Option<Box<Account>>,
    /// Of its stream, over HTTP/2.
    pub pace: Option<Arc<Pace>>,
}

/// What a body failed of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the body exceeds its limit")]
    TooLarge,
    #[error("the body brought nothing for too long")]
    TooSlow,
    #[error("the body broke off")]
    Broken,
}

impl Fault {
    /// Of a body's error, or one that it caused.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(fault) = error.downcast_ref() {
                return *fault;
            }
            cause = error.source();
        }
        Self::Broken
    }
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

    pub fn replica(incoming: Incoming, ingress: &Arc<Ingress>, mut lease: Lease) -> Self {
        if incoming.is_end_stream() {
            lease.complete();
            return Self::empty();
        }
        let incoming = Timed::new(incoming, ingress.limits.answer_body_idle, u64::MAX);
        Self::of(Kind::Replica(Box::new(Relayed {
            incoming,
            ingress: Arc::clone(ingress),
            lease: Some(lease),
        })))
    }

    pub fn component(body: ComponentBody, lease: Lease) -> Self {
        if body.is_end_stream() {
            return Self::empty();
        }
        Self::of(Kind::Component {
            body,
            _lease: lease,
        })
    }

    fn of(kind: Kind) -> Self {
        Self {
            kind,
            account: None,
            pace: None,
        }
    }

    fn failed(&mut self, error: &BoxError) {
        let Some(account) = &mut self.account else {
            return;
        };
        let fault = Fault::of(&**error);
        account.row.status = match fault {
            _ if account.service.is_none() => 500,
            Fault::TooSlow => 504,
            _ => 502,
        };
        if account.http_10 {
            // To such a client closing is the end of a whole answer.
            account.connection().abort();
        }
        if let Kind::Replica(relayed) = &mut self.kind
            && let Some(lease) = relayed.lease.take()
            && fault == Fault::Broken
        {
            if let Place::Peer(peer) = &lease.endpoint.place {
                peer::broke_off(&relayed.ingress, peer, &lease, &**error);
                return;
            }
            let why = "the connection broke in the middle of an answer";
            proxy::failed(&relayed.ingress, &lease.endpoint, why, false);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let stalled = self.pace.as_ref().is_some_and(|pace| pace.is_stalled());
        if (stalled || !self.is_end_stream())
            && let Some(account) = &mut self.account
        {
            account.client_left();
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
        let polled = match &mut this.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Memory(bytes) => {
                let bytes = std::mem::take(bytes);
                this.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Pieces {
                pieces,
                reading,
                left,
            } => next_piece(pieces, reading, left, cx),
            Kind::Replica(relayed) => relayed.poll(cx),
            Kind::Component { body, .. } => body.as_mut().poll_frame(cx),
        };
        if let Some(pace) = &this.pace {
            if polled.is_ready() {
                pace.piece_given();
            } else {
                pace.piece_awaited();
            }
        }
        let frame = ready!(polled);
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(account), Some(data)) = (&mut this.account, frame.data_ref()) {
                    account.row.bytes += data.len() as u64;
                }
            }
            Some(Err(error)) => {
                this.failed(error);
                this.kind = Kind::Empty;
            }
            None => this.kind = Kind::Empty,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Memory(_) => false,
            Kind::Pieces { left, .. } => *left == 0,
            Kind::Replica(relayed) => relayed.incoming.is_end_stream(),
            Kind::Component { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Memory(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Pieces { left, .. } => SizeHint::with_exact(*left),
            Kind::Replica(relayed) => relayed.incoming.size_hint(),
            Kind::Component { body, .. } => body.size_hint(),
        }
    }
}

impl Relayed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Next {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if (frame.is_none() || self.incoming.is_end_stream())
            && let Some(mut lease) = self.lease.take()
        {
            lease.complete();
        }
        Poll::Ready(frame)
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
            if let Some(Piece::Stored { span, .. }) = pieces.front_mut() {
                span.start += bytes.len() as u64;
                if bytes.is_empty() || span.start > span.end {
                    return Poll::Ready(Some(Err(io::Error::other("a read out of bounds").into())));
                }
            }
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
            Some(Piece::Stored { span, .. }) if span.is_empty() => {
                pieces.pop_front();
            }
            Some(Piece::Stored { document, span }) => {
                let (document, span) = (Arc::clone(document), span.clone());
                *reading = Some(tokio::task::spawn_blocking(move || document.read(&span)));
            }
        }
    }
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
                    None => return Poll::Ready(Some(Err(Fault::TooLarge.into()))),
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
        Poll::Ready(Some(Err(Fault::TooSlow.into())))
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
