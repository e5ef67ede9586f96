//! The stream of a connection, which tells its [`Connection`] what happens.
//!
//! Holds: a refusal reaches its client: what is still unread when we close is
//! read away for a while, or the kernel would reset the connection and the
//! answer with it.

use crate::connection::Connection;
use socket2::SockRef;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

/// A stream that can be reset instead of closed.
pub trait Abort {
    fn abort(&self);
}

impl Abort for TcpStream {
    fn abort(&self) {
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

impl<S: Abort> Abort for TlsStream<S> {
    fn abort(&self) {
        self.get_ref().0.abort();
    }
}

/// Reads of one turn while lingering.
const LINGER_READS: usize = 32;

#[derive(Debug)]
pub struct Watched<S: Abort> {
    inner: S,
    connection: Arc<Connection>,
    linger: Duration,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<S: Abort> Drop for Watched<S> {
    fn drop(&mut self) {
        if self.connection.is_aborted() {
            self.inner.abort();
        }
    }
}

impl<S: Abort> Watched<S> {
    pub fn new(inner: S, connection: Arc<Connection>, linger: Duration) -> Self {
        Self {
            inner,
            connection,
            linger,
            lingering: None,
        }
    }
}

impl<S: AsyncRead + Abort + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.connection.is_doomed() {
            let error = io::Error::new(io::ErrorKind::ConnectionAborted, "too many streams reset");
            return Poll::Ready(Err(error));
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Some(bytes) = buf.filled().get(before..)
            && !bytes.is_empty()
        {
            self.connection.bytes_read(bytes);
        }
        result
    }
}

impl<S: Abort> Watched<S> {
    fn wrote<T>(&self, result: Poll<T>) -> Poll<T> {
        self.connection.wrote(result.is_ready());
        result
    }
}

impl<S: AsyncRead + AsyncWrite + Abort + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.wrote(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            if !this.connection.may_have_more() {
                return Poll::Ready(Ok(()));
            }
        }
        let linger = this.linger;
        let timer = this
            .lingering
            .get_or_insert_with(|| Box::pin(sleep(linger)));
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = [0; 4096];
        for _ in 0..LINGER_READS {
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
