//! Programs as files: what one says of itself, and how one is started whose path
//! leads to another file by now.
//!
//! Holds: what was held is started, whatever was put at its path since.

use ipc::{Identity, Watched};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::Signal;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use wire::supervise::release::Release;

/// One that has not said by then what it is, is not asked further.
const SAY_MAX: Duration = Duration::from_secs(5);
const SAY_BYTES_MAX: u64 = 64 << 10;

type FileIdentity = (u64, u64);

#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    /// Keeps the file while it is needed, also without a name.
    held: Option<(OwnedFd, FileIdentity)>,
}

impl Program {
    pub fn hold(path: &Path) -> Self {
        let held = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok();
        let held = held.and_then(|file| {
            let found = rustix::fs::fstat(&file).ok()?;
            Some((file, (found.st_dev, found.st_ino)))
        });
        Self {
            path: path.to_owned(),
            held,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether that path leads to the file of this program.
    pub fn is_at(&self, path: &Path) -> bool {
        let found = std::fs::metadata(path).ok();
        let found = found.map(|found| (found.dev(), found.ino()));
        found.is_some() && found == self.held.as_ref().map(|(_, identity)| *identity)
    }

    pub fn command(&self) -> Command {
        match &self.held {
            Some((file, _)) if !self.is_at(&self.path) => {
                let (pid, number) = (std::process::id(), file.as_raw_fd());
                Command::new(format!("/proc/{pid}/fd/{number}"))
            }
            _ => Command::new(&self.path),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("cannot start {}", path.display())]
    Start { path: PathBuf, source: io::Error },
    #[error("{} did not say within {} s what it is", path.display(), SAY_MAX.as_secs())]
    Late { path: PathBuf },
    #[error("{} does not say what it is as a homeostat does", path.display())]
    Strange { path: PathBuf },
}

/// What the program at `path` says of itself.
pub async fn inspect(path: &Path) -> Result<Release, InspectError> {
    let own = |path: &Path| path.to_owned();
    let failed = |source| InspectError::Start {
        path: own(path),
        source,
    };
    let mut started = Command::new(path)
        .args(["version", "--output", "json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    // Reaped with all others; even one that has ended keeps its number until then.
    let watched = Identity::of(started.id()).and_then(Watched::open);
    let pipe = started.stdout.take().map(OwnedFd::from);
    let pipe = pipe.ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
    let mut said = Vec::new();
    let reading = async {
        let pipe = pipe::Receiver::from_owned_fd(pipe)?;
        pipe.take(SAY_BYTES_MAX).read_to_end(&mut said).await
    };
    let read = tokio::time::timeout(SAY_MAX, reading).await;
    if let Ok(watched) = watched {
        // What has said enough, or nothing, need not go on.
        let _ = watched.signal(Signal::KILL);
    }
    match read {
        Err(_) => Err(InspectError::Late { path: own(path) }),
        Ok(Err(source)) => Err(failed(source)),
        Ok(Ok(_)) => {
            serde_json::from_slice(&said).map_err(|_| InspectError::Strange { path: own(path) })
        }
    }
}
