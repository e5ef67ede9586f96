//! The shim: a small process of its own session, parent of one replica.
//!
//! In: [`ToShim`] on any number of connections. Out: [`FromShim`] to all of
//! them, the replica's log, its state on disk.
//! Holds: one shim per replica directory (a lock); the state is on disk before
//! it is told; output and exit status are kept while nobody is connected.
//! A leased replica is killed when its lease is over, whoever is connected.
//! Never: restarts the replica by itself; waits for a connection.

mod child;
mod enter;

use crate::clock;
use crate::log::{LogWriter, Stream};
use crate::record::{self, ProcessMark, Recorded};
use child::{Run, drain, read_available};
use kernel::Time;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FlockOperation;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use wire::frame::{Decoder, encode};
use wire::shim::{FromShim, Secrets, ShimState, ToShim};

/// How often a shim looks whether its replica is still wanted on disk.
const LOOK: Duration = Duration::from_secs(10);
const KILL_AGAIN: Duration = Duration::from_millis(50);
const PEERS_MAX: usize = 16;
/// A peer that lets more than this pile up is cut off; it gets the state anew
/// when it comes back.
const UNSENT_BYTES_MAX: usize = 1 << 20;
/// Output taken per wake, so that a babbling replica cannot starve a stop.
const OUTPUT_BYTES_PER_WAKE: usize = 256 << 10;

/// Runs the shim of `directory` (`DATA/replicas/ID`) on `socket` until it is
/// told to leave.
pub fn run_shim(directory: &Path, socket: &Path) -> ExitCode {
    // Fails only for a group leader, which is detached enough.
    let _ = rustix::process::setsid();
    match Shim::open(directory, socket).and_then(Shim::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "shim of {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

struct Peer {
    stream: UnixStream,
    decoder: Decoder,
    unsent: Vec<u8>,
    gone: bool,
}

struct Shim {
    directory: PathBuf,
    socket: PathBuf,
    /// Held for the shim's life.
    _lock: File,
    listener: UnixListener,
    peers: Vec<Peer>,
    run: Option<Run>,
    log: Option<LogWriter>,
    state: ShimState,
    mark: Option<ProcessMark>,
    /// Until when a leased replica may run.
    lease: Option<Time>,
    leaving: bool,
}

#[derive(Clone, Copy)]
enum Source {
    Listener,
    Peer(usize),
    Exit,
    Output(Stream),
}

impl Shim {
    fn open(directory: &Path, socket: &Path) -> io::Result<Self> {
        let lock = File::create(directory.join("shim.lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        // With the lock ours, a socket file is a dead shim's.
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let state = match record::read_state(directory).map(|recorded| recorded.state) {
            Some(exited @ ShimState::Exited { .. }) => exited,
            _ => ShimState::Idle,
        };
        let listener = UnixListener::bind(socket)?;
        listener.set_nonblocking(true)?;
        let own = i32::try_from(std::process::id()).ok();
        let mut shim = Self {
            directory: directory.to_owned(),
            socket: socket.to_owned(),
            _lock: lock,
            listener,
            peers: Vec::new(),
            run: None,
            log: None,
            state,
            mark: own.and_then(ProcessMark::of),
            lease: None,
            leaving: false,
        };
        shim.save();
        Ok(shim)
    }

    fn run(mut self) -> io::Result<()> {
        while !self.leaving {
            for source in self.wait()? {
                match source {
                    Source::Listener => self.accept(),
                    Source::Peer(index) => self.on_peer(index),
                    Source::Exit => self.on_exit(),
                    Source::Output(stream) => self.on_output(stream),
                }
            }
            self.peers.retain(|peer| !peer.gone);
            self.on_time();
        }
        let _ = std::fs::remove_file(&self.socket);
        Ok(())
    }

    /// Blocks until something is ready or the next deadline.
    fn wait(&self) -> io::Result<Vec<Source>> {
        let read = PollFlags::IN;
        let mut sources = vec![Source::Listener];
        let mut polled = vec![PollFd::new(&self.listener, read)];
        for (index, peer) in self.peers.iter().enumerate() {
            let write = if peer.unsent.is_empty() {
                PollFlags::empty()
            } else {
                PollFlags::OUT
            };
            sources.push(Source::Peer(index));
            polled.push(PollFd::new(&peer.stream, read | write));
        }
        if let Some(run) = &self.run {
            for stream in [Stream::Out, Stream::Err] {
                if let Some(output) = run.output(stream) {
                    sources.push(Source::Output(stream));
                    polled.push(PollFd::from_borrowed_fd(output, read));
                }
            }
            sources.push(Source::Exit);
            polled.push(PollFd::from_borrowed_fd(run.handle(), read));
        }
        let span = self
            .kill_at()
            .map_or(LOOK, |at| at.since(clock::now()).min(LOOK));
        let timeout = Timespec {
            tv_sec: i64::try_from(span.as_secs()).unwrap_or(1),
            tv_nsec: i64::from(span.subsec_nanos()),
        };
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let ready = |(source, polled): (Source, PollFd<'_>)| {
            (!polled.revents().is_empty()).then_some(source)
        };
        Ok(sources.into_iter().zip(polled).filter_map(ready).collect())
    }

    /// When what runs is killed: a stop was asked for, or its lease is over.
    fn kill_at(&self) -> Option<Time> {
        let run = self.run.as_ref()?;
        let lease = run.leased.then(|| self.lease.unwrap_or(Time(0)));
        run.kill_at.into_iter().chain(lease).min()
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else {
            return;
        };
        if self.peers.len() >= PEERS_MAX || stream.set_nonblocking(true).is_err() {
            return;
        }
        let mut peer = Peer {
            stream,
            decoder: Decoder::default(),
            unsent: Vec::new(),
            gone: false,
        };
        peer.send(&FromShim::State(self.state.clone()));
        self.peers.push(peer);
    }

    fn on_peer(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        for message in peer.receive() {
            match message {
                ToShim::Start => self.start(&Secrets::default()),
                ToShim::StartWith { secrets } => self.start(&secrets),
                ToShim::Stop { grace_ms } => self.stop(Duration::from_millis(grace_ms)),
                ToShim::Leave => self.leaving = self.run.is_none(),
                ToShim::Lease { until } => self.lease = self.lease.max(Some(until)),
            }
        }
    }

    fn start(&mut self, secrets: &Secrets) {
        let at = clock::now();
        let refused = |why: String| FromShim::StartFailed { why, at };
        if self.run.is_some() {
            return self.tell(&refused("it runs already".to_owned()));
        }
        let started = record::read_spec(&self.directory).and_then(|spec| {
            if spec.leased && self.lease.is_none_or(|until| until <= at) {
                return Err(io::Error::other("its node has no lease for it"));
            }
            let (bytes, files) = (spec.log_bytes_max, spec.log_files_max);
            self.log = LogWriter::open(&spec.log_directory, bytes, files).ok();
            let described = |error: io::Error| {
                let program = spec.command.first().map_or("", String::as_str);
                io::Error::other(format!("cannot run `{program}`: {error}"))
            };
            Run::start(&spec, secrets).map_err(described)
        });
        match started {
            Err(error) => self.tell(&refused(error.to_string())),
            Ok(run) => {
                let (pid, address) = (run.pid, run.address);
                let since = clock::now();
                self.run = Some(run);
                self.state = ShimState::Running {
                    pid,
                    address,
                    since,
                };
                self.save();
                self.tell(&FromShim::Started {
                    pid,
                    address,
                    at: since,
                });
            }
        }
    }

    fn stop(&mut self, grace: Duration) {
        if let Some(run) = &mut self.run {
            let at = clock::now() + grace;
            run.kill_at = Some(run.kill_at.map_or(at, |earlier| earlier.min(at)));
            run.terminate();
        }
    }

    fn on_output(&mut self, stream: Stream) {
        let Self { run, log, .. } = self;
        if let Some(run) = run {
            drain(run, stream, OUTPUT_BYTES_PER_WAKE, |bytes| {
                if let Some(log) = log {
                    log.push(stream, bytes);
                }
            });
        }
    }

    fn on_exit(&mut self) {
        let Some(mut run) = self.run.take() else {
            return;
        };
        let exit = run.collect();
        let at = clock::now();
        // What the pipes still hold was written before the end; a pipe is
        // finite, and its writers are dead.
        if let Some(log) = &mut self.log {
            for stream in [Stream::Out, Stream::Err] {
                drain(&mut run, stream, usize::MAX, |bytes| {
                    log.push(stream, bytes);
                });
            }
            log.flush();
        }
        self.state = ShimState::Exited { exit, at };
        self.save();
        self.tell(&FromShim::Exited { exit, at });
    }

    fn on_time(&mut self) {
        if self.kill_at().is_some_and(|at| at <= clock::now())
            && let Some(run) = &mut self.run
        {
            // Again until the exit is seen: a fork may have raced the kill.
            run.kill_at = Some(clock::now() + KILL_AGAIN);
            run.leased = false;
            run.kill();
        }
        // Without its files nobody can find this shim again.
        if !record::spec_path(&self.directory).exists() {
            match &self.run {
                Some(run) => run.kill(),
                None => self.leaving = true,
            }
        }
    }

    fn save(&mut self) {
        let recorded = Recorded {
            state: self.state.clone(),
            shim: self.mark.clone(),
            replica: self.run.as_ref().and_then(|run| run.mark.clone()),
        };
        if let Err(error) = record::write_state(&self.directory, &recorded) {
            let _ = writeln!(io::stderr(), "state not recorded: {error}");
        }
    }

    fn tell(&mut self, message: &FromShim) {
        for peer in &mut self.peers {
            peer.send(message);
        }
    }
}

impl Peer {
    fn send(&mut self, message: &FromShim) {
        match encode(message) {
            Ok(frame) => self.unsent.extend_from_slice(&frame),
            Err(_) => self.gone = true,
        }
        self.flush();
    }

    fn flush(&mut self) {
        while !self.unsent.is_empty() && !self.gone {
            match self.stream.write(&self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.gone = true,
            }
        }
        self.gone |= self.unsent.len() > UNSENT_BYTES_MAX;
    }

    fn receive(&mut self) -> Vec<ToShim> {
        self.flush();
        let mut buffer = [0_u8; 4096];
        match read_available(&mut self.stream, &mut buffer) {
            Some(read) => self.decoder.push(&buffer[..read]),
            None => self.gone = true,
        }
        let mut messages = Vec::new();
        loop {
            match self.decoder.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return messages,
                Err(_) => {
                    self.gone = true;
                    return messages;
                }
            }
        }
    }
}
