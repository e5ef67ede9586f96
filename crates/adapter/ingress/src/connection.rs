//! One client connection: what is known of it, and how long it may go on.
//!
//! In: reads and writes of its stream, starts and ends of requests. Out: a
//! [`Verdict`] when asked, with the time of the next question. Holds: no timer
//! is touched on the path of a request; each wait of a client has a bound.

use crate::head::scan::HeadScan;
use crate::limits::Limits;
use kernel::{NodeId, ScopedName};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Milliseconds since `born`, plus one where zero means "not".
#[derive(Debug)]
pub struct Connection {
    pub peer: SocketAddr,
    /// As it goes into the access log.
    pub client_text: String,
    /// As it goes into `x-forwarded-for`.
    pub peer_text: String,
    pub tls: bool,
    /// Not a client's: the stream of that node's edge.
    pub from: Option<NodeId>,
    /// Of another service: all of it is for this one.
    pub callee: Option<ScopedName>,
    born: Instant,
    in_flight: AtomicU32,
    served: AtomicBool,
    h2: AtomicBool,
    idle_since: AtomicU64,
    head_since: AtomicU64,
    blocked_since: AtomicU64,
    /// Of HTTP/2, where an answer may wait within the protocol's own buffers.
    wrote_at: AtomicU64,
    head: Mutex<HeadScan>,
    /// Streams reset by the client beyond those that it let finish.
    resets: AtomicU32,
    resets_max: u32,
    doomed: AtomicBool,
    /// Nothing of the client's is under way when we close.
    settled: AtomicBool,
    aborted: AtomicBool,
    leaving_since: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ask again after this.
    Keep(Duration),
    /// Idle for long enough: close politely.
    Close,
    /// It holds us up: drop.
    Drop,
}

impl Connection {
    pub fn new(peer: SocketAddr, tls: bool, truncate: bool, limits: &Limits) -> Self {
        let ip = peer.ip().to_canonical();
        Self {
            peer,
            client_text: client_text(ip, truncate),
            peer_text: ip.to_string(),
            tls,
            from: None,
            callee: None,
            born: Instant::now(),
            in_flight: AtomicU32::new(0),
            served: AtomicBool::new(false),
            h2: AtomicBool::new(false),
            idle_since: AtomicU64::new(1),
            head_since: AtomicU64::new(1),
            blocked_since: AtomicU64::new(0),
            wrote_at: AtomicU64::new(0),
            head: Mutex::default(),
            resets: AtomicU32::new(0),
            resets_max: limits.h2_aborts_max,
            doomed: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            leaving_since: AtomicU64::new(0),
        }
    }

    /// Who the client is, each request says.
    pub fn of_peer(from: NodeId, limits: &Limits) -> Self {
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            client_text: String::new(),
            from: Some(from),
            ..Self::new(nobody, false, true, limits)
        }
    }

    /// Of another service, which calls this one whatever host it names.
    pub fn to_service(peer: SocketAddr, callee: ScopedName, limits: &Limits) -> Self {
        Self {
            callee: Some(callee),
            ..Self::new(peer, false, false, limits)
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn scan<T>(&self, act: impl FnOnce(&mut HeadScan) -> T) -> T {
        act(&mut self.head.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A head was read. Returns whether its framing conflicts.
    pub fn request_starts(&self, h2: bool) -> bool {
        self.in_flight.fetch_add(1, Relaxed);
        self.served.store(true, Relaxed);
        self.head_since.store(0, Relaxed);
        self.h2.store(h2, Relaxed);
        self.scan(HeadScan::take_conflict) && !h2
    }

    /// `whole` unless the client left before its answer ended.
    pub fn request_ends(&self, whole: bool) {
        self.idle_since.store(self.now(), Relaxed);
        self.in_flight.fetch_sub(1, Relaxed);
        let resets = self.resets.load(Relaxed);
        if whole {
            if resets > 0 {
                self.resets.store(resets - 1, Relaxed);
            }
        } else if self.resets.fetch_add(1, Relaxed) >= self.resets_max {
            self.doomed.store(true, Relaxed);
        }
    }

    /// Whether it reset so many streams that it is not read any more.
    pub fn is_doomed(&self) -> bool {
        self.doomed.load(Relaxed)
    }

    pub fn is_idle(&self) -> bool {
        self.in_flight.load(Relaxed) == 0
    }

    /// Its bytes are not ours any more, or it is idle: closing needs no care.
    pub fn settle(&self) {
        self.settled.store(true, Relaxed);
    }

    /// It must not look as if it ended well.
    pub fn abort(&self) {
        self.aborted.store(true, Relaxed);
    }

    pub fn is_aborted(&self) -> bool {
        self.aborted.load(Relaxed)
    }

    pub fn may_have_more(&self) -> bool {
        !self.settled.load(Relaxed)
    }

    /// It shall end, but a request may be on its way already: over HTTP/1 the
    /// next answer says so, or it ends once nothing comes for a while.
    pub fn leave(&self) {
        self.leaving_since.store(self.now(), Relaxed);
    }

    /// It was asked to close, which the protocol tells from now on.
    pub fn leaves(&self) {
        self.leaving_since.store(0, Relaxed);
    }

    pub fn is_leaving(&self) -> bool {
        self.leaving_since.load(Relaxed) != 0
    }

    /// Method and target of a head that never became a request.
    pub fn unfinished_head(&self) -> Option<(String, String)> {
        if self.h2.load(Relaxed) {
            return None;
        }
        self.scan(|head| head.has_begun().then(|| head.request_line()))
            // The opening of HTTP/2 is none.
            .filter(|(method, _)| method != "PRI")
    }

    /// Whether it may be dropped after it was asked to close: nothing is in
    /// flight, nor was anything written for the time.
    pub fn is_done(&self, time: Duration) -> bool {
        let quiet = self.now().saturating_sub(self.wrote_at.load(Relaxed));
        self.is_idle()
            && self.blocked_since.load(Relaxed) == 0
            && u128::from(quiet) >= time.as_millis()
    }

    pub fn verdict(&self, limits: &Limits) -> Verdict {
        let now = self.now();
        let left = |since: u64, limit: Duration| {
            limit.saturating_sub(Duration::from_millis(now.saturating_sub(since)))
        };
        let mut next = limits.write_stall;
        let blocked = self.blocked_since.load(Relaxed);
        if blocked != 0 {
            next = left(blocked, limits.write_stall);
            if next.is_zero() {
                return Verdict::Drop;
            }
        }
        let leaving = self.leaving_since.load(Relaxed);
        let h2 = self.h2.load(Relaxed);
        if leaving != 0 {
            if h2 {
                return Verdict::Close;
            }
            next = next.min(limits.drain_idle);
        }
        if !self.is_idle() {
            return Verdict::Keep(next);
        }
        if leaving != 0 && !self.scan(|head| head.has_begun()) {
            let since = leaving.max(self.idle_since.load(Relaxed));
            next = next.min(left(since, limits.drain_idle));
            if next.is_zero() {
                return Verdict::Close;
            }
        }
        if !h2 {
            let head = match self.head_since.load(Relaxed) {
                0 => limits.head_time,
                since => left(since, limits.head_time),
            };
            if head.is_zero() {
                return Verdict::Drop;
            }
            next = next.min(head);
        }
        if self.served.load(Relaxed) {
            let idle = left(self.idle_since.load(Relaxed), limits.keep_alive_idle);
            if idle.is_zero() {
                return Verdict::Close;
            }
            next = next.min(idle);
        }
        Verdict::Keep(next)
    }

    pub fn bytes_read(&self, bytes: &[u8]) {
        if self.h2.load(Relaxed) || !self.is_idle() {
            return;
        }
        if self.head_since.load(Relaxed) == 0 {
            self.head_since.store(self.now(), Relaxed);
        }
        self.scan(|head| head.read(bytes));
    }

    pub fn wrote(&self, ready: bool) {
        match (ready, self.blocked_since.load(Relaxed)) {
            (false, 0) => self.blocked_since.store(self.now(), Relaxed),
            (true, since) if since != 0 => self.blocked_since.store(0, Relaxed),
            _ => {}
        }
        if ready && self.h2.load(Relaxed) {
            self.wrote_at.store(self.now(), Relaxed);
        }
    }
}

/// As it goes into the access log.
pub fn client_text(ip: IpAddr, truncate: bool) -> String {
    let ip = if truncate { truncated(ip) } else { ip };
    ip.to_string()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_addresses_are_truncated() {
        let text = |ip: &str| truncated(ip.parse().expect("address")).to_string();
        assert_eq!(text("192.0.2.77"), "192.0.2.0");
        assert_eq!(text("2001:db8:1:2::3"), "2001:db8:1::");
    }

    #[test]
    fn idle_connection_is_asked_again_only_when_something_may_be_over() {
        let limits = Limits::default();
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let connection = Connection::new(peer, false, true, &limits);
        connection.request_starts(false);
        connection.request_ends(true);
        let Verdict::Keep(next) = connection.verdict(&limits) else {
            panic!("kept");
        };
        assert_eq!(next, limits.head_time);
    }

    #[test]
    fn resets_beyond_the_bound_doom_and_finished_streams_pay_them_back() {
        let limits = Limits {
            h2_aborts_max: 2,
            ..Limits::default()
        };
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let connection = Connection::new(peer, false, true, &limits);
        for whole in [false, false, true, true, false, false] {
            connection.request_starts(true);
            connection.request_ends(whole);
        }
        assert!(!connection.is_doomed());
        connection.request_starts(true);
        connection.request_ends(false);
        assert!(connection.is_doomed());
    }
}
