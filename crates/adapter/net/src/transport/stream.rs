//! Streams: bytes both ways, as many as there are bytes.
//!
//! Holds: a half that is dropped before its end is reset, so that the other
//! side never takes a part for the whole. Bulk runs on a connection of its own
//! that gives way.

use super::link::{InUse, Link};
use super::{OpenError, Transport, code};
use crate::tls::Purpose;
use bytes::Bytes;
use kernel::NodeId;
use quinn::{RecvStream, SendStream};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wire::net::Identity;
use wire::net::frame::{self, Head};

/// What goes first when there is not room for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Priority {
    /// Much data that nobody waits for: gives way to all else, also to others'.
    Bulk = 0,
    Low = 1,
    Normal = 2,
    /// Beside calls.
    Urgent = 3,
}

impl Priority {
    pub(super) fn read(byte: u8) -> Self {
        match byte {
            0 => Self::Bulk,
            1 => Self::Low,
            2 => Self::Normal,
            _ => Self::Urgent,
        }
    }

    pub(super) fn of_stream(self) -> i32 {
        self as i32
    }

    fn purpose(self) -> Purpose {
        match self {
            Self::Bulk => Purpose::Bulk,
            _ => Purpose::Main,
        }
    }
}

/// A stream to open.
#[derive(Clone, Debug)]
pub struct Open {
    pub method: u16,
    /// At most [`frame::OPEN_BYTES_MAX`].
    pub head: Bytes,
    pub priority: Priority,
    /// How long opening may take, connection included.
    pub within: Duration,
}

/// A stream that a peer opened.
#[derive(Debug)]
pub struct IncomingStream {
    pub from: Arc<Identity>,
    pub method: u16,
    pub head: Bytes,
    pub priority: Priority,
    /// Of the opener's cluster generation.
    pub generation: u16,
    pub stream: Stream,
}

impl IncomingStream {
    /// Nothing was done.
    pub fn busy(self) {
        self.turn_away(code::BUSY);
    }

    pub fn unknown_method(self) {
        self.turn_away(code::UNKNOWN_METHOD);
    }

    fn turn_away(mut self, why: quinn::VarInt) {
        self.stream.send.reset_with(why);
        let _ = self.stream.recv.inner.stop(why);
    }
}

/// Both halves of a stream, one reader and writer.
#[derive(Debug)]
pub struct Stream {
    pub send: SendHalf,
    pub recv: RecvHalf,
}

impl Stream {
    pub(super) fn new(send: SendStream, recv: RecvStream, link: &Arc<Link>) -> Self {
        Self {
            send: SendHalf {
                inner: send,
                ended: false,
                _in_use: link.use_it(),
            },
            recv: RecvHalf {
                inner: recv,
                _in_use: link.use_it(),
            },
        }
    }

    pub fn split(self) -> (SendHalf, RecvHalf) {
        (self.send, self.recv)
    }
}

/// Ended by `shutdown` or [`SendHalf::finish`]; dropped before, it is reset.
#[derive(Debug)]
pub struct SendHalf {
    inner: SendStream,
    ended: bool,
    _in_use: InUse,
}

impl SendHalf {
    /// All was written: the other side reads the end once it has read the rest.
    pub fn finish(&mut self) {
        if !self.ended {
            self.ended = true;
            // The other side may have stopped reading.
            let _ = self.inner.finish();
        }
    }

    /// Writes without copying.
    pub async fn write_bytes(&mut self, bytes: Bytes) -> io::Result<()> {
        self.inner.write_chunk(bytes).await.map_err(io::Error::from)
    }

    /// Until the other side stopped reading, or has read all to the end.
    pub async fn stopped(&mut self) {
        let _ = self.inner.stopped().await;
    }

    /// Gives up: the other side reads an error.
    pub fn reset(&mut self) {
        self.reset_with(code::CANCELLED);
    }

    fn reset_with(&mut self, why: quinn::VarInt) {
        if !self.ended {
            self.ended = true;
            let _ = self.inner.reset(why);
        }
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        self.reset();
    }
}

/// Dropped, it tells the other side to stop.
#[derive(Debug)]
pub struct RecvHalf {
    inner: RecvStream,
    _in_use: InUse,
}

impl RecvHalf {
    /// The next bytes without copying, at most `bytes_max`; nothing at the end.
    pub async fn read_bytes(&mut self, bytes_max: usize) -> io::Result<Option<Bytes>> {
        let chunk = self.inner.read_chunk(bytes_max, true).await;
        chunk
            .map(|chunk| chunk.map(|chunk| chunk.bytes))
            .map_err(io::Error::from)
    }
}

impl AsyncWrite for SendHalf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.inner), cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for RecvHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.inner), cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.recv).poll_read(cx, buffer)
    }
}

impl Transport {
    /// Opens a stream. The peer's refusal, if any, comes as an error of reading.
    pub async fn open(&self, node: NodeId, open: Open) -> Result<Stream, OpenError> {
        let within = tokio::time::timeout(open.within, self.open_now(node, &open));
        within.await.unwrap_or(Err(OpenError::Late))
    }

    async fn open_now(&self, node: NodeId, open: &Open) -> Result<Stream, OpenError> {
        let lost = |why: &dyn std::fmt::Display| OpenError::Lost(why.to_string());
        let bytes = open.head.len();
        if bytes > frame::OPEN_BYTES_MAX {
            let limit = frame::OPEN_BYTES_MAX;
            let too_long = frame::FrameError::TooLong { bytes, limit };
            return Err(OpenError::Frame(too_long));
        }
        let link = self.inner.link(node, open.priority.purpose()).await?;
        let opened = link.connection.open_bi().await;
        let (send, recv) = opened.map_err(|why| lost(&why))?;
        let _ = send.set_priority(open.priority.of_stream());
        let mut stream = Stream::new(send, recv, &link);
        let head = Head::Open(frame::Open {
            method: open.method,
            priority: open.priority as u8,
            head: open.head.to_vec(),
            generation: self.inner.generation(),
        });
        let frame = head.encode(link.version).map_err(OpenError::Frame)?;
        let written = stream.send.inner.write_all(&frame).await;
        written.map_err(|why| lost(&why))?;
        Ok(stream)
    }
}
