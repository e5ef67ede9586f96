//! The stream to another edge, on which a greeting comes before the answer.
//!
//! Holds: whoever reads behind it sees the answer only, and only after a
//! welcome; the greeting is told as soon as it is there.

use super::PeerStream;
use crate::upstream::Upstream;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use wire::peer::{GREETING_BYTES, Greeting, PeerError};

pub type Heard = Option<Result<Greeting, PeerError>>;

pub struct Greeted {
    stream: Upstream<Box<dyn PeerStream>>,
    greeting: [u8; GREETING_BYTES],
    length: usize,
    welcome: bool,
    heard: watch::Sender<Heard>,
}

impl Greeted {
    pub fn new(stream: Box<dyn PeerStream>) -> (Self, watch::Receiver<Heard>) {
        let (heard, receiver) = watch::channel(None);
        let greeted = Self {
            stream: Upstream::new(stream),
            greeting: [0; GREETING_BYTES],
            length: 0,
            welcome: false,
            heard,
        };
        (greeted, receiver)
    }

    /// Reads up to the greeting's end, and nothing behind it.
    pub fn poll_greeting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.length < GREETING_BYTES {
            let mut buf = ReadBuf::new(&mut self.greeting[self.length..]);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
            let read = buf.filled().len();
            if read == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.length += read;
            if self.length == GREETING_BYTES {
                let greeting = Greeting::decode(self.greeting);
                self.welcome = greeting == Ok(Greeting::Welcome);
                self.heard.send_replace(Some(greeting));
            }
        }
        if self.welcome {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(io::Error::other("not welcome")))
    }
}

impl AsyncRead for Greeted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_greeting(cx))?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
