//! Processes that may not be our children, and the lock a program holds.
//!
//! In: process numbers with their start time. Out: exits.
//! Holds: a reused process number is never taken for the process meant.
//! Never: signals by number; the descriptor names the process.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `start_time` in clock ticks since boot, from `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: u32,
    pub start_time: u64,
}

impl Identity {
    pub fn of(pid: u32) -> io::Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name may hold spaces and brackets: count from its last bracket.
        let start_time = text
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(19))
            .and_then(|field| field.parse().ok())
            .ok_or_else(|| io::Error::other("a process status cannot be read"))?;
        Ok(Self { pid, start_time })
    }
}

/// Replaces `path` with this process's identity, for adoption.
pub fn write_pid_file(path: &Path) -> io::Result<()> {
    let own = Identity::of(std::process::id())?;
    let text = format!(
        "{{\"pid\":{},\"start_time\":{}}}\n",
        own.pid, own.start_time
    );
    let beside = path.with_extension("new");
    let written = std::fs::write(&beside, &text).and_then(|()| std::fs::rename(&beside, path));
    match written {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            let _ = std::fs::remove_file(&beside);
            write_over(path, &text).map_err(|_| error)
        }
        other => other,
    }
}

/// The room that the one before took is there even on a full disk.
fn write_over(path: &Path, text: &str) -> io::Result<()> {
    let mut file = std::fs::File::options().write(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

#[derive(Debug)]
pub struct Watched {
    identity: Identity,
    descriptor: AsyncFd<OwnedFd>,
}

impl Watched {
    /// `NotFound` when the process is gone or its number was reused.
    pub fn open(identity: Identity) -> io::Result<Self> {
        let number = i32::try_from(identity.pid).map_err(io::Error::other)?;
        let pid = Pid::from_raw(number).ok_or(io::ErrorKind::InvalidInput)?;
        let descriptor = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Err(rustix::io::Errno::SRCH) => return Err(io::ErrorKind::NotFound.into()),
            other => other?,
        };
        // Compared once the descriptor is held, so that it names this process.
        if Identity::of(identity.pid)? != identity {
            return Err(io::ErrorKind::NotFound.into());
        }
        #[expect(
            deprecated,
            reason = "the successor is unsafe; an `OwnedFd` that is never replaced keeps its promise"
        )]
        let descriptor = AsyncFd::with_interest(descriptor, Interest::READABLE)?;
        Ok(Self {
            identity,
            descriptor,
        })
    }

    pub fn identity(&self) -> Identity {
        self.identity
    }

    pub async fn exited(&self) -> io::Result<()> {
        self.descriptor.readable().await?.retain_ready();
        Ok(())
    }

    /// Whether it has ended, even if nobody has reaped it yet.
    pub fn has_exited(&self) -> bool {
        let mut interest = [PollFd::new(self.descriptor.get_ref(), PollFlags::IN)];
        matches!(poll(&mut interest, Some(&Timespec::default())), Ok(ready) if ready > 0)
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(self.descriptor.get_ref(), signal)?)
    }
}

/// Held until dropped, or until the process ends however it ends.
#[derive(Debug)]
pub struct LockFile(#[expect(dead_code, reason = "held for its lock")] File);

/// `WouldBlock` when another process holds it.
pub fn lock_file(path: &Path) -> io::Result<LockFile> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(LockFile(file))
}
