//! An actor's state directory, which one worker has at a time: while a service
//! rolls over, the next worker waits until the one before has put its actor
//! away, so that the state is handed on whole.

use crate::error::WorkerError;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const TRY_EVERY: Duration = Duration::from_millis(10);

pub struct Place {
    path: PathBuf,
    /// Held until the process ends, however it does.
    lock: Option<File>,
}

impl Place {
    /// For what keeps nothing.
    pub fn none() -> Self {
        Self {
            path: PathBuf::new(),
            lock: None,
        }
    }

    pub fn open(directory: &Path) -> Result<Self, WorkerError> {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory);
        let opened = made.and_then(|()| {
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(directory.join("lock"))
        });
        let lock = opened.map_err(|source| WorkerError::State {
            path: directory.to_owned(),
            source,
        })?;
        Ok(Self {
            path: directory.to_owned(),
            lock: Some(lock),
        })
    }

    pub async fn wait(&self) -> Result<(), WorkerError> {
        let Some(lock) = &self.lock else {
            return Ok(());
        };
        let mut told = false;
        loop {
            match flock(lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(()),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(error) => {
                    return Err(WorkerError::State {
                        path: self.path.clone(),
                        source: error.into(),
                    });
                }
            }
            if !told {
                told = true;
                tracing::info!("waits until the worker before has put its actor away");
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }
}
