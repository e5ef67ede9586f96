//! What a client or a replica may cost: every size, count and wait of the data
//! plane has its bound here.
//!
//! Holds: nothing in this crate waits or grows without one of these.

use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Limits {
    /// Beyond these, clients are told to come back (503, `retry-after`).
    pub connections_max: usize,
    pub requests_max: u64,
    /// Request line and fields together; hyper wants at least 8 KiB.
    pub head_bytes_max: usize,
    pub body_bytes_max: u64,
    pub h2_streams_max: u32,
    /// Streams a client may reset before they were accepted (reset flood).
    pub h2_resets_max: usize,
    /// Streams a client may reset beyond those that it let finish; with more,
    /// its connection is not read any more.
    pub h2_aborts_max: u32,
    /// Bytes of an answer that wait in a stream for the client's window.
    pub h2_send_bytes_max: usize,
    /// From the first byte of a head to its end.
    pub head_time: Duration,
    pub tls_handshake_time: Duration,
    /// Between requests of one connection.
    pub keep_alive_idle: Duration,
    /// A client that takes nothing of what we write is dropped after this, or
    /// the stream of HTTP/2 on which it does so.
    pub write_stall: Duration,
    /// Between two pieces of a request's body.
    pub request_body_idle: Duration,
    /// Between two pieces of an answer's body; long, for event streams.
    pub answer_body_idle: Duration,
    pub tunnel_idle: Duration,
    pub connect_time: Duration,
    /// Idle connections kept for each replica, and for how long.
    pub pool_idle_max: usize,
    pub pool_idle_time: Duration,
    /// Requests of one service that may wait for a replica.
    pub held_max: usize,
    /// An endpoint that failed is passed over for this long.
    pub endpoint_pause: Duration,
    /// Edges that may forward a request, one to the next.
    pub hops_max: usize,
    /// Streams of other edges at once.
    pub peer_streams_max: usize,
    /// Another edge that says nothing for so long, and twice the way there, is
    /// taken for dead. It greets before it does anything, so that this does not
    /// depend on what is asked of it.
    pub peer_greeting_time: Duration,
    /// A node whose edge failed is passed over for this long, each time in a row
    /// twice as long up to the longest; then one request tries it.
    pub probation_first: Duration,
    pub probation_longest: Duration,
    /// While draining: between requests of one HTTP/1 connection. HTTP/2 needs
    /// no such wait, it can tell which requests were not taken.
    pub drain_idle: Duration,
    /// How long a connection that was asked to close may stay.
    pub close_time: Duration,
    /// How long input that nobody wants is read away after a last answer, so
    /// that it is not lost.
    pub linger_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            requests_max: 65_536,
            head_bytes_max: 32 * 1024,
            body_bytes_max: 1 << 30,
            h2_streams_max: 128,
            h2_resets_max: 20,
            h2_aborts_max: 200,
            h2_send_bytes_max: 64 * 1024,
            head_time: Duration::from_secs(10),
            tls_handshake_time: Duration::from_secs(10),
            keep_alive_idle: Duration::from_secs(75),
            write_stall: Duration::from_secs(30),
            request_body_idle: Duration::from_secs(30),
            answer_body_idle: Duration::from_mins(5),
            tunnel_idle: Duration::from_mins(10),
            connect_time: Duration::from_secs(2),
            pool_idle_max: 64,
            pool_idle_time: Duration::from_secs(30),
            held_max: 1024,
            endpoint_pause: Duration::from_millis(500),
            hops_max: 2,
            peer_streams_max: 16_384,
            peer_greeting_time: Duration::from_millis(500),
            probation_first: Duration::from_millis(500),
            probation_longest: Duration::from_secs(8),
            drain_idle: Duration::from_secs(1),
            close_time: Duration::from_secs(1),
            linger_time: Duration::from_secs(2),
        }
    }
}
