//! The driver's end of one shim's socket.
//!
//! In: [`ToShim`] from the driver. Out: [`DriverEvent`]s.
//! Holds: when the shim is lost, what it ran is killed, each start still open
//! ends in `StartFailed` and a running replica in `Exited` with
//! [`Exit::Unknown`].

use crate::record::{self, Recorded};
use crate::{clock, group};
use kernel::{ReplicaId, Time};
use node::driver::{DriverEvent, DriverEvents};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use wire::frame::{Decoder, encode};
use wire::shim::{Exit, FromShim, ShimState, ToShim};

/// A shim that answers at all answers sooner.
const STATE_WAIT: Duration = Duration::from_secs(2);
const COMMANDS_MAX: usize = 64;

pub struct Link {
    commands: mpsc::Sender<ToShim>,
    leased: bool,
    pub state: tokio::sync::watch::Receiver<ShimState>,
}

impl Link {
    pub fn open(&self) -> bool {
        !self.commands.is_closed()
    }

    /// False when the shim is gone; nothing was sent then.
    pub async fn send(&self, message: ToShim) -> bool {
        self.commands.send(message).await.is_ok()
    }

    /// Does not wait for a shim that takes nothing: it has what it was told, and
    /// no longer.
    pub fn lease(&self, until: Time) {
        if self.leased {
            let _ = self.commands.try_send(ToShim::Lease { until });
        }
    }

    pub fn sender(&self) -> mpsc::Sender<ToShim> {
        self.commands.clone()
    }
}

struct Task {
    replica: ReplicaId,
    directory: PathBuf,
    stream: UnixStream,
    decoder: Decoder,
    events: DriverEvents,
    state: tokio::sync::watch::Sender<ShimState>,
    starts_open: u32,
}

/// Connects and reads the state the shim opens with.
pub async fn connect(
    replica: &ReplicaId,
    directory: &Path,
    socket: &Path,
    events: &DriverEvents,
) -> io::Result<Link> {
    let mut stream = UnixStream::connect(socket).await?;
    let mut decoder = Decoder::default();
    let first = tokio::time::timeout(STATE_WAIT, receive(&mut stream, &mut decoder)).await;
    let first = match first {
        Ok(Ok(FromShim::State(state))) => state,
        Ok(Ok(_)) => return Err(io::Error::other("the shim does not open with its state")),
        Ok(Err(error)) => return Err(error),
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    let (state, seen) = tokio::sync::watch::channel(first);
    let (commands, queue) = mpsc::channel(COMMANDS_MAX);
    let task = Task {
        replica: replica.clone(),
        directory: directory.to_owned(),
        stream,
        decoder,
        events: events.clone(),
        state,
        starts_open: 0,
    };
    tokio::spawn(task.run(queue));
    Ok(Link {
        commands,
        // A shim of an earlier release does not know the word, and has none that
        // needs it.
        leased: record::read_spec(directory).is_ok_and(|spec| spec.leased),
        state: seen,
    })
}

/// Cancel-safe: what was read stays in the decoder.
async fn receive(stream: &mut UnixStream, decoder: &mut Decoder) -> io::Result<FromShim> {
    let mut buffer = [0_u8; 4096];
    loop {
        if let Some(message) = decoder.next().map_err(io::Error::other)? {
            return Ok(message);
        }
        match stream.read(&mut buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => decoder.push(&buffer[..read]),
        }
    }
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<ToShim>) {
        loop {
            tokio::select! {
                received = receive(&mut self.stream, &mut self.decoder) => match received {
                    Ok(message) => self.on_message(message),
                    Err(_) => break,
                },
                command = queue.recv() => {
                    // The driver is gone; shim and replica live on.
                    let Some(command) = command else { return };
                    if command.is_start() {
                        self.starts_open += 1;
                    }
                    let Ok(frame) = encode(&command) else { break };
                    if self.stream.write_all(&frame).await.is_err() {
                        break;
                    }
                }
            }
        }
        queue.close();
        while let Ok(command) = queue.try_recv() {
            self.starts_open += u32::from(command.is_start());
        }
        self.on_lost();
    }

    fn on_message(&mut self, message: FromShim) {
        let replica = self.replica.clone();
        match message {
            FromShim::State(state) => drop(self.state.send_replace(state)),
            FromShim::Started { pid, address, at } => {
                self.starts_open = self.starts_open.saturating_sub(1);
                let since = at;
                self.state.send_replace(ShimState::Running {
                    pid,
                    address,
                    since,
                });
                (self.events)(DriverEvent::Started {
                    replica,
                    pid,
                    address: Some(address),
                    at,
                });
            }
            FromShim::StartFailed { why, at } => {
                self.starts_open = self.starts_open.saturating_sub(1);
                (self.events)(DriverEvent::StartFailed { replica, why, at });
            }
            FromShim::Exited { exit, at } => {
                self.state.send_replace(ShimState::Exited { exit, at });
                (self.events)(DriverEvent::Exited { replica, exit, at });
            }
        }
    }

    fn on_lost(mut self) {
        let settled = settle(&self.directory);
        let at = clock::now();
        if matches!(*self.state.borrow(), ShimState::Running { .. }) {
            // The shim may have recorded the exit and died before telling it.
            let (exit, at) = match settled {
                ShimState::Exited { exit, at } => (exit, at),
                _ => (Exit::Unknown, at),
            };
            self.on_message(FromShim::Exited { exit, at });
        }
        for _ in 0..self.starts_open {
            let why = "its shim ended".to_owned();
            (self.events)(DriverEvent::StartFailed {
                replica: self.replica.clone(),
                why,
                at,
            });
        }
    }
}

/// Kills what a lost shim left running, and returns and records how its replica
/// ended.
pub fn settle(directory: &Path) -> ShimState {
    let Some(recorded) = record::read_state(directory) else {
        return ShimState::Idle;
    };
    if let Some(shim) = &recorded.shim {
        // Normally dead; if only its socket is lost, two parents must not be.
        shim.kill();
    }
    if let Some(replica) = &recorded.replica {
        replica.kill_group();
        replica.kill();
    }
    if let Ok(spec) = record::read_spec(directory) {
        group::kill_all(&spec.control_groups);
    }
    let state = match recorded.state {
        ShimState::Running { .. } => ShimState::Exited {
            exit: Exit::Unknown,
            at: clock::now(),
        },
        other => other,
    };
    let settled = Recorded {
        state: state.clone(),
        shim: None,
        replica: None,
    };
    if let Err(error) = record::write_state(directory, &settled) {
        tracing::warn!(?directory, %error, "state not recorded");
    }
    state
}
