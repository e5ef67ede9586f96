//! Open-loop load: requests leave at their moments, whatever became of the
//! earlier ones.
//!
//! In: an address, what to ask, a rate, for how long. Out: latencies from the moment a
//! request was due to its answer's last byte.
//! Holds: a stall shows in all that it delayed; a request that finds every
//! connection busy waits, and its wait counts; each answer is checked for
//! status and size, and one wrong answer fails the run.
//! One thread and epoll, since a task per request would top out a core below
//! half of nginx's peak.

use crate::ask::Ask;
use crate::closed::CONNECTIONS;
use crate::http::{Framing, Head};
use crate::machine::pin_thread;
use crate::{Failure, data};
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Of a 99th percentile, what the generator's own lag may be.
const LAG_SHARE_MAX: f64 = 0.1;
/// A run that is behind by more than this measures only its own queue.
const BEHIND_MAX: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
pub struct Latencies {
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// How late requests were ready to leave: the generator's own doing.
    pub lag_p99_ms: f64,
    pub count: u64,
}

struct Client {
    stream: TcpStream,
    /// What is asked for and when it was due; none while idle.
    asked: Option<(usize, Instant)>,
    came: Vec<u8>,
}

struct Run<'a> {
    asks: &'a [Ask],
    requests: Vec<Vec<u8>>,
    clients: Vec<Client>,
    /// Used in turn: none stays without a request for so long that the server
    /// may close it.
    idle: VecDeque<usize>,
    due: VecDeque<(usize, Instant)>,
    latency: Histogram<u64>,
    lag: Histogram<u64>,
    buffer: Box<[u8]>,
}

/// Sends from a thread of its own, on these cores.
pub fn run_on(
    cores: &[usize],
    address: SocketAddr,
    per_second: f64,
    span: Duration,
    asks: &[Ask],
) -> Result<Latencies, Failure> {
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            pin_thread(cores)?;
            run(address, per_second, span, asks)
        });
        sender.join().map_err(|_| "the load generator panicked")?
    })
}

/// A generator that was late itself measured itself in part: said beside the
/// figure, so that nobody trusts its verdict.
pub fn doubt(name: &str, lag_ms: f64, p99_ms: f64) -> Result<(), Failure> {
    if lag_ms > p99_ms * LAG_SHARE_MAX {
        data(&format!(
            "condition fixed rate, {name}: not trustworthy, the generator's own lag was {lag_ms:.2} ms (p99) of {p99_ms:.2} ms"
        ))?;
    }
    Ok(())
}

/// Sends on the calling thread.
pub fn run(
    address: SocketAddr,
    per_second: f64,
    span: Duration,
    asks: &[Ask],
) -> Result<Latencies, Failure> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut run = Run::open(address, asks, &poll)?;
    let gap = Duration::from_secs_f64(1.0 / per_second);
    let begun = Instant::now();
    let mut next = (0_usize, begun);
    let mut events = Vec::with_capacity(CONNECTIONS);
    loop {
        let now = Instant::now();
        while next.1 <= now && next.1 - begun < span {
            run.due.push_back((next.0 % asks.len(), next.1));
            run.lag.saturating_record(nanos(now - next.1));
            next = (next.0 + 1, next.1 + gap);
        }
        run.send()?;
        let is_over = next.1 - begun >= span;
        if is_over && run.idle.len() == run.clients.len() {
            break;
        }
        if run.is_behind(now, is_over) {
            let waits = run.clients.len() - run.idle.len();
            return Err(format!(
                "{address} does not keep up with {per_second:.0}/s: {waits} answers under way, {} requests due",
                run.due.len()
            )
            .into());
        }
        events.clear();
        // Not a wait: the next request is due within microseconds.
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        epoll::wait(&poll, spare_capacity(&mut events), Some(&at_once))?;
        for event in &events {
            let index = usize::try_from(event.data.u64())?;
            run.receive(index)?;
        }
    }
    Ok(run.found())
}

impl<'a> Run<'a> {
    fn open(address: SocketAddr, asks: &'a [Ask], poll: &OwnedFd) -> Result<Self, Failure> {
        let mut clients = Vec::new();
        for number in 0..CONNECTIONS as u64 {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(number);
            epoll::add(poll, &stream, data, epoll::EventFlags::IN)?;
            clients.push(Client {
                stream,
                asked: None,
                came: Vec::with_capacity(32 << 10),
            });
        }
        let histogram = || Histogram::new_with_bounds(1, 60_000_000_000, 3);
        Ok(Self {
            asks,
            requests: asks.iter().map(Ask::request).collect(),
            idle: (0..clients.len()).collect(),
            clients,
            due: VecDeque::new(),
            latency: histogram()?,
            lag: histogram()?,
            buffer: vec![0; 32 << 10].into_boxed_slice(),
        })
    }

    /// Lets what is due leave, as far as connections are idle.
    fn send(&mut self) -> Result<(), Failure> {
        while let Some((which, due)) = self.due.front().copied() {
            let Some(index) = self.idle.pop_front() else {
                return Ok(());
            };
            self.due.pop_front();
            let client = &mut self.clients[index];
            client.asked = Some((which, due));
            client.came.clear();
            // A request fits the socket's empty buffer.
            let request = &self.requests[which];
            if client.stream.write(request)? != request.len() {
                return Err("a request was not written at once".into());
            }
        }
        Ok(())
    }

    fn receive(&mut self, index: usize) -> Result<(), Failure> {
        let client = &mut self.clients[index];
        let buffer = &mut self.buffer;
        match client.stream.read(buffer) {
            Ok(0) => return Err("the server closed a kept connection".into()),
            Ok(count) => client.came.extend_from_slice(&buffer[..count]),
            Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(why) => return Err(why.into()),
        }
        let Some((which, due)) = client.asked else {
            return Err("the server answered what was not asked".into());
        };
        let Some(head) = Head::parse(&client.came) else {
            return Ok(());
        };
        let length = match head.framing {
            Framing::Length(length) => Some(length),
            Framing::Chunks => {
                let body = head.body(&client.came)?;
                body.map(|pieces| pieces.iter().map(|piece| piece.len()).sum())
            }
        };
        let wanted = self.asks[which].bytes;
        if head.status != 200 || length.is_some_and(|length| length != wanted) {
            let status = head.status;
            let path = &self.asks[which].path;
            return Err(format!("{path}: {status} with {length:?} bytes, not {wanted}").into());
        }
        let is_whole = match head.framing {
            Framing::Length(length) => client.came.len() >= head.end + length,
            Framing::Chunks => length.is_some(),
        };
        if is_whole {
            client.asked = None;
            self.latency.saturating_record(nanos(due.elapsed()));
            self.idle.push_back(index);
        }
        Ok(())
    }

    /// Whether something was due so long ago that waiting for it measures
    /// nothing; an answer that never ends is found here too.
    fn is_behind(&self, now: Instant, is_over: bool) -> bool {
        let late = |due: Instant| now.saturating_duration_since(due) > BEHIND_MAX;
        let mut asked = self.clients.iter().filter_map(|client| client.asked);
        self.due.front().is_some_and(|(_, due)| late(*due))
            || (is_over && asked.any(|(_, due)| late(due)))
    }

    fn found(&self) -> Latencies {
        let at = |histogram: &Histogram<u64>, share: f64| {
            Duration::from_nanos(histogram.value_at_quantile(share)).as_secs_f64() * 1e3
        };
        Latencies {
            p50_ms: at(&self.latency, 0.5),
            p99_ms: at(&self.latency, 0.99),
            lag_p99_ms: at(&self.lag, 0.99),
            count: self.latency.len(),
        }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    /// Answers `/N` with N bytes, an odd N in chunks; stops for `stall` before
    /// the answer of that number.
    fn server(stall: Option<(usize, Duration)>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        std::thread::spawn(move || {
            let served = std::sync::Arc::new(std::sync::Mutex::new(0));
            for stream in listener.incoming().flatten() {
                let served = served.clone();
                std::thread::spawn(move || serve(stream, &served, stall));
            }
        });
        address
    }

    fn serve(
        stream: TcpStream,
        served: &std::sync::Mutex<usize>,
        stall: Option<(usize, Duration)>,
    ) -> Option<()> {
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
        let mut writer = stream;
        while let Some(Ok(line)) = lines.next() {
            let Some(rest) = line.strip_prefix("GET /") else {
                continue;
            };
            let mut served = served.lock().ok()?;
            *served += 1;
            if let Some((at, span)) = stall
                && *served == at
            {
                std::thread::sleep(span);
            }
            let body = "x".repeat(rest.split(' ').next()?.parse().ok()?);
            let bytes = body.len();
            let answer = if bytes.is_multiple_of(2) {
                format!("content-length: {bytes}\r\n\r\n{body}")
            } else {
                format!("transfer-encoding: chunked\r\n\r\n{bytes:x}\r\n{body}\r\n0\r\n\r\n")
            };
            let answer = format!("HTTP/1.1 200 OK\r\n{answer}");
            writer.write_all(answer.as_bytes()).ok()?;
        }
        Some(())
    }

    fn asks() -> Vec<Ask> {
        [5, 3000, 17_000]
            .map(|bytes| Ask::new(&format!("/{bytes}"), bytes))
            .to_vec()
    }

    #[test]
    fn every_request_that_was_due_is_answered_and_counted() {
        let address = server(None);
        let found = run(address, 500.0, Duration::from_millis(400), &asks()).expect("a run");
        assert_eq!(found.count, 200);
    }

    #[test]
    fn a_stall_shows_in_all_that_it_delayed() {
        let stall = Duration::from_millis(300);
        let address = server(Some((20, stall)));
        let found = run(address, 200.0, Duration::from_millis(500), &asks()).expect("a run");
        // One answer of a hundred was slow; the sixty due meanwhile waited too.
        assert_eq!(found.count, 100);
        assert!(found.p50_ms > 20.0, "{found:?}");
    }

    #[test]
    fn a_wrong_size_fails_the_run() {
        let address = server(None);
        for wrong in 0..2 {
            let mut asks = asks();
            asks[wrong].bytes += 1;
            assert!(run(address, 500.0, Duration::from_millis(100), &asks).is_err());
        }
    }
}
