//! One client connection: what is known of it, and the stream that watches it.
//!
//! In: reads and writes of the stream, starts and ends of requests. Out: a
//! [`Verdict`] when asked, once per check. Holds: no timer is touched on the
//! path of a request; each wait of a client has a bound.
//!
//! It also looks at the first bytes of each HTTP/1 head for `content-length`
//! beside `transfer-encoding`, which hyper resolves silently and we refuse.

use crate::limits::Limits;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Milliseconds since `born`, plus one where zero means "not".
#[derive(Debug)]
pub struct Connection {
    pub peer: SocketAddr,
    /// As it goes into the access log.
    pub client_text: String,
    /// As it goes into `x-forwarded-for`.
    pub peer_text: String,
    pub tls: bool,
    born: Instant,
    pub in_flight: AtomicU32,
    served: AtomicBool,
    h2: AtomicBool,
    idle_since: AtomicU64,
    head_since: AtomicU64,
    blocked_since: AtomicU64,
    conflict: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    /// Idle for long enough: close politely.
    Close,
    /// It holds us up: drop.
    Drop,
}

impl Connection {
    pub fn new(peer: SocketAddr, tls: bool, truncate: bool) -> Self {
        let ip = peer.ip().to_canonical();
        Self {
            peer,
            client_text: if truncate {
                truncated(ip).to_string()
            } else {
                ip.to_string()
            },
            peer_text: ip.to_string(),
            tls,
            born: Instant::now(),
            in_flight: AtomicU32::new(0),
            served: AtomicBool::new(false),
            h2: AtomicBool::new(false),
            idle_since: AtomicU64::new(1),
            head_since: AtomicU64::new(1),
            blocked_since: AtomicU64::new(0),
            conflict: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// A head was read. Returns whether its framing conflicts.
    pub fn request_starts(&self, h2: bool) -> bool {
        self.in_flight.fetch_add(1, Relaxed);
        self.served.store(true, Relaxed);
        self.h2.store(h2, Relaxed);
        self.head_since.store(0, Relaxed);
        self.conflict.swap(false, Relaxed)
    }

    pub fn request_ends(&self) {
        self.idle_since.store(self.now(), Relaxed);
        self.in_flight.fetch_sub(1, Relaxed);
    }

    pub fn verdict(&self, limits: &Limits) -> Verdict {
        let now = self.now();
        let over = |since: u64, limit: Duration| {
            since != 0 && u128::from(now.saturating_sub(since)) > limit.as_millis()
        };
        if over(self.blocked_since.load(Relaxed), limits.write_stall) {
            return Verdict::Drop;
        }
        if self.in_flight.load(Relaxed) > 0 {
            return Verdict::Keep;
        }
        let h2 = self.h2.load(Relaxed);
        if !h2 && over(self.head_since.load(Relaxed), limits.head_time) {
            return Verdict::Drop;
        }
        if self.served.load(Relaxed) && over(self.idle_since.load(Relaxed), limits.keep_alive_idle)
        {
            return Verdict::Close;
        }
        Verdict::Keep
    }

    fn bytes_read(&self, bytes: &[u8]) {
        if self.h2.load(Relaxed) || self.in_flight.load(Relaxed) > 0 {
            return;
        }
        let fresh = self.head_since.load(Relaxed) == 0 || !self.served.load(Relaxed);
        if fresh {
            if self.head_since.load(Relaxed) == 0 {
                self.head_since.store(self.now(), Relaxed);
            }
            if framing_conflicts(bytes) {
                self.conflict.store(true, Relaxed);
            }
        }
    }
}

/// IPv4 to its /24, IPv6 to its /48.
fn truncated(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            IpAddr::from([a, b, c, 0])
        }
        IpAddr::V6(ip) => {
            let [a, b, c, ..] = ip.segments();
            IpAddr::from([a, b, c, 0, 0, 0, 0, 0])
        }
    }
}

/// Whether the head at the start of `bytes` has both framing fields.
fn framing_conflicts(bytes: &[u8]) -> bool {
    let (mut length, mut transfer) = (false, false);
    for line in bytes.split(|byte| *byte == b'\n').skip(1) {
        match line.first() {
            None | Some(b'\r') => break,
            Some(b'c' | b'C') => length |= starts_with(line, b"content-length"),
            Some(b't' | b'T') => transfer |= starts_with(line, b"transfer-encoding"),
            Some(_) => {}
        }
    }
    length && transfer
}

fn starts_with(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(name))
}

/// The stream of a connection, with its [`Connection`] told what happens.
#[derive(Debug)]
pub struct Watched<S> {
    pub inner: S,
    pub connection: std::sync::Arc<Connection>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
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

impl<S> Watched<S> {
    fn wrote<T>(&self, result: Poll<T>) -> Poll<T> {
        let blocked = &self.connection.blocked_since;
        match (&result, blocked.load(Relaxed)) {
            (Poll::Pending, 0) => blocked.store(self.connection.now(), Relaxed),
            (Poll::Ready(_), since) if since != 0 => blocked.store(0, Relaxed),
            _ => {}
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
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
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicting_framing_is_seen_in_the_head_only() {
        let both = b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(framing_conflicts(both));
        let body = b"POST / HTTP/1.1\r\nContent-Length: 40\r\n\r\nTransfer-Encoding: chunked\r\n";
        assert!(!framing_conflicts(body));
    }

    #[test]
    fn client_addresses_are_truncated() {
        let text = |ip: &str| truncated(ip.parse().expect("address")).to_string();
        assert_eq!(text("192.0.2.77"), "192.0.2.0");
        assert_eq!(text("2001:db8:1:2::3"), "2001:db8:1::");
    }
}
